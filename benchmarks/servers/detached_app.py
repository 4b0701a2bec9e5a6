"""Connections that are given up by their ASGI call: what the wire itself costs.

FastAPI resolves the route, the endpoint accepts, attaches a receiver to the connection and returns;
see `pongee.wire.direct`. An echo on ``/text``, so that it can be seen to live.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket

from pongee.wire.direct import EXTENSION, DirectConnection
from pongee.wire.frames import BINARY, TEXT, encode_frame

app = FastAPI()


class Echo:
    """Sends back what comes. A `pongee.wire.direct.DirectReceiver`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: DirectConnection) -> None:
        self._connection = connection

    def on_message(self, data: str | bytes) -> None:
        """Answer."""
        if isinstance(data, str):
            self._connection.write(encode_frame(TEXT, data.encode()))
        else:
            self._connection.write(encode_frame(BINARY, data))

    def on_end(self, code: int, reason: str | None) -> None:
        """Nothing is held."""

    def on_write_paused(self) -> None:
        """The generator reads: this does not come."""

    def on_write_resumed(self) -> None:
        """Nor this."""


@app.websocket("/text")
async def text(websocket: WebSocket) -> None:
    """Accept, hand over, and be gone."""
    await websocket.accept()
    connection: DirectConnection = websocket.scope["extensions"][EXTENSION]["connection"]
    connection.attach(Echo(connection))
