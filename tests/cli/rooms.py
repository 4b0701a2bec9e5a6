"""An application whose processes have to hear of each other."""

import os

from fastapi import FastAPI

from pongee import Pongee, Session, public

app = FastAPI()
pongee = Pongee()


@pongee.endpoint("/ws/room", auth=public)
async def room(session: Session[str, str]) -> None:
    """Say who serves this client, then carry what anybody says to everybody."""
    await session.subscribe("room")
    await session.send(str(os.getpid()))
    async for text in session:
        await pongee.publish("room", text)


@app.get("/pid")
async def pid() -> int:
    """Tell which process answers."""
    return os.getpid()


pongee.install(app)
