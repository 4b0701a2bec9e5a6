"""The five endpoints, built on public names only. Read it from top to bottom.

Rooms for client SDKs, at ``/connection/websocket``, are in `playground.channels`.

| route                  | what it shows                                                       |
|------------------------|---------------------------------------------------------------------|
| /ws/chat/{room_id}     | rooms: everybody gets what anybody says                             |
| /ws/secure/{client_id} | refused before accept, with an HTTP status: one-time ticket or token |
| /ws/auth               | refused after accept, with a close code a browser can read: JWT      |
| /ws/status             | who is connected, told again on every change                        |
| /ws/realtime           | typed JSON, heartbeats, and answers to bad input                    |
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, JsonValue

from pongee import (
    AnyOf,
    HeaderToken,
    Heartbeat,
    Identity,
    InvalidToken,
    JWTBearer,
    MessageError,
    Pongee,
    Refused,
    Session,
    Settings,
    SharedTickets,
    StaticTokens,
    SubprotocolToken,
    public,
)
from pongee.playground.channels import add_channels
from pongee.playground.page import add_page

__all__ = ["create_app"]

NOT_JSON = "ERROR: 仅支持JSON格式"
STATUS_INTERVAL = 0.1
"""Seconds between two status messages to one client, however often the number changes."""


class Said(BaseModel):
    """What ``/ws/realtime`` takes: any JSON object whose ``type``, if given, is a text."""

    model_config = ConfigDict(extra="allow")

    type: str = "message"


class Acknowledged(BaseModel):
    """What ``/ws/realtime`` answers."""

    type: Literal["ack"] = "ack"
    received: dict[str, JsonValue]


class You(BaseModel):
    """A client's own entry; nobody is told anybody else's."""

    id: str
    address: str | None
    since: float


class Status(BaseModel):
    """What ``/ws/status`` tells."""

    type: Literal["status"] = "status"
    active: int
    you: You


def create_app(settings: Settings, *, development: bool = False) -> FastAPI:
    """Make the application.

    Args:
        settings: with a ``jwt_secret``.
        development: the secret was generated for this run, so that tokens may be handed out to
            anybody (``POST /dev/token``).
    """
    pongee = Pongee(settings)
    app = FastAPI(title="Pongee playground", docs_url=None, redoc_url=None)
    app.state.pongee = pongee
    assert settings.jwt_secret is not None, "create_app needs settings with a jwt_secret"  # noqa: S101
    secret = settings.jwt_secret.get_secret_value()

    # Whoever holds the secret decides whether a token expires.
    jwt = JWTBearer(secret, require_exp=False, sources=(HeaderToken(), SubprotocolToken()))
    tickets = SharedTickets(secret, pongee.once)  # any worker may be asked
    tokens = AnyOf(tickets, StaticTokens([t.get_secret_value() for t in settings.static_tokens]))

    async def ticket_or_token(
        client_id: Annotated[int, Path(gt=0)], token: Annotated[str, Query(min_length=8)]
    ) -> Identity:
        # Naming client_id here too keeps a ticket from being used up by a wrong path.
        try:
            return await tokens.verify(token)
        except InvalidToken:
            raise Refused(403, "Invalid token") from None

    @pongee.endpoint("/ws/chat/{room_id}", auth=public)
    async def chat(room_id: int, session: Session[str, str]) -> None:
        await session.subscribe(f"room:{room_id}")
        async for text in session:
            await pongee.publish(f"room:{room_id}", f"Room {room_id}: {text}")

    @pongee.endpoint("/ws/secure/{client_id}", auth=ticket_or_token)
    async def secure(client_id: Annotated[int, Path(gt=0)], session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    @pongee.endpoint("/ws/auth", auth=jwt, refuse="close")
    async def auth(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    watchers = Watchers()

    @pongee.endpoint("/ws/status", auth=public, overflow="latest_per_key")
    async def status(session: Session[str, Status]) -> None:
        you = You(id=session.id, address=session.address, since=session.since)

        async def tell() -> None:
            while True:
                seen = watchers.version
                await session.send(Status(active=watchers.active, you=you), key="status")
                await asyncio.sleep(STATUS_INTERVAL)
                await watchers.change_since(seen)

        watchers.change(+1)
        try:
            session.spawn(tell())
            async for _ in session:
                pass  # whatever a client says keeps it alive, and means nothing else
        finally:
            watchers.change(-1)

    def not_json(error: MessageError) -> str | None:
        return NOT_JSON if error.code == "invalid_json" else None

    @pongee.endpoint(
        "/ws/realtime",
        auth=public,
        heartbeat=Heartbeat(interval=settings.heartbeat_interval),
        on_invalid=not_json,
    )
    async def realtime(session: Session[Said, Acknowledged]) -> None:
        async for message in session:
            await session.send(Acknowledged(received=message.model_dump(mode="json")))

    @app.post("/tickets")
    async def issue_ticket(identity: Annotated[Any, Depends(jwt)]) -> dict[str, Any]:
        """Give whoever shows a valid JWT a ticket that opens ``/ws/secure`` once."""
        return {"ticket": tickets.issue(identity), "expires_in": tickets.lifetime}

    add_channels(pongee, jwt)
    add_page(app, pongee, development_secret=secret if development else None)
    pongee.install(app)
    return app


class Watchers:
    """How many watch ``/ws/status``, and a way to wait until that has changed."""

    def __init__(self) -> None:
        self.active = 0
        self.version = 0
        self._changed = asyncio.Event()

    def change(self, by: int) -> None:
        """Count, and wake everybody who waits."""
        self.active += by
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def change_since(self, version: int) -> None:
        """Wait until there has been a change after `version`."""
        while self.version == version:
            await self._changed.wait()
