"""An application for ``pongee serve``: handlers and routes that leave easily, and such that do not.

``PONGEE_TEST_FAULTS`` names what is to go wrong, comma-separated.
"""

import asyncio
import os
import time

from fastapi import FastAPI

from pongee import Pongee, Session, public
from pongee.brokers.memory import MemoryBroker

FAULTS = os.environ.get("PONGEE_TEST_FAULTS", "").split(",")

app = FastAPI()
# Processes that only have to start and to end need nothing that they share.
pongee = Pongee(broker=MemoryBroker)
pongee.connection(auth=public, anonymous=True)


def say(text: str) -> None:
    """Write a line at once."""
    os.write(1, f"{text}\n".encode())


async def nobody_knows() -> str:
    """Decide for ever who may come in."""
    await asyncio.sleep(3600)
    return "nobody"


@pongee.endpoint("/ws/echo", auth=public)
async def echo(session: Session[str, str]) -> None:
    """Answer what is said."""
    async for text in session:
        await session.send(text)


@pongee.endpoint("/ws/lines", auth=public)
async def lines(session: Session[str, str]) -> None:
    """Send as many lines as it is told, at once."""
    async for text in session:
        for number in range(int(text)):
            await session.send(f"{number} ".ljust(1000, "."))


@pongee.endpoint("/ws/stubborn", auth=public)
async def stubborn(session: Session[str, str]) -> None:
    """Go on, whatever happens."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            say("still here")


@pongee.endpoint("/ws/undecided", auth=nobody_knows)
async def undecided(session: Session[str, str]) -> None:
    """Never open."""


@app.get("/pid")
async def pid() -> int:
    """Tell which process answers."""
    return os.getpid()


@app.get("/slow")
async def slow(seconds: float) -> str:
    """Answer late."""
    say("slow begins")
    await asyncio.sleep(seconds)
    return "done"


@app.get("/blocked")
def blocked() -> None:
    """Hold a thread."""
    say("blocked begins")
    time.sleep(3600)


@pongee.on_drain
async def first() -> None:
    """Say so, and fail if it is to."""
    say(f"first hook, draining: {pongee.draining}")
    if "hook" in FAULTS:
        raise RuntimeError("the hook fails")


@pongee.on_drain
async def second() -> None:
    """Say how many are still here."""
    await asyncio.sleep(0)
    say(f"second hook, connections: {len(pongee.connections())}")


pongee.install(app)


def make() -> FastAPI:
    """Give it to ``--factory``."""
    return app
