"""One process, wired together: publish, disconnect, drain."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from pongee.brokers.choose import MakeBroker
from pongee.centrifuge.client import Client
from pongee.centrifuge.service import ENCODERS, Service
from pongee.clock import Clock, SystemClock, TimerWheel
from pongee.errors import UsageError
from pongee.guards.capacity import Capacity
from pongee.guards.client_ip import TrustedProxies
from pongee.handlers.table import Declared
from pongee.limits import DRAIN_HOOKS_TIMEOUT, STOP_TIMEOUT, Caps
from pongee.links.stall import StallWatch
from pongee.registry import Connected, Registry
from pongee.sessions.runtime import Runtime
from pongee.switchboard import Switchboard
from pongee.telemetry import Telemetry, log_event

__all__ = ["Node"]

logger = logging.getLogger("pongee")

DrainHook = Callable[[], Awaitable[None]]


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
        broker: MakeBroker,
        buffer: int = 0,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        wheel = TimerWheel(clock)
        self.declared = Declared()
        self.on_drain: list[DrainHook] = []
        node = secrets.token_hex(8)
        self.board = Switchboard(broker(clock, wheel), wheel, ENCODERS, node, buffer)
        self.registry = Registry()
        self.telemetry = Telemetry(log_event)
        self.capacity = Capacity(caps)
        self.runtime = Runtime(
            clock=clock,
            wheel=wheel,
            watch=StallWatch(wheel),
            board=self.board,
            options_of=self.declared.options_of,
            registry=self.registry,
            capacity=self.capacity,
            telemetry=self.telemetry,
            trusted=trusted,
            ping_interval=ping_interval,
            _prefix=secrets.token_hex(4) + "-",
        )
        self.service = Service(self.runtime, self.board, self.declared, node)

    def find(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
    ) -> tuple[Connected, ...]:
        """Find connections by id or by user.

        Raises:
            UsageError: neither or both were given.
        """
        if id is not None and user is None:
            one = self.registry.get(id)
            return () if one is None else (one,)
        if user is not None and id is None:
            return self.registry.of_user(user)
        raise UsageError("id=... or user=...: give one of the two")

    async def drain(
        self, window: float, deadline: float | None = None, *, delay: float = 0.0
    ) -> None:
        """Refuse new handshakes and end every session with 1012, spread evenly over `window`.

        Args:
            window: seconds. Clients that were all told at once would all come back at once.
            deadline: seconds from the first close on after which what is left is cut; `None` waits
                for everybody's own close timeout.
            delay: seconds before that, in which handshakes are refused and sessions go on.

        Cancellation: sessions already told still end.
        """
        runtime = self.runtime
        again, runtime.draining = runtime.draining, True
        if delay:
            over = asyncio.Event()
            runtime.wheel.call_later(delay, over.set)
            await over.wait()
        if not again:
            await self._tell_drain()
        leaving = self._connections()
        for number, connection in enumerate(leaving):
            runtime.wheel.call_later(window * number / len(leaving), connection.leave)
        if deadline is None:
            await self.runtime.all_finished()
            return
        try:
            async with runtime.wheel.timeout(deadline):
                await self.runtime.all_finished()
        except TimeoutError:
            self.abort()
            await self._finished_within(STOP_TIMEOUT)

    async def _tell_drain(self) -> None:
        if not self.on_drain:
            return
        task = asyncio.create_task(_run_in_turn(self.on_drain))
        try:
            # One that ignores its cancellation does not hold us either.
            await asyncio.wait([task], timeout=DRAIN_HOOKS_TIMEOUT)
        finally:
            if not task.done():
                logger.error("on_drain hooks were cut: not done after %g s", DRAIN_HOOKS_TIMEOUT)
                task.cancel()

    def abort(self) -> None:
        """Cut every connection that has not finished, where the server lets us."""
        for link in list(self.runtime.unfinished.values()):
            link.abort()

    async def stop(self) -> None:
        """End what is left, at once, and forget every timer."""
        self.runtime.draining = True
        for connection in self._connections():
            connection.leave()
        if not await self._finished_within(STOP_TIMEOUT):
            self.abort()
            if not await self._finished_within(STOP_TIMEOUT):
                logger.error("left behind at the end: %d sessions", len(self.runtime.unfinished))
        await self.board.stop()
        self.runtime.wheel.close()
        self.runtime.watch.reset()

    def _connections(self) -> list[Connected]:
        """Everybody, clients that have not sent their first command included."""
        early = (owner for owner in self.runtime.unfinished if isinstance(owner, Client))
        return list(dict.fromkeys([*self.registry, *early]))

    async def _finished_within(self, seconds: float) -> bool:
        # Real seconds, whatever the injected clock says: the server waits for us.
        try:
            async with asyncio.timeout(seconds):
                await self.runtime.all_finished()
        except TimeoutError:
            return False
        return True


async def _run_in_turn(hooks: list[DrainHook]) -> None:
    for hook in hooks:
        try:
            await hook()
        except Exception:
            logger.exception("on_drain hook %r failed", hook)
