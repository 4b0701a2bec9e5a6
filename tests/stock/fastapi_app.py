"""The applications of FastAPI's own WebSocket chapter, in its shape and our words.

Three patterns: a page with an echo, dependencies that let in or turn away, and a manager that
broadcasts and notices who leaves. Each is an application of its own.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import (
    Cookie,
    Depends,
    FastAPI,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import HTMLResponse

PAGE = """<!doctype html>
<title>Echo</title>
<form><input id="text"><button>Send</button></form><ul id="log"></ul>
<script>
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onmessage = (event) => {
    document.querySelector("#log").append(event.data, document.createElement("br"));
  };
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.querySelector("#text").value);
  };
</script>
"""

# A page with an echo

simple = FastAPI()


@simple.get("/")
async def get() -> HTMLResponse:
    return HTMLResponse(PAGE)


@simple.websocket("/ws")
async def simple_endpoint(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        data = await websocket.receive_text()
        await websocket.send_text(f"You wrote: {data}")


# Dependencies

guarded = FastAPI()


async def get_cookie_or_token(
    websocket: WebSocket,
    session: Annotated[str | None, Cookie()] = None,
    token: Annotated[str | None, Query()] = None,
) -> str | None:
    if session is None and token is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)
    return session or token


@guarded.websocket("/items/{item_id}/ws")
async def guarded_endpoint(
    *,
    websocket: WebSocket,
    item_id: str,
    q: int | None = None,
    cookie_or_token: Annotated[str, Depends(get_cookie_or_token)],
) -> None:
    await websocket.accept()
    while True:
        data = await websocket.receive_text()
        await websocket.send_text(f"known by {cookie_or_token}")
        if q is not None:
            await websocket.send_text(f"q is {q}")
        await websocket.send_text(f"{data} for {item_id}")


# Broadcast


class ConnectionManager:
    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active_connections.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        await websocket.send_text(message)

    async def broadcast(self, message: str) -> None:
        for connection in self.active_connections:
            await connection.send_text(message)


manager = ConnectionManager()
rooms = FastAPI()


@rooms.websocket("/ws/{client_id}")
async def room_endpoint(websocket: WebSocket, client_id: int) -> None:
    await manager.connect(websocket)
    try:
        while True:
            data = await websocket.receive_text()
            await manager.send_personal_message(f"you: {data}", websocket)
            await manager.broadcast(f"{client_id}: {data}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast(f"{client_id} left")
