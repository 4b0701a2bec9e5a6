"""Many workers and members: everybody gets everything once, whoever comes and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from tests.faults.fleet import PATHS, ROOT, Worker, soon
from tests.faults.ledger import Body
from tests.faults.line import Line
from tests.faults.relay import Balancer
from tests.faults.rows_worker import LEAVING, roll
from tests.faults.world import TOPICS, Options, Outcome, World, counted

__all__ = ["ROWS"]

MEMBERS, SCRIPTED = 1000, 400
IDLE, STALLED = 1000, 10
CROWD, CROWD_WINDOW = 2000, 10.0
FLOOD_RATE = 10_000


@asynccontextmanager
async def script(world: World, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `tests.faults.script` with the fleet's broker."""
    assert world.fleet.broker is not None, "this row needs a broker: --broker redis or nats"
    env = {"PONGEE_BROKER": world.fleet.broker.url, "PYTHONPATH": os.pathsep.join(PATHS)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.script", *arguments),
        cwd=ROOT,
        env=dict(os.environ) | env,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _scripted(world: World, count: int, rate: float) -> int:
    """Let a plain script publish, and write down what it was answered."""
    accepted = 0
    async with script(world, str(count), "--rate", str(rate)) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            topic, publisher, n, epoch, offset = msgspec.json.decode(line)
            world.ledger.send(topic, Body(publisher, n))
            world.ledger.accept(topic, Body(publisher, n), epoch, offset)
            accepted += 1
    return accepted


async def fleet(options: Options) -> Outcome:
    """Four workers, 1,000 members, a plain script publishes; then one worker is killed."""
    large = replace(options, workers=4, subscribers=MEMBERS, each=1, rate=100)
    async with World.open(large) as world:
        await world.populate()
        accepted = await _scripted(world, SCRIPTED, 200)
        outcome = world.outcome
        outcome.check("the script's were accepted", accepted == SCRIPTED, accepted)
        await soon(lambda: world.ledger.owed() == 0, 10)
        arrived, wanted = world.ledger.report().arrived, SCRIPTED * MEMBERS // len(TOPICS)
        outcome.check("each member got each once", arrived == wanted, f"{arrived} of {wanted}")
        outcome.check("in order", world.ledger.report().clean, world.ledger.report())
        await world.begin_control()
        doomed, began = world.fleet.workers[0], time.monotonic()
        theirs = world.on(doomed)
        others = [each for each in world.subscribers if each not in theirs]
        await doomed.kill()
        world.fleet.forget(doomed)
        took = await soon(lambda: all(e.settled and e.since > began for e in theirs), 20)
        outcome.check("its members are on another", took is not None, took)
        untouched = world.drops(began, others)
        outcome.check("the others were not dropped", not untouched, counted(untouched))
        await world.judge(told=False)
    return world.outcome


async def away(options: Options) -> Outcome:
    """A client is away for 5 s and 100 messages, and comes back to another worker."""
    one = replace(options, subscribers=20, rate=20)
    async with World.open(one) as world:
        port = world.fleet.workers[0].port
        client = world.subscriber(0, name="roamer", channels=["topic:0"], choose=lambda: port)
        world.subscribers.append(client)
        client.start()
        await world.begin()
        await client.stop()
        before = client.arrived
        bulk = asyncio.create_task(_only(world, 100, 20))
        await asyncio.sleep(5)
        missed = await bulk
        port = world.fleet.workers[1].port
        client.start()
        await soon(lambda: client.arrived - before >= missed, 5)
        got = client.arrived - before
        world.outcome.check(f"all {missed} and what came live", got >= missed, got)
        await world.judge(told=False)
    return world.outcome


async def _only(world: World, count: int, rate: float) -> int:
    """Publish to the roamer's topic alone, beside the others."""
    accepted = 0
    publisher = world.extra_publisher(500, "topic:0")
    for _ in range(count):
        accepted += await publisher.publish()
        await asyncio.sleep(1 / rate / 2)
    return accepted


async def leaving(options: Options) -> Outcome:
    """SIGTERM with 1,000 idle sockets and 10 that read nothing."""
    alone = replace(options, workers=1, subscribers=0, rate=200)
    window = 5.0
    env = {"PONGEE_DRAIN_WINDOW": str(window), "FAULTS_PING_INTERVAL": "60"}
    async with World.open(alone, env=env) as world:
        worker, ends = world.fleet.workers[0], list[tuple[float, int]]()

        def end(code: int, status: int) -> None:
            ends.append((time.monotonic(), code))

        async def enter(*channels: str) -> Line:
            line = await Line.open(worker.port, lambda text: None, end)
            commands = [{"id": 1, "connect": {}}]
            commands += [
                {"id": n + 2, "subscribe": {"channel": channel}}
                for n, channel in enumerate(channels)
            ]
            line.send(b"\n".join(msgspec.json.encode(command) for command in commands))
            return line

        for _ in range(IDLE // 50):
            await asyncio.gather(*(enter() for _ in range(50)))
        stalled = [await enter(*TOPICS) for _ in range(STALLED)]
        await asyncio.sleep(1)
        for line in stalled:
            line.stall()
        world.publishers.pad(8192)  # so that what the kernel holds is full
        world.publishers.start()
        await asyncio.sleep(6)
        await world.publishers.stop()
        await _leave(world, worker, window, ends)
        for line in stalled:
            line.abort()
    return world.outcome


async def _leave(
    world: World, worker: Worker, window: float, ends: list[tuple[float, int]]
) -> None:
    began, outcome = time.monotonic(), world.outcome
    outcome.note("gone before", counted([code for _, code in ends]))
    ends.clear()
    worker.signal(signal.SIGTERM)
    status = await worker.exited(window + 15)
    took = time.monotonic() - began
    outcome.check(
        f"exits 0 within {window + 10:g} s", status == 0 and took < window + 10, f"{took:.1f} s"
    )
    await asyncio.sleep(0.5)
    stamps = sorted(at - began for at, code in ends if code in LEAVING)
    outcome.check("all idle ones were told", len(stamps) >= IDLE, counted([c for _, c in ends]))
    seconds = Counter(int(at) for at in stamps)
    fair = len(stamps) / window
    outcome.check(
        "spread over the window: at most 1.5 times the fair share in a second",
        max(seconds.values(), default=0) <= 1.5 * fair,
        dict(sorted(seconds.items())),
    )


async def rolling(options: Options) -> Outcome:
    """Three workers are replaced one after the other, under 2,000 clients behind a balancer."""
    crowd = replace(options, workers=3, subscribers=0, each=1, rate=100)
    env = {"PONGEE_DRAIN_WINDOW": str(CROWD_WINDOW), "PONGEE_DRAIN_DELAY": "1"}
    async with World.open(crowd, env=env) as world, Balancer(world.fleet.ports) as balancer:
        await world.populate(CROWD, choose=lambda: balancer.port)
        await world.begin_control()
        for worker in tuple(world.fleet.workers):
            balancer.accepted.clear()
            ready = len(world.fleet.workers) - 1
            leaving_ = int((await worker.stats())["connections"])
            began = time.monotonic()
            await roll(world, worker, CROWD_WINDOW)
            _check_shares(world, balancer, ready, leaving_, began)
        await world.judge(told=False)
    return world.outcome


def _check_shares(
    world: World, balancer: Balancer, ready: int, leaving_: int, began: float
) -> None:
    """No worker gets more than 1.5 times its share, were all spread evenly over the window."""
    shares = Counter((port, int(at - began)) for at, port in balancer.accepted if port)
    fair = leaving_ / CROWD_WINDOW / ready
    most = max(shares.values(), default=0)
    world.outcome.check(
        "reconnects of a worker in any second, at most 1.5 times the fair share",
        most <= 1.5 * fair,
        f"{most}; fair is {fair:.0f}",
    )
    refused = sum(not port for _, port in balancer.accepted)
    world.outcome.note("connections that found no worker", refused)


async def elsewhere(options: Options) -> Outcome:
    """10,000 messages a second to channels without members here cost this worker nothing."""
    alone = replace(options, workers=1, subscribers=20, rate=20)
    async with World.open(alone, relayed=False) as world:
        await world.populate()
        await asyncio.sleep(1)
        worker, span = world.fleet.workers[0], 5.0
        idle = await _share(worker, span)
        count = str(int(FLOOD_RATE * span * 4))
        async with (
            script(world, count, "--flood", "seen") as kept,
            script(world, count, "--flood", "far") as passing,
            _counting(kept, passing) as published,
        ):
            await soon(lambda: len(published) > 10, 10)
            before = sum(published)
            busy = await _share(worker, span)
            rate = (sum(published) - before) / span
        world.outcome.check("as many as meant", rate > FLOOD_RATE * 0.8, f"{rate:.0f} a second")
        shown = f"{idle:.1%} to {busy:.1%}"
        world.outcome.check("CPU as idle, within 2 % of a core", busy - idle < 0.02, shown)
    return world.outcome


@asynccontextmanager
async def _counting(*scripts: asyncio.subprocess.Process) -> AsyncIterator[list[int]]:
    """Collect the numbers that scripts print."""
    numbers: list[int] = []

    async def read(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            numbers.append(int(line))

    tasks = [asyncio.create_task(read(process)) for process in scripts]
    try:
        yield numbers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _share(worker: Worker, span: float) -> float:
    used = worker.cpu()
    await asyncio.sleep(span)
    return (worker.cpu() - used) / span


ROWS = {
    "fleet": fleet,
    "away": away,
    "leaving": leaving,
    "rolling": rolling,
    "elsewhere": elsewhere,
}
