"""Channels and their members: everybody, once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pongee.channels.encoding import Format
from pongee.errors import UsageError
from pongee.hub import Hub
from pongee.limits import (
    FLUSH_BYTES,
    FLUSH_REST,
    FLUSH_STEP,
    FLUSH_WRITES,
    PENDING_MESSAGES,
)
from pongee.links.base import Batch


class Loop:
    """An event loop whose turns the test takes."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self.later.append((delay, callback))

    def turn(self) -> None:
        """Call what is ready, and what a timer would call."""
        ready, self.ready = self.ready, []
        later, self.later = self.later, []
        for callback in [*ready, *(callback for _, callback in later)]:
            callback()

    def settle(self) -> None:
        """Take turns until nothing is left to do."""
        while self.ready or self.later:
            self.turn()


class Member:
    """A subscriber that keeps what it gets, and may do something when it gets it."""

    def __init__(self, form: Format = "json", then: Callable[[], object] | None = None) -> None:
        self.format: Format = form
        self.then = then
        self.got: list[str | bytes] = []
        self.batches: list[Batch] = []

    def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.got += [message.data for message in batch.messages]
        if self.then is not None:
            self.then()


def room(*members: Member) -> tuple[Hub, Loop]:
    """A hub with one room."""
    loop = Loop()
    hub = Hub(lambda: loop)
    for member in members:
        hub.subscribe("room", member)
    return hub, loop


def test_publication_reaches_each_member_in_its_format_and_says_how_many() -> None:
    """Text endpoints get the text, binary ones its bytes, JSON ones a JSON string."""
    members = [Member("text"), Member("bytes"), Member("json")]
    hub, loop = room(*members)

    assert hub.publish("room", "hé") == 3
    loop.settle()
    assert [member.got for member in members] == [["hé"], ["hé".encode()], ['"hé"']]


def test_what_is_published_in_one_turn_is_handed_over_in_one_piece() -> None:
    """Each member gets one batch a turn, and the very same one as the others."""
    members = [Member(), Member()]
    hub, loop = room(*members)

    for number in range(3):
        hub.publish("room", number, key="k")
    assert members[0].batches == []
    loop.settle()

    (batch,) = members[0].batches
    assert members[1].batches == [batch]
    assert members[0].got == ["0", "1", "2"]
    assert [message.key for message in batch.messages] == ["k"] * 3


def test_channel_without_members_costs_nothing_and_counts_nobody() -> None:
    """What nobody hears is not even encoded, and no turn is asked for."""
    hub, loop = room()
    assert hub.publish("room", object()) == 0
    assert loop.ready == []


@pytest.mark.parametrize(
    ("data", "got"),
    [(b"\xff", [[b"\xff"], [], [b"\xff"]]), (object(), [[], [], []])],
)
def test_data_that_one_format_cannot_carry_reaches_the_others_and_raises(
    data: object, got: list[list[bytes]]
) -> None:
    """The publisher is told of its bug; members that can have the message get it."""
    members = [Member("text"), Member("json"), Member("bytes")]
    hub, loop = room(*members)

    with pytest.raises(UsageError):
        hub.publish("room", data)
    loop.settle()
    assert [member.got for member in members] == got


def test_text_that_is_not_unicode_is_a_usage_error_too() -> None:
    """A lone surrogate must not end the round in the middle."""
    hub, _ = room(Member("bytes"), Member("json"))

    with pytest.raises(UsageError):
        hub.publish("room", "\ud800")


@pytest.mark.parametrize("channel", ["", "a\nb", "x" * 256])
def test_name_that_is_not_allowed_is_refused(channel: str) -> None:
    """A typing mistake is told where it is made."""
    with pytest.raises(UsageError):
        room()[0].publish(channel, "x")


def test_member_that_leaves_during_a_publication_disturbs_nobody() -> None:
    """A member that is cut for reading too slowly leaves in the middle of the round."""
    leaver = Member(then=lambda: hub.unsubscribe("room", leaver))
    others = [Member(), Member()]
    hub, loop = room(others[0], leaver, others[1])

    assert hub.publish("room", 1) == 3
    loop.settle()
    assert hub.publish("room", 2) == 2
    loop.settle()
    assert [member.got for member in others] == [["1", "2"]] * 2
    assert leaver.got == ["1"]


def test_member_that_publishes_when_it_gets_something_is_served_in_the_next_turn() -> None:
    """A publication inside a delivery neither recurses nor is lost."""
    hub, loop = room(member := Member(then=lambda: again.pop()() if again else None))
    again = [lambda: hub.publish("room", 2)]

    hub.publish("room", 1)
    loop.settle()
    assert member.got == ["1", "2"]


def test_one_who_comes_before_the_turn_hears_nothing_old_and_one_who_leaves_misses_nothing() -> (
    None
):
    """Membership counts at the moment of the call, not of the hand-over."""
    early, late = Member(), Member()
    hub, loop = room(early)

    hub.publish("room", 1)
    hub.subscribe("room", late)
    hub.publish("room", 2)
    hub.unsubscribe("room", early)
    hub.publish("room", 3)
    loop.settle()
    assert (early.got, late.got) == (["1", "2"], ["2", "3"])


def test_a_large_room_is_served_over_several_turns_and_in_order() -> None:
    """No turn serves more members than its share; a small room is served in between."""
    crowd = [Member() for _ in range(2 * FLUSH_WRITES)]
    hub, loop = room(*crowd)
    hub.subscribe("small", alone := Member())

    hub.publish("room", 1)
    hub.publish("small", 0)
    loop.turn()
    served = sum(bool(member.got) for member in crowd)
    assert served <= FLUSH_WRITES
    assert alone.got == ["0"]

    hub.publish("room", 2)
    hub.unsubscribe("room", crowd[-1])
    hub.subscribe("room", newcomer := Member())
    loop.settle()
    assert all(member.got == ["1", "2"] for member in crowd)
    assert newcomer.got == []


def test_large_messages_are_served_over_several_turns_too() -> None:
    """A turn's share is one of bytes as well."""
    crowd = [Member("text") for _ in range(4 * FLUSH_STEP)]
    hub, loop = room(*crowd)

    hub.publish("room", "x" * (FLUSH_BYTES // FLUSH_STEP + 1))
    loop.turn()
    assert sum(bool(member.got) for member in crowd) == FLUSH_STEP
    loop.settle()
    assert all(len(member.got) == 1 for member in crowd)


def test_publisher_that_never_lets_go_fills_no_memory() -> None:
    """What gathers in one turn is bounded in messages."""
    hub, loop = room(member := Member("text"))

    for number in range(3 * PENDING_MESSAGES):
        hub.publish("room", str(number))
    assert len(member.got) == 3 * PENDING_MESSAGES
    loop.settle()
    assert member.got == [str(number) for number in range(3 * PENDING_MESSAGES)]


def test_after_a_long_hand_over_publications_gather() -> None:
    """The hub rests, so that a room under load leaves time to others, at most `FLUSH_REST`."""
    slow = Member(then=lambda: time.sleep(0.005))
    hub, loop = room(slow)
    hub.publish("room", 1)
    loop.turn()  # hands over
    loop.turn()  # measures what it took
    ((pause, _),) = loop.later
    assert 0.01 <= pause <= FLUSH_REST

    hub.publish("room", 2)
    hub.publish("room", 3)
    assert loop.ready == []
    loop.settle()
    assert [len(batch.messages) for batch in slow.batches] == [1, 2]


def test_subscriber_that_raises_takes_nothing_from_the_others() -> None:
    """Neither from its channel's members nor from the other channels of the turn."""

    def fail() -> None:
        raise ValueError

    others = [Member(), Member()]
    hub, loop = room(others[0], Member(then=fail), others[1])
    hub.subscribe("next", alone := Member())
    hub.publish("room", 1)
    hub.publish("next", 2)
    loop.settle()
    assert [member.got for member in (*others, alone)] == [["1"], ["1"], ["2"]]


def test_hub_outlives_its_event_loop() -> None:
    """What was scheduled on a loop that is gone does not keep the next one waiting."""
    loops = [Loop()]
    hub = Hub(lambda: loops[-1])
    hub.subscribe("room", member := Member())
    hub.publish("room", 1)

    loops.append(Loop())
    hub.publish("room", 2)
    loops[-1].settle()
    assert member.got == ["1", "2"]


class HubMachine(RuleBasedStateMachine):
    """The hub against a dictionary of lists."""

    channel = st.sampled_from(["a", "b", "c"])
    number = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.hub = Hub(lambda: self.loop)
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

    @rule()
    def turn(self) -> None:
        self.loop.turn()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        for member, expected in zip(self.members, self.expected, strict=True):
            for channel in "abc":  # the order holds within a channel
                assert _of(channel, member.got) == _of(channel, expected)

    @invariant()
    def members_and_messages_agree(self) -> None:
        assert self.hub.channels() == {name: len(own) for name, own in self.model.items()}
        for member, expected in zip(self.members, self.expected, strict=True):
            for channel in "abc":
                got = _of(channel, member.got)
                assert got == _of(channel, expected)[: len(got)]

    def teardown(self) -> None:
        self.settle()


def _of(channel: str, texts: Sequence[str | bytes]) -> list[str | bytes]:
    return [text for text in texts if str(text).startswith(channel)]


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
