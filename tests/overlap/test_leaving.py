"""A process that leaves: everybody is told in turn, and nobody holds it up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed

from pongee import ConfigurationError, Pongee, Session, public
from pongee.limits import AFTER_DRAIN, LEFT_BEHIND, REQUEST_GRACE
from pongee.testing import (
    Client,
    HandshakeRefused,
    ManualClock,
    RawPeer,
    connect,
    eventually,
    serve,
)
from tests.cli.process import SHOP, Served

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TEXT = 1
SLACK = 8.0
"""Seconds that a machine with other work may add to a deadline."""

DEADLINE = AFTER_DRAIN + 2 + SLACK
"""Seconds until the process is gone after its drain window: what is left is cut after
`AFTER_DRAIN`, gets a second to end, and uvicorn another."""


async def _sdk_client(client: Client) -> None:
    await client.send(json.dumps({"id": 1, "connect": {}}))
    assert "connect" in (await client.receive_json())


@contextlib.asynccontextmanager
async def _many(served: Served, number: int, path: str) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect(served.ws(path), timeout=60))
            for _ in range(number)
        ]


@contextlib.asynccontextmanager
async def _stalled(served: Served, number: int) -> AsyncIterator[None]:
    """Connect clients that say much, and read none of the answers."""
    async with contextlib.AsyncExitStack() as stack:

        async def stall() -> None:
            peer = await stack.enter_async_context(RawPeer(served.port, "/ws/echo"))
            await peer.handshake()
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.5):
                        await peer.send_frame(TEXT, b"x" * 60_000)

        await asyncio.gather(*(stall() for _ in range(number)))
        yield


async def _closed(client: Client) -> tuple[int, float]:
    frame = await client.wait_closed()
    return frame.code, time.monotonic()


async def _not_ready(served: Served) -> httpx.Response:
    """Ask until the process says that it leaves."""
    while True:
        answer = await served.get("/readyz")
        if answer.status_code != 200:
            return answer


async def test_everybody_is_told_in_turn() -> None:
    """200 that listen, sessions and client SDKs, and 10 that do not; over 3 seconds."""
    window = 3.0
    async with (
        Served(SHOP, env={"PONGEE_DRAIN_WINDOW": str(window)}) as served,
        _many(served, 100, "/ws/echo") as sessions,
        _many(served, 100, "/connection/websocket") as clients,
        _stalled(served, 10),
    ):
        for client in clients:
            await _sdk_client(client)
        told = [asyncio.create_task(_closed(client)) for client in (*sessions, *clients)]
        begun = time.monotonic()
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        taken = time.monotonic() - begun
        ends = [await one for one in told]
    assert {code for code, _ in ends[:100]} == {1012}
    assert {code for code, _ in ends[100:]} == {3001}
    assert taken < window + DEADLINE
    times = sorted(when for _, when in ends)
    assert times[-1] - times[0] > window / 2
    # However late a busy machine is: nobody's whole crowd comes back in the same moment.
    fullest = max(sum(at <= when < at + 0.1 * window for when in times) for at in times)
    assert fullest < len(times) / 2
    assert "Traceback" not in served.output()
    assert "ERROR" not in served.output()


async def test_who_holds_on_is_cut() -> None:
    """Half a head, a handshake nobody decides, a handler that goes on, a client that stalls."""
    async with (
        Served(SHOP, env={"PONGEE_DRAIN_WINDOW": "0.5"}) as served,
        RawPeer(served.port, "/ws/echo") as half,
        RawPeer(served.port, "/ws/undecided") as undecided,
        connect(served.ws("/ws/stubborn")),
        connect(served.ws("/connection/websocket")) as silent,
        connect(served.ws("/ws/echo")) as polite,
        _stalled(served, 2),
    ):
        await half.send(b"GET /ws/echo HTTP/1.1\r\nHost: x\r\n")
        await undecided.send(
            b"GET /ws/undecided HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await polite.send("x")
        await polite.receive()
        begun = time.monotonic()
        served.signal(signal.SIGTERM)
        assert (await silent.wait_closed()).code == 3001
        assert (await polite.wait_closed()).code == 1012
        assert await served.ended() == 0
        taken = time.monotonic() - begun
    # The stubborn one is waited for by the drain, by the lifespan, and at the very end.
    assert taken < 0.5 + DEADLINE + 2 + LEFT_BEHIND
    assert "Traceback" not in served.output()


async def test_what_was_sent_arrives_before_the_close() -> None:
    """Although the client begins to read only once the process leaves."""
    async with (
        Served(SHOP, env={"PONGEE_DRAIN_WINDOW": "0"}) as served,
        connect(served.ws("/ws/lines"), timeout=30, max_queue=1) as client,
    ):
        await client.send("700")
        assert str(await client.receive()).startswith("0 ")
        served.signal(signal.SIGTERM)
        await served.printed("Shutting down")
        got = [str(await client.receive()) for _ in range(699)]
        assert [int(line.partition(" ")[0]) for line in got] == list(range(1, 700))
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.connection.close_code == 1012
        assert await served.ended() == 0


async def test_request_under_way_is_answered() -> None:
    """Although the sessions have ended before."""
    async with Served(SHOP, env={"PONGEE_DRAIN_WINDOW": "0"}) as served:
        asking = asyncio.create_task(served.get(f"/slow?seconds={REQUEST_GRACE / 2}", 30))
        await served.printed("slow begins")
        served.signal(signal.SIGTERM)
        assert (await asking).json() == "done"
        assert await served.ended() == 0
    assert "Traceback" not in served.output()
    assert "ERROR" not in served.output()


@pytest.mark.parametrize("path", ["/slow?seconds=3600", "/blocked"])
async def test_request_that_never_ends_is_cut(path: str) -> None:
    """One that waits is cancelled; one that holds a thread is left behind."""
    async with Served(SHOP, env={"PONGEE_DRAIN_WINDOW": "0"}) as served:
        asking = asyncio.create_task(served.get(path, 60))
        await served.printed(f"{path[1:5]}")
        begun = time.monotonic()
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert time.monotonic() - begun < REQUEST_GRACE + LEFT_BEHIND + DEADLINE
        with contextlib.suppress(httpx.TransportError):
            assert (await asking).status_code == 500
    assert "Traceback" not in served.output()


async def test_hooks_run_in_turn_before_anybody_is_told() -> None:
    """The first one sees a process that leaves, the last one everybody still there."""
    async with Served(SHOP) as served, connect(served.ws("/ws/echo")) as client:
        await client.send("x")
        await client.receive()
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert (await client.wait_closed()).code == 1012
    lines = [line for line in served.output().splitlines() if "hook" in line]
    assert lines == ["first hook, draining: True", "second hook, connections: 1"]


async def test_hook_that_fails_is_logged_and_holds_nobody() -> None:
    """The next one runs, everybody is told."""
    async with (
        Served(SHOP, env={"PONGEE_TEST_FAULTS": "hook"}) as served,
        connect(served.ws("/ws/echo")) as client,
    ):
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert (await client.wait_closed()).code == 1012
    assert "on_drain hook" in served.output()
    assert "RuntimeError: the hook fails" in served.output()
    assert "second hook" in served.output()


async def test_load_balancer_sees_it_before_the_port_closes() -> None:
    """Not ready, alive, no handshakes; who is in stays in until the delay is over."""
    delay = 3.0
    options = {"PONGEE_DRAIN_DELAY": str(delay), "PONGEE_DRAIN_WINDOW": "0"}
    async with Served(SHOP, env=options) as served, connect(served.ws("/ws/echo")) as client:
        assert (await served.get("/readyz")).status_code == 200
        begun = time.monotonic()
        served.signal(signal.SIGTERM)
        answer = await _not_ready(served)
        assert answer.json() == {"status": "draining", "reasons": ["draining"]}
        assert (await served.get("/healthz")).status_code == 200
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(served.ws("/ws/echo")):
                pass
        assert refused.value.status == 503
        await client.send("still served")
        assert await client.receive() == "still served"
        assert "hook" not in served.output()
        assert (await client.wait_closed()).code == 1012
        assert time.monotonic() - begun >= delay
        assert await served.ended() == 0


@pytest.mark.parametrize("setting", ["PONGEE_DRAIN_DELAY", "PONGEE_DRAIN_WINDOW"])
async def test_second_signal_cuts_it_short(setting: str) -> None:
    """SIGTERM as well as SIGINT; everybody is told all the same, at once."""
    async with (
        Served(SHOP, env={setting: "600"}) as served,
        _many(served, 5, "/ws/echo") as clients,
    ):
        for client in clients:
            await client.send("x")
            await client.receive()
        served.signal(signal.SIGTERM)
        if setting == "PONGEE_DRAIN_DELAY":
            await _not_ready(served)
        else:
            await served.printed("second hook")
        served.signal(signal.SIGTERM)
        assert {(await client.wait_closed()).code for client in clients} == {1012}
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_second_signal_while_requests_are_awaited_ends_the_application_too() -> None:
    """The request is cut; what the lifespan holds is let go in order."""
    async with Served(SHOP) as served:
        asking = asyncio.create_task(served.get("/slow?seconds=600"))
        await served.printed("slow begins")
        served.signal(signal.SIGTERM)
        await served.printed("Waiting for connections to close")
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        with contextlib.suppress(httpx.TransportError):
            assert (await asking).status_code == 500
    told = served.output()
    assert "Traceback" not in told
    # What a request uses is not taken away before it has ended.
    assert told.index("Cancel 1 running task") < told.index("Waiting for application shutdown")
    assert "Application shutdown complete" in told


async def test_many_signals_at_once_do_not_skip_the_end_of_the_application() -> None:
    """Whoever hammers on Ctrl-C means it, and means all of it."""
    async with Served(SHOP, env={"PONGEE_DRAIN_DELAY": "600"}) as served:
        served.signal(signal.SIGINT)
        await _not_ready(served)
        for _ in range(4):
            served.signal(signal.SIGINT)
        assert await served.ended() == 0
    assert served.output().count("Application shutdown complete") == 1
    assert "Traceback" not in served.output()


# In this process


def _small() -> tuple[FastAPI, Pongee]:
    app, pongee = FastAPI(), Pongee()

    @pongee.endpoint("/ws", auth=public)
    async def wait(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    return app, pongee


async def test_hook_that_never_ends_is_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Although it ignores its cancellation; nobody is kept waiting for it."""
    monkeypatch.setattr("pongee.node.DRAIN_HOOKS_TIMEOUT", 0.05)
    app, pongee = _small()
    over = asyncio.Event()

    @pongee.on_drain
    async def stubborn() -> None:
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    pongee.install(app)
    async with serve(app) as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: pongee.connections())
        await pongee.drain(0)
        assert (await client.wait_closed()).code == 1012
        over.set()
    assert "on_drain hooks were cut" in caplog.text


async def test_hooks_run_once_however_often_it_is_drained() -> None:
    """A process leaves once."""
    app, pongee = _small()
    calls: list[str] = []

    @pongee.on_drain
    async def note() -> None:
        calls.append("note")

    pongee.install(app)
    async with serve(app):
        await asyncio.gather(pongee.drain(0), pongee.drain(0))
        await pongee.drain(0)
    assert calls == ["note"]


def test_hook_that_is_no_coroutine_function_is_refused() -> None:
    """At the declaration."""
    hook: Any = print
    with pytest.raises(ConfigurationError, match="takes nothing"):
        _small()[1].on_drain(hook)


async def test_delay_is_one_of_the_application_clock() -> None:
    """Sessions go on for as long; it is refused to others at once."""
    clock = ManualClock()
    app, pongee = FastAPI(), Pongee(clock=clock)

    @pongee.endpoint("/ws", auth=public)
    async def echo(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    pongee.install(app)
    async with serve(app) as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: pongee.connections())
        draining = asyncio.create_task(pongee.drain(0, delay=100))
        await eventually(lambda: pongee.draining)
        with pytest.raises(HandshakeRefused):
            async with connect(server.ws("/ws")):
                pass
        clock.advance(99)
        await client.send("x")
        assert await client.receive() == "x"
        closing = asyncio.create_task(client.wait_closed())
        while not closing.done():
            clock.advance(1)
            await asyncio.wait([closing], timeout=0.01)
        assert (await closing).code == 1012
        await draining
