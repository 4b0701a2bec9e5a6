"""One process, wired together: publish, disconnect, drain."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from pongee.clock import Clock, SystemClock, TimerWheel
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.guards.capacity import Capacity
from pongee.guards.client_ip import TrustedProxies
from pongee.hub import Hub
from pongee.limits import STOP_TIMEOUT, Caps
from pongee.links.stall import StallWatch
from pongee.registry import Connected, Registry
from pongee.sessions.runtime import Runtime
from pongee.sessions.session import Session
from pongee.telemetry import Telemetry, log_event

__all__ = ["Node"]

logger = logging.getLogger("pongee")


class Node:
    """The parts of one process and what can be done to all its sessions.

    Not for use from other threads.
    """

    def __init__(
        self,
        *,
        caps: Caps,
        trusted: TrustedProxies,
        ping_interval: float,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        wheel = TimerWheel(clock)
        self.hub = Hub()
        self.registry = Registry()
        self.telemetry = Telemetry(log_event)
        self.capacity = Capacity(caps)
        self.runtime = Runtime(
            clock=clock,
            wheel=wheel,
            watch=StallWatch(wheel),
            hub=self.hub,
            registry=self.registry,
            capacity=self.capacity,
            telemetry=self.telemetry,
            trusted=trusted,
            ping_interval=ping_interval,
            _prefix=secrets.token_hex(4) + "-",
        )

    def publish(self, channel: str, data: Any, key: str | None = None) -> int:
        """Hand `data` to the members of `channel` on this process; never waits for a client."""
        return self.hub.publish(channel, data, key)

    def disconnect(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
        code: int = CloseCode.DISCONNECTED,
        reason: str = "disconnected",
    ) -> int:
        """End sessions by id or by user; returns how many."""
        found: tuple[Connected, ...] = ()
        if id is not None:
            one = self.registry.get(id)
            found = () if one is None else (one,)
        elif user is not None:
            found = self.registry.of_user(user)
        for connection in found:
            connection.disconnect(code, reason)
        return len(found)

    async def drain(self, window: float, deadline: float | None = None) -> None:
        """Refuse new handshakes and end every session with 1012, spread evenly over `window`.

        Args:
            window: seconds. Clients that were all told at once would all come back at once.
            deadline: seconds after which what is left is cut; `None` waits for everybody's own
                close timeout.

        Cancellation: sessions already told still end.
        """
        runtime = self.runtime
        runtime.draining = True
        sessions = list(self.registry)
        for number, connection in enumerate(sessions):
            delay = window * number / len(sessions)
            runtime.wheel.call_later(delay, lambda one=connection: _leave(one))  # type: ignore[misc]
        if deadline is None:
            await self.runtime.all_finished()
            return
        try:
            async with runtime.wheel.timeout(deadline):
                await self.runtime.all_finished()
        except TimeoutError:
            self.abort()
            await self._finished_within(STOP_TIMEOUT)

    def abort(self) -> None:
        """Cut every connection that has not finished, where the server lets us."""
        for link in list(self.runtime.unfinished.values()):
            link.abort()

    async def stop(self) -> None:
        """End what is left, at once, and forget every timer."""
        self.runtime.draining = True
        for connection in self.registry:
            _leave(connection)
        if not await self._finished_within(STOP_TIMEOUT):
            self.abort()
            if not await self._finished_within(STOP_TIMEOUT):
                logger.error("left behind at the end: %d sessions", len(self.runtime.unfinished))
        self.runtime.wheel.close()
        self.runtime.watch.reset()

    async def _finished_within(self, seconds: float) -> bool:
        # Real seconds, whatever the injected clock says: the server waits for us.
        try:
            async with asyncio.timeout(seconds):
                await self.runtime.all_finished()
        except TimeoutError:
            return False
        return True


def _leave(connection: Connected) -> None:
    if isinstance(connection, Session):
        connection.end(
            CloseCause(CauseKind.DRAINING, CloseCode.SERVICE_RESTART, "server is leaving")
        )
