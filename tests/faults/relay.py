"""A TCP relay with every fault a line can have, and a balancer made of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Self

from tests.faults.http import get_status

__all__ = ["Balancer", "FaultyRelay"]

_STEP = 0.05  # seconds between two writes of a slow line
_HELD = 64 * 1024  # bytes that a slow line takes before it stops reading


class _End(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self, relay: FaultyRelay) -> None:
        self.relay = relay
        self.transport: asyncio.Transport | None = None
        self.far: _End | None = None
        self._held = bytearray()
        self._pump: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.relay.ends.add(self)
        if self.far is None:
            transport.pause_reading()  # until the far end is there
            self.relay.greet(self)
        elif self.relay.frozen:
            transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.ends.discard(self)
        self.transport = None
        if self._pump is not None:
            self._pump.cancel()
        far, self.far = self.far, None
        if far is not None and far.transport is not None:
            if self.relay.frozen:
                return  # a peer that vanished says no goodbye either
            far.transport.abort() if error else far.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.relay.rate is None and not self.relay.delay and not self._held:
            self._pass_on(data)
            return
        self._held += data
        if len(self._held) > _HELD and self.transport is not None:
            self.transport.pause_reading()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._trickle())

    async def _trickle(self) -> None:
        await asyncio.sleep(self.relay.delay)
        while self._held:
            rate = self.relay.rate
            size = len(self._held) if rate is None else max(1, int(rate * _STEP))
            self._pass_on(bytes(self._held[:size]))
            del self._held[:size]
            if len(self._held) <= _HELD and not self.relay.frozen:
                self.go_on()
            await asyncio.sleep(_STEP)

    def _pass_on(self, data: bytes) -> None:
        if self.far is not None and self.far.transport is not None:
            self.far.transport.write(data)

    def pause_writing(self) -> None:
        if self.far is not None and self.far.transport is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.far is not None and not self.relay.frozen:
            self.far.go_on()

    def go_on(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def stop(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()


class FaultyRelay:
    """Forwards a port of 127.0.0.1. An asynchronous context manager.

    Args:
        choose: says to which port the next connection goes; `None` refuses it.
        buffer: bytes that the sockets ask the kernel to hold; `None` is its own choice, megabytes.

    Attributes:
        rate: bytes a second, of each connection and direction; `None` is no bound.
        delay: seconds that bytes wait on an idle line.
        refusing: new connections are closed at once.
        accepted: when each connection came, and to which port it went; 0 was refused.
    """

    def __init__(self, choose: Callable[[], int | None], buffer: int | None = None) -> None:
        self._choose = choose
        self._buffer = buffer
        self._server: asyncio.Server | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        self.port = 0
        self.ends: set[_End] = set()
        self.frozen = self.refusing = False
        self.rate: float | None = None
        self.delay = 0.0
        self.accepted: list[tuple[float, int]] = []

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        loop = asyncio.get_running_loop()
        listener = self._socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self._server = await loop.create_server(lambda: _End(self), sock=listener, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Vanish: reset everything, and refuse to be connected to."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in tuple(self._greetings):
            task.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def freeze(self) -> None:
        """Forward nothing more, both ways, without closing."""
        self.frozen = True
        for end in self.ends:
            end.stop()

    def thaw(self) -> None:
        """Go on, with what was held back; whose peer has gone meanwhile is reset."""
        self.frozen = False
        for end in tuple(self.ends):
            if end.far is None and end.transport is not None:
                end.transport.abort()
            end.go_on()

    def cut(self) -> None:
        """Reset every connection."""
        for end in tuple(self.ends):
            if end.transport is not None:
                end.transport.abort()

    def _socket(self) -> socket.socket:
        # asyncio sets TCP_NODELAY only where the protocol is named.
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setblocking(False)
        if self._buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        return made

    def greet(self, near: _End) -> None:
        """Connect the far end of a connection that has just come."""
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._greetings.add(task)
        task.add_done_callback(self._greetings.discard)

    async def _connect(self, near: _End) -> None:
        target = None if self.refusing else self._choose()
        self.accepted.append((time.monotonic(), target or 0))
        far = _End(self)
        far.far = near
        try:
            if target is None:
                raise ConnectionRefusedError
            loop = asyncio.get_running_loop()
            way = self._socket()
            try:
                await loop.sock_connect(way, ("127.0.0.1", target))
                await loop.create_connection(lambda: far, sock=way)
            except BaseException:
                way.close()
                raise
        except OSError:
            if near.transport is not None:
                near.transport.abort()
            return
        near.far = far
        if near.transport is None:
            assert far.transport is not None
            far.transport.abort()
        elif not self.frozen:
            near.go_on()


class Balancer(FaultyRelay):
    """Spreads connections over the workers that say that they are ready, in turn.

    Args:
        ports: of the workers; may change meanwhile.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(self._next)
        self._ports = ports
        self._ready: list[int] = []
        self._turn = 0
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look who is ready, then listen."""
        await self._look()
        self._looking = asyncio.get_running_loop().create_task(self._watch())
        await super().start()

    async def stop(self) -> None:
        """Vanish."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await super().stop()

    def _next(self) -> int | None:
        for _ in self._ready:
            self._turn += 1
            port = self._ready[self._turn % len(self._ready)]
            if _listens(port):
                return port
        return None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self._look()

    async def _look(self) -> None:
        ports = list(self._ports)
        answers = await asyncio.gather(*(get_status(port, "/readyz") for port in ports))
        self._ready = [port for port, status in zip(ports, answers, strict=True) if status == 200]


def _listens(port: int) -> bool:
    """Tell whether somebody would accept; costs nothing on the loopback device."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
