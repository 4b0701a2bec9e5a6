"""The endpoints in plain FastAPI, as its documentation writes them: no guards, no limits.

The room is the tutorial's connection manager: a list of sockets, and one ``send_text`` after the
other. Served on uvicorn's default WebSocket class, and, unchanged, on ours.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.traffic import Reading

app = FastAPI()


class ConnectionManager:
    """Who is connected."""

    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Accept and remember."""
        await websocket.accept()
        self.active.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Forget."""
        self.active.remove(websocket)

    async def broadcast(self, message: str) -> None:
        """Send to everybody."""
        for connection in self.active:
            await connection.send_text(message)


manager = ConnectionManager()


@app.websocket("/text")
async def text(websocket: WebSocket) -> None:
    """Echo text."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


@app.websocket("/typed")
async def typed(websocket: WebSocket) -> None:
    """Echo a model."""
    await websocket.accept()
    try:
        while True:
            reading = Reading.model_validate_json(await websocket.receive_text())
            await websocket.send_text(reading.model_dump_json())
    except WebSocketDisconnect:
        return


@app.websocket("/json")
async def json(websocket: WebSocket) -> None:
    """Echo JSON."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_json(await websocket.receive_json())
    except WebSocketDisconnect:
        return


@app.websocket("/room")
async def room(websocket: WebSocket) -> None:
    """Join the room."""
    await manager.connect(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket)


@app.websocket("/visit")
async def visit(websocket: WebSocket) -> None:
    """Join the room, and say so."""
    await manager.connect(websocket)
    try:
        await websocket.send_text("registered")
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket)


@app.websocket("/publish")
async def publish(websocket: WebSocket) -> None:
    """Hand every text to the room."""
    await websocket.accept()
    try:
        while True:
            await manager.broadcast(await websocket.receive_text())
    except WebSocketDisconnect:
        return
