"""A peer that speaks bytes: for stalled readers and for what a proper client would never send."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from types import TracebackType

__all__ = ["RawPeer"]


class RawPeer:
    """A WebSocket client on a bare socket. It reads only when told to.

    Args:
        port: on 127.0.0.1.
        path: of the handshake.
        receive_buffer: bytes of the socket's receive buffer; a small one makes a stalled reader
            felt soon.
    """

    def __init__(self, port: int, path: str, *, receive_buffer: int = 4096) -> None:
        self._port = port
        self._path = path
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setblocking(False)

    async def __aenter__(self) -> RawPeer:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        except BaseException:
            self._socket.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    async def handshake(self, **headers: str) -> bytes:
        """Send the upgrade request; returns the head of the answer."""
        lines = [
            f"GET {self._path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            # A byte at a time: frames that follow stay unread.
            byte = await self.read(1)
            if not byte:
                break
            head += byte
        return head

    async def send(self, data: bytes, timeout: float = 5.0) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def send_frame(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        """Send one masked frame."""
        head = bytearray([(0x80 if final else 0) | opcode])
        if len(payload) < 126:
            head.append(0x80 | len(payload))
        elif len(payload) < 1 << 16:
            head += struct.pack("!BH", 0x80 | 126, len(payload))
        else:
            head += struct.pack("!BQ", 0x80 | 127, len(payload))
        await self.send(bytes(head) + bytes(4) + payload)  # a mask of zeros changes nothing

    async def read(self, size: int = 65536, timeout: float = 5.0) -> bytes:
        """Return at most `size` bytes; empty at the end of the stream."""
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def read_to_end(self, timeout: float = 5.0) -> bytes:
        """Return everything up to the end of the stream or a reset."""
        collected = b""
        try:
            async with asyncio.timeout(timeout):
                while data := await asyncio.get_running_loop().sock_recv(self._socket, 65536):
                    collected += data
        except ConnectionResetError:
            pass
        return collected

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
