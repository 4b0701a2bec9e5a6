"""What the tests of the protocol share: servers, applications, and frames read from bytes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from pongee.testing import RawPeer, Server, eventually, serve
from pongee.wire import WireProtocol

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def wire(app: Any, **config: Any) -> AbstractAsyncContextManager[Server]:
    """Serve `app` on the protocol under test."""
    return serve(app, **({"ws": "pongee.wire:WireProtocol", "lifespan": "off"} | config))


def connections(server: Server) -> set[Any]:
    """Connections that uvicorn knows of."""
    return server.uvicorn.server_state.connections


async def all_gone(server: Server, within: float = 5.0) -> None:
    """Wait until the server knows of no connection and no task."""
    state = server.uvicorn.server_state
    await eventually(
        lambda: not state.connections and not state.tasks, within=within, what="all is cleaned up"
    )


async def echo(scope: Event, receive: Receive, send: Send) -> None:
    """Send back what comes."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(event | {"type": "websocket.send"})


class Accepting:
    """An application that accepts, runs a script, and keeps what it received after."""

    def __init__(
        self,
        script: Callable[[Receive, Send], Awaitable[None]] | None = None,
        *,
        listen: bool = True,
    ) -> None:
        self.script = script
        self.listen = listen
        self.events: list[Event] = []
        self.raised: list[BaseException] = []

    @property
    def end(self) -> Event | None:
        """The disconnect, once it was told."""
        last = self.events[-1] if self.events else None
        return last if last is not None and last["type"] == "websocket.disconnect" else None

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            if self.script is not None:
                await self.script(receive, send)
        except BaseException as error:
            self.raised.append(error)
            raise
        while self.listen and self.end is None:
            self.events.append(await receive())


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Read unmasked, whole frames."""
    found: list[tuple[int, bytes]] = []
    while data:
        assert data[0] & 0x80, "a server of ours sends whole messages"
        size, start = data[1], 2
        assert size < 128, "a server must not mask"
        if size == 126:
            size, start = struct.unpack_from("!H", data, 2)[0], 4
        elif size == 127:
            size, start = struct.unpack_from("!Q", data, 2)[0], 10
        assert len(data) >= start + size, "the last frame is cut"
        found.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return found


async def exactly(peer: RawPeer, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        more = await peer.read(size - len(data))
        assert more, f"the stream ended after {data!r}"
        data += more
    return data


async def rest(peer: RawPeer, timeout: float = 5.0) -> list[tuple[int, bytes]]:
    """Read frames to the end of the stream."""
    return frames(await peer.read_to_end(timeout))


def masked_frame(opcode: int, payload: bytes = b"") -> bytes:
    """Write a short, final frame; a mask of zeros changes nothing."""
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


REQUEST = (
    b"GET /room HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class FakeTransport(asyncio.Transport):
    """Keeps what is written; its state is set by hand."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closing = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing, "written after close"
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data, self.written = self.written, b""
        return data


class Wired:
    """A protocol on a transport of ours, with `app` behind it. A context manager."""

    def __init__(self, app: Any, **config: Any) -> None:
        self.state = ServerState()
        self.transport = FakeTransport()
        defaults: dict[str, Any] = {"lifespan": "off", "log_config": None}
        self.protocol = WireProtocol(Config(app, **(defaults | config)), self.state, {})

    def __enter__(self) -> Wired:
        self.protocol.connection_made(self.transport)
        return self

    def __exit__(self, *_: object) -> None:
        self.protocol.connection_lost(None)

    async def opened(self) -> Wired:
        """Shake hands; forget what was written."""
        self.protocol.data_received(REQUEST)
        await eventually(lambda: self.transport.written.startswith(b"HTTP/1.1 101"), what="101")
        self.transport.take()
        return self
