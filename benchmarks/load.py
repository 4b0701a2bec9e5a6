"""The load generator: echoes, idle connections, and connections that come and go."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.host import ServerProcess
from benchmarks.traffic import TEXT

__all__ = ["Sample", "come_and_go", "echo", "stay_idle"]

SETTLE = 0.1
"""Seconds that a server gets to finish its work before its CPU time is read."""
PATIENCE = 60.0
"""Seconds after which a measurement fails."""
AT_ONCE = 20
"""Handshakes under way at once."""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        value: µs of server CPU per message or connection, or KiB per connection.
        server: share of one core the server used meanwhile.
        client: share of one core the load generator used meanwhile.
    """

    value: float
    server: float
    client: float


class _Gauge:
    """Measures CPU time from its making to `read`."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._wall = time.monotonic()
        self._own = time.process_time()
        self._cpu = server.cpu()

    async def read(self, count: int) -> Sample:
        wall, own = time.monotonic() - self._wall, time.process_time() - self._own
        await asyncio.sleep(SETTLE)
        cpu = self._server.cpu() - self._cpu
        return Sample(1e6 * cpu / count, cpu / wall, own / wall)


class _Client(WSListener):
    """Checks each echo and sends the next message while its `Run` has one left."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self._run.on_echo(transport, frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._run.on_gone()


class _Run:
    """Messages shared out among connections."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._unsent = 0
        self._awaited = 0
        self._done: asyncio.Future[None] | None = None

    async def exchange(self, transports: list[WSTransport], count: int, in_flight: int = 1) -> None:
        """Send `count` messages and wait for their echoes."""
        self._done = asyncio.get_running_loop().create_future()
        self._awaited = self._unsent = count
        for _ in range(in_flight):
            for transport in transports:
                self._send(transport)
        await asyncio.wait_for(self._done, PATIENCE)
        self._done = None

    def _send(self, transport: WSTransport) -> None:
        if self._unsent:
            self._unsent -= 1
            transport.send(WSMsgType.TEXT, self._payload)

    def on_echo(self, transport: WSTransport, payload: bytes) -> None:
        if payload != self._payload:
            self._fail(f"not an echo: {payload!r}")
            return
        self._awaited -= 1
        if self._unsent:
            self._send(transport)
        elif not self._awaited and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def on_gone(self) -> None:
        self._fail("the server closed a connection")

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(RuntimeError(why))


async def echo(
    server: ServerProcess,
    path: str,
    payload: bytes,
    *,
    connections: int,
    in_flight: int,
    messages: int,
) -> Sample:
    """Measure the server's CPU time per echoed message."""
    run = _Run(payload)
    transports = await _connect_all(server, path, run, connections)
    await run.exchange(transports, 20 * connections, in_flight)  # warm
    gauge = _Gauge(server)
    await run.exchange(transports, messages, in_flight)
    sample = await gauge.read(messages)
    await _close_all(transports)
    await asyncio.sleep(SETTLE)
    return sample


async def stay_idle(server: ServerProcess, path: str, *, connections: int) -> Sample:
    """Measure the server's memory per connection that exchanged one message and went silent."""
    run = _Run(TEXT)
    for _ in range(20):  # import and compile what the first connections need
        transports = await _connect_all(server, path, run, 1)
        await run.exchange(transports, 1)
        await _close_all(transports)
    await asyncio.sleep(SETTLE)
    before = server.memory()
    transports = await _connect_all(server, path, run, connections)
    for transport in transports:
        await run.exchange([transport], 1)
    await asyncio.sleep(10 * SETTLE)
    grown = server.memory() - before
    await _close_all(transports)
    return Sample(grown / 1024 / connections, 0.0, 0.0)


async def come_and_go(server: ServerProcess, path: str, *, connections: int) -> Sample:
    """Measure the server's CPU time per connection that opens and closes."""
    run = _Run(TEXT)
    await _come_and_go(server, path, run, AT_ONCE)
    gauge = _Gauge(server)
    await _come_and_go(server, path, run, connections)
    return await gauge.read(connections)


async def _come_and_go(server: ServerProcess, path: str, run: _Run, connections: int) -> None:
    left = connections

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _close_all([await _connect(server, path, run)])

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def _connect_all(
    server: ServerProcess, path: str, run: _Run, connections: int
) -> list[WSTransport]:
    transports: list[WSTransport] = []
    while len(transports) < connections:
        batch = min(AT_ONCE, connections - len(transports))
        transports += await asyncio.gather(*(_connect(server, path, run) for _ in range(batch)))
    return transports


async def _connect(server: ServerProcess, path: str, run: _Run) -> WSTransport:
    address = f"127.0.0.1:{server.port}"
    transport, _ = await ws_connect(
        lambda: _Client(run),
        f"ws://{address}{path}",
        extra_headers={"Origin": f"http://{address}"},
        websocket_handshake_timeout=20,
    )
    return transport


async def _close_all(transports: list[WSTransport]) -> None:
    for transport in transports:
        transport.send_close(WSCloseCode.OK)
    async with asyncio.timeout(PATIENCE):
        for transport in transports:
            await transport.wait_disconnected()
