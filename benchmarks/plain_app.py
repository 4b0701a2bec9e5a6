"""The endpoints in plain FastAPI, as its documentation writes them: no guards, no limits."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.traffic import Reading

app = FastAPI()


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
