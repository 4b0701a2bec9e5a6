"""What every session of one process shares."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pongee.channels.options import ChannelOptions
from pongee.clock import Clock, TimerWheel
from pongee.guards.capacity import Capacity
from pongee.guards.client_ip import TrustedProxies
from pongee.links.base import Link
from pongee.links.stall import StallWatch
from pongee.registry import Registry
from pongee.switchboard import Switchboard
from pongee.telemetry import Telemetry

if TYPE_CHECKING:
    from pongee.sessions.session import Session

__all__ = ["Hook", "Runtime"]

Hook = Callable[["Session[Any, Any]"], Awaitable[None]]


@dataclass(eq=False)
class Runtime:
    """One process's shared parts, wired by `node.Node`.

    Attributes:
        board: channels of this process.
        options_of: how a channel behaves.
        ping_interval: seconds between heartbeats where the server sends no pings.
        draining: the process is leaving: no new handshakes.
        endings: tasks that bring sessions to their end; kept so that none is lost half-way.
        unfinished: the link of each session, by its owner, until its last hook has run.
        detachable: whether no middleware of the application would notice the end of an ASGI call.
    """

    clock: Clock
    wheel: TimerWheel
    watch: StallWatch
    board: Switchboard
    options_of: Callable[[str], ChannelOptions]
    registry: Registry
    capacity: Capacity
    telemetry: Telemetry
    trusted: TrustedProxies
    ping_interval: float = 20.0
    on_connect: list[Hook] = field(default_factory=list)
    on_disconnect: list[Hook] = field(default_factory=list)
    draining: bool = False
    endings: set[asyncio.Task[None]] = field(default_factory=set)
    unfinished: dict[object, Link] = field(default_factory=dict)
    detachable: bool = False
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _prefix: str = ""

    def new_id(self) -> str:
        """Make an id that no other session of this process has."""
        return f"{self._prefix}{next(self._ids)}"

    def finish(self, owner: object) -> None:
        """Note that the last hook of `owner`'s session has run."""
        self.unfinished.pop(owner, None)
        if not self.unfinished:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def all_finished(self) -> None:
        """Wait until no session is left, hooks included."""
        while self.unfinished:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
