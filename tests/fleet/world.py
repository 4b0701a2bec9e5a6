"""Several processes of one application, as far as they know of each other, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI

from pongee import Channel, ClientLimits, Identity, Pongee, Session, Settings, public
from pongee.testing import Client as Peer
from pongee.testing import Server, connect, eventually, serve

ROUTE = "/connection/websocket"


class Sdk:
    """A client in the protocol's JSON that loses nothing it was told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._told: list[dict[str, Any]] = []
        self._number = 0

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command; returns the reply to it."""
        self._number += 1
        number = self._number
        await self.peer.send_json({"id": number, **command})
        return await self._next(lambda told: told.get("id") == number)

    async def pushed(self, kind: str) -> dict[str, Any]:
        """Wait for the next push of one kind."""
        push = (await self._next(lambda told: kind in told.get("push", {})))["push"]
        return push[kind]  # type: ignore[no-any-return]

    async def _next(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            for told in self._told:
                if wanted(told):
                    self._told.remove(told)
                    return told
            lines = str(await self.peer.receive()).split("\n")
            self._told += [msgspec.json.decode(line) for line in lines if line]


@dataclass
class Process:
    """One of them."""

    pongee: Pongee
    room: Channel[dict[str, Any]]
    server: Server

    @asynccontextmanager
    async def sdk(self, user: str = "", *channels: str, **how: Any) -> AsyncIterator[Sdk]:
        """Connect as `user`, and subscribe."""
        async with connect(self.server.ws(f"{ROUTE}?user={user}")) as peer:
            sdk = Sdk(peer)
            await sdk.ask(connect={})
            for channel in channels:
                await sdk.ask(subscribe={"channel": channel, **how})
            yield sdk


def make(settings: Settings, **given: Any) -> tuple[Pongee, FastAPI, Channel[dict[str, Any]]]:
    """Make the application."""
    pongee, app = Pongee(settings, **given), FastAPI()

    async def who(user: str = "") -> Identity:
        return Identity(user or None)

    # No pings: a test that moves the clock is not about them.
    pongee.connection(
        auth=who,
        anonymous=True,
        ping_interval=7200,
        pong_timeout=3600,
        limits=ClientLimits(max_subscriptions=3),
    )
    room = pongee.channel(
        "chat:{room_id:int}",
        dict[str, Any],
        history=1000,
        presence=True,
        join_leave=True,
        may_subscribe=public,
        may_see_presence=public,
    )

    @pongee.endpoint("/ws", auth=who)
    async def session(session: Session[str, str]) -> None:
        await session.subscribe("plain")
        async for _ in session:
            pass

    pongee.install(app)
    return pongee, app, room


@asynccontextmanager
async def processes(settings: Settings, number: int = 2) -> AsyncIterator[list[Process]]:
    """Serve the application `number` times; all know of each other."""
    async with AsyncExitStack() as stack:
        found: list[Process] = []
        for _ in range(number):
            pongee, app, room = make(settings)
            server = await stack.enter_async_context(serve(app))
            found.append(Process(pongee, room, server))
        for process in found:
            await eventually(
                lambda one=process: len(one.pongee._node.fleet.others) == number - 1,  # type: ignore[misc]
                what="the processes know of each other",
            )
        yield found
