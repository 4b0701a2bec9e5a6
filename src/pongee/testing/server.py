"""A real server for the application under test, on a free port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from pongee.testing.wait import eventually

__all__ = ["Server", "serve"]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        uvicorn: the server itself.
    """

    port: int
    uvicorn: uvicorn.Server

    def http(self, path: str = "/") -> str:
        """Write the HTTP address of `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path`."""
        return f"ws://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def serve(app: Any, *, shutdown_timeout: int = 2, **config: Any) -> AsyncIterator[Server]:
    """Serve `app` with uvicorn until the block ends.

    Args:
        app: an ASGI application; its lifespan runs.
        shutdown_timeout: seconds connections get at the end.
        config: anything ``uvicorn.Config`` takes, such as ``ws="wsproto"``.

    Raises:
        AssertionError: the server did not start in time.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        options = {"log_config": None, "lifespan": "on", "proxy_headers": False} | config
        server = uvicorn.Server(
            uvicorn.Config(app, timeout_graceful_shutdown=shutdown_timeout, **options)
        )
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await eventually(lambda: server.started or running.done(), what="the server starts")
            if running.done():
                running.result()
            yield Server(listener.getsockname()[1], server)
        finally:
            server.should_exit = True
            await asyncio.wait({running}, timeout=shutdown_timeout + 10)
            running.result()
