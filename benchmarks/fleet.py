"""What it costs to reach members at other workers: ``python -m benchmarks.fleet``.

A publisher at the first of two workers, 1,000 members spread over both, and a Redis server between
them, whose own CPU is shown apart. Beside it, the same with python-socketio and its Redis manager,
and what one worker of ours costs with the memory broker and with Redis.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generator import Generator, Outcome, compile_generator
from benchmarks.host import (
    ServerProcess,
    allow_many_files,
    cpu_clock,
    describe_host,
    running,
    take_core,
)
from benchmarks.sides import SIDES

MEMBERS = 1000
SIZE = 128
"""Bytes of a text."""
SECONDS = 3.0
GRACE = 5.0
SETTLE = 0.3
AT_ONCE = 20
ONE_AT_A_TIME = 150
RATES = (50, 500)
"""Messages a second."""


@dataclass(frozen=True)
class Case:
    """Who is measured.

    Attributes:
        title: for the table.
        side: which server.
        workers: processes.
        shared: whether Redis is between them; else the memory broker.
    """

    title: str
    side: str
    workers: int
    shared: bool


CASES = (
    Case("Pongee, 1 worker, memory", "channels", 1, shared=False),
    Case("Pongee, 1 worker, Redis", "channels", 1, shared=True),
    Case("Pongee, 2 workers, Redis", "channels", 2, shared=True),
    Case("python-socketio, 2 workers, Redis", "socketio", 2, shared=True),
)


@dataclass(frozen=True)
class Row:
    """One figure of one case.

    Attributes:
        cost: µs of the workers' CPU per delivery.
        broker: µs of Redis's CPU per publication.
        lost: deliveries that did not come in time.
        wanted: those that were due.
        p99: ms.
    """

    cost: float
    broker: float
    lost: int
    wanted: int
    p99: float


class Redis:
    """The server between the workers."""

    def __init__(self, folder: Path, core: int) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            sys.exit("The benchmark of fleets needs redis-server: sh scripts/install-tools")
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        pin = ["taskset", "-c", str(core)] if core >= 0 and shutil.which("taskset") else []
        options = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--dir", folder]
        self._process = subprocess.Popen(
            [*pin, binary, *map(str, options)], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while not self.path.exists():
            if time.monotonic() > end:
                sys.exit("redis-server did not start within 10 s")
            time.sleep(0.02)
        self._clock = cpu_clock(self._process.pid)

    def cpu(self) -> float:
        """CPU seconds so far."""
        return time.clock_gettime(self._clock)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """Run every case in turn, and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of fresh processes")
    rounds = max(1, parser.parse_args().rounds)
    if sys.platform != "linux":
        sys.exit("The benchmark reads CPU time from the kernel: it needs Linux.")
    allow_many_files()
    print(describe_host())
    found: dict[tuple[Case, str], list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="pongee-fleet-") as name:
        folder = Path(name)
        program, core = compile_generator(folder), take_core()
        for number in range(rounds):
            for case in CASES:
                print(f"round {number + 1}: {case.title}", file=sys.stderr, flush=True)
                for work, row in _measure(case, program, folder, core):
                    found.setdefault((case, work), []).append(row)
    print(_table(found, rounds))


def _measure(case: Case, program: Path, folder: Path, core: int) -> Iterator[tuple[str, Row]]:
    redis = Redis(folder, core) if case.shared else None
    try:
        broker = {"PONGEE_BROKER": redis.url, "BENCHMARK_REDIS": redis.url} if redis else {}
        with (
            running(core, [case.side] * case.workers, broker) as workers,
            _room(program, case, workers) as generator,
        ):
            yield "one at a time", _sample(workers, redis, generator, "fanout", ONE_AT_A_TIME, 1)
            for rate in RATES:
                work = f"{rate} messages/s"
                yield work, _sample(workers, redis, generator, "paced", rate, SECONDS, GRACE)
    finally:
        if redis is not None:
            redis.stop()


@contextmanager
def _room(program: Path, case: Case, workers: list[ServerProcess]) -> Iterator[Generator]:
    """Fill the room, and wait until everybody gets what is published."""
    dialect = SIDES[case.side].dialect
    generator = Generator(program, *(worker.port for worker in workers))
    try:
        generator.command("speak", *dialect.publications(SIZE))
        generator.command("publisher", dialect.publish, *dialect.steps)
        joining = dialect.joining or dialect.steps
        generator.command("open", MEMBERS, AT_ONCE, dialect.room, *joining)
        generator.command("meet")
        generator.command("fanout", 10, 1)
        yield generator
    finally:
        generator.stop()


def _sample(
    workers: list[ServerProcess], redis: Redis | None, generator: Generator, *command: object
) -> Row:
    time.sleep(SETTLE)
    before = sum(worker.cpu() for worker in workers)
    redis_before = redis.cpu() if redis else 0.0
    outcome: Outcome = generator.command(*command)
    time.sleep(SETTLE)
    cost = 1e6 * (sum(worker.cpu() for worker in workers) - before) / max(1, outcome.received)
    published = outcome.wanted / MEMBERS
    broker = 1e6 * ((redis.cpu() if redis else 0.0) - redis_before) / max(1, published)
    return Row(cost, broker, outcome.lost, outcome.wanted, outcome.p99)


def _table(found: dict[tuple[Case, str], list[Row]], rounds: int) -> str:
    lines = [
        f"1 → {MEMBERS:,} members, {SIZE} B; medians of {rounds} rounds",
        "",
        "| work | who | µs of worker CPU per delivery | deliveries per CPU s | "
        "µs of Redis CPU per message | lost | p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    works = list(dict.fromkeys(work for _, work in found))
    for work in works:
        for case in CASES:
            rows = found[case, work]
            cost = statistics.median(row.cost for row in rows)
            broker = statistics.median(row.broker for row in rows)
            lost = 100 * sum(row.lost for row in rows) / max(1, sum(row.wanted for row in rows))
            p99 = statistics.median(row.p99 for row in rows)
            lines.append(
                f"| {work} | {case.title} | {cost:.2f} | {1e6 / cost:,.0f} | "
                f"{f'{broker:.0f}' if case.shared else ''} | {lost:.1f} % | {p99:.0f} ms |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
