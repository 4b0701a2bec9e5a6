"""An application under test and the server that runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from fastapi import FastAPI

from pongee import Caps, Pongee, Settings
from pongee.clock import Clock
from pongee.testing import Server, serve


class World:
    """A Pongee, its application, and what its hooks have seen.

    Attributes:
        server: how it is served, unless a test says more.
    """

    server: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, *, clock: Clock | None = None, caps: Caps | None = None, **settings: Any
    ) -> None:
        self.pongee = Pongee(Settings(**settings), clock=clock, caps=caps)
        self.app = FastAPI()
        self.opened: list[str] = []
        self.ended: list[tuple[str, str]] = []

        @self.pongee.on_connect
        async def opened(session: Any) -> None:
            self.opened.append(session.id)

        @self.pongee.on_disconnect
        async def ended(session: Any) -> None:
            self.ended.append((session.id, session.close_cause.kind.value))

    @asynccontextmanager
    async def running(self, **config: Any) -> AsyncIterator[Server]:
        """Serve it."""
        self.pongee.install(self.app)
        async with serve(self.app, **(self.server | config)) as server:
            yield server

    @property
    def causes(self) -> list[str]:
        """Why sessions ended, in order."""
        return [cause for _, cause in self.ended]
