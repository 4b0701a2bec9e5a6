"""An application with channels, its server API, and clients of both sides over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import cent
import httpx
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from pongee import Pongee, Session, Settings, public
from pongee.guards.verdict import Identity
from pongee.testing import Client, ManualClock, Server, connect, serve

KEY = "key-of-the-server-api-0123456789"


class Said(BaseModel):
    """What the declared channels carry."""

    text: str


@dataclass(frozen=True)
class Api:
    """The application, what serves it, and its server API."""

    server: Server
    pongee: Pongee

    @property
    def url(self) -> str:
        """What libraries are given."""
        return self.server.http("/api")

    async def post(self, method: str, body: Any = None, **options: Any) -> httpx.Response:
        """Make one request; with the key, unless `headers` are given."""
        given: dict[str, Any] = {"headers": {"X-API-Key": KEY}, "json": body} | options
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return await client.post(f"{self.url}/{method}", **given)

    async def result(self, method: str, body: Any) -> Any:
        """Return what a request that must succeed returns."""
        answer = await self.post(method, body)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"result"}, answer.text
        return answer.json()["result"]

    async def error(self, method: str, body: Any) -> tuple[int, str]:
        """Return code and message of a request that must fail."""
        answer = await self.post(method, body)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"error"}, answer.text
        error = answer.json()["error"]
        assert error.keys() == {"code", "message"}
        return error["code"], error["message"]

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Connected]:
        """Connect as `user`, speaking the client protocol's JSON encoding."""
        url = self.server.ws(f"/connection/websocket?user={user}")
        async with connect(url) as socket:
            client = Connected(socket)
            reply = await client.command({"connect": {}})
            client.id = reply["connect"]["client"]
            yield client

    @asynccontextmanager
    async def library(self) -> AsyncIterator[cent.AsyncClient]:
        """Use Centrifugo's own library."""
        client = cent.AsyncClient(self.url, KEY)
        try:
            yield client
        finally:
            await client._session.close()


class Connected:
    """A client of an SDK, as far as these tests need one."""

    def __init__(self, socket: Client) -> None:
        self.socket = socket
        self.id = ""
        self._number = 0
        self._pushes: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []

    async def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command; returns its reply."""
        self._number += 1
        await self.socket.send_json({"id": self._number, **command})
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                return message
            if "push" in message:
                self._pushes.append(message["push"])

    async def subscribe(self, channel: str) -> dict[str, Any]:
        """Enter a channel."""
        reply = await self.command({"subscribe": {"channel": channel}})
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["subscribe"]
        return result

    async def push(self) -> dict[str, Any]:
        """Return the next thing that nobody asked for."""
        if self._pushes:
            return self._pushes.pop(0)
        while True:
            message = await self._next()
            if "push" in message:
                push: dict[str, Any] = message["push"]
                return push

    async def _next(self) -> dict[str, Any]:
        while not self._lines:
            frame = await self.socket.receive()
            self._lines = [json.loads(line) for line in str(frame).split("\n")]
        return self._lines.pop(0)


@asynccontextmanager
async def serving(
    *,
    key: str | None = KEY,
    clock: ManualClock | None = None,
    broker: Any = None,
    change: Callable[[Pongee, FastAPI], None] = lambda pongee, app: None,
) -> AsyncIterator[Api]:
    """Serve an application with declared channels and one plain endpoint."""
    settings = Settings(api_key=None if key is None else SecretStr(key))
    pongee = Pongee(settings, clock=clock, broker=broker)
    app = FastAPI()

    async def who(user: str = "") -> Identity:
        return Identity(user or None)

    # No pings: a test that moves the clock is not about them.
    pongee.connection(auth=who, anonymous=True, ping_interval=7200, pong_timeout=3600)
    everybody: dict[str, Any] = {"may_subscribe": public, "may_publish": public}
    pongee.channel("chat:{room}", Said, history=10, presence=True, **everybody)
    pongee.channel("live:{room}", Said, **everybody)

    @pongee.endpoint("/ws/plain", auth=who)
    async def plain(session: Session[str, str]) -> None:
        await session.subscribe("plain")
        await session.send("in")
        async for _ in session:
            pass

    change(pongee, app)
    pongee.install(app)
    async with serve(app) as server:
        yield Api(server, pongee)
