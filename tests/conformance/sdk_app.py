"""The application that the SDKs are tested with."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from fastapi import FastAPI
from pydantic import BaseModel, JsonValue

from pongee import Channel, Client, ClientError, ClientLimits, JWTBearer, Pongee, Settings, public
from pongee.testing import Server, serve

SECRET = "a secret of the tests, long enough for HS256"
WIRE = {"ws": "pongee.wire:WireProtocol"}


def token(user: str = "", *, lasts: float | None = 60, secret: str = SECRET, **claims: Any) -> str:
    """Make a token of a connection, or with ``channel=…`` of a subscription.

    Args:
        user: its id; empty is anonymous.
        lasts: seconds from now, below 0 for one that has expired; `None` is for ever.
        secret: another one makes it a forgery.
        claims: more of them.
    """
    claims |= {"sub": user} if user else {}
    claims |= {} if lasts is None else {"exp": time.time() + lasts}
    return jwt.encode(claims, secret, algorithm="HS256")


class Message(BaseModel):
    text: str


class Pair(BaseModel):
    left: int
    right: int


class SdkApp:
    """A Pongee with a channel of every kind.

    Args:
        connection: options of ``pongee.connection``.

    Attributes:
        greeting: channels that ``on_connect`` subscribes clients to.
        letter: what ``write_me`` sends to its caller, outside of any channel.
        sent: what clients sent along with their connect and subscribe commands.
    """

    def __init__(self, **connection: Any) -> None:
        # Where a test says there is a broker's server, other tests have been there before.
        self.pongee = Pongee(Settings(broker_prefix=f"sdk{secrets.token_hex(4)}"))
        self.app = FastAPI()
        self.greeting: list[str] = []
        self.letter: Any = None
        self.sent: list[Any] = []
        self._connection(connection)
        self._channels()
        self._methods()
        self.pongee.install(self.app)

    def _connection(self, options: dict[str, Any]) -> None:
        bearer = JWTBearer(SECRET, require_exp=False, leeway=0)
        given: dict[str, Any] = {"auth": bearer, "anonymous": True} | options
        connection = self.pongee.connection(**given)

        @connection.on_connect
        async def hello(client: Client, data: JsonValue) -> dict[str, Any]:
            self.sent.append(data)
            for channel in self.greeting:
                await client.subscribe(channel)
            return {"hello": client.user, "sdk": client.name}

    def _channels(self) -> None:
        subscribers: Any = dict.fromkeys(
            ("may_publish", "may_see_presence", "may_read_history"), "subscribers"
        )
        self.chat = self.pongee.channel(
            "chat:{room_id}",
            Message,
            history=100,
            presence=True,
            join_leave=True,
            may_subscribe=public,
            **subscribers,
        )
        self.short = self.pongee.channel("short:{n}", int, history=3, may_subscribe=public)
        self.cached = self.pongee.channel(
            "cached:{n}", int, history=1, cache=True, may_subscribe=public
        )
        self.plain: Channel[Any] = self.pongee.channel("plain:{n}", Any, may_subscribe=public)
        self.locked: Channel[Any] = self.pongee.channel("locked:{n}", Any)

        @self.chat.on_subscribe
        async def welcome(room_id: int, data: JsonValue) -> dict[str, int]:
            self.sent.append(data)
            return {"room": room_id}

    def _methods(self) -> None:
        @self.pongee.rpc("add")
        async def add(pair: Pair) -> int:
            return pair.left + pair.right

        @self.pongee.rpc("fail")
        async def fail(code: int) -> None:
            raise ClientError(code, "as asked")

        @self.pongee.rpc("write_me")
        async def write_me(client: Client) -> None:
            await client.send(self.letter)

    @asynccontextmanager
    async def running(self, **config: Any) -> AsyncIterator[Server]:
        """Serve it, on our wire unless `config` says otherwise."""
        async with serve(self.app, **(WIRE | config)) as server:
            yield server


def brief_grace(seconds: float) -> ClientLimits:
    """Limits under which an expired token is forgiven for `seconds`."""
    return ClientLimits(expiry_grace=seconds)
