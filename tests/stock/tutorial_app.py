"""A well-known tutorial's WebSocket patterns as one FastAPI application.

Routes, names and shapes are the tutorial's, so that what a reader types is what is tested: route
and parameters, checks before and after the handshake, tracking, heartbeat, close codes, JSON
input, the client's address. Added are the imports, the helpers it only names, and a few lines
where it leaves the handling to the reader. Nothing of Pongee is imported, and nothing improved.
"""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI, Path, Query, WebSocket, WebSocketDisconnect

app = FastAPI()


def validate_token(token: str) -> bool:
    """Accept one token."""
    return token == "let-me-in"


def verify_jwt_token(token: str | None) -> bool:
    """Accept one header."""
    return token == "Bearer good"


# Routes and validation


@app.websocket("/ws/chat/{room_id}")
async def websocket_chat(websocket: WebSocket, room_id: int) -> None:
    await websocket.accept()
    try:
        while True:
            data = await websocket.receive_text()
            await websocket.send_text(f"Room {room_id}: {data}")
    except WebSocketDisconnect:
        print("Client disconnected")  # noqa: T201


@app.websocket("/ws/secure/{client_id}")
async def secure_ws(
    websocket: WebSocket,
    client_id: int = Path(..., gt=0),
    token: str = Query(..., min_length=8),
) -> None:
    if not validate_token(token):
        await websocket.close(code=1008)
        return
    await websocket.accept()
    await websocket.send_text(f"client {client_id}")
    await websocket.close()


# Checks


@app.websocket("/ws/auth")
async def auth_ws(websocket: WebSocket) -> None:
    await websocket.accept()

    headers = websocket.headers
    auth_token = headers.get("authorization")

    if not verify_jwt_token(auth_token):
        await websocket.close(code=1008, reason="Invalid credentials")
        return

    await websocket.send_text("welcome")


@app.websocket("/ws/checked")
async def checked_ws(websocket: WebSocket) -> None:
    valid = verify_jwt_token(websocket.headers.get("authorization"))
    if not valid:
        await websocket.close(code=1008)
        return
    await websocket.accept()
    await websocket.close()


# Tracking and heartbeat

active_connections: dict[str, WebSocket] = {}


@app.websocket("/ws/status")
async def status_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    client_id = str(websocket.client)
    active_connections[client_id] = websocket

    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        del active_connections[client_id]


async def heartbeat(websocket: WebSocket, interval: int = 30) -> None:
    try:
        while True:
            await asyncio.sleep(interval)
            await websocket.send_json({"type": "heartbeat", "timestamp": time.time()})
    except WebSocketDisconnect:
        print("Heartbeat terminated")  # noqa: T201


@app.websocket("/ws/realtime")
async def realtime_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    heartbeat_task = asyncio.create_task(heartbeat(websocket))

    try:
        while True:
            data = await websocket.receive_json()
            await websocket.send_json({"type": "answer", "data": data})
    finally:
        heartbeat_task.cancel()
        await websocket.close()


# Questions and errors


@app.websocket("/ws/json")
async def json_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        try:
            data = await websocket.receive_json()
            await websocket.send_json(data)
        except WebSocketDisconnect:
            break
        except ValueError:
            await websocket.send_text("ERROR: 仅支持JSON格式")


@app.websocket("/ws/address")
async def address_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    assert websocket.client is not None
    client_ip = websocket.client.host
    await websocket.send_text(client_ip)
    await websocket.close()


@app.websocket("/ws/codes")
async def codes_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect as e:
        print(f"closed with {e.code} {e.reason!r}")  # noqa: T201


@app.websocket("/ws/kinds")
async def kinds_ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_bytes(b"\x00\xff")
    await websocket.send_text("message")
    await websocket.send_json({"key": "value"})
    await websocket.close()
