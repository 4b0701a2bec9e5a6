"""What happens at the same time: close, send, publish, subscribe, drain, cancel."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from pongee import Limits, Session, SessionClosed, public
from pongee.testing import CloseFrame, HandshakeRefused, RawPeer, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def test_close_during_a_send_that_waits_frees_the_sender() -> None:
    """A sender stuck behind a stalled client learns of the end; nothing hangs."""
    world = World()
    outcomes: list[int | str] = []

    @world.pongee.endpoint(
        "/ws", auth=public, limits=Limits(outbox_bytes=MIB, close_timeout=0.3, write_deadline=30)
    )
    async def handler(session: Session[str, bytes]) -> None:
        async def sender() -> None:
            try:
                while True:
                    await session.send(bytes(256 * 1024))
            except SessionClosed as closed:
                outcomes.append(closed.cause.code)
                raise

        tasks = [asyncio.create_task(sender()) for _ in range(3)]
        await eventually(lambda: session.statistics().waiting_messages > 0)
        await session.close(4000, "enough")
        await asyncio.wait(tasks, timeout=5)
        outcomes.extend("stuck" for task in tasks if not task.done())
        for task in tasks:
            task.cancel()

    async with world.running() as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.ended, within=10)
    assert "stuck" not in outcomes
    assert set(outcomes) <= {4000}
    assert world.causes == ["closed by the handler"]


async def test_publish_while_members_come_and_go_reaches_every_member_in_order() -> None:
    """Membership changes in the middle of a fan-out disturb nobody."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await session.subscribe("room")
        async for text in session:
            if text == "again":
                await session.unsubscribe("room")
                await session.subscribe("room")

    async with world.running() as server, connect(server.ws("/ws")) as steady:
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        stop = asyncio.Event()

        async def restless(seed: int) -> None:
            choose = random.Random(seed)
            while not stop.is_set():
                async with connect(server.ws("/ws")) as client:
                    if choose.random() < 0.5:
                        await client.send("again")
                    if choose.random() < 0.5:
                        client.cut()

        async with asyncio.TaskGroup() as group:
            for seed in range(4):
                group.create_task(restless(seed))
            for number in range(300):
                await world.pongee.publish("room", str(number))
                if number % 10 == 0:
                    await asyncio.sleep(0)
            stop.set()
        assert [await steady.receive() for _ in range(300)] == [str(n) for n in range(300)]
        await eventually(lambda: world.pongee.local_channels() == {"room": 1})
    await eventually(lambda: len(world.opened) == len(world.ended))


async def test_publish_inside_a_delivery_and_a_member_that_is_cut_in_it() -> None:
    """A member cut in the middle of a fan-out leaves while the hub iterates."""
    world = World()
    limits = Limits(outbox_messages=1, outbox_bytes=1)

    @world.pongee.endpoint("/ws", auth=public, limits=limits)
    async def handler(session: Session[str, str]) -> None:
        await session.subscribe("room")
        async for _ in session:
            pass

    async with (
        world.running() as server,
        connect(server.ws("/ws")),
        connect(server.ws("/ws")),
    ):
        await eventually(lambda: world.pongee.local_channels().get("room") == 2)
        # Three at once without a turn of the loop: the second finds each outbox full.
        for _ in range(3):
            await world.pongee.publish("room", "x")
        await eventually(lambda: world.pongee.local_channels() == {}, what="both are cut")
        await eventually(lambda: world.causes == ["too slow", "too slow"])


async def test_drain_during_connect_ends_every_connection_one_way_or_the_other() -> None:
    """Handshakes that race with a drain are refused with 503 or closed with 1012."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await asyncio.Event().wait()

    outcomes: list[Any] = []

    async def one(url: str) -> None:
        try:
            async with connect(url) as client:
                outcomes.append(await client.wait_closed())
        except HandshakeRefused as refused:
            outcomes.append(refused.status)

    async with world.running() as server:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one(server.ws("/ws")))
                if number == 20:
                    await eventually(lambda: world.opened)
                    group.create_task(world.pongee.drain(0))
        assert world.pongee.connections() == []
    assert len(outcomes) == 40
    assert {503, CloseFrame(1012, "server is leaving")} >= set(outcomes)
    assert len(world.opened) == len(world.ended)


async def test_everything_ends_the_session_at_once_and_it_ends_once() -> None:
    """Client close, kick, crash and close in one turn: one cause, one hook, one frame."""
    world = World()

    @world.pongee.endpoint("/ws", auth=lambda: "ada")
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            await asyncio.gather(
                session.close(4001),
                world.pongee.disconnect(user="ada", code=4002),
                session.close(4003),
            )
            raise ValueError("and a crash on top")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send("go")
        await client.close()
        await eventually(lambda: world.ended)
    assert len(world.ended) == 1


async def test_cancel_everywhere_leaves_nothing_behind() -> None:
    """The server cancels connections at every stage; hooks pair and places are given back."""
    world, gate = World(), asyncio.Event()

    async def slow_policy() -> None:
        await gate.wait()

    @world.pongee.endpoint("/slow", auth=slow_policy)
    async def slow(session: Session[str, str]) -> None:
        await asyncio.Event().wait()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        session.spawn(asyncio.sleep(3600))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a handler may tidy up with awaits

    capacity = world.pongee._node.capacity
    async with world.running() as server:
        for stage in range(30):
            path = "/slow" if stage % 3 == 0 else "/ws"
            async with RawPeer(server.port, path) as peer:
                request = asyncio.ensure_future(peer.handshake())
                for _ in range(stage):
                    await asyncio.sleep(0)
                for task in list(server.uvicorn.server_state.tasks):
                    task.cancel()
                request.cancel()
                await asyncio.wait([request])
        gate.set()
        await eventually(lambda: capacity.connections == 0)
        await eventually(lambda: len(world.opened) == len(world.ended))
        assert world.pongee.connections() == []
        assert len(world.pongee._node.runtime.wheel) <= 1  # the watch over writes
        assert not world.pongee._node.runtime.endings


async def test_reset_in_the_middle_of_sends_from_many_tasks_is_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Senders of a lost connection get `SessionClosed`; nothing is logged as an error."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async def sender() -> None:
            while True:
                await session.send("x" * 1000)
                await asyncio.sleep(0)

        for _ in range(5):
            session.spawn(sender())
        async for _ in session:
            pass

    async with world.running() as server:
        for _ in range(10):
            async with connect(server.ws("/ws")) as client:
                await client.receive()
                client.cut()
        await eventually(lambda: len(world.ended) == 10)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert set(world.causes) == {"connection lost"}


async def test_message_handed_to_a_reader_that_is_cancelled_in_the_same_turn_is_not_lost() -> None:
    """The next reader gets it, before what came after it."""
    world = World()
    got: list[str] = []

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        reader = asyncio.ensure_future(session.receive())
        await asyncio.sleep(0)
        for text in ("first", "second"):  # as the link hands them over, in one turn
            session.on_message(text)
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        got.extend([await session.receive(), await session.receive()])

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.wait_closed()
        assert got == ["first", "second"]
