"""Time, turns of the event loop, the broker's answers and its deliveries, each moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pongee import BrokerUnavailable
from pongee.brokers.base import Page
from pongee.brokers.memory import MemoryBroker
from pongee.channels.publication import ClientInfo, Publication
from pongee.clock import Clock, TimerWheel
from pongee.links.base import Batch, Capabilities, LinkStatistics, Outgoing

T = TypeVar("T")


class HandLoop(asyncio.SelectorEventLoop):
    """A loop that makes a turn when it is told to, and never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.problems: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, problem: self.problems.append(problem))

    def time(self) -> float:
        """The loop's own time: the rests of the hub."""
        return self.now

    def turn(self) -> None:
        """Run what is ready."""
        self.call_soon(self.stop)
        self.run_forever()
        assert not self.problems, self.problems

    def quiet(self) -> None:
        """Make turns until nothing more happens by itself."""
        for _ in range(40):
            self.now += 0.05
            self.turn()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Do something between two callbacks of a turn."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it suspended")


class PacedBroker(MemoryBroker):
    """A broker behind a network: it takes its time, brings things late, and may lose them.

    Attributes:
        paced: whether it waits for `go_on` before and after each thing it does.
        slow: whether what is published stays on the way until `arrive`.
        faults: how often something was lost.
    """

    def __init__(self, clock: Clock, wheel: TimerWheel) -> None:
        super().__init__(clock, wheel)
        self.paced = False
        self.slow = True
        self.faults = 0
        self._last: tuple[str, str, Publication | ClientInfo | bytes] | None = None
        self.failing = False
        self.log: list[tuple[str, str]] = []
        self._on_the_way: deque[tuple[str, str, Publication | ClientInfo | bytes]] = deque()
        self._steps: list[asyncio.Future[None]] = []

    # The network

    @property
    def on_the_way(self) -> int:
        """Things that were published and have not arrived."""
        return len(self._on_the_way)

    @property
    def waiting(self) -> int:
        """Steps that wait for `go_on`."""
        self._steps = [step for step in self._steps if not step.done()]
        return len(self._steps)

    def arrive(self, number: int = 1) -> None:
        """Let the oldest things arrive."""
        for _ in range(min(number, len(self._on_the_way))):
            self._last = self._on_the_way.popleft()
            self._tell_one(*self._last)

    def lose(self) -> None:
        """Let the oldest thing never arrive."""
        if self._on_the_way:
            kind, _, _ = self._on_the_way.popleft()
            self.faults += kind == "publication"

    def repeat(self) -> None:
        """Let the thing that arrived last arrive once more."""
        if self._last is not None:
            self._tell_one(*self._last)

    def go_on(self, number: int = 0) -> None:
        """Let one of the steps that wait be done."""
        if self.waiting:
            self._steps.pop(number % len(self._steps)).set_result(None)

    def restart(self, channel: str) -> None:
        """Lose all that was kept, as a broker that comes back empty."""
        self.faults += self._logs.pop(channel, None) is not None

    def _tell(self, event: tuple[str, str, Publication | ClientInfo | bytes]) -> None:
        self._on_the_way.append(event)
        if not self.slow:
            self.arrive(len(self._on_the_way))

    async def _step(self) -> None:
        if self.paced:
            step = asyncio.get_running_loop().create_future()
            self._steps.append(step)
            await step

    async def _paced(
        self, what: str, channel: str, doing: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        await self._step()
        if self.failing:
            raise BrokerUnavailable(what)
        self.log.append((what, channel))
        result = await doing()
        await self._step()
        return result

    # The broker

    async def subscribe(self, channel: str) -> None:
        base = super().subscribe
        await self._paced("subscribe", channel, lambda: base(channel))

    async def unsubscribe(self, channel: str) -> None:
        base = super().unsubscribe
        await self._paced("unsubscribe", channel, lambda: base(channel))
        self._last = None
        self._on_the_way = deque(thing for thing in self._on_the_way if thing[1] != channel)

    async def history(self, channel: str, *given: Any, **more: Any) -> Page:
        base = super().history
        return await self._paced("history", channel, lambda: base(channel, *given, **more))

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        base = super().add_presence
        await self._paced("appear", channel, lambda: base(channel, info, ttl))

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        base = super().remove_presence
        await self._paced("disappear", channel, lambda: base(channel, client, user))


class Line:
    """A link to nowhere: what a client was sent, read as JSON, goes to `take`."""

    capabilities = Capabilities(abort=True, denial=True)
    lost = False

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self.closed: tuple[int, str] | None = None

    def push(self, message: Outgoing) -> None:
        """Take one message."""
        self._take(json.loads(message.data))

    def deliver(self, batch: Batch) -> None:
        """Take a turn's publications."""
        for message in batch.messages:
            self.push(message)

    async def flushed(self) -> None:
        """Nothing waits."""

    async def close(self, code: int, reason: str) -> None:
        """Note how it ended."""
        self.closed = (code, reason)

    def abort(self) -> bool:
        """Note that it was cut."""
        self.closed = (1006, "")
        return True

    def statistics(self) -> LinkStatistics:
        """Nothing is counted."""
        return LinkStatistics(0, 0, 0, 0, 0, 0)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """It is gone at once."""
        callback()

    def pause_reading(self) -> None:
        """Nothing is read."""

    resume_reading = stop_reading = drop_waiting = pause_reading
