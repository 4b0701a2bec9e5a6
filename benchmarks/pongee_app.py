"""The same endpoints in Pongee, with every guard and limit switched on, none of them triggered."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.traffic import Reading
from pongee import Caps, Heartbeat, Limits, Pongee, Session, public

PLENTY = 1e6

pongee = Pongee(
    limits=Limits(messages_per_second=PLENTY, bytes_per_second=1000 * PLENTY),
    caps=Caps(max_connections=5000, max_connections_per_address=5000),
)
app = FastAPI(lifespan=pongee.lifespan)
HEARTBEAT = Heartbeat(interval=30, idle_timeout=60)


@pongee.endpoint("/text", auth=public, heartbeat=HEARTBEAT)
async def text(session: Session[str, str]) -> None:
    """Echo text."""
    async for message in session:
        await session.send(message)


@pongee.endpoint("/typed", auth=public, heartbeat=HEARTBEAT)
async def typed(session: Session[Reading, Reading]) -> None:
    """Echo a model."""
    async for reading in session:
        await session.send(reading)


pongee.install(app)
