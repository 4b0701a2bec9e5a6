"""A room and a method for client SDKs, and a second room whose members come back all at once."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from benchmarks.pongee_app import CONNECTIONS
from pongee import Caps, Pongee, Session, public

pongee = Pongee(caps=Caps(max_connections=CONNECTIONS, max_connections_per_address=CONNECTIONS))
app = FastAPI(lifespan=pongee.lifespan)
pongee.connection(auth=public)
pongee.channel("room", str, history=100, may_subscribe=public, may_publish=public)
storm = pongee.channel("storm", str, history=100, may_subscribe=public)


@pongee.rpc("echo")
async def echo(message: Any) -> Any:
    """Echo JSON."""
    return message


@pongee.endpoint("/text", auth=public)
async def text(session: Session[str, str]) -> None:
    """Echo text."""
    async for message in session:
        await session.send(message)


@app.post("/storm")
async def fill(count: int) -> dict[str, Any]:
    """Publish `count` messages; returns the position before them."""
    before = (await pongee.history("storm", limit=0)).top
    for number in range(count):
        await storm.publish(f"message {number} that was missed".ljust(64, "."))
    return before._asdict()


pongee.install(app)
