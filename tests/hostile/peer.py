"""A peer that may do anything: bytes out as they are, and what came back put into words.

`Peer` never answers a ping or a close frame by itself, and reads only when told to. What the server
did is read as a short text, so that an attack's right outcomes can be listed in its row:

* ``http 431``: refused with that status, and the connection ended;
* ``close 1002``: a close frame with that code was the last frame, and the connection ended;
* ``closed``: the connection ended without a byte of an answer;
* ``cut``: it ended after the handshake without a close frame;
* ``open``: it was still open when the time was over.

Data frames that came before the end are counted in front: ``2 messages, close 1000``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Head", "Peer", "close", "frame", "request"]

KEY = "AAECAwQFBgcICQoLDA0ODw=="
CLOSE = 8


def request(
    path: str = "/",
    *more: str,
    method: str = "GET",
    version: str = "1.1",
    leave_out: tuple[str, ...] = (),
) -> bytes:
    """Write an upgrade request.

    Args:
        path: request target.
        more: header lines after the usual ones.
        method: of the request line.
        version: of HTTP.
        leave_out: names of usual headers that are not sent.
    """
    usual = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    lines = [f"{name}: {value}" for name, value in usual.items() if name not in leave_out]
    first = f"{method} {path} HTTP/{version}"
    return "\r\n".join([first, *lines, *more, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    form: int | None = None,
    announced: int | None = None,
) -> bytes:
    """Write a frame, right or wrong.

    Args:
        opcode: 0 to 15.
        payload: sent as it is, since the mask is of zeros.
        final: the FIN bit.
        reserved: RSV1 is 4, RSV2 is 2, RSV3 is 1.
        masked: whether there is a mask.
        form: 7, 16 or 64 bits of length; by default the shortest that holds it.
        announced: the length that the header tells; by default the true one.
    """
    size = len(payload) if announced is None else announced
    if form is None:
        form = 7 if size < 126 else 16 if size < 1 << 16 else 64
    first = (0x80 if final else 0) | reserved << 4 | opcode
    mask_bit, mask = (0x80, bytes(4)) if masked else (0, b"")
    if form == 7:
        head = struct.pack("!BB", first, mask_bit | size)
    elif form == 16:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    return head + mask + payload


def close(code: int, reason: bytes = b"") -> bytes:
    """Write a close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


@dataclass
class Head:
    """The head of an HTTP answer; names of headers in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class Peer:
    """One TCP connection to the server under test. An asynchronous context manager.

    Args:
        port: on 127.0.0.1.
        source: the address it comes from; all of 127.0.0.0/8 is ours.
        receive_buffer: bytes of the socket's receive buffer; a small one makes a stalled reader
            felt soon.

    Attributes:
        heads: HTTP answers, in order.
        frames: frames after the handshake: first byte and payload.
        ended: the server has ended or reset the connection.
    """

    def __init__(
        self, port: int, *, source: str = "127.0.0.1", receive_buffer: int | None = None
    ) -> None:
        self.heads: list[Head] = []
        self.frames: list[tuple[int, bytes]] = []
        self.ended = False
        self._port = port
        self._buffer = b""
        self._receiving: asyncio.Task[bytes] | None = None
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source != "127.0.0.1":
            self._socket.bind((source, 0))

    async def __aenter__(self) -> Peer:
        try:
            async with asyncio.timeout(10):
                await asyncio.get_running_loop().sock_connect(
                    self._socket, ("127.0.0.1", self._port)
                )
        except BaseException:
            self._socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait([self._receiving])
        self._socket.close()

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    async def send(self, data: bytes, within: float = 10.0) -> bool:
        """Send `data`; returns whether all of it was taken.

        It was not if the server ended the connection, or read nothing more for `within` seconds.
        """
        try:
            async with asyncio.timeout(within):
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except (TimeoutError, ConnectionError):
            return False
        return True

    async def upgrade(self, path: str, *more: str, status: int = 101) -> Head:
        """Make the handshake, which is to be answered with `status`."""
        await self.send(request(path, *more))
        await self.read(lambda: bool(self.heads))
        assert [head.status for head in self.heads] == [status], (self.heads, self._buffer)
        return self.heads[0]

    async def read(self, until: Callable[[], bool] = lambda: False, within: float = 5.0) -> bool:
        """Read until `until` is true or the server ends; returns whether either came in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not self.ended and not until():
            if self._receiving is None:
                self._receiving = loop.create_task(loop.sock_recv(self._socket, 1 << 18))
            # Never cancelled: what came in the moment of the deadline would be lost.
            await asyncio.wait([self._receiving], timeout=max(0.0, deadline - loop.time()))
            if not self._receiving.done():
                return False
            received, self._receiving = self._receiving, None
            try:
                data = received.result()
            except ConnectionError:
                data = b""
            self.ended = not data
            self._take(data)
        return True

    async def exchange(
        self, data: bytes, until: Callable[[], bool] = lambda: False, within: float = 10.0
    ) -> bool:
        """Send and read at once, as `read` does."""
        sending = asyncio.create_task(self.send(data, within))
        try:
            return await self.read(until, within)
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def messages(self, count: int, within: float = 10.0) -> list[bytes]:
        """Read until `count` messages have come; returns those that did."""
        await self.read(lambda: len(self.texts()) >= count, within)
        return self.texts()

    def texts(self) -> list[bytes]:
        """Payloads of the data frames so far."""
        return [payload for first, payload in self.frames if first & 0x0F in (1, 2)]

    async def outcome(self, within: float = 5.0, *, answer: bool = False) -> str:
        """Read up to the end; returns what the server did, in words.

        Args:
            within: seconds.
            answer: whether a close frame is answered, as whoever is told goodbye should.
        """
        if answer and await self.read(self.is_closed, within) and self.is_closed():
            await self.send(frame(CLOSE, self.frames[-1][1]))
        await self.read(within=within)
        return self.told()

    def is_closed(self) -> bool:
        """Whether the last frame was a close frame."""
        return bool(self.frames) and self.frames[-1][0] & 0x0F == CLOSE

    def told(self) -> str:
        """Put what has come so far into words."""
        if not self.heads:
            return "closed" if self.ended else "open"
        if len(self.heads) > 1:
            return f"{len(self.heads)} answers"
        if self.heads[0].status != 101:
            said = f"http {self.heads[0].status}"
            return said if self.ended else f"{said}, open"
        told = [f"{len(self.texts())} messages"] if self.texts() else []
        told.append(self._end())
        return ", ".join(told)

    def _end(self) -> str:
        closes = [n for n, (first, _) in enumerate(self.frames) if first & 0x0F == CLOSE]
        if not closes:
            return "cut" if self.ended else "open"
        payload = self.frames[closes[0]][1]
        code = int.from_bytes(payload[:2]) if payload else 1005
        told = f"close {code}"
        if closes[0] != len(self.frames) - 1:
            told += f", {len(self.frames) - 1 - closes[0]} frames after it"
        return told if self.ended else f"{told}, open"

    def _take(self, data: bytes) -> None:
        self._buffer += data
        if not self.heads or self.heads[0].status != 101:
            self._take_head()
        if self.heads and self.heads[0].status == 101:
            self._take_frames()

    def _take_head(self) -> None:
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            start = head.find(b"HTTP/1.1 ")  # after the body of an answer that should be the last
            if start < 0:
                continue
            first, *lines = head[start:].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self.heads.append(Head(int(first.split(" ")[1]), headers))
            if self.heads[-1].status == 101:
                return

    def _take_frames(self) -> None:
        buffer, position = self._buffer, 0
        while len(buffer) - position >= 2:
            first, size = buffer[position], buffer[position + 1]
            start = position + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size = int.from_bytes(buffer[start : start + width])
                start += width
            if len(buffer) < start + size:
                break
            self.frames.append((first, buffer[start : start + size]))
            position = start + size
        self._buffer = buffer[position:]
