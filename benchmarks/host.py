"""What the kernel tells about a server process, and what a run asks of the machine."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

__all__ = ["ServerProcess", "allow_many_files", "describe_host", "running", "take_core"]

FILES = 8192
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "websockets", "pydantic", "picows")


class ServerProcess:
    """A running server, seen from outside.

    Attributes:
        side: ``plain`` or ``pongee``.
        port: on 127.0.0.1.
    """

    def __init__(self, side: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.side = side
        self.port = int(process.stdout.readline())
        self._process = process
        self._clock = _cpu_clock(process.pid)

    def cpu(self) -> float:
        """CPU seconds of all its threads so far, user and system."""
        return time.clock_gettime(self._clock)

    def memory(self) -> int:
        """Bytes that only this process holds (USS)."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        private = (line.split() for line in rollup.splitlines() if line.startswith("Private_"))
        return 1024 * sum(int(words[1]) for words in private)


@contextmanager
def running(core: int, *sides: str) -> Iterator[list[ServerProcess]]:
    """Start a fresh server process for each side on `core`, and stop them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", side, str(core)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in sides
    ]
    try:
        yield [ServerProcess(*pair) for pair in zip(sides, processes, strict=True)]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def take_core() -> int:
    """Move this process to the second core it may use; returns the first, for the servers.

    Returns -1 where there is no core to spare.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return -1
    os.sched_setaffinity(0, {available[1]})
    return available[0]


def allow_many_files() -> None:
    """Raise the limit of open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def describe_host() -> str:
    """Name the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
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


def _cpu_clock(pid: int) -> int:
    """Find the CPU clock of another process: clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value
