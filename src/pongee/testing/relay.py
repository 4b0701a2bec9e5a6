"""A TCP relay to put faults on the line: silence, cuts."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Relay"]

CHUNK = 64 * 1024


class Relay:
    """Forwards a port of 127.0.0.1 to another. An asynchronous context manager.

    Args:
        target: the port that is forwarded to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path` through the relay."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def freeze(self) -> None:
        """Forward nothing more, both ways, without closing: a peer that vanished."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Go on, with what was held back."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None  # noqa: S101 - entered
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs this in a task
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(far_writer)
            await asyncio.gather(
                self._forward(reader, far_writer), self._forward(far_reader, writer)
            )
            self._writers.discard(far_writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()  # a peer that vanished says no goodbye either
        finally:
            writer.close()
