"""Frames by plain calls: an echo that holds no task while its connection is idle."""

from fastapi import FastAPI, WebSocket

from pongee.wire.direct import EXTENSION, DirectConnection
from pongee.wire.frames import BINARY, TEXT, encode_frame

app = FastAPI()


class Echo:
    def __init__(self, connection: DirectConnection) -> None:
        self.connection = connection

    def on_message(self, data: str | bytes) -> None:
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self.connection.write(encode_frame(opcode, payload))

    def on_end(self, code: int, reason: str | None) -> None:
        print("gone:", code, reason)

    def on_write_paused(self) -> None:
        self.connection.pause_reading()  # who does not read is not read

    def on_write_resumed(self) -> None:
        self.connection.resume_reading()


@app.websocket("/ws")
async def direct(websocket: WebSocket) -> None:
    await websocket.accept()
    connection = websocket.scope["extensions"][EXTENSION]["connection"]
    connection.attach(Echo(connection))  # from here on it is the echo's; this call may end
