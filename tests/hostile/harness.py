"""Servers under attack, and the account of what an attack did.

A `Target` is a real server process with a well-behaved neighbour. `Target.attack` surrounds one
attack: it checks the outcome against what is right, and that nobody else came to harm:

* the neighbour was never dropped, and each of its echoes came within `PATIENCE`; so did the echo of
  a connection that was opened meanwhile;
* the process lives, printed no traceback, and grew by no more than `Target.bound` at any moment;
* its descriptors are back at what they were.

With ``PONGEE_HOSTILE_REPORT=path`` a line for each attack is added to that file: target, attack,
outcome, worst delay of the neighbour and of a newcomer in ms, greatest growth of memory in MiB,
and seconds. `PATIENCE` is generous because the machine of a test may be busy; the report is what to
judge delays by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pongee.testing import eventually
from tests.hostile.apps import SECRET
from tests.hostile.neighbour import Neighbour
from tests.hostile.peer import Peer

__all__ = ["MIB", "ORIGIN", "TOKEN", "Attack", "Target", "Targets"]

MIB = 1 << 20
PATIENCE = 1.0
"""Seconds."""

GROWTH = 32 * MIB
"""Bytes a process may grow by while it is attacked, or eight messages if those are more."""

SPARE = 2
"""Descriptors by which two counts may differ: the neighbour opens and closes all the time."""

ROOT = Path(__file__).parents[2]
ORIGIN = "https://good.example"
TOKEN = "static-token-0123456789"
LISTENS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)")


@dataclass
class Attack:
    """One attack's account, to be filled in by its test.

    Attributes:
        name: for the report.
        right: outcomes that are right; empty means that the test judges by itself.
        outcome: what the server did, in words.
    """

    name: str
    right: Collection[str]
    outcome: str = ""

    def came(self, outcome: str) -> None:
        """Write down what the server did."""
        self.outcome = outcome


class Target:
    """A server process, its neighbour, and what it costs.

    Args:
        name: for the report.
        arguments: of ``python``.
        env: more environment.
        echo: path of an endpoint that sends back what it gets.
        limit: bytes of one message.
        newcomers: whether the neighbour opens new connections too.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        env: dict[str, str],
        *,
        echo: str,
        limit: int,
        newcomers: bool = True,
    ) -> None:
        self.name, self.echo, self.limit = name, echo, limit
        self.bound = max(GROWTH, 8 * limit)
        self._lines: list[str] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=clean | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)} | env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self._wait_until_ready()
        self.neighbour = Neighbour(self.port, echo, newcomers=newcomers)
        self.neighbour.ask("begin")
        self.neighbour.ask("end")

    # The process

    @property
    def alive(self) -> bool:
        """Whether the process goes on."""
        return self._process.poll() is None

    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    def descriptors(self) -> int:
        """Count the open file descriptors."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def socket_to(self, port: int) -> str:
        """Name the process's socket to `port` of 127.0.0.1, for `holds`."""
        pair = [f"0100007F:{number:04X}" for number in (self.port, port)]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        (inode,) = (line[9] for line in lines if line[1:3] == pair)
        return f"socket:[{inode}]"

    def holds(self, name: str) -> bool:
        """Whether the process has the socket open."""
        for link in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                if os.readlink(link) == name:
                    return True
        return False

    def memory(self) -> tuple[int, int]:
        """Tell resident bytes now, and their peak since `forget_peak`."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = {key: int(kib) * 1024 for key, kib in re.findall(r"(Vm\w+):\s+(\d+) kB", status)}
        return found["VmRSS"], found["VmHWM"]

    def forget_peak(self) -> None:
        """Start the peak again at what is resident now (proc(5), clear_refs)."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        self.neighbour.stop()
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    # Attacking

    def peer(self, **options: Any) -> Peer:
        """Make a peer; see `Peer`."""
        return Peer(self.port, **options)

    @asynccontextmanager
    async def upgraded(
        self, path: str | None = None, *more: str, **options: Any
    ) -> AsyncIterator[Peer]:
        """Open a WebSocket; by default at the echo."""
        async with self.peer(**options) as peer:
            await peer.upgrade(path or self.echo, *more)
            yield peer

    async def census(self) -> dict[str, Any]:
        """Ask the application what is open; only for ours in `tests.hostile.apps`."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}/census")
        return dict(answer.json())

    @asynccontextmanager
    async def attack(self, name: str, right: Collection[str] = ()) -> AsyncIterator[Attack]:
        """Surround one attack, and check what it did to everybody."""
        attack = Attack(name, right)
        await asyncio.to_thread(self.neighbour.ask, "begin")
        descriptors, printed, start = self.descriptors(), len(self._lines), time.monotonic()
        self.forget_peak()
        before = self.memory()[0]
        try:
            yield attack
        finally:
            account = await asyncio.to_thread(self.neighbour.ask, "end")
            growth = self.memory()[1] - before if self.alive else 0
            self._write_down(attack, account, growth, time.monotonic() - start)
        assert self.alive, f"the server ended with {self._process.poll()}:\n{self.output()}"
        said = "".join(self._lines[printed:])
        if right:
            assert attack.outcome in right, f"{attack.outcome!r}, right is {right}\n{said[-2000:]}"
        assert "Traceback" not in said, said
        assert account["faults"] == []
        assert max(account["echo_ms"], account["newcomer_ms"]) < PATIENCE * 1000, account
        assert growth <= self.bound, f"grew by {growth / MIB:.1f} MiB"
        await eventually(
            lambda: self.descriptors() <= descriptors + SPARE, what="descriptors are closed"
        )

    def _write_down(
        self, attack: Attack, account: dict[str, Any], growth: int, seconds: float
    ) -> None:
        path = os.environ.get("PONGEE_HOSTILE_REPORT")
        if path:
            line = [
                self.name,
                attack.name,
                attack.outcome,
                account.get("echo_ms", "-"),
                account.get("newcomer_ms", "-"),
                f"{growth / MIB:.1f}",
                f"{seconds:.1f}",
                "; ".join(account["faults"]),
            ]
            with Path(path).open("a") as report:
                report.write("\t".join(map(str, line)) + "\n")

    # Starting

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + 30
        while True:
            output = self.output()
            found = LISTENS.search(output)
            if found and "startup complete" in output:
                return int(found[1])
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._process.kill()
                raise AssertionError(f"{self.name} did not start:\n{output}")
            time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)


def start_serve(name: str = "serve", *, newcomers: bool = True, **settings: Any) -> Target:
    """Start ``pongee serve`` with `settings`."""
    given = {
        "jwt_secret": SECRET,
        "static_tokens": TOKEN,
        "allowed_origins": ORIGIN,
        **settings,
    }
    env = {f"PONGEE_{name.upper()}": str(value) for name, value in given.items()}
    return Target(
        name,
        ["-m", "pongee", "serve", "--port", "0"],
        env,
        echo=f"/ws/secure/1?token={TOKEN}",
        limit=64 * 1024,
        newcomers=newcomers,
    )


def start_uvicorn(app: str, name: str = "", *more: str, limit: int = MIB) -> Target:
    """Start uvicorn with an application of `tests.hostile.apps` on our wire."""
    arguments = ["-m", "uvicorn", f"tests.hostile.apps:{app}", "--port", "0"]
    arguments += ["--ws", "pongee.wire:WireProtocol", "--http", "pongee.wire.http:HeadProtocol"]
    arguments += ["--ws-max-size", str(limit), *more]
    return Target(name or app, arguments, {}, echo="/echo", limit=limit)


Start = Callable[[], Target]


class Targets:
    """Server processes by name: started when first asked for, and again if one has died."""

    def __init__(self) -> None:
        self._running: dict[str, Target] = {}
        self._starts: dict[str, Start] = {
            "serve": start_serve,
            "plain": lambda: start_uvicorn("plain"),
            "guarded": lambda: start_uvicorn("guarded"),
            "serve, quick": lambda: start_serve("serve, quick", ping_interval=1, ping_timeout=3),
            "plain, quick": lambda: start_uvicorn(
                "plain", "plain, quick", "--ws-ping-interval", "1", "--ws-ping-timeout", "3"
            ),
            "serve, small": lambda: start_serve(
                "serve, small", newcomers=False, max_connections=20
            ),
        }

    def get(self, name: str) -> Target:
        """Return the target, alive."""
        known = self._running.get(name)
        if known is None or not known.alive:
            if known is not None:
                known.stop()
            known = self._running[name] = self._starts[name]()
        return known

    def stop(self) -> None:
        """End all."""
        for target in self._running.values():
            target.stop()
