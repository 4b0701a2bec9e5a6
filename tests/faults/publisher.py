"""Publishers at a steady rate that write down what was accepted, refused and not answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tests.faults.http import Http
from tests.faults.ledger import Body, Ledger

__all__ = ["Publisher", "Publishers"]

BEHIND = 0.5  # seconds a publisher may be behind its rate before it gives up on catching up
ANSWER_TIMEOUT = 5.0


class _Position(msgspec.Struct):
    epoch: str
    offset: int


_position = msgspec.json.Decoder(_Position).decode


@dataclass
class Tally:
    """What became of the publications of all publishers, with `time.monotonic` stamps."""

    accepted: list[tuple[float, float]] = field(default_factory=list)  # when, and how long it took
    refused: list[tuple[float, float]] = field(default_factory=list)
    unanswered: list[tuple[float, float]] = field(default_factory=list)

    def slowest_refusal(self) -> float:
        """Return seconds."""
        return max((took for _, took in self.refused), default=0.0)

    def accepted_between(self, begin: float, end: float) -> int:
        """Count them."""
        return sum(begin <= at <= end for at, _ in self.accepted)


class Publisher:
    """Publishes to one channel, one publication after the other.

    Args:
        number: names it.
        channel: where to.
        interval: seconds between two.
        ports: of the workers; the next one is tried when one does not answer.
        ledger: is told.
        tally: likewise.
    """

    def __init__(
        self,
        number: int,
        channel: str,
        interval: float,
        ports: Sequence[int],
        ledger: Ledger,
        tally: Tally,
    ) -> None:
        self._number = number
        self._channel = channel
        self._interval = interval
        self._ports = ports
        self._ledger = ledger
        self._tally = tally
        self._turn = number
        self._counter = 0
        self.padding = ""
        self._http = Http(self._port())

    def _port(self) -> int:
        return self._ports[self._turn % len(self._ports)]

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping`; the last one is waited for."""
        due = time.monotonic() + self._interval * (self._number % 20) / 20
        while not stopping.is_set():
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
            elif now - due > BEHIND:
                due = now
            due += self._interval
            await self.publish()
        self._http.close()

    async def publish(self) -> bool:
        """Publish once; returns whether it was accepted."""
        body = Body(self._number, self._counter)
        self._counter += 1
        began = time.monotonic()
        self._ledger.send(self._channel, body)
        data = {"p": body.publisher, "n": body.counter, "at": began, "x": self.padding}
        asked = msgspec.json.encode({"channel": self._channel, "data": data})
        try:
            status, answer = await self._ask(asked)
        except (OSError, TimeoutError):
            self._tally.unanswered.append((time.monotonic(), time.monotonic() - began))
            self._go_on_elsewhere()
            return False
        took = time.monotonic() - began
        if status != 200:
            self._tally.refused.append((time.monotonic(), took))
            return False
        position = _position(answer)
        self._ledger.accept(self._channel, body, position.epoch, position.offset)
        self._tally.accepted.append((time.monotonic(), took))
        return True

    async def _ask(self, asked: bytes) -> tuple[int, bytes]:
        while True:
            try:
                return await self._http.ask("POST", "/publish", asked, ANSWER_TIMEOUT)
            except ConnectionRefusedError:  # nothing was sent
                self._go_on_elsewhere()
                await asyncio.sleep(0.02)

    def _go_on_elsewhere(self) -> None:
        self._http.close()
        self._turn += 1
        self._http = Http(self._port())


class Publishers:
    """One for each channel, together at a steady rate.

    Args:
        channels: their names.
        rate: publications a second, of all together.
        ports: of the workers; may change meanwhile.
        ledger: is told.
        first: number of the first.
    """

    def __init__(
        self,
        channels: Sequence[str],
        rate: float,
        ports: Sequence[int],
        ledger: Ledger,
        first: int = 0,
    ) -> None:
        self.tally = Tally()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        interval = len(channels) / rate
        self._all = [
            Publisher(first + n, channel, interval, ports, ledger, self.tally)
            for n, channel in enumerate(channels)
        ]

    def pad(self, size: int) -> None:
        """Make every publication larger by so many bytes."""
        for each in self._all:
            each.padding = "x" * size

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(each.run(self._stopping)) for each in self._all]

    async def stop(self) -> None:
        """End, when what is under way was answered. Idempotent."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
