"""Who is there, who is told, and when."""

from __future__ import annotations

import asyncio

import pytest

from pongee import BrokerUnavailable
from pongee.channels.publication import ClientInfo
from pongee.limits import (
    LEAVE_DELAY,
    PRESENCE_REFRESH,
    PRESENCE_TTL,
)
from pongee.testing import eventually
from tests.boards import (
    ANN,
    ANN2,
    NOBODY,
    ROOM,
    SOCIAL,
    Board,
    Member,
    enter_live,
    listener,
)

pytestmark = pytest.mark.anyio


# Presence


async def test_presence_is_renewed_while_somebody_is_there() -> None:
    """And ends with the departure, however long that was."""
    at = Board()
    member = await enter_live(at, ANN)
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
    await enter_live(at, ANN)
    at.wheel.close()
    at.clock.advance(PRESENCE_TTL)
    assert await at.broker.presence(ROOM) == {}


async def test_client_that_leaves_and_is_back_in_one_turn_is_present() -> None:
    """Its departure does not overtake its return, though others keep the channel open."""
    at = Board()
    await enter_live(at, NOBODY)
    member = await enter_live(at, ANN)
    at.board.leave_live(ROOM, member, SOCIAL, ANN)
    await at.board.enter_live(ROOM, member, SOCIAL, ANN)
    await at.quiet()
    assert sorted(await at.broker.presence(ROOM)) == ["1", "3"]


async def test_client_that_leaves_while_it_appears_is_struck_out() -> None:
    """The broker has entered it, and its answer is on the way."""
    at, member = Board(), Member()
    await enter_live(at, NOBODY)
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
        await enter_live(at, ANN)
    at.broker.failing = False
    await at.quiet()
    assert at.board.hub.channels() == {}
    await enter_live(at, ANN)
    assert list(await at.broker.presence(ROOM)) == ["1"]


# Joins and leaves


async def test_join_comes_before_leave_however_short_the_stay() -> None:
    """Ten clients come and go in one turn."""
    at = Board()
    hearing = await listener(at)
    for number in range(10):
        info = ClientInfo("", f"c{number}")
        member = await enter_live(at, info)
        at.board.leave_live(ROOM, member, SOCIAL, info)
    await at.quiet()
    assert hearing.got == [f"{sign}c{number}" for number in range(10) for sign in "+-"]


async def test_user_who_is_back_in_a_moment_does_not_flicker() -> None:
    """The leave of a lost connection waits for the user's return, or for the delay."""
    at = Board()
    hearing = await listener(at)
    first = await enter_live(at, ANN)
    at.board.leave_live(ROOM, first, SOCIAL, ANN, lost=True)
    await at.quiet()
    assert hearing.got == ["+1"]
    second = await enter_live(at, ANN2)
    await at.quiet()
    assert hearing.got == ["+1", "+2", "-1"]
    at.board.leave_live(ROOM, second, SOCIAL, ANN2, lost=True)
    at.clock.advance(LEAVE_DELAY - 0.1)
    await at.quiet()
    assert hearing.got == ["+1", "+2", "-1"]
    at.clock.advance(0.2)
    await at.quiet()
    assert hearing.got == ["+1", "+2", "-1", "-2"]
    at.clock.advance(10 * LEAVE_DELAY)
    await at.quiet()
    assert hearing.got == ["+1", "+2", "-1", "-2"]


async def test_clean_departure_and_one_of_nobody_known_are_told_at_once() -> None:
    """There is no return to wait for."""
    at = Board()
    hearing = await listener(at)
    for info, lost in ((ANN, False), (ClientInfo("", "x"), True)):
        member = await enter_live(at, info)
        at.board.leave_live(ROOM, member, SOCIAL, info, lost=lost)
    await at.quiet()
    assert hearing.got == ["+1", "-1", "+x", "-x"]


async def test_two_tabs_are_two_connections_of_one_user() -> None:
    """Each comes and goes; the user is counted once."""
    at = Board()
    hearing = await listener(at)
    tabs = [await enter_live(at, ANN), await enter_live(at, ANN2)]
    await at.quiet()
    assert await at.broker.presence_counts(ROOM) == (3, 2)
    at.board.leave_live(ROOM, tabs[0], SOCIAL, ANN, lost=True)
    at.clock.advance(LEAVE_DELAY + 0.1)
    await at.quiet()
    assert await at.broker.presence_counts(ROOM) == (2, 2)
    assert hearing.got == ["+1", "+2", "-1"]


# The end, and outages


async def test_who_left_while_the_link_was_down_is_struck_out() -> None:
    """And said goodbye for, once it is up."""
    at = Board()
    await at.board.start()
    hearing = await listener(at)
    member = await enter_live(at, ANN)
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
    assert hearing.got == ["+1", "-1"]


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
    member = await enter_live(at, ANN)
    at.board.leave_live(ROOM, member, SOCIAL, ANN, lost=True)
    assert told == []
    await at.board.stop()
    assert told == ["1"]


async def test_who_was_not_announced_does_not_take_leave() -> None:
    """It left before it was present."""
    at = Board()
    hearing = await listener(at)
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
    assert hearing.got == []
