"""Run every workload, both sides in turn, and print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop

from benchmarks.host import (
    ServerProcess,
    allow_many_files,
    describe_host,
    running,
    take_core,
)
from benchmarks.load import Sample, come_and_go, echo, stay_idle
from benchmarks.report import table
from benchmarks.traffic import READING, TEXT

PLAIN, PONGEE = SIDES = ("plain", "pongee")
CONNECTIONS = 100
MESSAGES = 15_000
VISITS = 400
REPEATS = 3
IDLE = 1000
IDLE_ROUNDS = 3


@dataclass
class Workload:
    """What is measured: on each side, in each round."""

    name: str
    unit: str
    aim: float | None
    measure: Callable[[ServerProcess], Awaitable[Sample]]
    samples: dict[str, list[Sample]] = field(default_factory=lambda: {side: [] for side in SIDES})

    async def run(self, server: ServerProcess) -> None:
        """Take one sample."""
        self.samples[server.side].append(await self.measure(server))


def _echo(
    path: str, payload: bytes, in_flight: int
) -> Callable[[ServerProcess], Awaitable[Sample]]:
    return lambda server: echo(
        server,
        path,
        payload,
        connections=CONNECTIONS,
        in_flight=in_flight,
        messages=MESSAGES,
    )


def _workloads() -> tuple[list[Workload], Workload]:
    message = "µs CPU/message"
    busy = [
        Workload(f"echo {len(TEXT)} B text", message, 1.15, _echo("/text", TEXT, 1)),
        Workload(f"echo {len(READING)} B model", message, 1.3, _echo("/typed", READING, 1)),
        Workload(f"echo {len(TEXT)} B text, 16 in flight", message, None, _echo("/text", TEXT, 16)),
        Workload(
            "connect and close",
            "µs CPU/connection",
            None,
            lambda server: come_and_go(server, "/text", connections=VISITS),
        ),
    ]
    idle = Workload(
        "idle connection",
        "KiB/connection",
        None,
        lambda server: stay_idle(server, "/text", connections=IDLE),
    )
    return busy, idle


async def _run(rounds: int, core: int) -> str:
    busy, idle = _workloads()
    # Fresh processes for each round: how a process's memory happens to lie changes its speed.
    for number in range(rounds):
        with running(core, *SIDES) as servers:
            for workload in busy:
                _tell(f"round {number + 1} of {rounds}: {workload.name}")
                for server in servers * REPEATS:
                    await workload.run(server)
    for number in range(min(rounds, IDLE_ROUNDS)):
        _tell(f"round {number + 1} of {min(rounds, IDLE_ROUNDS)}: {idle.name}")
        for side in SIDES:
            with running(core, side) as servers:
                await idle.run(servers[0])
    _tell("")
    return table(
        [
            (each.name, each.unit, each.aim, each.samples[PLAIN], each.samples[PONGEE])
            for each in (*busy, idle)
        ]
    )


def _tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmark."""
    if sys.platform != "linux":
        sys.exit("The benchmark reads CPU time and memory from /proc: it needs Linux.")
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs of fresh server processes (default: 5)"
    )
    rounds = max(1, parser.parse_args().rounds)
    allow_many_files()
    began = time.monotonic()
    result = uvloop.run(_run(rounds, take_core()))
    print(describe_host())
    print(f"{rounds} rounds of {REPEATS} samples, {time.monotonic() - began:.0f} s\n\n{result}")


if __name__ == "__main__":
    main()
