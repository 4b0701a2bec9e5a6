"""A WebSocket of a client, as light as can be: two thousand of them fit into one process."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

__all__ = ["Line"]

_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cG9uZ2VlLWZhdWx0cy0xNg==\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
GONE = 1006


class Line(asyncio.Protocol):
    """One connection, from the handshake to its end.

    Args:
        text: is called with each text message; they come whole from our server.
        ended: is called once with the close code, 1006 where there was none, and the HTTP status
            where the handshake was refused.
    """

    def __init__(self, text: Callable[[bytes], None], ended: Callable[[int, int], None]) -> None:
        self._text = text
        self._ended = ended
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._code = GONE
        self.status = 0
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        port: int,
        text: Callable[[bytes], None],
        ended: Callable[[int, int], None],
        path: str = "/connection/websocket",
        timeout: float = 5.0,
    ) -> Line:
        """Connect and shake hands.

        Raises:
            OSError: nobody is there.
            TimeoutError: nobody answered.
            ConnectionError: the handshake was refused; `ended` was called.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            _, line = await loop.create_connection(lambda: cls(text, ended), "127.0.0.1", port)
            try:
                line.write(_UPGRADE.format(path=path, port=port).encode())
                if not await line.opened:
                    raise ConnectionError(f"the handshake was answered {line.status}")
            except BaseException:
                line.abort()
                raise
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.opened.done():
            self.opened.set_result(False)
        self._ended(self._code, self.status)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.status and not self._read_head():
            return
        while (frame := self._take_frame()) is not None:
            self._on_frame(*frame)

    def _read_head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        self.status = int(head.split(b" ", 2)[1])
        self._buffer = bytearray(rest)
        if self.status != 101:
            self.abort()
        elif not self.opened.done():
            self.opened.set_result(True)
        return self.status == 101

    def _take_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size == 126:
            start = 4
            size = int.from_bytes(buffer[2:4]) if len(buffer) >= 4 else 1 << 62
        elif size == 127:
            start = 10
            size = int.from_bytes(buffer[2:10]) if len(buffer) >= 10 else 1 << 62
        if len(buffer) < start + size:
            return None
        frame = buffer[0] & 0x0F, bytes(buffer[start : start + size])
        del buffer[: start + size]
        return frame

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._text(payload)
        elif opcode == _PING:
            self.write(_frame(_PONG, payload))
        elif opcode == _CLOSE:
            self._code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            self.write(_frame(_CLOSE, payload[:2]))
            if self._transport is not None:
                self._transport.close()

    def send(self, text: bytes) -> None:
        """Send one message; harmless after the end."""
        self.write(_frame(_TEXT, text))

    def write(self, data: bytes) -> None:
        """Write bytes as they are; harmless after the end."""
        if self._transport is not None:
            self._transport.write(data)

    def stall(self) -> None:
        """Read nothing more, without a word."""
        if self._transport is not None:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Vanish; `ended` is called soon."""
        if self._transport is not None:
            self._transport.abort()


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + payload  # a mask of zeros changes nothing
