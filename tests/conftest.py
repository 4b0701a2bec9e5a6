"""Fixtures for every test: the event loop, and ``pongee serve`` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio."""
    return "asyncio"


FACES: dict[str, dict[str, str]] = {
    "asgi": {},
    "wire": {"ws": "pongee.wire:WireProtocol"},
}
"""What a session may run on: plain ASGI on uvicorn's own class, or direct mode on our wire."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that serves a `World` on both."""
    if hasattr(metafunc.module, "World"):
        metafunc.fixturenames.append("face")
        metafunc.parametrize("face", FACES, indirect=True)


@pytest.fixture
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve each `World` of the test on this face."""
    monkeypatch.setattr(request.module.World, "server", FACES[request.param])
    return str(request.param)


def require_tool(path: str | None, name: str, cure: str) -> str:
    """Return `path`, or skip with the reason; in CI a missing tool is a failure."""
    if path is not None:
        return path
    reason = f"needs {name}: {cure}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class PongeeProcess:
    """``pongee serve`` on a free port of 127.0.0.1.

    Args:
        env: settings, such as ``PONGEE_JWT_SECRET``.
        port: 0 lets the system choose.
    """

    def __init__(self, env: dict[str, str], port: int) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pongee", "serve", "--port", str(port)],
            env=clean | {"PYTHONUNBUFFERED": "1"} | env,
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_for("Application startup complete")
        except AssertionError:
            self.kill()
            raise
        found = re.search(r"http://[^:/]+:(\d+)/", self.output())
        assert found, self.output()
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path`."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def output(self) -> str:
        """Everything printed so far."""
        return "".join(self._lines)

    def wait_for(self, text: str, within: float = 20.0) -> None:
        """Wait until `text` has been printed."""
        deadline = time.monotonic() + within
        while text not in self.output():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._reader.join(1)
                if text in self.output():
                    return
                raise AssertionError(f"{text!r} was not printed:\n{self.output()}")
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT, within: float = 10.0) -> int:
        """Send a signal and wait; returns the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"still running after {within} s:\n{self.output()}") from None
        self._reader.join(5)
        return status

    def kill(self) -> None:
        """End it, whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)


ProcessFactory = Callable[..., PongeeProcess]


@pytest.fixture
def pongee_process() -> Iterator[ProcessFactory]:
    """Make ``pongee serve`` processes; each is ended with the test."""
    started: list[PongeeProcess] = []

    def start(env: dict[str, str] | None = None, port: int | None = None) -> PongeeProcess:
        process = PongeeProcess(env or {}, port or 0)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
