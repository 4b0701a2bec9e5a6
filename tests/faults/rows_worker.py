"""Faults of workers: killed, stopped in order, short of descriptors, with a wrong clock."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from pongee.limits import PRESENCE_TTL
from tests.faults.client import Subscriber
from tests.faults.fleet import ROOT, Worker, soon
from tests.faults.http import get, get_status
from tests.faults.line import GONE
from tests.faults.world import TOPICS, Options, Outcome, World, counted

__all__ = ["LEAVING", "ROWS", "roll"]

LEAVING = {1001, 1012, 3001}  # what a client may be told that shall come back elsewhere
ALLOWED = 3  # requests that cross with the end of an idle connection, which is nobody's fault
WINDOW, DELAY = 5.0, 1.0
DRAIN = {"PONGEE_DRAIN_WINDOW": str(WINDOW), "PONGEE_DRAIN_DELAY": str(DELAY)}


async def row_11(options: Options) -> Outcome:
    """A worker with half of the clients is killed under load."""
    async with World.open(options) as world:
        await world.begin()
        count = len(world.subscribers) // 10
        await world.populate(count, channels=[*TOPICS[: options.each], "seen:0"])
        doomed, other = world.fleet.workers[:2]
        theirs, others, began = world.on(doomed), world.on(other), time.monotonic()
        present = await get(other.port, "/present?channel=seen:0")
        world.outcome.check("presence shows all", present == count, present)
        await doomed.kill()
        took = await soon(lambda: all(e.settled and e.since > began for e in theirs), 15)
        world.outcome.check("resumed at the other within 5 s", took is not None and took < 5, took)
        codes = counted(world.drops(began, theirs))
        world.outcome.check("they saw 1006", set(codes) == {GONE}, codes)
        untouched = world.drops(began, others)
        world.outcome.check("the other's were not dropped", not untouched, untouched)
        ghosts = await get(other.port, "/present?channel=seen:0")
        world.outcome.note("presence with those that died", ghosts)
        await world.fleet.replace(doomed)
        await world.judge(told=False)
        await _no_ghosts(world, other, count)
    return world.outcome


async def _no_ghosts(world: World, worker: Worker, count: int) -> None:
    began = time.monotonic()
    present = -1
    while time.monotonic() - began < PRESENCE_TTL + 5:
        present = await get(worker.port, "/present?channel=seen:0")
        if present == count:
            break
        await asyncio.sleep(0.5)
    what = f"dead presence entries expire within {PRESENCE_TTL:g} s"
    world.outcome.check(what, present == count, f"{present} of {count}")


async def row_12(options: Options) -> Outcome:
    """A worker is killed at a random moment, again and again, between accepted and delivered."""
    async with World.open(options) as world:
        await world.begin()
        times = max(3, min(50, int(options.seconds / 2)))
        for _ in range(times):
            await asyncio.sleep(world.rng.uniform(0.05, 0.6))
            doomed = world.rng.choice(world.fleet.workers)
            await doomed.kill()
            await world.fleet.replace(doomed)
        world.outcome.note("killed, times", times)
        unanswered = len(world.publishers.tally.unanswered)
        world.outcome.note("publications not answered", unanswered)
        await world.judge(told=False)
    return world.outcome


async def roll(world: World, worker: Worker, window: float = WINDOW) -> None:
    """Let one worker leave in order, start the next, and check what its clients saw."""
    outcome, everybody = world.outcome, world.everybody()
    count = (await worker.stats())["connections"]
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    red = await soon_async(partial(_is_red, worker), 2)
    early = world.drops(began, everybody)
    outcome.check("readiness fails first", red is not None and not early, red)
    within = window + DELAY + 10
    status = await worker.exited(within)
    outcome.check(f"exits 0 within {within:g} s", status == 0, status)
    stamps = sorted(at - began for e in everybody for at, _ in e.figures.drops if at > began)
    codes = counted(world.drops(began, everybody))
    told = set(codes) <= LEAVING and len(stamps) >= count
    outcome.check("all were told to come back", told, f"{codes} of {count}")
    spread = stamps[-1] - stamps[0] if stamps else 0.0
    outcome.check("spread over the window", spread > window * 0.6, f"{spread:.1f} s")
    most = max((sum(at <= each < at + window / 5 for each in stamps) for at in stamps), default=0)
    few = most < 0.4 * len(stamps) + 3
    outcome.check("not all at once", few, f"{most} of {len(stamps)} in a fifth of it")
    await world.fleet.replace(worker)


async def _is_red(worker: Worker) -> bool:
    return await get_status(worker.port, "/readyz") != 200


async def soon_async(condition: Callable[[], Awaitable[bool]], within: float) -> float | None:
    """Wait until an asynchronous condition holds; see `soon`."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    return None


async def row_13(options: Options) -> Outcome:
    """A rolling deploy: each worker leaves in order, and the next one starts."""
    async with World.open(options, env=DRAIN) as world:
        await world.begin()
        for worker in tuple(world.fleet.workers):
            await roll(world, worker)
        tally = world.publishers.tally
        lost = len(tally.unanswered)
        world.outcome.check("requests under way were answered", lost <= ALLOWED, lost)
        world.outcome.check("none was refused", not tally.refused, len(tally.refused))
        await world.judge(told=False)
    return world.outcome


async def row_19(options: Options) -> Outcome:
    """The wall clock of all workers jumps by an hour, forth and back."""
    async with World.open(options) as world:
        await world.begin()
        began = time.monotonic()
        for seconds in (3600, -3600, 0):
            for worker in world.fleet.workers:
                await get(worker.port, f"/skew?seconds={seconds}", method="POST")
            await asyncio.sleep(6)  # longer than the ping interval
            drops = counted(world.drops(began))
            world.outcome.check(f"nobody is dropped at {seconds:+} s", not drops, drops)
            await world.cut(world.rng.sample(world.subscribers, len(world.subscribers) // 5))
            await world.settle("those that were cut are back")
            began = time.monotonic()
        world.check_control(0)
        await world.judge(told=False)
    return world.outcome


async def row_20(options: Options) -> Outcome:
    """A worker may have 128 descriptors open, and 200 clients come."""
    small = replace(options, workers=1, rate=20, subscribers=0)
    async with World.open(small, files=128) as world:
        worker = world.fleet.workers[0]
        await world.begin()
        crowd = [world.subscriber(n, channels=[TOPICS[n % 20]]) for n in range(200)]
        log = len(worker.output().splitlines())
        world.subscribers = crowd
        for each in crowd:
            each.start()
        await asyncio.sleep(4)  # the first attempts
        used, lines, began = worker.cpu(), len(worker.output().splitlines()), time.monotonic()
        world.outcome.note("lines logged in the first 4 s", lines - log)
        heard = world.control.arrived if world.control else 0
        await asyncio.sleep(8)
        span = time.monotonic() - began
        share = (worker.cpu() - used) / span
        world.outcome.check("no busy loop: CPU under 20 %", share < 0.2, f"{share:.0%}")
        logged = (len(worker.output().splitlines()) - lines) / span
        world.outcome.check("logged once a second at most", logged <= 1.2, f"{logged:.1f} lines/s")
        served = sum(each.connected for each in crowd)
        world.outcome.check("as many as fit are served", 40 < served < 128, served)
        now = world.control.arrived if world.control else 0
        world.outcome.check("the connected are served", now > heard, now - heard)
        inside = [each for each in crowd if each.connected]
        await asyncio.gather(*(each.stop() for each in inside))
        for each in inside:
            for channel in TOPICS:
                world.ledger.leave(each.name, channel)
        outside = [each for each in crowd if each not in inside]
        wanted = min(len(outside), served // 2)
        took = await soon(lambda: sum(each.connected for each in outside) >= wanted, 20)
        world.outcome.check("goes on when there is room", took is not None, took)
        world.check_control(0)
        world.subscribers = [each for each in outside if each.connected]
        await asyncio.gather(*(each.stop() for each in outside if not each.connected))
        await world.judge()
    return world.outcome


async def row_23(options: Options) -> Outcome:
    """Subscribers of 1,000 topics are killed, also while their worker has other troubles."""
    async with World.open(options) as world:
        await world.begin()
        worker = world.fleet.workers[0]
        before = await worker.stats()
        for turn in range(3):
            began = time.monotonic()
            async with _leaver(worker.port, 1000) as process:
                took = time.monotonic() - began
                world.outcome.note("seconds until it had subscribed to all", took)
                here = await worker.stats()
                world.outcome.check("1,000 channels", here["channels"] >= 1000, here["channels"])
                if turn == 1 and worker.relay is not None:
                    worker.relay.cut()
                if turn == 2:
                    await world.cut(world.subscribers[:5])
                process.kill()
            await _left_nothing(world, worker, before["channels"], turn)
        await world.judge(told=False)
        await world.check_baseline(worker)
    return world.outcome


async def _left_nothing(world: World, worker: Worker, channels: int, turn: int) -> None:
    async def gone() -> bool:
        return bool((await worker.stats())["channels"] <= channels)

    async def absent() -> bool:
        names = (
            "/present?channel=seen:1",
            "/present?channel=seen:500",
            "/present?channel=seen:999",
        )
        try:
            return [await get(worker.port, name) for name in names] == [0, 0, 0]
        except OSError:  # its way to the broker is not up again
            return False

    took = await soon_async(gone, 20)
    world.outcome.check("no channel is left", took is not None, took)
    # Where the way to the broker was cut, what was to be struck out expires.
    within = PRESENCE_TTL + 5 if turn == 1 else 10.0
    took = await soon_async(absent, within)
    world.outcome.check(f"nobody is present within {within:g} s", took is not None, took)


@asynccontextmanager
async def _leaver(port: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.leaver", str(port), str(count)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def revoke(options: Options) -> Outcome:
    """A user is revoked at one worker, and has connections to the three others."""
    four = replace(options, workers=4, subscribers=40, rate=100)
    async with World.open(four) as world:
        await world.begin()
        first, *rest = world.fleet.workers
        mine: list[Subscriber] = []
        for n, worker in enumerate(rest):
            each = world.subscriber(n, name=f"ada{n}", user="ada", choose=partial(int, worker.port))
            mine.append(each)
            each.start()
        await soon(lambda: all(each.settled for each in mine), 10)
        began = time.monotonic()
        found = await get(first.port, "/revoke?user=ada", method="POST")
        closed = await soon(lambda: all(each.finished for each in mine), 5)
        took = time.monotonic() - began
        world.outcome.check("all closed within 1 s", closed is not None and took < 1, took)
        codes = [code for each in mine for at, code in each.figures.drops if at > began]
        world.outcome.check("told not to come back", codes == [3503] * 3, codes)
        world.outcome.check("the caller learns how many", found == 3, found)
        untouched = world.drops(began)
        world.outcome.check("nobody else is dropped", not untouched, untouched)
        await world.judge(told=False)
    return world.outcome


ROWS = {
    "11": row_11,
    "12": row_12,
    "13": row_13,
    "19": row_19,
    "20": row_20,
    "23": row_23,
    "revoke": revoke,
}
