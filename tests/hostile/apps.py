"""Two applications for the suite, served by plain uvicorn on our wire.

`plain` is stock FastAPI, without a line of ours in it: an echo, an endpoint that closes at once,
and a count of what is open. `guarded` uses Pongee with a low cap for each address and each user,
and with tokens in the first message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from pongee import Caps, FirstMessage, JWTBearer, Pongee, Session, Settings, public

__all__ = ["PER_ADDRESS", "PER_USER", "SECRET", "guarded", "plain"]

SECRET = "h" * 32
PER_ADDRESS = 8
PER_USER = 3

plain = FastAPI()
_open: Counter[str] = Counter()


@plain.websocket("/echo")
async def echo(websocket: WebSocket, tag: str = "") -> None:
    await websocket.accept()
    _open[tag] += 1
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass
    finally:
        _open[tag] -= 1


@plain.websocket("/bye")
async def bye(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4000, "bye")


@plain.get("/census")
async def census() -> dict[str, Any]:
    """Count the event loop's tasks and the open endpoints by tag."""
    return {"tasks": len(asyncio.all_tasks()), "open": {tag: n for tag, n in _open.items() if n}}


def _make_guarded() -> FastAPI:
    app = FastAPI()
    pongee = Pongee(
        Settings(jwt_secret=SECRET),
        caps=Caps(max_connections_per_address=PER_ADDRESS, max_connections_per_user=PER_USER),
    )

    async def repeat(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    first = JWTBearer(SECRET, sources=[FirstMessage(timeout=1.0)])
    pongee.endpoint("/echo", auth=public, name="echo")(repeat)
    pongee.endpoint("/user", auth=JWTBearer(SECRET), name="user")(repeat)
    pongee.endpoint("/first", auth=first, name="first")(repeat)

    @app.get("/census")
    async def census() -> dict[str, Any]:
        return {"tasks": len(asyncio.all_tasks()), "sessions": len(pongee.connections())}

    pongee.install(app)
    return app


guarded = _make_guarded()
