"""The playground over real sockets, in the test's own process."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pongee import FirstMessage, JWTBearer, Limits, Pongee, Session, Settings, public
from pongee.playground import create_app
from pongee.playground.page import make_token
from pongee.testing import Client, HandshakeRefused, RawPeer, Server, connect, eventually, serve

WIRE: dict[str, Any] = {"ws": "pongee.wire:WireProtocol", "http": "pongee.wire.http:HeadProtocol"}
"""What ``pongee serve`` runs on."""

SECRET = "p" * 32
STATIC_TOKEN = "static-token-0123456789"
JWT = make_token(SECRET, "ada", 3600)
UVICORNS = "Invalid UTF-8 sequence received from client."
"""A line that uvicorn itself writes as an error although it is only the peer's."""


@dataclass(frozen=True)
class Playground:
    """The application, what serves it, and its Pongee."""

    server: Server
    pongee: Pongee

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path`."""
        return self.server.ws(path)

    @property
    def origin(self) -> str:
        """The application's own origin."""
        return self.server.http("")

    async def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make one HTTP request."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return await client.request(method, self.server.http(path), **options)

    async def ticket(self) -> str:
        """Get a ticket for a valid JWT."""
        answer = await self.http("POST", "/tickets", headers={"Authorization": f"Bearer {JWT}"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["ticket"])

    async def status(self, path: str, **options: Any) -> int:
        """Try a handshake; 101 is success."""
        try:
            async with connect(self.ws(path), **options):
                return 101
        except HandshakeRefused as refused:
            return refused.status


@asynccontextmanager
async def playground(*, development: bool = False, **settings: Any) -> AsyncIterator[Playground]:
    """Serve it, as ``pongee serve`` configures uvicorn."""
    values: dict[str, Any] = {"jwt_secret": SECRET, "static_tokens": STATIC_TOKEN} | settings
    chosen = Settings(**values)
    app = create_app(chosen, development=development)
    async with serve(
        app, ws_max_size=chosen.max_message_size, ws_per_message_deflate=False, **WIRE
    ) as server:
        yield Playground(server, app.state.pongee)


@dataclass(frozen=True)
class Scene:
    """An application under attack, and the neighbour that must not notice."""

    app: Playground
    neighbour: Client

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path`."""
        return self.app.ws(path)

    def raw(self, path: str) -> RawPeer:
        """Make a peer that speaks bytes."""
        return RawPeer(self.app.server.port, path)

    async def check_neighbour(self) -> None:
        """See that the neighbour is served."""
        word = f"still here at {time.monotonic()}"
        await self.neighbour.send(word)
        assert await self.neighbour.receive(5) == word

    async def check(self) -> None:
        """See that the neighbour is served, and that nobody else is left."""
        await self.check_neighbour()
        await eventually(lambda: len(self.app.pongee.connections()) == 1, what="all others gone")
        assert self.app.pongee.local_channels() == {}
        assert self.app.pongee._node.capacity.connections == 1
        sockets = self.app.server.uvicorn.server_state.connections
        await eventually(lambda: len(sockets) == 1, what="all other sockets closed")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, because the attacked application outlives a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def attacked(anyio_backend: str) -> AsyncIterator[Scene]:
    """Serve the playground with two more endpoints, and connect the neighbour."""
    values: dict[str, Any] = {"jwt_secret": SECRET, "static_tokens": STATIC_TOKEN}
    settings = Settings(**values)
    app = create_app(settings)
    pongee: Pongee = app.state.pongee

    async def echo(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    limits = Limits(messages_per_second=10, message_burst=100)
    pongee.endpoint("/ws/limited", auth=public, limits=limits, router=app.router)(echo)
    first = JWTBearer(SECRET, sources=[FirstMessage(timeout=0.2)])
    pongee.endpoint("/ws/first", auth=first, router=app.router)(echo)
    async with serve(app, ws_max_size=settings.max_message_size, **WIRE) as server:
        playground = Playground(server, pongee)
        async with connect(playground.ws("/ws/auth"), token=JWT) as neighbour:
            yield Scene(playground, neighbour)


@pytest.fixture
async def scene(attacked: Scene, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Scene]:
    """Check after each attack that nobody was harmed and that the log shows no fault of ours."""
    await attacked.check()
    yield attacked
    await attacked.check()
    faults = [
        record.getMessage()
        for record in (*caplog.get_records("call"), *caplog.get_records("teardown"))
        if (record.levelno >= logging.ERROR or record.exc_info) and record.getMessage() != UVICORNS
    ]
    assert faults == []
