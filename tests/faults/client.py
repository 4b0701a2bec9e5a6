"""A subscriber as the client SDKs are: comes back by itself, and recovers what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
import msgspec

from tests.faults.ledger import Body, Ledger
from tests.faults.line import Line

__all__ = ["NO_ANSWER", "NO_PING", "SECRET", "Payload", "Subscriber", "rotation"]

SECRET = "the secret of the fault runs, long enough for HS256"
FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0  # of the SDKs' back-off; they go up to 20 s
NAIVE_WAIT = 0.1
PING_SLACK = 10.0  # what SDKs add to the server's ping interval
ANSWER_TIMEOUT = 5.0  # to a command, as in the SDKs
BATCH = 100  # commands in a frame: 64 KiB are allowed

NO_PING, NO_ANSWER = 2, 3  # codes of the SDKs' own


class Payload(msgspec.Struct):
    """What is published: publisher, counter, and when it was sent, by `time.monotonic`."""

    p: int
    n: int
    at: float


class _Pub(msgspec.Struct):
    data: Payload
    offset: int = 0


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    temporary: bool = False


class _Unsubscribe(msgspec.Struct):
    code: int
    reason: str = ""


class _Push(msgspec.Struct):
    channel: str = ""
    pub: _Pub | None = None
    unsubscribe: _Unsubscribe | None = None


class _Subscribed(msgspec.Struct):
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[_Pub] = []


class _Connected(msgspec.Struct):
    client: str = ""
    ping: int = 0
    pong: bool = False


class _Reply(msgspec.Struct):
    id: int = 0
    error: _Error | None = None
    connect: _Connected | None = None
    subscribe: _Subscribed | None = None
    push: _Push | None = None


_decode = msgspec.json.Decoder(_Reply).decode_lines


def rotation(ports: list[int], begin: int = 0) -> Callable[[], int]:
    """Choose a port, and the next one each time; `ports` may change meanwhile."""
    turn = begin - 1

    def choose() -> int:
        nonlocal turn
        turn += 1
        return ports[turn % len(ports)]

    return choose


@dataclass
class _Topic:
    name: str
    epoch: str = ""
    offset: int = 0
    known: bool = False  # whether it has a position
    live: bool = False  # whether it is subscribed on this connection
    failures: int = 0
    lost: bool = False  # for good


@dataclass
class Figures:
    """What happened to one subscriber, with `time.monotonic` stamps."""

    drops: list[tuple[float, int]] = field(default_factory=list)
    connects: list[tuple[float, int]] = field(default_factory=list)  # and the port
    attempts: int = 0
    refusals: list[int] = field(default_factory=list)  # HTTP statuses
    unsubscribed: list[tuple[float, int]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)  # of subscribe commands
    latencies: list[tuple[float, float]] = field(default_factory=list)  # when, and how long


class Subscriber:
    """Subscribed to some channels, from `start` to `stop`, whatever happens in between.

    Args:
        name: in the ledger.
        channels: their names.
        choose: says which port is tried next.
        ledger: where it writes what it gets.
        rng: draws its waits.
        user: whom its token names; ``""`` connects without one.
        naive: tries again every 100 ms, as those do that never heard of back-off.
        timed: notes the latency of everything that comes live.
    """

    def __init__(
        self,
        name: str,
        channels: list[str],
        choose: Callable[[], int],
        ledger: Ledger,
        rng: random.Random,
        *,
        user: str = "",
        naive: bool = False,
        timed: bool = False,
    ) -> None:
        self.name = name
        self.figures = Figures()
        self.finished = False  # told not to come back
        self.arrived = 0
        self.port = 0
        self._topics = {channel: _Topic(channel) for channel in channels}
        self._choose = choose
        self._ledger = ledger
        self._rng = rng
        self._token = jwt.encode({"sub": user}, SECRET, algorithm="HS256") if user else ""
        self._naive = naive
        self._timed = timed
        self._line: Line | None = None
        self._ended: asyncio.Future[int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._id = 0
        self._asked: dict[int, tuple[str, float]] = {}  # subscribe commands under way
        self._connected: _Connected | None = None
        self._heard = 0.0
        self._later: set[asyncio.TimerHandle] = set()

    @property
    def connected(self) -> bool:
        """Whether it has a connection that was accepted."""
        return self._connected is not None

    @property
    def since(self) -> float:
        """When it was connected last, by `time.monotonic`; 0 if it never was."""
        return self.figures.connects[-1][0] if self.figures.connects else 0.0

    @property
    def settled(self) -> bool:
        """Whether it is connected and subscribed to everything."""
        return self.connected and all(each.live for each in self._topics.values())

    def drops_since(self, begin: float) -> list[int]:
        """Return the codes with which its connections ended since then."""
        return [code for at, code in self.figures.drops if at >= begin]

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._let_go()

    def cut(self) -> None:
        """Lose the connection, as by a reset."""
        if self._line is not None:
            self._line.abort()

    def stall(self) -> None:
        """Read nothing more from this connection, as if it had vanished."""
        if self._line is not None:
            self._line.stall()

    async def _run(self) -> None:
        failures = 0
        while not self.finished:
            if await self._live():
                failures = 0
            if self.finished:
                return
            await asyncio.sleep(self._wait(failures))
            failures += 1

    def _wait(self, failures: int) -> float:
        if self._naive:
            return NAIVE_WAIT
        return self._rng.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures, 10)))

    async def _live(self) -> bool:
        """Connect and stay until the end; returns whether the server let it in."""
        self.port = self._choose()
        self.figures.attempts += 1
        self._ended = ended = asyncio.get_running_loop().create_future()

        def end(code: int, status: int) -> None:
            if status not in (0, 101):
                self.figures.refusals.append(status)
            if not ended.done():
                ended.set_result(code)

        try:
            self._line = await Line.open(self.port, self._on_text, end, timeout=ANSWER_TIMEOUT)
        except (OSError, TimeoutError):
            return False
        self._heard = time.monotonic()
        self._greet()
        try:
            code = await self._watch(ended)
        finally:
            welcome = self._connected is not None
            self._let_go()
        if welcome:
            self.figures.drops.append((time.monotonic(), code))
        self.finished = 3500 <= code <= 3999 or 4500 <= code <= 4999
        if self.finished:
            for channel in self._topics:
                self._ledger.leave(self.name, channel)
        return welcome

    async def _watch(self, ended: asyncio.Future[int]) -> int:
        while not ended.done():
            await asyncio.wait([ended], timeout=1)
            if ended.done():
                break
            now = time.monotonic()
            ping = self._connected.ping if self._connected is not None else 0
            if self._connected is None and now - self._heard > ANSWER_TIMEOUT:
                return NO_ANSWER
            if ping and now - self._heard > ping + PING_SLACK:
                return NO_PING
            if any(now - at > ANSWER_TIMEOUT for _, at in self._asked.values()):
                return NO_ANSWER
        return ended.result()

    def _let_go(self) -> None:
        if self._line is not None:
            self._line.abort()
        self._line = self._connected = None
        self._asked.clear()
        for handle in self._later:
            handle.cancel()
        self._later.clear()
        for topic in self._topics.values():
            topic.live = False

    # Commands

    def _greet(self) -> None:
        self._id += 1
        connect = {"name": "faults", "token": self._token}
        first = msgspec.json.encode({"id": self._id, "connect": connect})
        wanted = [topic for topic in self._topics.values() if not topic.lost]
        commands = [first, *(self._subscribe(topic) for topic in wanted)]
        assert self._line is not None
        for start in range(0, len(commands), BATCH):
            self._line.send(b"\n".join(commands[start : start + BATCH]))

    def _subscribe(self, topic: _Topic) -> bytes:
        self._id += 1
        self._asked[self._id] = topic.name, time.monotonic()
        request: dict[str, object] = {"channel": topic.name}
        if topic.known:
            request |= {"recover": True, "epoch": topic.epoch, "offset": topic.offset}
        return msgspec.json.encode({"id": self._id, "subscribe": request})

    def _subscribe_again(self, topic: _Topic, delay: float) -> None:
        line = self._line

        def again() -> None:
            self._later.discard(handle)
            if line is not None and line is self._line:
                line.send(self._subscribe(topic))

        handle = asyncio.get_running_loop().call_later(delay, again)
        self._later.add(handle)

    # What the server says

    def _on_text(self, text: bytes) -> None:
        if self._ended is None or self._ended.done():
            return
        for reply in _decode(text):
            if reply.push is not None:
                self._on_push(reply.push)
            elif not reply.id:
                self._heard = time.monotonic()
                if self._connected is not None and self._connected.pong and self._line is not None:
                    self._line.send(b"{}")
            elif reply.id in self._asked:
                channel, _ = self._asked.pop(reply.id)
                self._on_subscribed(self._topics[channel], reply)
            else:
                self._on_connected(reply)

    def _on_connected(self, reply: _Reply) -> None:
        if reply.connect is None:
            self.cut()
            return
        self._connected = reply.connect
        self._heard = time.monotonic()
        self.figures.connects.append((self._heard, self.port))

    def _on_subscribed(self, topic: _Topic, reply: _Reply) -> None:
        if reply.error is not None:
            self.figures.errors.append(reply.error.code)
            if reply.error.temporary or reply.error.code in (100, 109):
                topic.failures += 1
                self._subscribe_again(topic, self._wait(topic.failures))
            else:
                topic.lost = True
            return
        result = reply.subscribe
        assert result is not None, reply
        recovered = result.recovered if topic.known else None
        self._ledger.subscribe(
            self.name, topic.name, result.epoch, result.offset, recovered=recovered
        )
        topic.epoch, topic.offset = result.epoch, result.offset
        topic.known, topic.live, topic.failures = True, True, 0
        for publication in result.publications:
            self._take(topic, publication)

    def _on_push(self, push: _Push) -> None:
        topic = self._topics.get(push.channel)
        if topic is None or not topic.live:
            return
        if push.pub is not None:
            self._take(topic, push.pub)
            if self._timed:
                now = time.monotonic()
                self.figures.latencies.append((now, now - push.pub.data.at))
        elif push.unsubscribe is not None:
            topic.live = False
            self.figures.unsubscribed.append((time.monotonic(), push.unsubscribe.code))
            if push.unsubscribe.code >= 2500:
                self._subscribe_again(topic, 0)
            else:
                topic.lost = True

    def _take(self, topic: _Topic, publication: _Pub) -> None:
        topic.offset = publication.offset
        self.arrived += 1
        body = Body(publication.data.p, publication.data.n)
        self._ledger.arrive(self.name, topic.name, publication.offset, body)
