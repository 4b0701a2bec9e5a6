"""The shortest faults, with few members: the whole set is ``python -m tests.faults``."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.fleet import soon
from tests.faults.world import Options
from tests.faults.world import World as Run  # a `World` would be run on both faces of the server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

BROKERS = ("redis", "nats")
BACK_WITHIN = 20.0  # of a loaded machine


@asynccontextmanager
async def small(kind: str, **fleet: Any) -> AsyncIterator[Run]:
    """Two workers with 40 subscribers and a steady publisher, judged at the end."""
    options = Options(kind=kind, subscribers=40, rate=100)
    async with Run.open(options, **fleet) as world:
        await world.begin(lead=0.5)
        yield world
        wrong = [f"{what}: {measured}" for what, ok, measured in world.outcome.checks if not ok]
        assert not wrong, wrong


async def ready(world: Run) -> None:
    """Wait until every worker is, and everybody hears again."""
    deadline = time.monotonic() + BACK_WITHIN
    while not all([await worker.ready() for worker in world.fleet.workers]):
        assert time.monotonic() < deadline, "no worker is ready"
        await asyncio.sleep(0.02)
    await world.heals("everybody hears again", BACK_WITHIN)


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_worker_that_is_killed_costs_nobody_anything(kind: str) -> None:
    async with small(kind) as world:
        doomed, other = world.fleet.workers
        theirs, others, began = world.on(doomed), world.on(other), time.monotonic()
        await doomed.kill()
        world.fleet.forget(doomed)
        took = await soon(
            lambda: all(each.settled and each.since > began for each in theirs), BACK_WITHIN
        )
        assert took is not None
        assert world.drops(began, others) == []
        await world.judge(told=False, lead=0.5)


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_broker_that_stops_and_is_back_with_its_data(kind: str) -> None:
    async with small(kind) as world:
        assert world.fleet.broker is not None
        began = time.monotonic()
        await asyncio.to_thread(world.fleet.broker.stop)
        refused = world.publishers.tally.refused
        assert await soon(lambda: bool(refused), BACK_WITHIN) is not None
        await asyncio.to_thread(world.fleet.broker.start)
        await ready(world)
        await world.judge(told=False, lead=0.5)
        assert set(world.ledger.epochs().values()) == {1}
        assert world.drops(began) == []


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_broker_that_comes_back_empty_is_told_to_everybody(kind: str) -> None:
    async with small(kind) as world:
        assert world.fleet.broker is not None
        await asyncio.to_thread(world.fleet.broker.kill)
        await asyncio.to_thread(world.fleet.broker.wipe)
        await asyncio.to_thread(world.fleet.broker.start)
        await ready(world)
        await world.judge(told=True, lead=0.5)
        assert set(world.ledger.told_each()) == {1}


@pytest.mark.parametrize("kind", BROKERS)
async def test_what_the_broker_could_not_hand_over_is_filled_in(kind: str) -> None:
    async with small(kind) as world:
        began = time.monotonic()
        relay = world.fleet.workers[0].relay
        assert relay is not None
        relay.refusing = True
        relay.cut()
        accepted = world.publishers.tally.accepted
        before = len(accepted)
        # The other worker still accepts: that is what this one misses.
        assert await soon(lambda: len(accepted) > before + 20, BACK_WITHIN) is not None
        relay.refusing = False
        await ready(world)
        await world.judge(told=False, lead=0.5)
        assert world.drops(began) == []


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_worker_that_is_told_to_leave_leaves_in_order(kind: str) -> None:
    async with small(kind, env={"PONGEE_DRAIN_WINDOW": "1"}) as world:
        leaving, other = world.fleet.workers
        theirs, others, began = world.on(leaving), world.on(other), time.monotonic()
        leaving.signal(signal.SIGTERM)
        assert await leaving.exited(BACK_WITHIN) == 0
        world.fleet.forget(leaving)
        assert set(world.drops(began, theirs)) == {3001}
        assert world.drops(began, others) == []
        await world.judge(told=False, lead=0.5)


async def test_a_line_that_swallows_everything_is_cut_by_both() -> None:
    """Without a broker: the worker finds out by its pings, and the client by their absence."""
    async with small("memory", env={"FAULTS_PING_INTERVAL": "1"}) as world:
        (worker,) = world.fleet.workers
        before = (await worker.stats())["connections"]
        gone = world.subscribers[:10]
        for each in gone:
            each.stall()
        deadline = time.monotonic() + BACK_WITHIN
        while (await worker.stats())["connections"] > before - len(gone):
            assert time.monotonic() < deadline, "the dead are still counted"
            await asyncio.sleep(0.05)
        for each in gone:
            each.cut()
        await world.settle("everybody is back", BACK_WITHIN)
        await world.judge(told=False, lead=0.5)
