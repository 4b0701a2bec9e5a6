"""python-socketio on uvicorn's default WebSocket class, with its rooms.

If it is told of a Redis, it has its Redis manager too.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# It has no type hints, and they would be all that this file needs of an import statement.
socketio: Any = importlib.import_module("socketio")
# With workers of the same application, if there are any.
redis = os.environ.get("BENCHMARK_REDIS")
manager: Any = socketio.AsyncRedisManager(redis) if redis else None
server: Any = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], client_manager=manager
)
app: Any = socketio.ASGIApp(server)


async def echo(sid: str, text: str) -> None:
    """Echo text."""
    await server.emit("echo", text, to=sid)


async def join(sid: str) -> None:
    """Join the room."""
    await server.enter_room(sid, "room")


async def publish(sid: str, text: str) -> None:
    """Hand every text to the room."""
    await server.emit("room", text, room="room")


for handler in (echo, join, publish):
    server.on(handler.__name__, handler)
