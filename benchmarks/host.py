"""What the kernel tells about a server process, and what a run asks of the machine."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = [
    "ServerProcess",
    "allow_many_files",
    "cpu_clock",
    "describe_host",
    "running",
    "take_core",
]

FILES = 16_384
"""Open files a process may need: 10,000 sockets, and then some."""
START_LIMIT = 60.0
"""Seconds a server may take until it tells its port."""
PACKAGES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "websockets",
    "pydantic",
    "python-socketio",
    "aiohttp",
    "picows",
    "redis",
    "hiredis",
)


class ServerProcess:
    """A running server, seen from outside.

    Attributes:
        side: its name.
        port: on 127.0.0.1.
    """

    def __init__(self, side: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], START_LIMIT)[0]:
            raise RuntimeError(f"{side}: the server did not start within {START_LIMIT:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{side}: the server did not start; what it says is above")
        self.side = side
        self.port = int(line)
        self._process = process
        self._waited = Path(f"/proc/{process.pid}/schedstat")
        self._clock = cpu_clock(process.pid)

    def cpu(self) -> float:
        """CPU seconds of all its threads so far, user and system."""
        return time.clock_gettime(self._clock)

    def waited(self) -> float:
        """Seconds that its main thread could have run so far, and another process ran."""
        return int(self._waited.read_text().split()[1]) / 1e9

    def memory(self) -> int:
        """Bytes that only this process holds (USS)."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        private = (line.split() for line in rollup.splitlines() if line.startswith("Private_"))
        return 1024 * sum(int(words[1]) for words in private)


@contextmanager
def running(
    core: int, sides: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[list[ServerProcess]]:
    """Start a fresh server process for each side on `core`, and kill them at the end."""
    given = os.environ | dict(environment or {})
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for side in sides:
            command = [sys.executable, "-m", "benchmarks.serve", side, str(core)]
            processes.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, env=given)
            )
        yield [ServerProcess(*pair) for pair in zip(sides, processes, strict=True)]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def take_core() -> int:
    """Move this process, and so the generator, to the second core it may use.

    Returns:
        The first, for the servers; -1 where there is no core to spare.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return -1
    os.sched_setaffinity(0, {available[1]})
    return available[0]


def allow_many_files() -> int:
    """Raise the limit of open files as far as needed and allowed; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def describe_host() -> str:
    """Name the machine and the versions."""
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_clock(pid: int) -> int:
    """Find the CPU clock of another process: clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value
