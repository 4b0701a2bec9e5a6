"""A server as a process of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from pongee.testing import Client, connect, eventually
from tests.servers.expectations import Expected

ROOT = Path(__file__).parent.parent.parent


class ServerProcess:
    """One server with the application, started; `stop` or `kill` ends it.

    Args:
        expected: which server, and what it does.
        directory: for its settings.
    """

    def __init__(self, expected: Expected, directory: Path) -> None:
        self.expected = expected
        self.port = _free_port()
        settings = directory / "settings.toml"
        settings.write_text(expected.settings)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, *expected.command(self.port, str(settings))],
            env=clean | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Workers are killed with their server, whatever becomes of it.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._wait_until_ready()

    def http(self, path: str) -> str:
        """Write the HTTP address of `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    @asynccontextmanager
    async def connect(self, path: str, *, tag: str = "", **options: Any) -> AsyncIterator[Client]:
        """Open a WebSocket that says who it is."""
        url = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(url, headers={"x-tag": tag}, **options) as client:
            yield client

    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    async def until_printed(self, text: str, within: float = 2.0) -> None:
        """Wait until `text` has been printed."""
        await eventually(lambda: text in self.output(), within=within, what=f"{text} is printed")

    async def report(self, tag: str) -> dict[str, Any]:
        """Ask the application what it knows of the sessions with `tag`."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            answer = await client.get(self.http("/registry"), params={"tag": tag})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(
        self, tag: str, condition: Callable[[dict[str, Any]], bool], within: float
    ) -> dict[str, Any]:
        """Ask again and again; returns the first report that meets `condition`."""
        deadline = time.monotonic() + within
        while True:
            report = await self.report(tag)
            if condition(report):
                return report
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within} s: {report}\n{self.output()}")
            await asyncio.sleep(0.01)

    async def until_gone(self, tag: str, within: float = 1.0) -> dict[str, Any]:
        """Wait until no session or handler with `tag` is left; returns what ended the one."""
        report = await self.until(
            tag, lambda report: not report["open"] and bool(report["ends"]), within
        )
        report = await self.until(tag, lambda report: not report["handling"], within)
        assert len(report["ends"]) == 1, report
        return dict(report["ends"][0])

    async def is_gone(self, tag: str, within: float) -> bool:
        """Tell whether the registry forgets the sessions with `tag` in time."""
        deadline = time.monotonic() + within
        while (await self.report(tag))["open"]:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def terminate(self) -> None:
        """Send SIGTERM, as an init system does."""
        self._process.send_signal(signal.SIGTERM)

    async def exit_status(self, within: float) -> int:
        """Wait for the end; returns the exit status."""
        deadline = time.monotonic() + within
        while (status := self._process.poll()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {within} s:\n{self.output()}")
            await asyncio.sleep(0.01)
        self._reader.join(5)
        return status

    def kill(self) -> None:
        """End it and its workers, whatever state they are in."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(5)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while self.expected.started not in self.output() or not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                raise AssertionError(f"{self.expected.name} did not start:\n{self.output()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
