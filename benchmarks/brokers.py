"""What one step at a broker costs: ``python -m benchmarks.brokers``.

CPU of this process and of the broker's server, per step, many under way at once. From these figures
follows how many publications, members and channels a server carries.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.fleet import Redis
from benchmarks.host import cpu_clock, describe_host
from pongee.brokers.base import Broker, Stream
from pongee.brokers.choose import choose_broker
from pongee.channels.publication import ClientInfo, Publication
from pongee.clock import SystemClock, TimerWheel
from pongee.testing import eventually

STEPS = 10_000
AT_ONCE = 64
CHANNELS = 100
STREAM = Stream(100, 300.0, 3600.0)
MESSAGE = Publication(b'{"text":"' + b"x" * 100 + b'"}')

Step = Callable[[Broker, int], Awaitable[object]]


class Ears:
    """A sink that counts."""

    def __init__(self) -> None:
        self.heard = 0

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Count it."""
        self.heard += 1

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Nothing is measured of it."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Likewise."""

    def on_control(self, data: bytes) -> None:
        """Likewise."""

    def on_link(self, up: bool) -> None:
        """Likewise."""


def _name(number: int) -> str:
    return f"room:{number % CHANNELS}"


def _info(number: int) -> ClientInfo:
    return ClientInfo(f"user-{number}", f"client-{number}")


TABLE: dict[str, Step] = {
    "publish, nothing kept": lambda broker, n: broker.publish(_name(n), MESSAGE, None),
    "publish, 100 kept": lambda broker, n: broker.publish(_name(n), MESSAGE, STREAM),
    "look at a position": lambda broker, n: broker.history(_name(n), STREAM, limit=0),
    "read 100 publications": lambda broker, n: broker.history(_name(n), STREAM),
    "enter or renew a presence": lambda broker, n: broker.add_presence(_name(n), _info(n), 60.0),
    "subscribe to a channel": lambda broker, n: broker.subscribe(f"other:{n}"),
}


@contextmanager
def _nats(folder: Path) -> Iterator[tuple[str, int] | None]:
    binary = shutil.which("nats-server") or shutil.which("nats-server", path=".venv/bin")
    if binary is None:
        yield None
        return
    ports = folder / "ports"
    ports.mkdir()
    options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", folder, "--ports_file_dir", ports]
    process = subprocess.Popen([binary, *map(str, options)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not (found := list(ports.glob("*.ports"))) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        port = found[0].read_text().split(":")[-1].split('"')[0]
        yield f"nats://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


async def _measure(address: str, server_cpu: Callable[[], float]) -> None:
    clock = SystemClock()
    broker, ears = choose_broker(address, "bench", clock, TimerWheel(clock)), Ears()
    await broker.start(ears, "bench")
    try:
        for title, step in TABLE.items():
            count = STEPS // 20 if title.startswith("read") else STEPS
            await _run(broker, step, CHANNELS)
            own, theirs = time.process_time(), server_cpu()
            await _run(broker, step, count)
            await asyncio.sleep(0.3)
            own, theirs = time.process_time() - own, server_cpu() - theirs
            _tell(address, title, 1e6 * own / count, 1e6 * theirs / count)
        for number in range(CHANNELS):
            await broker.subscribe(_name(number))
        own, theirs, before = time.process_time(), server_cpu(), ears.heard
        await _run(broker, TABLE["publish, 100 kept"], STEPS)
        await eventually(lambda: ears.heard >= before + STEPS, within=30, what="all is heard")
        own, theirs = time.process_time() - own, server_cpu() - theirs
        _tell(address, "publish, 100 kept, and hear it", 1e6 * own / STEPS, 1e6 * theirs / STEPS)
    finally:
        await broker.stop()


async def _run(broker: Broker, step: Step, count: int) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await step(broker, number)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def _tell(address: str, title: str, own: float, theirs: float) -> None:
    kind = "NATS" if address.startswith("nats") else "Redis"
    print(f"| {kind} | {title} | {own:.0f} | {theirs:.0f} |", flush=True)


def main() -> None:
    """Measure what is installed, and print the table."""
    print(describe_host())
    print("\n| broker | step | our CPU, µs | the server's CPU, µs |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="pongee-brokers-") as name:
        folder = Path(name)
        redis = Redis(folder, -1)
        try:
            uvloop.run(_measure(redis.url, redis.cpu))
        finally:
            redis.stop()
        with _nats(folder) as nats:
            if nats is not None:
                used = cpu_clock(nats[1])
                uvloop.run(_measure(nats[0], lambda: time.clock_gettime(used)))


if __name__ == "__main__":
    main()
