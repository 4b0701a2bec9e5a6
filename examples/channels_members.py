"""Who may what: a policy, a handler, and what they depend on."""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, JsonValue

from pongee import Client, ClientError, JWTBearer, Pongee

pongee, app = Pongee(), FastAPI()
pongee.connection(auth=JWTBearer(os.environ["APP_SECRET"]))
open_connections = 0


class Line(BaseModel):
    text: str
    by: str = ""


async def database() -> AsyncIterator[dict[int, set[str]]]:
    global open_connections
    open_connections += 1
    try:
        yield {1: {"ada", "bob"}}  # who belongs to which project
    finally:
        open_connections -= 1


async def member(
    project: int, request: Request, db: Annotated[dict[int, set[str]], Depends(database)]
) -> str:
    user = request.scope["pongee.client"].user  # the client, where a dependency finds it
    if user not in db.get(project, set()):
        raise HTTPException(403, "you do not belong to this project")  # the client gets error 103
    return str(user)


board = pongee.channel(
    "project:{project:int}",
    Line,
    history=50,
    presence=True,
    may_subscribe=member,
    may_publish="subscribers",
    may_see_presence=member,
)


@board.on_subscribe
async def welcome(project: int, user: Annotated[str, Depends(member)], data: JsonValue) -> Any:
    return {"hello": user, "project": project, "you_sent": data}  # in the `subscribed` event


@board.on_publish
async def sign(line: Line, client: Client) -> Line:
    if not line.text.strip():
        raise ClientError(400, "say something")
    return Line(text=line.text, by=client.user or "")


@board.on_unsubscribe
async def left(project: int, client: Client) -> None:
    print(client.user, "left", project)


pongee.install(app)
