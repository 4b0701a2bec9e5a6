"""Members between a broker and the hub: no hole, no repeat, and who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pongee import BrokerUnavailable, ConfigurationError
from pongee.channels.encoding import Format
from pongee.channels.options import ChannelOptions
from pongee.channels.publication import ClientInfo, Position, Presence, Publication, encode_plain
from pongee.clock import TimerWheel
from pongee.entries import Gap, Held
from pongee.limits import (
    HELD_MESSAGES,
    LEAVE_DELAY,
    PRESENCE_REFRESH,
    PRESENCE_TTL,
    REPAIR_PAUSE,
    REPAIR_TRIES,
)
from pongee.links.base import Batch
from pongee.switchboard import Switchboard
from pongee.testing import ManualClock, eventually
from tests.centrifuge.paced import PacedBroker

pytestmark = pytest.mark.anyio

KEPT = ChannelOptions(history=100, history_ttl=60, recover=True, positioned=True)
PLAIN = ChannelOptions()
SOCIAL = ChannelOptions(presence=True, join_leave=True)
ROOM = "room"
ANN, ANN2 = ClientInfo("ann", "1"), ClientInfo("ann", "2")
NOBODY = ClientInfo("", "3")


class Member:
    """Takes note of what it gets, and of gaps."""

    format: Format = "json"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.gaps = 0

    @property
    def deliver(self) -> Callable[[Batch], None]:
        """Takes publications."""
        return lambda batch: self.got.extend(str(message.data) for message in batch.messages)

    def on_gap(self, channel: str) -> None:
        """Count it."""
        self.gaps += 1


def _encode(channel: str, message: Publication | Presence) -> str | bytes:
    if isinstance(message, Presence):
        return f"{'-' if message.left else '+'}{message.info.client}"
    return encode_plain(message, "json")


class Board:
    """A switchboard on a broker whose network is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wheel = TimerWheel(self.clock)
        self.broker = PacedBroker(self.clock, self.wheel)
        self.board = Switchboard(self.broker, self.wheel, {"json": _encode})
        self.number = 0

    async def publish(self, number: int = 1, *, options: ChannelOptions = KEPT) -> None:
        for _ in range(number):
            self.number += 1
            await self.board.publish(ROOM, Publication(b"%d" % self.number), options)

    async def enter(self, member: Member, *, positioned: bool = True) -> Held:
        held = self.board.enter(ROOM, member, KEPT, positioned=positioned)
        await self.board.listen(ROOM)
        return held

    async def join(self, member: Member) -> Position:
        """Enter with a position; what was held comes first."""
        held = await self.enter(member)
        page = await self.board.read(ROOM, KEPT, limit=0)
        member.got += [str(message.data) for message in held.release(page.top)]
        return page.top

    async def quiet(self) -> None:
        """Let everything arrive, and everybody be told."""
        for _ in range(3):  # what arrives may owe the broker something
            self.broker.arrive(self.broker.on_the_way)
            await self.board._errands.finish()
        await eventually(lambda: not self.board.hub._busy and not self.board._arrivals._busy)


def _texts(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


# Positions


@pytest.mark.parametrize(
    "arrives", ["before the history", "after the history", "after the release"]
)
@pytest.mark.parametrize("published", ["before the history", "after the history"])
async def test_publication_amid_an_entry_comes_once(published: str, arrives: str) -> None:
    """Told with the top, or held, or live: once in all, whenever it was and whenever it came."""
    at, member, first = Board(), Member(), Member()
    await at.publish(2)
    await at.join(first)
    held = await at.enter(member)
    if published == "before the history":
        await at.publish(2)
        if arrives == "before the history":
            at.broker.arrive(2)
    page = await at.board.read(ROOM, KEPT, limit=0)
    if published == "after the history":
        await at.publish(2)
    if arrives == "after the history":
        at.broker.arrive(2)
    member.got += _texts(1, page.top.offset)  # what the caller tells with the top
    member.got += [str(message.data) for message in held.release(page.top)]
    await at.publish()
    await at.quiet()
    assert member.got == _texts(1, 5)
    assert first.got == _texts(3, 5)
    assert member.gaps == first.gaps == 0


async def test_several_enter_at_once_and_read_different_tops() -> None:
    """The answer that was read first comes last: nobody misses what was published in between."""
    at, early, late = Board(), Member(), Member()
    early_held = await at.enter(early)
    late_held = await at.enter(late)
    at.broker.paced = True
    reading = asyncio.create_task(at.board.read(ROOM, KEPT, limit=0))
    await eventually(lambda: at.broker.waiting)
    at.broker.go_on()  # it has read, and its answer is on the way
    await eventually(lambda: at.broker.waiting)
    at.broker.paced = False
    await at.publish()
    page = await at.board.read(ROOM, KEPT, limit=0)
    assert page.top.offset == 1
    assert late_held.release(page.top) == []
    at.broker.go_on()
    page = await reading
    assert page.top.offset == 0
    assert early_held.release(page.top) == []
    await at.publish()
    await at.quiet()
    assert early.got == ["1", "2"]
    assert late.got == ["2"]
    assert early.gaps == late.gaps == 0


async def test_release_and_publications_in_one_turn() -> None:
    """What was published before the release is held, what comes after it is live."""
    at, member = Board(), Member()
    at.broker.slow = False
    held = await at.enter(member)
    page = await at.board.read(ROOM, KEPT, limit=0)
    await at.publish(2)
    assert [message.data for message in held.release(page.top)] == ["1", "2"]
    await at.publish(2)
    await at.quiet()
    assert member.got == ["3", "4"]


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_lost_publications_are_brought_from_the_history(lost: int) -> None:
    """In order, once, to everybody; what came meanwhile follows."""
    at, positioned, plain = Board(), Member(), Member()
    await at.join(positioned)
    (await at.enter(plain, positioned=False)).release(None)
    await at.publish(lost + 3)
    at.broker.arrive()
    for _ in range(lost):
        at.broker.lose()
    at.broker.paced = True
    at.broker.arrive()
    await eventually(lambda: at.broker.waiting, what="the history is read")
    at.broker.arrive()
    await at.publish()
    at.broker.arrive()
    at.broker.paced = False
    for _ in range(2):
        at.broker.go_on()
    await at.quiet()
    assert positioned.got == plain.got == _texts(1, lost + 4)
    assert positioned.gaps == plain.gaps == 0


async def test_last_publication_is_lost() -> None:
    """A look at the position brings it, with or without those that follow; a quiet room only."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(2)
    at.broker.lose()
    at.broker.lose()
    await at.quiet()
    assert member.got == []
    for _ in range(2):
        at.board._check()
    await at.quiet()
    assert member.got == ["1", "2"]
    log = list(at.broker.log)
    await at.publish()
    await at.quiet()
    at.board._check()
    await at.quiet()
    assert at.broker.log == log, "a room that is not quiet was looked at"


async def test_link_that_was_down_is_no_hole() -> None:
    """What was published meanwhile is brought when it is up; whoever is present is so again."""
    at, member = Board(), Member()
    await at.board.start()
    await at.join(member)
    await at.board.attendance.appear(ROOM, ANN)
    at.board.on_link(False)
    await at.publish(3)
    while at.broker.on_the_way:
        at.broker.lose()
    at.broker._rooms.clear()
    at.board.on_link(True)
    await at.quiet()
    assert member.got == _texts(1, 3)
    assert await at.broker.presence(ROOM) == {"1": ANN}


async def test_history_that_cannot_be_read_is_tried_again_and_then_told() -> None:
    """What was held comes all the same, and what follows."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(3)
    at.broker.arrive()
    at.broker.lose()
    at.broker.failing = True
    await at.quiet()
    assert (member.got, member.gaps) == (["1"], 0)
    for _ in range(REPAIR_TRIES):
        at.clock.advance(REPAIR_PAUSE + 0.1)
        await at.quiet()
    assert (member.got, member.gaps) == (["1", "3"], 1)
    at.broker.failing = False
    await at.publish()
    await at.quiet()
    assert member.got == ["1", "3", "4"]


async def test_repair_that_breaks_leaves_nobody_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of a broker's is told as a gap, and the channel goes on."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(3)
    at.broker.arrive()
    at.broker.lose()

    async def broken(*given: object, **more: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(at.broker, "history", broken)
        await at.quiet()
    assert (member.got, member.gaps) == (["1", "3"], 1)
    await at.publish()
    await at.quiet()
    assert member.got == ["1", "3", "4"]


async def test_repair_that_was_given_up_does_not_end_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answer comes late, and is nobody's any more."""
    monkeypatch.setattr("pongee.repair.HELD_MESSAGES", 3)
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(2)
    at.broker.lose()
    at.broker.paced = True
    at.broker.arrive()
    await eventually(lambda: at.broker.waiting, what="the history is read")
    at.broker.paced = False
    await at.publish(4)
    at.broker.arrive(4)  # more than are held: given up
    assert member.gaps == 1
    await at.publish(2)
    at.broker.lose()
    at.broker.arrive()
    at.broker.go_on()
    await at.quiet()
    assert member.gaps == 1
    assert member.got == _texts(2, 8)


async def test_who_left_while_the_link_was_down_is_struck_out() -> None:
    """And said goodbye for, once it is up."""
    at = Board()
    await at.board.start()
    listener = await _listener(at)
    member = await _enter_live(at, ANN)
    await at.quiet()

    at.broker.failing = True
    at.board.on_link(False)
    at.board.leave_live(ROOM, member, SOCIAL, ANN)
    await at.quiet()
    at.broker.failing = False
    assert "1" in await at.broker.presence(ROOM)
    at.board.on_link(True)
    await at.quiet()
    assert "1" not in await at.broker.presence(ROOM)
    assert listener.got == ["+1", "-1"]


async def test_farewells_that_wait_are_said_when_the_process_ends() -> None:
    """Nobody would say them afterwards."""
    at = Board()
    await at.board.start()
    told: list[str] = []
    leave = at.broker.leave

    async def listen(channel: str, info: ClientInfo) -> None:
        told.append(info.client)
        await leave(channel, info)

    at.broker.leave = listen  # type: ignore[method-assign]
    member = await _enter_live(at, ANN)
    at.board.leave_live(ROOM, member, SOCIAL, ANN, lost=True)
    assert told == []
    await at.board.stop()
    assert told == ["1"]


async def test_who_was_not_announced_does_not_take_leave() -> None:
    """It left before it was present."""
    at = Board()
    listener = await _listener(at)
    at.broker.paced = True
    member = Member()
    entering = asyncio.create_task(at.board.enter_live(ROOM, member, SOCIAL, ANN))
    await eventually(lambda: at.broker.waiting, what="the broker is asked")
    entering.cancel()
    at.broker.paced = False
    for _ in range(4):
        at.broker.go_on()
        await asyncio.sleep(0)
    at.board.leave_live(ROOM, member, SOCIAL, ANN)
    await at.quiet()
    assert listener.got == []


async def test_start_is_shared_and_can_be_tried_again() -> None:
    """One that failed is forgotten; after the end nothing starts."""
    at = Board()
    started = 0
    start = at.broker.start

    async def slow(*given: Any) -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(0)
        if started == 1:
            raise ConfigurationError("another password")
        await start(*given)

    at.broker.start = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError):
        await at.board.publish(ROOM, Publication(b"1"), KEPT)
    positions = await asyncio.gather(
        *(at.board.publish(ROOM, Publication(b"1"), KEPT) for _ in range(5))
    )
    assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
    assert started == 2
    await at.board.stop()
    with pytest.raises(BrokerUnavailable, match="ends"):
        await at.board.publish(ROOM, Publication(b"1"), KEPT)


async def test_lost_publication_that_nobody_keeps_is_told_to_those_with_a_position() -> None:
    """Once, before what follows; the others go on."""
    at, positioned, plain = Board(), Member(), Member()
    await at.join(positioned)
    (await at.enter(plain, positioned=False)).release(None)
    await at.publish(3)
    at.broker.arrive()
    at.broker.lose()
    await at.broker.remove_history(ROOM)
    await at.quiet()
    assert positioned.gaps == 1
    assert plain.gaps == 0
    assert plain.got == ["1", "3"]


async def test_first_publication_of_all_is_lost() -> None:
    """The history that was read tells of the hole, and fills it."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(2)
    at.broker.lose()
    await at.quiet()
    assert (member.got, member.gaps) == (["1", "2"], 0)


@pytest.mark.parametrize("lost", [1, 2])
async def test_publication_lost_amid_an_entry_is_a_gap(lost: int) -> None:
    """What was held does not follow on the top, or was broken in between."""
    at, member, other = Board(), Member(), Member()
    await at.join(other)
    held = await at.enter(member)
    page = await at.board.read(ROOM, KEPT, limit=0)
    await at.publish(3)
    at.broker.arrive(lost - 1)
    at.broker.lose()
    await at.broker.remove_history(ROOM)
    await at.quiet()
    assert other.gaps == 1
    with pytest.raises(Gap):
        held.release(page.top)


async def test_first_publication_is_lost_amid_the_first_entry() -> None:
    """Nobody else is there who would have noticed."""
    at, member = Board(), Member()
    held = await at.enter(member)
    at.broker.paced = True
    reading = asyncio.create_task(at.board.read(ROOM, KEPT, limit=0))
    await eventually(lambda: at.broker.waiting)
    at.broker.go_on()
    await eventually(lambda: at.broker.waiting)
    await at.publish(2)
    at.broker.lose()
    await at.quiet()
    at.broker.go_on()
    page = await reading
    assert page.top.offset == 0
    with pytest.raises(Gap):
        held.release(page.top)


async def test_publication_between_two_histories_is_lost() -> None:
    """One member was told of it with its top; the other one, whose history is older, was not."""
    at, early, late = Board(), Member(), Member()
    early_held = await at.enter(early)
    late_held = await at.enter(late)
    at.broker.paced = True
    reading = asyncio.create_task(at.board.read(ROOM, KEPT, limit=0))
    await eventually(lambda: at.broker.waiting)
    at.broker.go_on()
    await eventually(lambda: at.broker.waiting)
    at.broker.paced = False
    await at.publish()
    late_held.release((await at.board.read(ROOM, KEPT, limit=0)).top)
    at.broker.go_on()
    early_held.release((await reading).top)
    at.broker.lose()
    await at.publish()
    await at.quiet()
    assert (early.got, early.gaps) == (["1", "2"], 0)
    assert (late.got, late.gaps) == (["2"], 0)


async def test_what_was_under_way_for_members_of_before_proves_nothing() -> None:
    """It arrives before the broker was asked again, and what follows it never will."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish()
    await at.quiet()
    at.broker.paced = True
    at.board.leave(ROOM, member)
    await eventually(lambda: at.broker.waiting)
    joining = asyncio.create_task(at.join(member))
    await asyncio.sleep(0)
    await at.publish(2)
    at.broker.arrive()
    at.broker.paced = False
    at.broker.go_on()
    assert (await joining).offset == 3
    await at.publish()
    await at.quiet()
    assert member.got == ["1", "4"]
    assert not member.gaps


async def test_late_duplicates_are_dropped() -> None:
    """A broker may bring something twice."""
    at, member = Board(), Member()
    await at.join(member)
    await at.publish(2)
    at.broker.arrive()
    at.broker.repeat()
    at.broker.arrive()
    at.broker.repeat()
    await at.quiet()
    assert member.got == ["1", "2"]
    assert not member.gaps


async def test_epoch_that_changes_while_somebody_enters_is_a_gap() -> None:
    """Offsets of two epochs do not go together, though they may follow on each other."""
    at, member, other = Board(), Member(), Member()
    await at.publish(1)
    await at.join(other)
    held = await at.enter(member)
    page = await at.board.read(ROOM, KEPT, limit=0)
    at.broker.restart(ROOM)
    await at.publish(2)
    await at.quiet()
    assert other.gaps == 1
    with pytest.raises(Gap):
        held.release(page.top)


async def test_stream_that_began_anew_is_noticed_by_whoever_reads_it() -> None:
    """Those who were there are told at once; who entered starts again, and then it is well."""
    at, member, other = Board(), Member(), Member()
    await at.publish()
    await at.join(other)
    at.broker.restart(ROOM)
    with pytest.raises(Gap):
        await at.join(member)
    assert other.gaps == 1
    at.board.leave(ROOM, member)
    assert (await at.join(member)).offset == 0
    await at.publish()
    await at.quiet()
    assert member.got == ["2"]


async def test_more_than_is_held_is_a_gap() -> None:
    """A member that takes too long starts again, whether it has a position or not."""
    at, member, plain = Board(), Member(), Member()
    held = await at.enter(member)
    plain_held = await at.enter(plain, positioned=False)
    page = await at.board.read(ROOM, KEPT, limit=0)
    at.broker.slow = False
    await at.publish(HELD_MESSAGES + 1)
    await at.quiet()
    for one, top in ((held, page.top), (plain_held, None)):
        with pytest.raises(Gap):
            one.release(top)


async def test_gap_does_not_concern_whoever_enters_without_a_position() -> None:
    """It gets what there is."""
    at, plain, other = Board(), Member(), Member()
    await at.join(other)
    held = await at.enter(plain, positioned=False)
    await at.publish(2)
    at.broker.lose()
    await at.broker.remove_history(ROOM)
    await at.quiet()
    assert [message.data for message in held.release(None)] == ["2"]


async def test_publication_that_is_not_kept_has_no_offset_and_is_delivered() -> None:
    """It may come before, amid and after what was under way."""
    at, member = Board(), Member()
    held = await at.enter(member)
    await at.publish(options=PLAIN)
    await at.quiet()
    page = await at.board.read(ROOM, KEPT, limit=0)
    member.got += [str(message.data) for message in held.release(page.top)]
    await at.publish(options=PLAIN)
    await at.publish()
    await at.quiet()
    assert member.got == ["1", "2", "3"]


# Listening


async def test_broker_is_asked_while_there_are_members() -> None:
    """Once for many; not any more when the last one leaves; leaving twice is harmless."""
    at = Board()
    members = [Member() for _ in range(5)]
    await asyncio.gather(*(at.join(member) for member in members))
    for member in [*members, *members]:
        at.board.leave(ROOM, member)
    await at.quiet()
    assert [what for what, _ in at.broker.log if what != "history"] == ["subscribe", "unsubscribe"]


async def test_member_that_leaves_while_the_broker_is_asked_leaves_nothing_behind() -> None:
    """Whether the question is cancelled or answered."""
    at, member = Board(), Member()
    at.broker.paced = True
    await at.board.start()
    entering = asyncio.create_task(at.enter(member))
    await eventually(lambda: at.broker.waiting)
    at.broker.go_on()
    await eventually(lambda: at.broker.log and at.broker.waiting)
    at.board.leave(ROOM, member)
    entering.cancel()
    at.broker.paced = False
    await asyncio.wait([entering])
    await at.quiet()
    assert at.broker.subscribed == frozenset()
    assert at.board.hub.channels() == {}


async def test_member_that_is_back_at_once_is_listened_for() -> None:
    """The question to stop and the next one to begin keep their order."""
    at, member = Board(), Member()
    await at.join(member)
    at.board.leave(ROOM, member)
    await at.join(member)
    await at.quiet()
    await at.publish()
    await at.quiet()
    assert member.got == ["1"]
    assert at.broker.subscribed == {ROOM}


# Presence


async def _enter_live(at: Board, info: ClientInfo) -> Member:
    member = Member()
    await at.board.enter_live(ROOM, member, SOCIAL, info)
    return member


async def test_presence_is_renewed_while_somebody_is_there() -> None:
    """And ends with the departure, however long that was."""
    at = Board()
    member = await _enter_live(at, ANN)
    for _ in range(10):
        at.clock.advance(PRESENCE_REFRESH)
        await at.quiet()
        assert list(await at.broker.presence(ROOM)) == ["1"]
    at.board.leave_live(ROOM, member, SOCIAL, ANN)
    await at.quiet()
    assert await at.broker.presence(ROOM) == {}
    appeared = at.broker.log.count(("appear", ROOM))
    at.clock.advance(3 * PRESENCE_REFRESH)
    await at.quiet()
    assert at.broker.log.count(("appear", ROOM)) == appeared


async def test_presence_of_a_process_that_is_gone_ends_by_itself() -> None:
    """Nobody renews it."""
    at = Board()
    await _enter_live(at, ANN)
    at.wheel.close()
    at.clock.advance(PRESENCE_TTL)
    assert await at.broker.presence(ROOM) == {}


async def test_client_that_leaves_and_is_back_in_one_turn_is_present() -> None:
    """Its departure does not overtake its return, though others keep the channel open."""
    at = Board()
    await _enter_live(at, NOBODY)
    member = await _enter_live(at, ANN)
    at.board.leave_live(ROOM, member, SOCIAL, ANN)
    await at.board.enter_live(ROOM, member, SOCIAL, ANN)
    await at.quiet()
    assert sorted(await at.broker.presence(ROOM)) == ["1", "3"]


async def test_client_that_leaves_while_it_appears_is_struck_out() -> None:
    """The broker has entered it, and its answer is on the way."""
    at, member = Board(), Member()
    await _enter_live(at, NOBODY)
    at.broker.paced = True
    entering = asyncio.create_task(at.board.enter_live(ROOM, member, SOCIAL, ANN))
    await eventually(lambda: at.broker.waiting)
    at.broker.go_on()
    await eventually(lambda: at.broker.log[-1] == ("appear", ROOM) and at.broker.waiting)
    at.broker.paced = False
    entering.cancel()
    await asyncio.wait([entering])
    await at.quiet()
    assert list(await at.broker.presence(ROOM)) == ["3"]
    assert at.board.hub.channels() == {ROOM: 1}


async def test_broker_that_fails_lets_nobody_in() -> None:
    """Nothing is left behind, and the next one is welcome."""
    at = Board()
    await at.board.start()
    at.broker.failing = True
    with pytest.raises(BrokerUnavailable):
        await _enter_live(at, ANN)
    at.broker.failing = False
    await at.quiet()
    assert at.board.hub.channels() == {}
    await _enter_live(at, ANN)
    assert list(await at.broker.presence(ROOM)) == ["1"]


# Joins and leaves


async def _listener(at: Board) -> Member:
    member = await _enter_live(at, NOBODY)
    at.board.hear_arrivals(ROOM, member)
    await at.quiet()
    member.got.clear()
    return member


async def test_join_comes_before_leave_however_short_the_stay() -> None:
    """Ten clients come and go in one turn."""
    at = Board()
    listener = await _listener(at)
    for number in range(10):
        info = ClientInfo("", f"c{number}")
        member = await _enter_live(at, info)
        at.board.leave_live(ROOM, member, SOCIAL, info)
    await at.quiet()
    assert listener.got == [f"{sign}c{number}" for number in range(10) for sign in "+-"]


async def test_user_who_is_back_in_a_moment_does_not_flicker() -> None:
    """The leave of a lost connection waits for the user's return, or for the delay."""
    at = Board()
    listener = await _listener(at)
    first = await _enter_live(at, ANN)
    at.board.leave_live(ROOM, first, SOCIAL, ANN, lost=True)
    await at.quiet()
    assert listener.got == ["+1"]
    second = await _enter_live(at, ANN2)
    await at.quiet()
    assert listener.got == ["+1", "+2", "-1"]
    at.board.leave_live(ROOM, second, SOCIAL, ANN2, lost=True)
    at.clock.advance(LEAVE_DELAY - 0.1)
    await at.quiet()
    assert listener.got == ["+1", "+2", "-1"]
    at.clock.advance(0.2)
    await at.quiet()
    assert listener.got == ["+1", "+2", "-1", "-2"]
    at.clock.advance(10 * LEAVE_DELAY)
    await at.quiet()
    assert listener.got == ["+1", "+2", "-1", "-2"]


async def test_clean_departure_and_one_of_nobody_known_are_told_at_once() -> None:
    """There is no return to wait for."""
    at = Board()
    listener = await _listener(at)
    for info, lost in ((ANN, False), (ClientInfo("", "x"), True)):
        member = await _enter_live(at, info)
        at.board.leave_live(ROOM, member, SOCIAL, info, lost=lost)
    await at.quiet()
    assert listener.got == ["+1", "-1", "+x", "-x"]


async def test_two_tabs_are_two_connections_of_one_user() -> None:
    """Each comes and goes; the user is counted once."""
    at = Board()
    listener = await _listener(at)
    tabs = [await _enter_live(at, ANN), await _enter_live(at, ANN2)]
    await at.quiet()
    assert await at.broker.presence_counts(ROOM) == (3, 2)
    at.board.leave_live(ROOM, tabs[0], SOCIAL, ANN, lost=True)
    at.clock.advance(LEAVE_DELAY + 0.1)
    await at.quiet()
    assert await at.broker.presence_counts(ROOM) == (2, 2)
    assert listener.got == ["+1", "+2", "-1"]
