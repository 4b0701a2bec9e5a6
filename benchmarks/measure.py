"""How one sample is taken from one server.

Server CPU is the kernel's clock of the whole process, read while nothing is under way; memory is
what only the process holds. The generator's own share of its core stands beside each sample: near
100 % the server may have waited for it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from benchmarks.generator import Generator, GeneratorError, Outcome
from benchmarks.host import ServerProcess
from benchmarks.sides import Side
from benchmarks.traffic import CHANNELS, recovering

__all__ = ["Bench", "Sample"]

SETTLE = 0.1
"""Seconds that a server gets to finish its work before its CPU time is read."""
MEMORY_SETTLE = 1.0
"""The same before its memory is read."""
AT_ONCE = 20
"""Handshakes under way at once."""
CROWD_AT_ONCE = 200
"""The same where thousands connect and nothing is measured."""
WARM_VISITS = 100
STORM_SECONDS = 3.0
PROBE_RATE = 100.0
"""Messages a second of the connection that echoes beside a large room."""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        value: in the workload's unit.
        server: share of one core the server used meanwhile.
        waited: share of the time that the server waited for its core, since others had it.
        client: share of one core the generator used meanwhile.
        p99: delay in ms that 99 % of the messages did not exceed.
        wanted: messages that were due.
        lost: those that did not come in time, or came out of order.
    """

    value: float
    server: float = 0.0
    waited: float = 0.0
    client: float = 0.0
    p99: float = 0.0
    wanted: int = 0
    lost: int = 0


class Bench:
    """One server, and the generator that speaks to it."""

    def __init__(self, program: Path, side: Side, server: ServerProcess) -> None:
        self.dialect = side.dialect
        self.server = server
        self.generator = Generator(program, server.port)
        self._program = program

    def stop(self) -> None:
        """End the generator; the server is its owner's."""
        self.generator.stop()

    # Before samples

    def connect(self, count: int, path: str, templates: tuple[str, str]) -> None:
        """Open connections that will echo, and warm them and the server up."""
        self.generator.command("speak", *templates)
        self.generator.command("open", count, AT_ONCE, path, *self.dialect.steps)
        self.generator.command("echo", 20 * count, 1)

    def gather(self, members: int, size: int) -> None:
        """Open a room and its publisher, and wait until everybody is in it."""
        at_once = AT_ONCE if members < 2000 else CROWD_AT_ONCE
        self.generator.command("speak", *self.dialect.publications(size))
        self.generator.command("publisher", self.dialect.publish, *self.dialect.steps)
        room, joining = self.dialect.room, self.dialect.joining or self.dialect.steps
        self.generator.command("open", members, at_once, room, *joining)
        self.generator.command("meet")
        self.generator.command("fanout", 3, 1)

    def warm_visits(self, path: str, *steps: str) -> None:
        """Make the server import and compile what the first connections need."""
        self.generator.command("visit", WARM_VISITS, AT_ONCE, path, *steps)

    # Samples

    def per_message(self, *command: object) -> Sample:
        """Measure µs of server CPU per message that came, during a command."""
        gauge, outcome = self._gauge(*command)
        return gauge.sample(1e6 * gauge.cpu / max(1, outcome.received), outcome)

    def idle(self, members: int, seconds: float) -> Sample:
        """Measure the server's share of a core, in per cent, while it sends pings only.

        Raises:
            GeneratorError: it sent fewer than one to each member.
        """
        gauge, outcome = self._gauge("hold", seconds)
        if outcome.pings < members:
            raise GeneratorError(f"{outcome.pings:,} pings to {members:,} members")
        return gauge.sample(100 * gauge.cpu / outcome.wall, outcome)

    def memory(self, count: int) -> Sample:
        """Measure bytes per connection that exchanged a message, or joined, and went silent."""
        self.generator.command("speak", *self.dialect.echoes(64))
        joining = self.dialect is CHANNELS
        path = self.dialect.room if joining else self.dialect.echo
        time.sleep(MEMORY_SETTLE)
        before = self.server.memory()
        self.generator.command("open", count, AT_ONCE, path, *(self.dialect.joining * joining))
        if not joining:
            self.generator.command("greet")
        time.sleep(MEMORY_SETTLE)
        return Sample((self.server.memory() - before) / count)

    def echo_beside_room(self, rate: float, seconds: float) -> Sample:
        """Measure the p99 of an echo, in ms, while the room gets `rate` messages a second.

        The delays and losses in the sample are the room's.
        """
        other = Generator(self._program, self.server.port)
        try:
            other.command("speak", *self.dialect.echoes(64))
            other.command("open", 1, 1, self.dialect.echo)
            gauge = _Gauge(self.server)
            self.generator.start("paced", rate, seconds, 2.0)
            time.sleep(0.5)
            echoes = other.command("probe", PROBE_RATE, seconds - 1)
            outcome = self.generator.finish()
            time.sleep(SETTLE)
            gauge.read()
            return gauge.sample(echoes.p99, outcome)
        finally:
            other.stop()

    def storm(self, count: int, missed: int) -> Sample:
        """Measure the p99 of an echo, in ms, while `count` members come back at once.

        Each of them has missed `missed` messages, and must get them before it counts as back.
        """
        before = self._post(f"/storm?count={missed}")
        other = Generator(self._program, self.server.port)
        try:
            other.command("speak", *self.dialect.echoes(64))
            other.command("open", 1, 1, self.dialect.echo)
            gauge = _Gauge(self.server)
            steps = recovering(before["offset"], before["epoch"])
            self.generator.start("open", count, count, self.dialect.room, *steps)
            echoes = other.command("probe", PROBE_RATE, STORM_SECONDS)
            outcome = self.generator.finish()
            time.sleep(SETTLE)
            gauge.read()
            return gauge.sample(echoes.p99, replace(outcome, p99=1000 * outcome.wall))
        finally:
            other.stop()

    def _post(self, path: str) -> Any:
        request = Request(f"http://127.0.0.1:{self.server.port}{path}", method="POST")
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def _gauge(self, *command: object) -> tuple[_Gauge, Outcome]:
        time.sleep(SETTLE)
        gauge = _Gauge(self.server)
        outcome = self.generator.command(*command)
        time.sleep(SETTLE)
        gauge.read()
        return gauge, outcome


class _Gauge:
    """What the server used from its making to `read`."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._began = time.monotonic()
        self._cpu, self._waited = server.cpu(), server.waited()
        self.cpu = self.waited = self.wall = 0.0

    def read(self) -> None:
        self.wall = time.monotonic() - self._began - SETTLE
        self.cpu = self._server.cpu() - self._cpu
        self.waited = self._server.waited() - self._waited

    def sample(self, value: float, outcome: Outcome) -> Sample:
        return Sample(
            value,
            server=self.cpu / self.wall,
            waited=self.waited / self.wall,
            client=outcome.own / outcome.wall,
            p99=outcome.p99,
            wanted=outcome.wanted,
            lost=outcome.lost,
        )
