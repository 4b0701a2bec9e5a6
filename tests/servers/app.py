"""The one application that every server runs. Sessions say who they are in the ``x-tag`` header."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, WebSocket
from pydantic import BaseModel

from pongee import Heartbeat, Limits, Pongee, Refused, Session, public
from pongee.sessions.handshake import admission_of

MESSAGE_LIMIT = 1000
WRITE_DEADLINE = 0.4
IDLE_TIMEOUT = 0.5
PUSH_INTERVAL = 0.02


class Number(BaseModel):
    n: int


class Doubled(BaseModel):
    doubled: int


@dataclass
class End:
    """What ``on_disconnect`` saw of one session."""

    tag: str
    kind: str
    code: int
    reason: str


pongee = Pongee()
app = FastAPI()
tags: dict[str, str] = {}
handling: list[str] = []
ends: list[End] = []


def tag_of(session: Session[Any, Any]) -> str:
    return session.headers.get("x-tag", "")


@pongee.on_connect
async def enter(session: Session[Any, Any]) -> None:
    tags[session.id] = tag_of(session)


@pongee.on_disconnect
async def leave(session: Session[Any, Any]) -> None:
    cause = session.close_cause
    assert cause is not None
    end = End(tag_of(session), cause.kind.value, int(cause.code), cause.reason)
    ends.append(end)
    print(f"ended {end.tag}: {end.kind} {end.code}", flush=True)  # noqa: T201 - for the test


@app.get("/registry")
async def registry(tag: str) -> dict[str, Any]:
    """Tell what this process knows of the sessions with `tag`."""
    return {
        "open": sum(tags[one.id] == tag for one in pongee.connections() if one.id in tags),
        "handling": handling.count(tag),
        "ends": [asdict(end) for end in ends if end.tag == tag],
    }


@app.post("/rooms/{room_id}")
async def publish(room_id: int, text: str) -> int:
    await pongee.publish(f"room:{room_id}", text)
    return pongee.local_channels().get(f"room:{room_id}", 0)


@pongee.endpoint("/text", auth=public, limits=Limits(max_message_size=MESSAGE_LIMIT))
async def text(session: Session[str, str]) -> None:
    async for message in session:
        await session.send(message)


@pongee.endpoint("/json", auth=public)
async def json(session: Session[Number, Doubled]) -> None:
    async for number in session:
        await session.send(Doubled(doubled=2 * number.n))


@pongee.endpoint("/large", auth=public, limits=Limits(max_message_size=64 * 1024 * 1024))
async def large(session: Session[bytes, str]) -> None:
    """Take anything: here the server's own limit on messages acts."""
    async for message in session:
        await session.send(str(len(message)))


@pongee.endpoint("/traits", auth=public)
async def traits(websocket: WebSocket, session: Session[str, dict[str, Any]]) -> None:
    """Tell what Pongee has found out about the server; not public, but worth a test."""
    admission = admission_of(websocket)
    assert admission is not None
    found = admission.traits
    await session.send({"name": found.name, "abort": bool(found.abort), "pings": found.pings})


@pongee.endpoint("/push", auth=public)
async def push(session: Session[str, str]) -> None:
    """Send for ever and never read."""
    handling.append(tag_of(session))
    try:
        while True:
            await session.send("tick")
            await asyncio.sleep(PUSH_INTERVAL)
    finally:
        handling.remove(tag_of(session))


@pongee.endpoint("/wait", auth=public)
async def wait(session: Session[str, str]) -> None:
    """Neither send nor read: wait for news that never come."""
    handling.append(tag_of(session))
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        handling.remove(tag_of(session))


@pongee.endpoint("/flood", auth=public, limits=Limits(write_deadline=WRITE_DEADLINE))
async def flood(session: Session[str, bytes]) -> None:
    """Send faster than anybody reads."""
    handling.append(tag_of(session))
    try:
        while True:
            await session.send(bytes(64 * 1024))
    finally:
        handling.remove(tag_of(session))


@pongee.endpoint(
    "/idle", auth=public, heartbeat=Heartbeat(interval=None, idle_timeout=IDLE_TIMEOUT)
)
async def idle(session: Session[str, str]) -> None:
    async for message in session:
        await session.send(message)


@pongee.endpoint("/crash", auth=public)
async def crash(session: Session[str, str]) -> None:
    raise RuntimeError("a bug on purpose")


@pongee.endpoint("/return", auth=public)
async def return_at_once(session: Session[str, str]) -> None:
    await session.send("bye")


@pongee.endpoint("/close", auth=public)
async def close(session: Session[str, str]) -> None:
    await session.close(4000, "enough for today")


@pongee.endpoint("/rooms/{room_id}", auth=public)
async def room(room_id: int, session: Session[str, str]) -> None:
    await session.subscribe(f"room:{room_id}")
    async for message in session:
        await pongee.publish(f"room:{room_id}", message)


async def refuse(status: Annotated[int, Path()]) -> None:
    raise Refused(status, "Not today")


@pongee.endpoint("/refused/{status}", auth=refuse)
async def refused(session: Session[str, str]) -> None: ...


async def refuse_credentials() -> None:
    raise Refused(401, "Invalid credentials")


@pongee.endpoint("/refused-by-close", auth=refuse_credentials, refuse="close")
async def refused_by_close(session: Session[str, str]) -> None: ...


@pongee.endpoint("/token", auth=public)
async def token(token: Annotated[str, Query()], session: Session[str, str]) -> None:
    await session.send(str(len(token)))


pongee.install(app)
