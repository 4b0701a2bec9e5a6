"""The same endpoints in Pongee, with every guard and limit switched on, none of them triggered."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.traffic import Reading
from pongee import Caps, Heartbeat, Limits, Pongee, Session, public

PLENTY = 1e6
CONNECTIONS = 20_000

pongee = Pongee(
    limits=Limits(messages_per_second=PLENTY, bytes_per_second=1000 * PLENTY),
    caps=Caps(max_connections=CONNECTIONS, max_connections_per_address=CONNECTIONS),
)
app = FastAPI(lifespan=pongee.lifespan)
ECHO = Heartbeat(interval=30, idle_timeout=60)
LISTENER = Heartbeat(interval=None, idle_timeout=600)
"""Members of the room say nothing; and a heartbeat is no message of the room."""


@pongee.endpoint("/text", auth=public, heartbeat=ECHO)
async def text(session: Session[str, str]) -> None:
    """Echo text."""
    async for message in session:
        await session.send(message)


@pongee.endpoint("/typed", auth=public, heartbeat=ECHO)
async def typed(session: Session[Reading, Reading]) -> None:
    """Echo a model."""
    async for reading in session:
        await session.send(reading)


@pongee.endpoint("/room", auth=public, heartbeat=LISTENER)
async def room(session: Session[str, str]) -> None:
    """Join the room."""
    await session.subscribe("room")
    await session.closed


@pongee.endpoint("/visit", auth=public, heartbeat=LISTENER)
async def visit(session: Session[str, str]) -> None:
    """Join the room, and say so."""
    await session.subscribe("room")
    await session.send("registered")
    await session.closed


@pongee.endpoint("/publish", auth=public, heartbeat=LISTENER)
async def publish(session: Session[str, str]) -> None:
    """Hand every text to the room."""
    async for message in session:
        await pongee.publish("room", message)


pongee.install(app)
