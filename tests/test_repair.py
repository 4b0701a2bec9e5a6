"""What a broker loses on the way is read from its history."""

from __future__ import annotations

import pytest

from pongee.limits import (
    REPAIR_PAUSE,
    REPAIR_TRIES,
)
from pongee.testing import eventually
from tests.boards import (
    ANN,
    ROOM,
    Board,
    Member,
    texts,
)

pytestmark = pytest.mark.anyio


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
    assert positioned.got == plain.got == texts(1, lost + 4)
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
    assert member.got == texts(1, 3)
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
    assert member.got == texts(2, 8)


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
