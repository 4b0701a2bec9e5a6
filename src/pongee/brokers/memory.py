"""The broker of a single process, and the reference for all others. ▲

Everything is in this process's memory and gone with it; the next process begins new epochs, so that
clients learn that they missed something.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import ClassVar, TypeVar

from pongee.brokers.base import UP, Counts, Health, Page, Sink, Stream
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.channels.stream import StreamLog
from pongee.clock import Clock, Handle, TimerWheel
from pongee.limits import IDEMPOTENCY_KEYS, SWEEP_INTERVAL, SWEEP_REST, SWEEP_STEP

__all__ = ["MemoryBroker"]

logger = logging.getLogger("pongee.brokers")

K = TypeVar("K")
V = TypeVar("V")

_Event = tuple[str, str, Publication | ClientInfo | bytes]
"""What a sink is told: of which kind, in which channel, what."""


class MemoryBroker:
    """A `Broker` for one process.

    Concurrency: no method ever suspends, although they are coroutines as the contract wants:
    awaiting one costs no turn of the event loop, nothing happens in between, and the sink has been
    told when `publish`, `join` or `leave` returns. The exception is a sink that publishes while it
    is being told something: that is told next, so that every channel keeps its order.

    A sink that raises is logged; the publisher learns nothing of it.

    Args:
        clock: where time comes from.
        wheel: what expires is looked for on its time; without one, on the clock's.
    """

    reliable: ClassVar[bool] = True

    def __init__(self, clock: Clock, wheel: TimerWheel | None = None) -> None:
        self._now = clock.monotonic
        self._clock = clock
        self._wheel = wheel
        self._sink: Sink | None = None
        self._node = ""
        self._notes: dict[str, bytes] = {}
        self._subscribed: set[str] = set()
        self._logs: dict[str, StreamLog] = {}
        self._rooms: dict[str, _Room] = {}
        # When it is forgotten, and what the first publication got. The oldest first.
        self._keys: OrderedDict[tuple[str, str], tuple[float, Position]] = OrderedDict()
        self._untold: deque[_Event] = deque()
        self._telling = False
        self._round: Iterator[None] = iter(())
        self._timer: Handle | None = None

    @property
    def health(self) -> Health:
        """Nothing can come between."""
        return UP

    async def start(self, sink: Sink, node: str) -> None:
        """Begin; needs a running event loop if the clock does."""
        await self.stop()
        self._sink = sink
        self._node = node
        self._round = self._expire()
        self._sweep_later()

    async def stop(self) -> None:
        """End, and forget the sink and the subscriptions; histories stay."""
        self._sink = None
        self._subscribed.clear()
        self._untold.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def subscribe(self, channel: str) -> None:
        """Tell the sink of `channel` from now on."""
        self._subscribed.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Tell it no more."""
        self._subscribed.discard(channel)

    @property
    def subscribed(self) -> frozenset[str]:
        """The channels that the sink is told of."""
        return frozenset(self._subscribed)

    async def publish(
        self,
        channel: str,
        publication: Publication,
        stream: Stream | None,
        *,
        idempotency_key: str | None = None,
        idempotency_window: float = 300.0,
    ) -> Position:
        """Append to the stream, if there is one, and tell the sink."""
        now = self._now()
        if idempotency_key is not None:
            known = self._keys.get((channel, idempotency_key))
            if known is not None and now < known[0]:
                return known[1]
        placed = copy(publication)
        if stream is None:
            position = NOWHERE
            placed.offset, placed.epoch = NOWHERE
        else:
            position = self._log(channel, stream, now).append(placed, now)
        if idempotency_key is not None:
            self._remember((channel, idempotency_key), now + idempotency_window, position)
        if channel in self._subscribed:
            self._tell(("publication", channel, placed))
        return position

    async def history(
        self,
        channel: str,
        stream: Stream,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """Read what is kept."""
        now = self._now()
        return self._log(channel, stream, now).read(since, limit, reverse, now=now)

    async def remove_history(self, channel: str) -> None:
        """Forget the publications that are kept."""
        log = self._logs.get(channel)
        if log is not None:
            log.clear()

    async def join(self, channel: str, info: ClientInfo) -> None:
        """Tell the sink that `info` came."""
        if channel in self._subscribed:
            self._tell(("join", channel, info))

    async def leave(self, channel: str, info: ClientInfo) -> None:
        """Tell the sink that `info` left."""
        if channel in self._subscribed:
            self._tell(("leave", channel, info))

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Enter `info.client`, or renew its lease."""
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = _Room()
            self._sweep_later()
        room.enter(info, self._now() + ttl)

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        """Strike `client` out."""
        room = self._rooms.get(channel)
        if room is not None:
            room.strike(client)
            if not room.leases:
                del self._rooms[channel]

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is there."""
        room = self._room(channel)
        if room is None:
            return {}
        return {client: info for client, (info, _) in room.leases.items()}

    async def presence_counts(self, channel: str) -> Counts:
        """How many are there; costs the same however many."""
        room = self._room(channel)
        return Counts(0, 0) if room is None else Counts(len(room.leases), len(room.users))

    async def control(self, data: bytes, node: str | None = None) -> None:
        """Tell the sink, if it is meant."""
        if node is None or node == self._node:
            self._tell(("control", "", data))

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`."""
        self._notes[name] = data

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`."""
        return self._notes.get(name)

    def _log(self, channel: str, stream: Stream, now: float) -> StreamLog:
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = StreamLog(stream, now)
            self._sweep_later()
        else:
            log.stream = stream
        return log

    def _room(self, channel: str) -> _Room | None:
        room = self._rooms.get(channel)
        if room is not None:
            room.expire(self._now())
        return room

    def _remember(self, key: tuple[str, str], until: float, position: Position) -> None:
        self._keys[key] = (until, position)
        self._keys.move_to_end(key)
        self._sweep_later()
        if len(self._keys) > IDEMPOTENCY_KEYS:
            self._keys.popitem(last=False)

    def _tell(self, event: _Event) -> None:
        """Tell the sink, after everything that it has not been told yet."""
        self._untold.append(event)
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                self._tell_one(*self._untold.popleft())
        finally:
            self._telling = False

    def _tell_one(self, kind: str, channel: str, what: Publication | ClientInfo | bytes) -> None:
        sink = self._sink
        # It may have left since, when it was told something else.
        if sink is None or (kind != "control" and channel not in self._subscribed):
            return
        try:
            if isinstance(what, bytes):
                sink.on_control(what)
            elif isinstance(what, Publication):
                sink.on_publication(channel, what)
            elif kind == "join":
                sink.on_join(channel, what)
            else:
                sink.on_leave(channel, what)
        except Exception:
            logger.exception("a sink raised at a %s", kind)

    def _sweep_later(self) -> None:
        """See that what expires is let go of, if there is anything that can."""
        if self._timer is not None or self._sink is None:
            return
        if self._logs or self._rooms or self._keys:
            self._wake_in(SWEEP_INTERVAL)

    def _wake_in(self, delay: float) -> None:
        if self._wheel is None:
            self._timer = self._clock.call_at(self._now() + delay, self._sweep)
        else:
            self._timer = self._wheel.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        """Take one step of a round through everything, or begin the next round."""
        for _ in self._round:
            self._wake_in(SWEEP_REST)
            return
        self._timer = None
        self._round = self._expire()
        self._sweep_later()

    def _expire(self) -> Iterator[None]:
        """Let go of what has expired, some of it at each step."""
        yield from self._expire_from(self._logs, self._trim)
        yield from self._expire_from(self._rooms, lambda _, room, now: room.expire(now))
        yield from self._expire_from(self._keys, lambda _, entry, now: now >= entry[0])

    def _trim(self, channel: str, log: StreamLog, now: float) -> bool:
        """Let go of what is too old; returns whether nothing is left to know."""
        log.trim(now)
        # Clients choose names: channels that they only looked at must not stay for weeks.
        return log.is_over(now) or (channel not in self._subscribed and log.is_unused(now))

    def _expire_from(
        self, table: MutableMapping[K, V], is_over: Callable[[K, V, float], bool]
    ) -> Iterator[None]:
        keys = list(table)
        for first in range(0, len(keys), SWEEP_STEP):
            now = self._now()
            for key in keys[first : first + SWEEP_STEP]:
                value = table.get(key)
                if value is not None and is_over(key, value, now):
                    del table[key]
            yield


class _Room:
    """Who is present in one channel.

    Attributes:
        leases: by connection, who it is and when that ends.
        users: different users, and how many connections each has.
    """

    __slots__ = ("_earliest", "leases", "users")

    def __init__(self) -> None:
        self.leases: dict[str, tuple[ClientInfo, float]] = {}
        self.users: dict[str, int] = {}
        # No lease ends before. Whoever renews moves the true time on, not this, so that a look at
        # all leases is due once in a time to live, however often one asks.
        self._earliest = math.inf

    def enter(self, info: ClientInfo, until: float) -> None:
        """Enter or renew."""
        self.strike(info.client)
        self.leases[info.client] = (info, until)
        self.users[info.user] = self.users.get(info.user, 0) + 1
        self._earliest = min(self._earliest, until)

    def strike(self, client: str) -> None:
        """Strike out; harmless if it is not there."""
        lease = self.leases.pop(client, None)
        if lease is not None:
            user = lease[0].user
            self.users[user] -= 1
            if not self.users[user]:
                del self.users[user]

    def expire(self, now: float) -> bool:
        """Strike out those that have ended; returns whether nobody is left."""
        if now >= self._earliest:
            for client in [one for one, (_, until) in self.leases.items() if now >= until]:
                self.strike(client)
            self._earliest = min((until for _, until in self.leases.values()), default=math.inf)
        return not self.leases
