"""``pongee serve`` as a process, with options."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from pongee.testing import eventually

__all__ = ["ROOT", "SHOP", "Served", "run"]

ROOT = Path(__file__).parent.parent.parent
SHOP = "tests.cli.shop:app"
PATIENCE = 60.0
"""Seconds for what takes two on a machine with nothing else to do."""


def _environment(settings: dict[str, str]) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
    return clean | {"PYTHONUNBUFFERED": "1"} | settings


def run(*arguments: str, cwd: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``pongee serve`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pongee", "serve", "--port", "0", *arguments],
        env=_environment(settings),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Served:
    """``pongee serve`` on a free port of 127.0.0.1, until the block ends.

    Args:
        arguments: after ``pongee serve``.
        cwd: where it is started.
        command: another program that serves, instead; it gets no arguments but these.
        env: its settings.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path = ROOT,
        command: tuple[str, ...] = ("pongee", "serve", "--port", "0"),
        env: dict[str, str] | None = None,
    ) -> None:
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, *arguments],
            env=_environment(env or {}),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Workers are killed with their parent, whatever becomes of it.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    async def __aenter__(self) -> Served:
        """Wait until it answers."""
        try:
            await self.printed("Application startup complete")
            await self.printed("http://127.0.0.1:")
        except BaseException:
            self._kill()
            raise
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.output())
        assert found
        self.port = int(found[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End it and its workers."""
        await asyncio.to_thread(self._kill)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path`."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        """Write the HTTP address of `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def get(self, path: str, timeout: float = 10) -> httpx.Response:
        """Make one request on a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            return await client.get(self.http(path))

    async def pids(self, number: int) -> set[int]:
        """Ask until `number` different processes have answered."""
        seen: set[int] = set()
        deadline = time.monotonic() + PATIENCE
        while len(seen) < number and time.monotonic() < deadline:
            try:
                seen.add((await self.get("/pid")).json())
            except httpx.TransportError:
                await asyncio.sleep(0.05)  # it has just been killed
        assert len(seen) == number, (seen, self.output())
        return seen

    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    async def printed(self, text: str, times: int = 1) -> None:
        """Wait until `text` has been printed so many times."""
        await eventually(
            lambda: self.output().count(text) >= times or self._process.poll() is not None,
            within=PATIENCE,
            what=f"{text!r} is printed",
        )
        if self.output().count(text) < times:
            await asyncio.to_thread(self._reader.join, 5)
        assert self.output().count(text) >= times, self.output()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self._process.send_signal(number)

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for the end; returns the exit status."""
        try:
            status = await asyncio.to_thread(self._process.wait, within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s:\n{self.output()}") from None
        await asyncio.to_thread(self._reader.join, 5)
        return status

    def _kill(self) -> None:
        for patience in (1, 5):
            if self._process.poll() is None:
                self._process.terminate()  # the second time it does not wait for a long drain
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
