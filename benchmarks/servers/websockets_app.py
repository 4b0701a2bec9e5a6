"""The ``websockets`` library's own asyncio server, with its ``broadcast``."""

from __future__ import annotations

import asyncio
import socket

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as serve_websockets

__all__ = ["serve"]

members: set[ServerConnection] = set()


async def _handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    match connection.request.path:
        case "/text":
            async for text in connection:
                await connection.send(text)
        case "/room":
            members.add(connection)
            try:
                await connection.wait_closed()
            finally:
                members.discard(connection)
        case "/publish":
            async for text in connection:
                broadcast(members, text)


async def serve(listener: socket.socket) -> None:
    """Serve on `listener` for good."""
    async with serve_websockets(_handle, sock=listener, compression=None):
        await asyncio.get_running_loop().create_future()
