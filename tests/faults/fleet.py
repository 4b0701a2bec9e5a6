"""Workers as processes of their own, and the broker behind them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.faults.http import get, get_status
from tests.faults.relay import FaultyRelay

__all__ = ["BrokerServer", "Fleet", "Worker", "make_broker", "soon"]

ROOT = Path(__file__).parent.parent.parent
START_WITHIN = 30.0
PATHS = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
DEFAULTS = {"PYTHONPATH": os.pathsep.join(PATHS), "PONGEE_MAX_CONNECTIONS": "5000"}
_TICKS = os.sysconf("SC_CLK_TCK")


class BrokerServer(Protocol):
    """A broker's server; every method waits for what it does."""

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def wipe(self) -> None: ...


def make_broker(kind: str, folder: Path) -> BrokerServer | None:
    """Make the server of a kind of broker, not started; `memory` has none."""
    if kind == "redis":
        from tests.brokers.redis_server import RedisServer, redis_6

        return RedisServer(folder / "redis", redis_6(), appendonly=True)
    if kind == "nats":
        from tests.brokers.nats_server import NatsServer

        return NatsServer(folder / "nats")
    return None


async def soon(condition: Callable[[], bool], within: float) -> float | None:
    """Wait until `condition`; returns the seconds it took, `None` if it did not come in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            return None
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Worker:
    """One worker's process.

    Args:
        url: of the broker, as this worker reaches it.
        log: a file for what it prints.
        env: further settings.
        files: how many descriptors it may have open.
    """

    def __init__(
        self,
        url: str,
        log: Path,
        env: dict[str, str] | None = None,
        files: int | None = None,
        relay: FaultyRelay | None = None,
    ) -> None:
        self.port = free_port()
        self.relay = relay
        self._log = log
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
        self._env = clean | DEFAULTS | {"PONGEE_BROKER": url} | (env or {})
        self._files = files
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process's id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it answers, ready or not."""
        serve = ["serve", "tests.faults.app:make_app", "--factory", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                [sys.executable, "-m", "pongee", *serve],
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if self._files is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (self._files,) * 2)
        deadline = time.monotonic() + START_WITHIN
        while not await get_status(self.port, "/healthz"):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"a worker did not start:\n{self.output()[-2000:]}")
            await asyncio.sleep(0.05)

    def output(self) -> str:
        """Everything it printed."""
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def exited(self, within: float) -> int | None:
        """Wait for its end; returns the exit status, `None` if it still runs."""
        assert self._process is not None
        process = self._process
        await soon(lambda: process.poll() is not None, within)
        return process.poll()

    async def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await asyncio.to_thread(self._process.wait, 10)

    async def stats(self) -> dict[str, Any]:
        """Ask what it costs."""
        return dict(await get(self.port, "/stats"))

    async def ready(self) -> bool:
        """Ask whether it wants connections."""
        return await get_status(self.port, "/readyz") == 200

    def cpu(self) -> float:
        """Return the CPU seconds it has used, as the kernel counts them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class Fleet:
    """A broker and its workers. An asynchronous context manager.

    Args:
        kind: of the broker: `redis`, `nats` or `memory`.
        size: how many workers.
        folder: for logs and data; empty.
        relayed: whether each worker reaches the broker through a relay of its own.
        env: further settings of the workers.
        files: how many descriptors a worker may have open.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        folder: Path,
        *,
        relayed: bool = True,
        env: dict[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        self.kind = kind
        self.size = size if kind != "memory" else 1
        self.folder = folder
        self.broker = make_broker(kind, folder)
        self.workers: list[Worker] = []
        self.ports: list[int] = []  # of the workers that are meant to be there
        self._relayed = relayed
        self._env = env
        self._files = files
        self._made = 0
        self._relays: list[FaultyRelay] = []

    async def __aenter__(self) -> Fleet:
        try:
            if self.broker is not None:
                await asyncio.to_thread(self.broker.start)
            await asyncio.gather(*(self.add() for _ in range(self.size)))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            await worker.kill()
        for relay in self._relays:
            await relay.stop()
        if self.broker is not None:
            await asyncio.to_thread(self.broker.kill)

    async def add(self) -> Worker:
        """Start one more worker; clients and publishers learn of it."""
        url, relay = "memory://", None
        if self.broker is not None:
            url = self.broker.url
            if self._relayed:
                target = int(url.rpartition(":")[2].partition("/")[0])
                relay = FaultyRelay(lambda: target)
                await relay.start()
                self._relays.append(relay)
                url = url.replace(f":{target}", f":{relay.port}")
        self._made += 1
        log = self.folder / f"worker-{self._made}.log"
        worker = Worker(url, log, self._env, self._files, relay)
        self.workers.append(worker)
        await worker.start()
        self.ports.append(worker.port)
        return worker

    def forget(self, worker: Worker) -> None:
        """Let clients and publishers know no longer of a worker."""
        self.ports.remove(worker.port)
        self.workers.remove(worker)

    async def replace(self, worker: Worker) -> Worker:
        """Start another in the place of one that has ended."""
        self.forget(worker)
        return await self.add()
