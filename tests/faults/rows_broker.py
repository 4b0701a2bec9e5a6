"""Faults of the broker, and of the way to it."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import redis

from tests.faults.fleet import BrokerServer, Worker, soon
from tests.faults.relay import FaultyRelay
from tests.faults.world import Options, Outcome, World, counted

__all__ = ["ROWS", "until_green"]

ANSWER_WITHIN = 2.5  # seconds: the broker's timeout, and a loaded machine
RECONNECT_WITHIN = 10.0
"""Seconds until the longest wait between two attempts is over, and the proof that follows."""


def _broker(world: World) -> BrokerServer:
    assert world.fleet.broker is not None, "this row needs a broker: --broker redis or nats"
    return world.fleet.broker


class Watch:
    """What the workers say and cost while something is wrong.

    Args:
        world: whose workers.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._task: asyncio.Task[None] | None = None
        self.red: float | None = None  # when the first worker was not ready
        self.lag = 0.0
        self.tasks = self.memory = 0
        self.answered = True

    async def __aenter__(self) -> Watch:
        await self._look()  # the lag so far is not of this
        self.lag, self.tasks, self.memory, self.red = 0.0, 0, 0, None
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(0.25)

    async def _look(self) -> None:
        for worker in tuple(self._world.fleet.workers):
            try:
                stats = await worker.stats()
                ready = await worker.ready()
            except (OSError, TimeoutError):
                self.answered = False
                continue
            if not ready and self.red is None:
                self.red = time.monotonic()
            self.lag = max(self.lag, stats["lag"])
            self.tasks = max(self.tasks, stats["tasks"])
            self.memory = max(self.memory, stats["rss"])


async def until_green(world: World, within: float) -> float | None:
    """Wait until every worker is ready, and check it; returns how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if all([await worker.ready() for worker in world.fleet.workers]):
            took = time.monotonic() - began
            world.outcome.check(f"ready again within {within:g} s", True, took)
            return took
        await asyncio.sleep(0.05)
    world.outcome.check(f"ready again within {within:g} s", False)
    return None


def _refusals(world: World, within: float) -> None:
    tally = world.publishers.tally
    world.outcome.note("publications refused", len(tally.refused))
    world.outcome.check(
        f"each refused within {within:g} s",
        tally.slowest_refusal() <= within,
        tally.slowest_refusal(),
    )
    world.outcome.check("all were answered", not tally.unanswered, len(tally.unanswered))


async def row_1(options: Options) -> Outcome:
    """The broker stops, and is back after 5 s with its data."""
    async with World.open(options) as world:
        await world.begin()
        broker, began = _broker(world), time.monotonic()
        async with Watch(world) as watch:
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(5)
            await asyncio.to_thread(broker.start)
            back = time.monotonic()
            await until_green(world, RECONNECT_WITHIN)
        world.outcome.check("the workers said that they are not ready", watch.red is not None)
        await world.heals("everybody hears again", 3)
        healed = time.monotonic() - back
        world.outcome.check("within 3 s after the broker was back", healed <= 3, healed)
        _refusals(world, 1.0)
        accepted = world.publishers.tally.accepted_between(back, time.monotonic())
        world.outcome.check("publications are accepted again", accepted > 0, accepted)
        await world.judge(told=False)
        world.outcome.check("clients stay connected", not world.drops(began), world.drops(began))
        world.check_control(began)
        epochs = max(world.ledger.epochs().values())
        world.outcome.check("the epoch is the same", epochs == 1, epochs)
    return world.outcome


async def row_2(options: Options) -> Outcome:
    """The broker is killed, and comes back empty."""
    async with World.open(options) as world:
        await world.begin()
        broker, began = _broker(world), time.monotonic()
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.wipe)
        await asyncio.to_thread(broker.start)
        await until_green(world, RECONNECT_WITHIN)
        await world.heals("everybody hears again", 5)
        await world.judge(told=True)
        epochs = set(world.ledger.epochs().values())
        world.outcome.check("every topic has a second epoch", epochs == {2}, epochs)
        told = world.ledger.told_each()
        world.outcome.check("everybody was told once", set(told) == {1}, sorted(set(told)))
        world.outcome.note("dropped", len(world.drops(began)))
        world.check_control(began)
    return world.outcome


async def row_3(options: Options) -> Outcome:
    """The broker is gone for a minute."""
    async with World.open(options) as world:
        await world.begin()
        gone = max(20.0, min(60.0, options.seconds))
        broker, began = _broker(world), time.monotonic()
        start = [(await worker.stats())["rss"] for worker in world.fleet.workers]
        attempts = [len(w.relay.accepted) for w in world.fleet.workers if w.relay]
        async with Watch(world) as watch:
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(gone)
        after = [len(w.relay.accepted) for w in world.fleet.workers if w.relay]
        tries = [now - before for now, before in zip(after, attempts, strict=True)]
        # Waits of half to all of 2 s; an attempt may open a connection or two.
        world.outcome.check(
            "attempts to connect are spaced", all(2 < each < 3 * gone + 10 for each in tries), tries
        )
        world.outcome.check("the workers said that they are not ready", watch.red is not None)
        world.outcome.check("and answered all the time", watch.answered)
        grown = watch.memory - max(start)
        world.outcome.check("memory is flat", grown < 32 * 2**20, f"{grown / 2**20:+.0f} MiB")
        _refusals(world, 1.0)
        world.outcome.note("drops while it was gone", counted(world.drops(began)))
        await asyncio.to_thread(broker.start)
        await until_green(world, RECONNECT_WITHIN)
        await world.settle("everybody is subscribed again")
        await world.judge(told=False)
    return world.outcome


async def row_4(options: Options) -> Outcome:
    """The broker hangs for 10 s."""
    async with World.open(options) as world:
        await world.begin()
        await _frozen(world, 10.0)
        await world.judge(told=False)
        world.outcome.check("clients stay connected", not world.drops(0), counted(world.drops(0)))
        world.check_control(0)
    return world.outcome


async def _frozen(world: World, seconds: float) -> None:
    broker = _broker(world)
    calm = max([(await worker.stats())["tasks"] for worker in world.fleet.workers])
    began = time.monotonic()
    broker.freeze()
    try:
        async with Watch(world) as watch:
            await asyncio.sleep(seconds)
    finally:
        broker.thaw()
    outcome = world.outcome
    red = None if watch.red is None else watch.red - began
    # A probe every 3 s, which has 2 s.
    outcome.check("not ready within 6 s", red is not None and red < 6, red)
    outcome.check("loop lag under 100 ms", watch.lag < 0.1, f"{watch.lag * 1e3:.0f} ms")
    waiting = watch.tasks - calm
    outcome.check("no pile of tasks", waiting < 100, f"{calm} to {watch.tasks}")
    await until_green(world, RECONNECT_WITHIN)
    await world.heals("everybody hears again", 5)
    _refusals(world, ANSWER_WITHIN)


async def row_5(options: Options) -> Outcome:
    """One worker's way to the broker swallows everything, without closing."""
    async with World.open(options) as world:
        await world.begin()
        lonely, other = world.fleet.workers[:2]
        theirs, others = world.on(lonely), world.on(other)
        relay, began = _relay(lonely), time.monotonic()
        relay.freeze()
        noticed = await _until_red(lonely, 8)
        world.outcome.check(
            "the worker notices within 6 s", noticed is not None and noticed < 6, noticed
        )
        took = await soon(lambda: all(e.settled and e.port == other.port for e in theirs), 40)
        away = sum(not (e.settled and e.port == other.port) for e in theirs)
        world.outcome.check(
            "its subscribers resume elsewhere", took is not None, took or f"{away} do not"
        )
        world.outcome.note("how they left", counted(world.drops(began, theirs)))
        world.outcome.check(
            "the other worker's were not dropped",
            not world.drops(began, others),
            world.drops(began, others),
        )
        world.outcome.check("the other worker stays ready", await other.ready())
        relay.thaw()
        await until_green(world, RECONNECT_WITHIN)
        await world.judge(told=False)
    return world.outcome


def _relay(worker: Worker) -> FaultyRelay:
    assert worker.relay is not None
    return worker.relay


async def _until_red(worker: Worker, within: float) -> float | None:
    began = time.monotonic()
    while time.monotonic() - began < within:
        if not await worker.ready():
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    return None


async def row_6(options: Options) -> Outcome:
    """The way to the broker is cut for a second, so that it hands over nothing meanwhile."""
    async with World.open(options) as world:
        await world.begin()
        began = time.monotonic()
        for _ in range(3):
            for worker in world.fleet.workers:
                relay = _relay(worker)
                relay.refusing = True
                relay.cut()
                await asyncio.sleep(1)
                relay.refusing = False
            await asyncio.sleep(2)
        if options.kind == "redis":
            await asyncio.to_thread(_cut_subscriptions, _broker(world).url)
            await asyncio.sleep(1)
        await until_green(world, RECONNECT_WITHIN)
        await world.heals("everybody hears again", 3)
        unanswered = len(world.publishers.tally.unanswered)
        world.outcome.check("all publications were answered", not unanswered, unanswered)
        await world.judge(told=False)
        world.outcome.check(
            "clients stay connected", not world.drops(began), counted(world.drops(began))
        )
        unsubscribed = [code for e in world.subscribers for _, code in e.figures.unsubscribed]
        world.outcome.note("unsubscribed to recover", counted(unsubscribed))
    return world.outcome


def _cut_subscriptions(url: str) -> None:
    """Let the server itself end every connection that is subscribed."""
    with redis.Redis.from_url(url) as client:
        killed: Any = client.client_kill_filter(_type="pubsub")
    assert killed, "nobody was subscribed"


async def row_7(options: Options) -> Outcome:
    """A worker is stopped for 15 s under load, and what the broker held for it is too much."""
    async with World.open(options) as world:
        await world.begin()
        worker, other = world.fleet.workers[:2]
        others, began = world.on(other), time.monotonic()
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(15)
        worker.signal(signal.SIGCONT)
        await until_green(world, RECONNECT_WITHIN)
        await world.settle("everybody is subscribed")
        await world.heals("everybody hears again", 5)
        world.outcome.check(
            "the other worker's were not dropped",
            not world.drops(began, others),
            counted(world.drops(began, others)),
        )
        world.outcome.note("drops", counted(world.drops(began)))
        await world.judge(told=False)
    return world.outcome


async def outage(options: Options) -> Outcome:
    """The broker is gone for 30 s, with its data and without, and hangs for 20 s."""
    outcome = Outcome()
    for keep in (True, False):
        async with World.open(options) as world:
            world.outcome.checks, world.outcome.reports = outcome.checks, outcome.reports
            outcome.note("--", "stopped for 30 s, " + ("with its data" if keep else "emptied"))
            await world.begin()
            broker = _broker(world)
            async with Watch(world) as watch:
                await asyncio.to_thread(broker.stop)
                await asyncio.sleep(30)
                if not keep:
                    await asyncio.to_thread(broker.wipe)
                await asyncio.to_thread(broker.start)
            outcome.check("not ready while it was gone", watch.red is not None)
            await until_green(world, RECONNECT_WITHIN)
            await world.settle("everybody is subscribed again")
            await world.heals("nobody is deaf", 10)
            _refusals(world, 1.0)
            outcome.note("drops", counted(world.drops(0)))
            await world.judge(told=not keep)
    async with World.open(options) as world:
        world.outcome.checks, world.outcome.reports = outcome.checks, outcome.reports
        outcome.note("--", "hangs for 20 s")
        await world.begin()
        await _frozen(world, 20.0)
        outcome.note("drops", counted(world.drops(0)))
        await world.settle("everybody is subscribed again")
        await world.judge(told=False)
    return outcome


ROWS = {
    "1": row_1,
    "2": row_2,
    "3": row_3,
    "4": row_4,
    "5": row_5,
    "6": row_6,
    "7": row_7,
    "outage": outage,
}
