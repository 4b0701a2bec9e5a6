"""Faults on the way between clients and workers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from tests.faults.client import NO_ANSWER, NO_PING, rotation
from tests.faults.fleet import soon
from tests.faults.line import GONE
from tests.faults.relay import FaultyRelay
from tests.faults.world import TOPICS, Options, Outcome, World, counted, percentile

__all__ = ["ROWS"]

SLOW = {3008, 3012, GONE, NO_PING, NO_ANSWER}
"""How a slow client may leave: too slow, no pong, cut; or it missed pings or answers."""

SLOW_OUTBOX = 2**19  # bytes
PING, PONG_TIMEOUT = 5.0, 3.0  # the application's own, see `tests.faults.app`


async def row_0(options: Options) -> Outcome:
    """No fault at all."""
    async with World.open(options) as world:
        await world.begin()
        began = time.monotonic()
        await asyncio.sleep(min(10, options.seconds))
        await world.judge(told=False)
        world.outcome.check("nobody was dropped", not world.drops(began), world.drops(began))
        world.check_control(began)
        latencies = [took for _, took in world.control.figures.latencies] if world.control else []
        world.outcome.note(
            "p50 of the control client's latency, ms", percentile(latencies, 0.5) * 1e3
        )
        world.outcome.note("p99, ms", percentile(latencies, 0.99) * 1e3)
        for worker in world.fleet.workers:
            world.outcome.note("loop lag, ms", (await worker.stats())["lag"] * 1e3)
    return world.outcome


async def row_14(options: Options) -> Outcome:
    """A reconnect storm: the relay in front is killed; first polite clients, then naive ones."""
    outcome = Outcome()
    for naive in (False, True):
        async with World.open(options) as world:
            world.outcome.checks = outcome.checks
            world.outcome.reports = outcome.reports
            await _storm(world, naive)
    return outcome


async def _storm(world: World, naive: bool) -> None:
    kind = "naive" if naive else "with back-off"
    outcome = world.outcome
    turn = rotation(world.fleet.ports)
    async with FaultyRelay(turn) as relay:
        await world.populate(choose=lambda: relay.port, naive=naive)
        await world.begin_control()
        for worker in world.fleet.workers:
            await worker.stats()
        await relay.stop()
        await asyncio.sleep(3)
        began = time.monotonic()
        await relay.start()
        took = await world.settle(f"{kind}: everybody is back within 30 s", 30)
        accepted = [at - began for at, _ in relay.accepted if at > began]
        busiest = max((sum(a <= s < a + 1 for s in accepted) for a in accepted), default=0)
        outcome.note(f"{kind}: most connections accepted in a second", busiest)
        for worker in world.fleet.workers:
            lag = (await worker.stats())["lag"]
            outcome.check(f"{kind}: loop lag under 1 s", lag < 1, lag)
        world.check_control(began)
        after = _latencies(world, began, began + (took or 30))
        outcome.check(
            f"{kind}: the control client's p99 under 1 s",
            percentile(after, 0.99) < 1,
            percentile(after, 0.99),
        )
        await world.judge(told=False)


def _latencies(world: World, begin: float, end: float) -> list[float]:
    assert world.control is not None
    return [took for at, took in world.control.figures.latencies if begin <= at <= end]


async def row_15(options: Options) -> Outcome:
    """A tenth of the clients behind a slow line: 8 KiB/s and 300 ms."""
    # As much as is recovered by default: what is read for slow ones again and again is bounded.
    env = {"FAULTS_OUTBOX": str(SLOW_OUTBOX), "FAULTS_RECOVERED": "300"}
    async with World.open(replace(options, rate=options.rate * 0.4), env=env) as world:
        slow = FaultyRelay(rotation(world.fleet.ports), buffer=8 * 1024)
        await slow.start()
        try:
            count = options.subscribers // 10
            await world.populate(options.subscribers - count)
            await world.populate(count, choose=lambda: slow.port, channels=list(TOPICS))
            world.publishers.pad(1024)  # more than the kernel holds for the slow ones
            await world.begin_control()
            span = min(20.0, options.seconds / 3)
            first = time.monotonic()
            await asyncio.sleep(span)
            memory = [(await worker.stats())["rss"] for worker in world.fleet.workers]
            slow.rate, slow.delay = 8 * 1024, 0.3
            second = time.monotonic()
            await asyncio.sleep(span)
            third = time.monotonic()
            after = [(await worker.stats())["rss"] for worker in world.fleet.workers]
            slow.rate, slow.delay = None, 0.0
            _compare(world, _latencies(world, first, second), _latencies(world, second, third))
            grown = max(b - a for a, b in zip(memory, after, strict=True))
            bound = count * (SLOW_OUTBOX + 2**20) + 8 * 2**20  # with objects around the bytes
            world.outcome.check(
                "memory within the slow ones' limits", grown < bound, f"{grown >> 20} MiB"
            )
            world.check_control(first)
            fast = world.subscribers[: options.subscribers - count]
            world.outcome.check(
                "no other was dropped", not world.drops(first, fast), world.drops(first, fast)
            )
            dropped = counted(world.drops(first, world.subscribers[-count:]))
            world.outcome.check("slow ones were told so, or cut", set(dropped) <= SLOW, dropped)
            logs = "".join(worker.output() for worker in world.fleet.workers)
            found = {code: logs.count(f"({code}") for code in (3008, 3012)}
            world.outcome.check("the workers found them slow or silent", any(found.values()), found)
            await world.judge()
        finally:
            await slow.stop()
    return world.outcome


def _compare(world: World, before: list[float], during: list[float]) -> None:
    old, new = percentile(before, 0.99) * 1e3, percentile(during, 0.99) * 1e3
    # 10 % of a few milliseconds is less than this machine's own noise.
    world.outcome.check(
        "the others' p99 within 10 % or 10 ms",
        new <= max(old * 1.1, old + 10),
        f"{old:.1f} to {new:.1f} ms",
    )


async def row_16(options: Options) -> Outcome:
    """Half-open connections: a line swallows everything both ways, for a quarter of all."""
    async with World.open(options) as world:
        hole = FaultyRelay(rotation(world.fleet.ports))
        await hole.start()
        try:
            count = max(1, options.subscribers // 4)
            await world.populate(options.subscribers - count)
            way: list[int] = [hole.port]
            await world.populate(count, choose=lambda: way[0] if way else world.fleet.ports[0])
            await world.begin_control()
            connected = await _connections(world)
            began = time.monotonic()
            way.clear()  # who comes back takes another way, while the old connection seems alive
            hole.freeze()
            frozen = world.subscribers[-count:]
            half = frozen[: len(frozen) // 2]
            for each in half:  # they notice at once: two connections of one client for a while
                each.cut()
            took = await soon(lambda: all(e.settled and e.since > began for e in half), 10)
            world.outcome.check("a new connection works beside the old one", took is not None, took)
            gone = connected - (count - len(half))
            found = await _gone(world, gone, within=PING + PONG_TIMEOUT + 5)
            world.outcome.check(
                "the dead are found within ping interval and timeout",
                found is not None and found < PING + PONG_TIMEOUT + 3,
                found,
            )
            await soon(lambda: all(e.settled and e.since > began for e in frozen), 30)
            others = world.subscribers[:-count]
            world.outcome.check(
                "no other was dropped", not world.drops(began, others), world.drops(began, others)
            )
            world.check_control(began)
            await world.judge(told=False)
        finally:
            await hole.stop()
    return world.outcome


async def _connections(world: World) -> int:
    return sum([(await worker.stats())["connections"] for worker in world.fleet.workers])


async def _gone(world: World, left: int, within: float) -> float | None:
    """Wait until no more than `left` connections are counted."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if await _connections(world) <= left:
            return time.monotonic() - began
        await asyncio.sleep(0.2)
    return None


ROWS = {"0": row_0, "14": row_14, "15": row_15, "16": row_16}
