"""What processes say to each other survives the way, and what nobody knows is left alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee import UsageError
from pongee.fleet.messages import (
    Answer,
    Ask,
    Bye,
    Command,
    Disconnect,
    Forward,
    Hello,
    ListChannels,
    Message,
    NodeInfo,
    Refresh,
    Subscribe,
    Target,
    Unsubscribe,
    check_pattern,
    decode,
    encode,
    matching,
    sum_up,
)

NAMES = st.text(max_size=20)
TARGETS = st.builds(
    Target,
    user=st.none() | NAMES,
    id=st.none() | NAMES,
    session=st.none() | NAMES,
    keep=st.frozensets(NAMES, max_size=3),
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Disconnect, TARGETS, st.none() | st.integers(3000, 4999), st.none() | NAMES),
    st.builds(Subscribe, TARGETS, NAMES),
    st.builds(Unsubscribe, TARGETS, NAMES, st.integers(2000, 2999), NAMES),
    st.builds(Refresh, TARGETS, st.none() | st.floats(0, 1e10), st.booleans()),
    st.builds(ListChannels, NAMES),
)
COUNTS = st.dictionaries(NAMES, st.integers(0, 1 << 40), max_size=5)
INFO = NodeInfo(
    uid="u",
    name="n",
    version="1",
    num_clients=1,
    num_users=2,
    num_subs=3,
    num_channels=4,
    uptime=5,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, st.just(INFO), st.booleans()),
    st.builds(Bye, NAMES),
    st.builds(Ask, NAMES, st.integers(0, 1 << 60), COMMANDS),
    st.builds(Forward, NAMES, st.binary(max_size=50), st.booleans()),
    st.builds(Answer, NAMES, st.integers(0, 1 << 60), st.integers(0, 1 << 40), COUNTS),
)


@given(MESSAGES)
def test_message_survives_the_way(message: Message) -> None:
    """Every field of every kind."""
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_bytes_of_strangers_are_no_message(data: bytes) -> None:
    """Nothing is raised into the reader of the broker's link."""
    assert decode(data) is None or isinstance(decode(data), Message)


def test_message_of_a_later_version() -> None:
    """Unknown fields are ignored, unknown kinds are nothing."""
    later = msgspec.msgpack.encode({"type": "Bye", "node": "n", "reason": "new"})
    assert decode(later) == Bye("n")
    assert decode(msgspec.msgpack.encode({"type": "Dance", "node": "n"})) is None


def test_patterns() -> None:
    """As in a shell, without what differs elsewhere."""
    channels = {"chat:1": 1, "chat:2": 2, "news": 3}
    assert matching(channels, "") == channels
    assert matching(channels, "chat:*") == {"chat:1": 1, "chat:2": 2}
    assert matching(channels, "chat:?") == {"chat:1": 1, "chat:2": 2}
    assert matching(channels, "chat:[2-9]") == {"chat:2": 2}
    for wrong in ("{a,b}", "a\\*", "*" * 256):
        with pytest.raises(UsageError, match="a pattern has"):
            check_pattern(wrong)


@given(st.lists(COUNTS, max_size=4))
def test_members_of_all_nodes_are_added_up(counts: list[dict[str, int]]) -> None:
    """Each channel's, over the nodes that have it."""
    total = sum_up(counts)
    assert total.keys() == {name for one in counts for name in one}
    for name, number in total.items():
        assert number == sum(one.get(name, 0) for one in counts)
