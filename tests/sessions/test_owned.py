"""The connection is owned by the layer: departure, cancellation, jobs, concurrent use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pongee import (
    CauseKind,
    CloseCause,
    Identity,
    Limits,
    Session,
    SessionClosed,
    UsageError,
    public,
)
from pongee.testing import CloseFrame, ManualClock, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("leave", ["close", "cut"])
async def test_push_only_handler_is_cancelled_when_the_client_leaves(leave: str) -> None:
    """A handler that never reads is cancelled within a second, and the registry is empty."""
    world, cancelled = World(), asyncio.Event()

    @world.pongee.endpoint("/ws", auth=public)
    async def push(session: Session[str, str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: len(world.pongee.connections()) == 1)
        await client.close() if leave == "close" else client.cut()
        async with asyncio.timeout(1):
            await cancelled.wait()
        await eventually(lambda: world.ended, within=1)
        assert world.pongee.connections() == []
    expected = "client closed" if leave == "close" else "connection lost"
    assert world.causes == [expected]


async def test_cause_tells_the_code_and_reason_of_the_client() -> None:
    """What the client said when it left is data."""
    world = World()
    causes: list[CloseCause] = []

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        assert not session.closed
        assert session.close_cause is None
        waiting = asyncio.ensure_future(_closed(session))
        async for _ in session:
            pass
        causes.append(await waiting)
        assert session.closed

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.close(4321, "had enough")
        await eventually(lambda: causes)
    assert causes == [CloseCause(CauseKind.CLIENT_CLOSED, 4321, "had enough")]
    assert causes[0].by == "client"


async def _closed(session: Session[Any, Any]) -> CloseCause:
    return await session.closed


async def test_messages_that_arrived_before_the_client_left_are_still_delivered() -> None:
    """A client that sends and leaves at once is heard."""
    world, heard = World(), []

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for text in session:
            await asyncio.sleep(0)
            heard.append(text)

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            for number in range(20):
                await client.send(str(number))
        await eventually(lambda: world.ended)
    assert heard == [str(number) for number in range(20)]


async def test_reading_handler_that_does_not_come_back_is_cancelled_after_the_grace() -> None:
    """Grace is for finishing what had arrived, not for staying."""
    world, cancelled = World(), asyncio.Event()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            await client.send("work on this for ever")
            await eventually(lambda: world.opened)
        async with asyncio.timeout(2):
            await cancelled.wait()
        await eventually(lambda: world.ended)


async def test_busy_handler_with_unread_input_outlives_ping_timeouts() -> None:
    """Unread input neither counts as a missed pong nor stops pongs from being seen."""
    world, release = World(), asyncio.Event()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await release.wait()
        async for text in session:
            await session.send(text)

    config: dict[str, Any] = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
    async with world.running(**config) as server, connect(server.ws("/ws")) as client:
        for number in range(10):
            await client.send(str(number))
        pings = 0

        # Ten pings, each answered, while ten messages lie unread: fifty times the interval of
        # a server that counts them against the client.
        original = client.connection.protocol.receive_data

        def counting(data: bytes | bytearray) -> None:
            nonlocal pings
            pings += data.count(b"\x89")
            original(data)

        client.connection.protocol.receive_data = counting  # type: ignore[method-assign]
        await eventually(lambda: pings >= 10, within=10)
        assert world.ended == []
        release.set()
        assert [await client.receive() for _ in range(10)] == [str(n) for n in range(10)]


async def test_full_inbox_pauses_reading_and_loses_nothing() -> None:
    """More messages than the inbox holds wait in the socket and arrive in order."""
    world, release = World(), asyncio.Event()
    sessions: list[Session[str, str]] = []

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(inbox_messages=64))
    async def handler(session: Session[str, str]) -> None:
        sessions.append(session)
        await session.send(await session.receive())
        await release.wait()
        async for text in session:
            await session.send(text)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        for number in range(500):
            await client.send(str(number))
        await eventually(lambda: sessions and sessions[0].statistics().unread_messages >= 63)
        release.set()
        assert [await client.receive() for _ in range(500)] == [str(n) for n in range(500)]
        assert sessions[0].statistics().received_messages == 500


async def test_inbox_that_stays_full_ends_the_session_with_1008() -> None:
    """A paused reader sees neither pongs nor the departure, so a pause is bounded."""
    clock = ManualClock()
    world = World(clock=clock)
    sessions: list[Session[str, str]] = []

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(inbox_messages=4, inbox_patience=15))
    async def handler(session: Session[str, str]) -> None:
        sessions.append(session)
        await session.send(await session.receive())
        await asyncio.Event().wait()

    async with world.running() as server, connect(server.ws("/ws")) as client:
        for number in range(20):
            await client.send(str(number))
        assert await client.receive() == "0"
        await eventually(lambda: sessions[0].statistics().unread_messages >= 3)
        clock.advance(14.9)
        assert world.causes == []
        clock.advance(0.2)
        assert await client.wait_closed() == CloseFrame(1008, "too many unread messages")
        await eventually(lambda: world.causes == ["too many messages or errors"])


async def test_handler_that_never_reads_discards_what_does_not_fit_and_sees_the_departure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A chatty client of a push-only handler is neither cut nor missed when it leaves."""
    world = World()
    sessions: list[Session[str, str]] = []

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(inbox_messages=4))
    async def handler(session: Session[str, str]) -> None:
        sessions.append(session)
        await asyncio.Event().wait()

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            for number in range(20):
                await client.send(str(number))
            await eventually(lambda: sessions and sessions[0].statistics().discarded_messages == 16)
            assert world.causes == []
        await eventually(lambda: world.causes == ["client closed"], within=1)
    assert caplog.text.count("more are discarded") == 1


async def test_late_reader_is_told_that_messages_were_discarded() -> None:
    """A gap is an honest end, never silence."""
    world, release = World(), asyncio.Event()
    sessions: list[Session[str, str]] = []

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(inbox_messages=4))
    async def handler(session: Session[str, str]) -> None:
        sessions.append(session)
        await release.wait()
        async for _ in session:
            pass

    async with world.running() as server, connect(server.ws("/ws")) as client:
        for number in range(20):
            await client.send(str(number))
        await eventually(lambda: sessions and sessions[0].statistics().discarded_messages == 16)
        release.set()
        assert await client.wait_closed() == CloseFrame(1008, "too many unread messages")


async def test_job_dies_with_the_session() -> None:
    """What a session spawned is cancelled when it ends."""
    world, cancelled = World(), asyncio.Event()

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        session.spawn(job())
        await session.send("started")
        async for _ in session:
            pass

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            await client.receive()
        async with asyncio.timeout(1):
            await cancelled.wait()


async def test_job_that_crashes_is_logged_and_ends_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A job's error is never silent: 1011 on the wire, the traceback in the log."""
    world = World()

    async def job() -> None:
        raise ZeroDivisionError("job")

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        session.spawn(job())
        async for _ in session:
            pass

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert (await client.wait_closed()).code == 1011
        await eventually(lambda: world.ended)
    assert "job" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert world.causes == ["handler crashed"]


async def test_concurrent_sends_are_ordered_by_their_calls() -> None:
    """Any number of tasks may send; the order of calls is the order on the wire."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await asyncio.gather(*(session.send(str(number)) for number in range(1000)))
        async for _ in session:
            pass

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert [await client.receive() for _ in range(1000)] == [str(n) for n in range(1000)]


async def test_close_is_idempotent_and_harmless_after_loss() -> None:
    """Closing twice, from two tasks, or after the client left never raises."""
    world, done = World(), asyncio.Event()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for text in session:
            if text == "close":
                await asyncio.gather(session.close(4000, "first"), session.close(4001, "second"))
        await session.close()
        done.set()

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            await client.send("close")
            frame = await client.wait_closed()
            assert (frame.code, frame.reason) == (4000, "first")
        await done.wait()
        done.clear()
        async with connect(server.ws("/ws")) as client:
            await client.send("hello")
            client.cut()
        async with asyncio.timeout(2):
            await done.wait()


async def test_close_sends_what_waits_first() -> None:
    """A close does not overtake messages."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        for number in range(300):
            await session.send(str(number))
        await session.close(4000)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert [await client.receive() for _ in range(300)] == [str(n) for n in range(300)]
        assert (await client.wait_closed()).code == 4000


async def test_sending_after_the_end_raises_session_closed_with_the_cause() -> None:
    """One exception says that the peer is gone, and why."""
    world = World()
    errors: list[SessionClosed] = []

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            pass
        try:
            await session.send("too late")
        except SessionClosed as error:
            errors.append(error)
        with pytest.raises(SessionClosed):
            await session.receive()
        with pytest.raises(SessionClosed):
            await session.subscribe("room")
        with pytest.raises(SessionClosed):
            session.spawn(asyncio.sleep(0))

    async with world.running() as server:
        async with connect(server.ws("/ws")):
            await eventually(lambda: world.opened)
        await eventually(lambda: world.ended)
    assert errors[0].cause.kind is CauseKind.CLIENT_CLOSED
    assert world.causes == ["client closed"]


async def test_close_with_a_code_that_must_not_be_sent_raises_and_closes_nothing() -> None:
    """RFC 6455 section 7.4 says which codes may travel."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        for code in (0, 999, 1005, 1006, 1015, 2999, 5000):
            with pytest.raises(UsageError):
                await session.close(code)
        await session.send("still open")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "still open"
        assert (await client.wait_closed()).code == 1000


async def test_second_concurrent_reader_is_an_error() -> None:
    """Two readers would each get a part of the messages, so the second one is told."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        first = asyncio.ensure_future(session.receive())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="two tasks"):
            await session.receive()
        await session.send(await first)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send("hello")
        assert await client.receive() == "hello"


async def test_cancelled_receive_loses_no_message() -> None:
    """A time limit around `receive` is safe."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        for _ in range(100):
            waiting = asyncio.ensure_future(session.receive())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await session.send("ready")
        async for text in session:
            await session.send(text)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "ready"
        for number in range(50):
            await client.send(str(number))
        assert [await client.receive() for _ in range(50)] == [str(n) for n in range(50)]


async def test_handler_that_ignores_cancellation_does_not_keep_the_session(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registry and hooks do not wait for ever; the log names the handler."""
    monkeypatch.setattr("pongee.sessions.supervisor.STUBBORN_TIMEOUT", 0.1)
    world, release = World(), asyncio.Event()

    @world.pongee.endpoint("/ws", auth=public)
    async def stubborn(session: Session[str, str]) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with world.running() as server:
        async with connect(server.ws("/ws")):
            await eventually(lambda: world.opened)
        await eventually(lambda: world.ended)
        release.set()
    assert "goes on although it was cancelled" in caplog.text
    assert "stubborn" in caplog.text


async def test_hook_that_closes_the_session_keeps_the_handler_from_running() -> None:
    """A ban belongs into ``on_connect``."""
    world, ran = World(), []

    @world.pongee.on_connect
    async def ban(session: Session[str, str]) -> None:
        await world.pongee.disconnect(id=session.id, code=4000, reason="banned")

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        ran.append(session.id)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.wait_closed() == CloseFrame(4000, "banned")
        await eventually(lambda: world.ended)
    assert ran == []


async def test_hook_that_hangs_is_cut_short_and_the_others_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One hook cannot keep a place, or the process, for ever."""
    clock = ManualClock()
    world, hanging = World(clock=clock), asyncio.Event()
    hooks = world.pongee._node.runtime.on_disconnect

    async def hang(session: Session[str, str]) -> None:
        hanging.set()
        await asyncio.Event().wait()

    hooks.insert(0, hang)

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None: ...

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.wait_closed()
        await hanging.wait()
        assert world.ended == []
        clock.advance(10.1)
        await eventually(lambda: world.ended)
    assert "on_disconnect hook raised" in caplog.text


async def test_hook_that_awaits_a_cancelled_job_does_not_stop_the_others() -> None:
    """Its CancelledError is its own."""
    world = World()

    async def nosy(session: Session[str, str]) -> None:
        await session.state.job

    world.pongee._node.runtime.on_disconnect.insert(0, nosy)

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        session.state.job = session.spawn(asyncio.sleep(3600))
        await asyncio.sleep(0)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.wait_closed()
        await eventually(lambda: world.ended)


async def test_task_group_whose_tasks_see_the_end_is_no_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reader and a pusher in one task group: a client that leaves is no error."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async def push() -> None:
            while True:
                await session.send("tick")
                await asyncio.sleep(0)

        async def read() -> None:
            while True:
                await session.receive()

        async with asyncio.TaskGroup() as group:
            group.create_task(push())
            group.create_task(read())

    async with world.running() as server:
        async with connect(server.ws("/ws")) as client:
            await client.receive()
        await eventually(lambda: world.ended)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("expires_at", [float("inf"), 1e308])
async def test_expiry_beyond_all_time_is_never(expires_at: float) -> None:
    """Whatever number a token holds, nothing breaks."""
    world = World()

    @world.pongee.endpoint("/ws", auth=lambda: Identity(user="ada", expires_at=expires_at))
    async def handler(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send("hello")
        assert await client.receive() == "hello"


async def test_expiry_that_is_no_number_has_passed() -> None:
    """Doubt is no permission."""
    world = World()

    @world.pongee.endpoint("/ws", auth=lambda: Identity(user="ada", expires_at=float("nan")))
    async def handler(session: Session[str, str]) -> None:
        await asyncio.Event().wait()

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert (await client.wait_closed()).code == 4401
