"""As much of an HTTP client as publishing 500 times a second takes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

__all__ = ["Http", "get", "get_status"]


class Http:
    """One connection that is kept alive, and opened when it is needed.

    Args:
        port: on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", timeout: float = 5.0
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            OSError: nobody is there, or the connection broke.
            TimeoutError: no answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._ask(method, path, body)
        except asyncio.IncompleteReadError:
            self.close()
            raise ConnectionResetError from None
        except BaseException:
            self.close()
            raise

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self._reader is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self._writer is not None
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        answer = await self._reader.readexactly(int(headers.get(b"content-length", b"0")))
        if headers.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split(b" ")[1]), answer

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


async def get(port: int, path: str, *, method: str = "GET", timeout: float = 5.0) -> Any:
    """Return the JSON of one answer.

    Raises:
        OSError: nobody is there, or the answer was an error.
        TimeoutError: no answer in time.
    """
    http = Http(port)
    try:
        status, body = await http.ask(method, path, timeout=timeout)
    finally:
        http.close()
    if status >= 500:
        raise ConnectionError(f"{path} was answered {status}")
    return msgspec.json.decode(body)


async def get_status(port: int, path: str, timeout: float = 1.0) -> int:
    """Return the status of one answer; 0 where there is none."""
    http = Http(port)
    try:
        status, _ = await http.ask("GET", path, timeout=timeout)
    except (OSError, TimeoutError):
        return 0
    finally:
        http.close()
    return status
