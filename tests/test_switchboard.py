"""Members between a broker and the hub: no hole and no repeat."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pongee import BrokerUnavailable, ConfigurationError
from pongee.channels.publication import Publication
from pongee.entries import Gap
from pongee.limits import (
    HELD_MESSAGES,
)
from pongee.testing import eventually
from tests.boards import (
    KEPT,
    PLAIN,
    ROOM,
    Board,
    Member,
    texts,
)

pytestmark = pytest.mark.anyio


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
    member.got += texts(1, page.top.offset)  # what the caller tells with the top
    member.got += [str(message.data) for message in held.release(page.top)]
    await at.publish()
    await at.quiet()
    assert member.got == texts(1, 5)
    assert first.got == texts(3, 5)
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
