"""Channels and their members: everybody, once, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pongee.channels.encoding import Format
from pongee.errors import UsageError
from pongee.hub import Hub, Publication


class Member:
    """A subscriber that keeps what it gets, and may do something when it gets it."""

    def __init__(self, form: Format = "json", then: Callable[[], None] | None = None) -> None:
        self.form: Format = form
        self.then = then
        self.got: list[str | bytes] = []
        self.publications: list[Publication] = []

    def deliver(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.got.append(publication.outgoing(self.form).data)
        if self.then is not None:
            self.then()


def test_publication_reaches_each_member_in_its_format_and_says_how_many() -> None:
    """Text endpoints get the text, binary ones its bytes, JSON ones a JSON string."""
    hub, members = Hub(), [Member("text"), Member("bytes"), Member("json")]
    for member in members:
        hub.subscribe("room", member)

    assert hub.publish("room", "hé") == 3
    assert [member.got for member in members] == [["hé"], ["hé".encode()], ['"hé"']]


def test_message_is_encoded_once_per_format() -> None:
    """A thousand members of one format share one message."""
    hub, members = Hub(), [Member("json") for _ in range(3)]
    for member in members:
        hub.subscribe("room", member)

    hub.publish("room", {"a": 1}, key="k")

    outgoing = [member.publications[0].outgoing("json") for member in members]
    assert outgoing[0] is outgoing[1] is outgoing[2]
    assert outgoing[0].key == "k"


def test_channel_without_members_costs_nothing_and_counts_nobody() -> None:
    """What nobody hears is not even encoded."""
    assert Hub().publish("room", object()) == 0


@pytest.mark.parametrize(
    ("data", "got"),
    [(b"\xff", [[b"\xff"], [], [b"\xff"]]), (object(), [[], [], []])],
)
def test_data_that_one_format_cannot_carry_reaches_the_others_and_raises(
    data: object, got: list[list[bytes]]
) -> None:
    """The publisher is told of its bug; members that can have the message get it."""
    hub, members = Hub(), [Member("text"), Member("json"), Member("bytes")]
    for member in members:
        hub.subscribe("room", member)

    with pytest.raises(UsageError):
        hub.publish("room", data)
    assert [member.got for member in members] == got


def test_text_that_is_not_unicode_is_a_usage_error_too() -> None:
    """A lone surrogate must not end the round in the middle."""
    hub, members = Hub(), [Member("bytes"), Member("json")]
    for member in members:
        hub.subscribe("room", member)

    with pytest.raises(UsageError):
        hub.publish("room", "\ud800")


@pytest.mark.parametrize("channel", ["", "a\nb", "x" * 256])
def test_name_that_is_not_allowed_is_refused(channel: str) -> None:
    """A typing mistake is told where it is made."""
    with pytest.raises(UsageError):
        Hub().publish(channel, "x")


def test_member_that_leaves_during_a_publication_disturbs_nobody() -> None:
    """A member that is cut for reading too slowly leaves in the middle of the round."""
    hub = Hub()
    leaver = Member(then=lambda: hub.unsubscribe("room", leaver))
    others = [Member(), Member()]
    for member in (others[0], leaver, others[1]):
        hub.subscribe("room", member)

    assert hub.publish("room", 1) == 3
    assert hub.publish("room", 2) == 2
    assert [member.got for member in others] == [["1", "2"]] * 2
    assert leaver.got == ["1"]


class HubMachine(RuleBasedStateMachine):
    """The hub against a dictionary of lists."""

    channel = st.sampled_from(["a", "b", "c"])
    number = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub()
        self.members = [Member("text") for _ in range(4)]
        self.model: dict[str, list[int]] = {}
        self.expected: list[list[str]] = [[] for _ in self.members]
        self.published = 0

    @rule(channel=channel, number=number)
    def subscribe(self, channel: str, number: int) -> None:
        self.hub.subscribe(channel, self.members[number])
        if number not in self.model.setdefault(channel, []):
            self.model[channel].append(number)

    @rule(channel=channel, number=number)
    def unsubscribe(self, channel: str, number: int) -> None:
        self.hub.unsubscribe(channel, self.members[number])
        left = [other for other in self.model.pop(channel, []) if other != number]
        if left:
            self.model[channel] = left

    @rule(channel=channel)
    def publish(self, channel: str) -> None:
        self.published += 1
        text = f"{channel}{self.published}"
        receivers = self.model.get(channel, [])
        assert self.hub.publish(channel, text) == len(receivers)
        for number in receivers:
            self.expected[number].append(text)

    @invariant()
    def members_and_messages_agree(self) -> None:
        assert self.hub.channels() == {name: len(own) for name, own in self.model.items()}
        assert [member.got for member in self.members] == self.expected


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
