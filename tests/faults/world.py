"""What every row begins with: a fleet, its subscribers and publishers, and the ledger."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.faults.client import Subscriber, rotation
from tests.faults.fleet import Fleet, Worker, soon
from tests.faults.ledger import Ledger, Report
from tests.faults.publisher import Publisher, Publishers

__all__ = ["TOPICS", "Options", "Outcome", "World", "counted", "percentile"]

QUIET_WITHIN = 40.0
TOPICS = tuple(f"topic:{n}" for n in range(20))


@dataclass(frozen=True)
class Options:
    """How large a run is.

    Attributes:
        kind: of the broker.
        seed: of everything that is drawn.
        workers: how many.
        subscribers: how many, spread over the workers.
        each: channels of one subscriber.
        rate: publications a second, over all topics.
        seconds: what a row that can be shorter or longer takes, about.
    """

    kind: str = "redis"
    seed: int = 1
    workers: int = 2
    subscribers: int = 200
    each: int = 3
    rate: float = 500.0
    seconds: float = 60.0


@dataclass
class Outcome:
    """What a row found: what was checked, whether it held, and the figure."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def check(self, what: str, ok: bool, measured: object = "") -> None:
        """Write down one."""
        shown = f"{measured:.3g}" if isinstance(measured, float) else str(measured)
        self.checks.append((what, ok, shown))

    def note(self, what: str, measured: object) -> None:
        """Write down a figure that is not judged."""
        self.check(what, True, measured)

    @property
    def ok(self) -> bool:
        """Whether all held."""
        return all(ok for _, ok, _ in self.checks)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are not above; 0 of none."""
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=1000)[min(998, int(share * 1000) - 1)]


def counted(codes: list[int]) -> dict[int, int]:
    """Count each close code."""
    return {code: codes.count(code) for code in sorted(set(codes))}


class World:
    """One row's run.

    Args:
        options: how large it is.
        fleet: has been started.
    """

    def __init__(self, options: Options, fleet: Fleet) -> None:
        self.options = options
        self.fleet = fleet
        self.rng = random.Random(options.seed)
        self.ledger = Ledger()
        self.subscribers: list[Subscriber] = []
        self.publishers = Publishers(TOPICS, options.rate, fleet.ports, self.ledger)
        self.outcome = Outcome()
        self.control: Subscriber | None = None
        self._baseline: dict[int, dict[str, Any]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, options: Options, **fleet: Any) -> AsyncIterator[World]:
        """Start a fleet, and end everything afterwards.

        Args:
            options: how large it is.
            fleet: further arguments of `Fleet`.
        """
        with TemporaryDirectory(prefix="pongee-faults-", ignore_cleanup_errors=True) as folder:
            async with Fleet(options.kind, options.workers, Path(folder), **fleet) as started:
                world = cls(options, started)
                try:
                    yield world
                finally:
                    await world.publishers.stop()
                    await asyncio.gather(*(each.stop() for each in world.everybody()))

    def everybody(self) -> list[Subscriber]:
        """All subscribers, the control client too."""
        return [*self.subscribers, *([self.control] if self.control else [])]

    # Beginning

    def subscriber(self, number: int, **options: Any) -> Subscriber:
        """Make the subscriber with a number: its topics and its first worker follow from it."""
        channels = [
            TOPICS[(number * self.options.each + n) % len(TOPICS)] for n in range(self.options.each)
        ]
        given: dict[str, Any] = {
            "name": f"s{number}",
            "channels": channels,
            "choose": rotation(self.fleet.ports, number),
            "ledger": self.ledger,
            "rng": random.Random(self.rng.random()),
        }
        return Subscriber(**(given | options))

    def extra_publisher(self, number: int, channel: str) -> Publisher:
        """Make one more, that publishes when it is told to."""
        ports, tally = self.fleet.ports, self.publishers.tally
        return Publisher(number, channel, 1.0, ports, self.ledger, tally)

    async def populate(self, count: int | None = None, **options: Any) -> None:
        """Connect subscribers, a few at a time, and wait until all are subscribed."""
        first = len(self.subscribers)
        wanted = self.options.subscribers if count is None else count
        for number in range(first, first + wanted):
            each = self.subscriber(number, **options)
            self.subscribers.append(each)
            each.start()
            if number % 50 == 49:
                await asyncio.sleep(0.05)
        await self.settle("everybody is subscribed at the beginning")

    async def begin(self, lead: float = 2.0) -> None:
        """Connect everybody, publish, and let it run for `lead` seconds."""
        await self.populate()
        await self.begin_control(lead)

    async def begin_control(self, lead: float = 2.0) -> None:
        """Connect the control client and publish, where the others are there already."""
        self.control = self.subscriber(-1, name="control", timed=True)
        self.control.start()
        await self.settle("the control client is subscribed")
        self.publishers.start()
        await asyncio.sleep(lead)
        for worker in self.fleet.workers:
            self._baseline[worker.pid] = await worker.stats()

    async def settle(self, what: str, within: float = 30.0) -> float | None:
        """Wait until everybody that may is connected and subscribed, and check it."""
        took = await soon(
            lambda: all(each.settled or each.finished for each in self.everybody()), within
        )
        away = sum(not each.settled for each in self.everybody())
        self.outcome.check(what, took is not None, f"{took:.1f} s" if took else f"{away} are not")
        return took

    async def cut(self, some: list[Subscriber]) -> None:
        """Cut the lines of some, and wait until they know."""
        began = time.monotonic()
        for each in some:
            each.cut()
        await soon(lambda: all(e.drops_since(began) or not e.connected for e in some), 5)

    # Ending

    async def quiet(self, within: float = QUIET_WITHIN) -> float | None:
        """Stop publishing and wait until everybody has what it is owed."""
        await self.publishers.stop()
        await soon(lambda: all(e.settled or e.finished for e in self.everybody()), within)
        took = await soon(lambda: self.ledger.owed() == 0, within)
        await asyncio.sleep(0.5)  # whatever comes twice has come now
        return took

    async def judge(
        self, *, within: float = QUIET_WITHIN, told: bool | None = None, lead: float = 3.0
    ) -> Report:
        """Go on for a while, wait for quiet, and check the ledger.

        Args:
            within: seconds.
            told: whether words that something is lost are expected; `None` does not matter.
            lead: seconds that publishing goes on before that.
        """
        await asyncio.sleep(lead)
        await self.quiet(within)
        report = self.ledger.report()
        outcome = self.outcome
        outcome.reports.append(report)
        outcome.check("something arrived", report.arrived > 0, report.arrived)
        outcome.check("lost = 0", report.lost == 0, report.lost)
        outcome.check("holes = 0", report.holes == 0, report.holes)
        outcome.check("duplicated = 0", report.duplicated == 0, report.duplicated)
        outcome.check("out of order = 0", report.out_of_order == 0, report.out_of_order)
        outcome.check("hash mismatches = 0", report.mismatched == 0, report.mismatched)
        if told is not None:
            wanted = "some were told" if told else "nobody was told"
            outcome.check(wanted, (report.told > 0) == told, report.told)
        ended = [e.name for e in self.subscribers if e.finished]
        outcome.check("nobody was sent away for good", not ended, len(ended))
        if report.lost:
            outcome.note("owed", "; ".join(self.ledger.waiting()[:3]))
        return report

    def check_control(self, begin: float) -> None:
        """Check that the control client was not dropped since `begin`."""
        assert self.control is not None
        drops = [code for at, code in self.control.figures.drops if at > begin]
        self.outcome.check("the control client stays connected", not drops, drops)

    def drops(self, begin: float, among: list[Subscriber] | None = None) -> list[int]:
        """Return the close codes since `begin`."""
        chosen = self.subscribers if among is None else among
        return [code for each in chosen for code in each.drops_since(begin)]

    def on(self, worker: Worker) -> list[Subscriber]:
        """Return who is connected to a worker now."""
        return [e for e in self.subscribers if e.connected and e.port == worker.port]

    async def heals(self, what: str, within: float) -> float | None:
        """Check that everybody gets something published from now on, within seconds."""
        before = {each: self._heard(each) for each in self.everybody()}
        took = await soon(
            lambda: all(self._heard(each) > before[each] or each.finished for each in before),
            within,
        )
        deaf = sum(self._heard(each) <= before[each] for each in before)
        self.outcome.check(
            f"{what}, within {within:g} s", took is not None, took or f"{deaf} are deaf"
        )
        return took

    @staticmethod
    def _heard(subscriber: Subscriber) -> int:
        return subscriber.arrived

    async def check_baseline(self, worker: Worker, memory: float = 1.3) -> None:
        """Check that a worker holds no more than at the beginning."""
        # A worker that came later is compared with those of the beginning.
        first = max(self._baseline.values(), key=lambda stats: stats["tasks"])
        before, now = self._baseline.get(worker.pid, first), await worker.stats()
        self.outcome.check(
            "memory at the end",
            now["rss"] < before["rss"] * memory + 8 * 2**20,
            f"{before['rss'] >> 20} to {now['rss'] >> 20} MiB",
        )
        for stats in (before, now):
            stats["files besides clients"] = stats["files"] - stats["connections"]
        for name in ("tasks", "files besides clients"):
            self.outcome.check(
                f"{name} at the end",
                now[name] <= before[name] + 5,
                f"{before[name]} to {now[name]}",
            )
