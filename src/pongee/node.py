"""One process, wired together: publish, disconnect, drain."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial
from importlib import metadata
from typing import Any

from pongee.brokers.choose import MakeBroker
from pongee.centrifuge import codes
from pongee.centrifuge.client import Client
from pongee.centrifuge.service import ENCODERS, Service
from pongee.clock import Clock, SystemClock, Timer, TimerWheel
from pongee.errors import BrokerUnavailable
from pongee.fleet.control import Control
from pongee.fleet.fleet import Fleet
from pongee.fleet.layout import LAYOUT, write_layout
from pongee.fleet.messages import Answer, Command, Forward, NodeInfo
from pongee.guards.capacity import Capacity
from pongee.guards.client_ip import TrustedProxies
from pongee.handlers.table import Declared
from pongee.limits import BROKER_PATIENCE, DRAIN_HOOKS_TIMEOUT, STOP_TIMEOUT, Caps
from pongee.links.stall import StallWatch
from pongee.registry import Connected, Registry
from pongee.sessions.runtime import Runtime
from pongee.switchboard import Switchboard
from pongee.telemetry import BrokerLink, Telemetry, log_event

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
        self.board.on_link_changed = self._on_link
        self._patience: Timer | None = None
        self._leaving: list[Timer] = []  # clients that are sent away, one after the other
        self._since = clock.monotonic()
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
        self.control = Control(self.registry, self.board.hub, clock)
        self.fleet = Fleet(
            self.board,
            wheel,
            self.describe,
            self.control.carry_out,
            self._take_forward,
        )
        self.service.forward = self._forward

    async def start(self) -> None:
        """Join the others. Idempotent.

        Raises:
            ConfigurationError: the broker can never be reached as it is configured.
        """
        await self.board.start()
        self.fleet.start()
        await self._tell_layout()

    def start_soon(self) -> None:
        """Join the others, where nobody can wait for it."""
        self._soon(self.start())

    async def command(self, command: Command) -> list[Answer]:
        """Have every process of the application do something.

        Raises:
            BrokerUnavailable: this process has done it; others may or may not.
        """
        return await self.fleet.ask(command)

    def _take_forward(self, commands: Forward) -> None:
        self.service.take(commands.session, commands.data, commands.binary)

    async def _forward(self, node: str, session: str, data: bytes, binary: bool) -> bool:
        return await self.fleet.forward(node, Forward(session, data, binary))

    def describe(self) -> NodeInfo:
        """Say what this process is and has."""
        channels = self.board.hub.channels()
        return NodeInfo(
            uid=self.board.node,
            name=socket.gethostname(),
            version=_version(),
            num_clients=len(self.registry),
            num_users=len(self.registry.users()),
            num_subs=sum(channels.values()),
            num_channels=len(channels),
            uptime=int(self.runtime.clock.monotonic() - self._since),
        )

    def _on_link(self, up: bool) -> None:
        """Tell who listens; do not keep clients here that the others could serve."""
        wheel = self.runtime.wheel
        self.telemetry.emit(BrokerLink(up, self.board.broker.health.reason))
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        for timer in self._leaving:
            timer.cancel()
        self._leaving.clear()
        if up:
            self.fleet.greet()
            self._soon(self._tell_layout())
        elif self.fleet.others:
            self._patience = wheel.call_later(BROKER_PATIENCE, self._send_away)

    def _send_away(self) -> None:
        """Send clients that were promised their position to where the broker may be reached."""
        members = [one for one in self.board.positioned() if isinstance(one, Client)]
        logger.warning("the broker stays away: %d clients are sent elsewhere", len(members))
        for number, client in enumerate(members):
            delay = BROKER_PATIENCE * number / len(members)
            end = partial(client.end, codes.Disconnect.INSUFFICIENT_STATE)
            self._leaving.append(self.runtime.wheel.call_later(delay, end))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.runtime.endings.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self.runtime.endings.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("the broker cannot be used", exc_info=task.exception())

    async def _tell_layout(self) -> None:
        """Leave word of the declared channels for publishers that do not have the application."""
        if self.board.broker.reliable:
            return
        try:
            # Another application may have the same prefix; an older version other channels.
            written = await self.board.broker.get(LAYOUT)
            own = ((one.pattern, one.options) for one in self.declared.channels)
            await self.board.broker.put(LAYOUT, write_layout(own, written))
        except BrokerUnavailable as error:
            logger.debug("the declared channels could not be told: %s", error)

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
        self.board.turn_away()
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
        await self.fleet.stop()
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


@cache  # it is read from disk
def _version() -> str:
    try:
        return metadata.version("pongee")  # the package itself imports us
    except metadata.PackageNotFoundError:
        return ""  # run from its sources
