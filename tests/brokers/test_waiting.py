"""Publications that wait for a broken link: in order, bounded, and nobody for ever."""

from __future__ import annotations

import asyncio

import pytest

from pongee import BrokerUnavailable
from pongee.brokers.base import UP, Health
from pongee.brokers.waiting import WaitingRoom
from pongee.channels.publication import Publication
from pongee.clock import TimerWheel
from pongee.limits import BROKER_BUFFER_WAIT
from pongee.switchboard import Switchboard
from pongee.testing import ManualClock
from tests.centrifuge.paced import PacedBroker

pytestmark = pytest.mark.anyio


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_go_on_in_their_order() -> None:
    """When the link is up, and those who gave up meanwhile are passed over."""
    room, log = WaitingRoom(100, TimerWheel(ManualClock())), list[int]()

    async def publisher(number: int) -> None:
        await room.enter(10, "away")
        log.append(number)

    tasks = [asyncio.create_task(publisher(number)) for number in range(5)]
    await _turns()
    tasks[2].cancel()
    await _turns()
    assert log == []
    room.open()
    await asyncio.wait(tasks)
    assert log == [0, 1, 3, 4]


async def test_room_is_bounded_and_freed() -> None:
    """By bytes; the error names the setting."""
    room = WaitingRoom(20, TimerWheel(ManualClock()))
    tasks = [asyncio.create_task(room.enter(10, "away")) for _ in range(2)]
    await _turns()
    with pytest.raises(
        BrokerUnavailable, match=r"buffer of 20 bytes is full \(PONGEE_BROKER_BUFFER"
    ):
        await room.enter(1, "away")
    tasks[0].cancel()
    await _turns()
    third = asyncio.create_task(room.enter(10, "away"))
    await _turns()
    assert not third.done()
    room.close("the process ends")
    for task in (tasks[1], third):
        with pytest.raises(BrokerUnavailable, match="the process ends"):
            await task


async def test_who_gave_up_leaves_nothing_behind() -> None:
    """However long the link is down."""
    clock = ManualClock()
    room = WaitingRoom(100, TimerWheel(clock))
    for _ in range(50):
        task = asyncio.create_task(room.enter(10, "away"))
        await _turns()
        task.cancel()
        await _turns()
    assert not room._waiting
    assert not room._held


async def test_nobody_waits_for_ever() -> None:
    """After half a minute it fails, and says so."""
    clock = ManualClock()
    room = WaitingRoom(100, TimerWheel(clock))
    task = asyncio.create_task(room.enter(10, "redis is away"))
    await _turns()
    clock.advance(BROKER_BUFFER_WAIT + 0.1)
    with pytest.raises(BrokerUnavailable, match="redis is away; waited 30 s"):
        await task


class Unsteady(PacedBroker):
    """A broker whose link can be down."""

    up = True

    @property
    def health(self) -> Health:
        return UP if self.up else Health(False, "away")


@pytest.mark.parametrize("buffer", [0, 1000])
async def test_publications_wait_only_where_there_is_a_buffer(buffer: int) -> None:
    """Without one the broker is asked, and says no itself."""
    clock = ManualClock()
    wheel = TimerWheel(clock)
    broker = Unsteady(clock, wheel)
    board = Switchboard(broker, wheel, buffer=buffer)
    await board.start()
    broker.up = False
    publishing = [
        asyncio.create_task(board.publish("room", Publication(b"%d" % number)))
        for number in range(3)
    ]
    await _turns()
    assert all(task.done() for task in publishing) is not bool(buffer)
    broker.up = True
    board.on_link(True)
    await asyncio.wait(publishing)
    await board.stop()
