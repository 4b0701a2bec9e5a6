"""Two lifetimes: what the policy opens is released before the session goes live."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI

from pongee import Identity, Pongee, Refused, Session

pongee = Pongee()
app = FastAPI()
open_connections = 0


async def database() -> AsyncIterator[dict[str, str]]:
    global open_connections
    open_connections += 1
    try:
        yield {"ada": "opens-sesame"}
    finally:
        open_connections -= 1


async def known_user(
    user: str, password: str, db: Annotated[dict[str, str], Depends(database)]
) -> Identity:
    if db.get(user) != password:
        raise Refused(401, "Wrong user or password")
    return Identity(user=user)


@pongee.endpoint("/ws/notes", auth=known_user)
async def notes(session: Session[str, str]) -> None:
    async for name in session:  # here no database connection is held
        async with asynccontextmanager(database)() as db:  # and here for one message
            await session.send("known" if name in db else "unknown")


pongee.install(app)
