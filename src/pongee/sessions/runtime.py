"""What every session of one process shares."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pongee.clock import Clock, TimerWheel
from pongee.guards.capacity import Capacity
from pongee.guards.client_ip import TrustedProxies
from pongee.hub import Hub
from pongee.links.base import Link
from pongee.links.stall import StallWatch
from pongee.registry import Registry
from pongee.telemetry import Telemetry

if TYPE_CHECKING:
    from pongee.sessions.session import Session

__all__ = ["Hook", "Runtime"]

Hook = Callable[["Session[Any, Any]"], Awaitable[None]]


@dataclass(eq=False)
class Runtime:
    """One process's shared parts, wired by `node.Node`.

    Attributes:
        ping_interval: seconds between heartbeats where the server sends no pings.
        draining: the process is leaving: no new handshakes.
        endings: tasks that bring sessions to their end; kept so that none is lost half-way.
        unfinished: the link of each session, by a future that ends with its last hook.
    """

    clock: Clock
    wheel: TimerWheel
    watch: StallWatch
    hub: Hub
    registry: Registry
    capacity: Capacity
    telemetry: Telemetry
    trusted: TrustedProxies
    ping_interval: float = 20.0
    on_connect: list[Hook] = field(default_factory=list)
    on_disconnect: list[Hook] = field(default_factory=list)
    draining: bool = False
    endings: set[asyncio.Task[None]] = field(default_factory=set)
    unfinished: dict[asyncio.Future[None], Link] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _prefix: str = ""

    def new_id(self) -> str:
        """Make an id that no other session of this process has."""
        return f"{self._prefix}{next(self._ids)}"
