"""Everything at once, in a random order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from tests.faults.fleet import Worker
from tests.faults.rows_broker import until_green
from tests.faults.rows_worker import WINDOW
from tests.faults.world import Options, Outcome, World, counted

__all__ = ["ROWS"]

EVERY = 12.0  # seconds from one fault to the next
Fault = Callable[[World], Awaitable[None]]


async def _broker_stops(world: World) -> None:
    assert world.fleet.broker is not None
    await asyncio.to_thread(world.fleet.broker.stop)
    await asyncio.sleep(3)
    await asyncio.to_thread(world.fleet.broker.start)


async def _broker_hangs(world: World) -> None:
    assert world.fleet.broker is not None
    world.fleet.broker.freeze()
    await asyncio.sleep(6)
    world.fleet.broker.thaw()


async def _way_is_cut(world: World) -> None:
    relay = _any(world).relay
    assert relay is not None
    relay.refusing = True
    relay.cut()
    await asyncio.sleep(1)
    relay.refusing = False


async def _worker_is_killed(world: World) -> None:
    doomed = _any(world)
    await doomed.kill()
    await world.fleet.replace(doomed)


async def _worker_leaves(world: World) -> None:
    worker = _any(world)
    worker.signal(signal.SIGTERM)
    status = await worker.exited(WINDOW + 15)
    world.outcome.check("a worker that was told to left in order", status == 0, status)
    await world.fleet.replace(worker)


async def _clients_are_cut(world: World) -> None:
    for each in world.rng.sample(world.subscribers, len(world.subscribers) // 10):
        each.cut()


def _any(world: World) -> Worker:
    return world.rng.choice(world.fleet.workers)


FAULTS: dict[str, Fault] = {
    "broker stops": _broker_stops,
    "broker hangs": _broker_hangs,
    "way cut": _way_is_cut,
    "worker killed": _worker_is_killed,
    "worker leaves": _worker_leaves,
    "clients cut": _clients_are_cut,
}


async def row_25(options: Options) -> Outcome:
    """Everything at once: a random fault every few seconds."""
    env = {"PONGEE_DRAIN_WINDOW": "2"}
    async with World.open(options, env=env) as world:
        await world.begin()
        end, chosen, bag = time.monotonic() + options.seconds, list[str](), list[str]()
        while time.monotonic() < end:
            bag = bag or world.rng.sample(sorted(FAULTS), len(FAULTS))
            name = bag.pop()
            chosen.append(name)
            due = time.monotonic() + EVERY
            await FAULTS[name](world)
            await until_green(world, 15)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        world.outcome.note("faults", ", ".join(chosen))
        world.outcome.note("drops", counted(world.drops(0)))
        await world.settle("everybody is subscribed")
        await world.judge(told=False)
        for worker in world.fleet.workers:
            await world.check_baseline(worker)
    return world.outcome


ROWS = {"25": row_25}
