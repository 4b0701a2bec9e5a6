"""A well-behaved neighbour, as a process of its own so that no attack's work is counted as delay.

Run as ``python -m tests.hostile.neighbour PORT PATH``. One connection sends an echo all the time,
and another thread opens a new connection again and again and gets one echo from it. A line on
standard input asks for the account since the last one; ``begin`` starts it, ``end`` waits for an
echo and a new connection that began afterwards, and answers with one line of JSON: the worst
delays in milliseconds, how many of each, and what went wrong.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

__all__ = ["Neighbour"]

PATIENCE = 8.0
"""Seconds for each answer. Longer counts as dropped."""

PAUSE = 0.02
"""Seconds between two echoes of the resident connection."""

NEWCOMER_PAUSE = 0.05


class Neighbour:
    """The process, seen from the suite.

    Args:
        port: of the server.
        path: of an endpoint that sends back what it gets.
        newcomers: whether new connections are opened too.
    """

    def __init__(self, port: int, path: str, *, newcomers: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port), path, str(int(newcomers))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else {"faults": ["the neighbour's process ended"]}

    def stop(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait(10)


class Account:
    """What one kind of connection has seen since ``begin``."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.count = 0
        self.faults: list[str] = []
        self._begun = self._latest = 0.0
        self._done = threading.Condition()

    def begin(self) -> None:
        """Forget what was."""
        with self._done:
            self.worst, self.count, self.faults = 0.0, 0, []
            self._begun = time.monotonic()

    def add(self, start: float, fault: str | None = None) -> None:
        """Write down one echo that was sent at `start`."""
        now = time.monotonic()
        with self._done:
            if fault is not None:
                self.faults.append(fault)
            self._latest = start
            self.count += start >= self._begun
            # One that was under way at the beginning is charged for the time since then.
            self.worst = max(self.worst, now - max(start, self._begun))
            self._done.notify_all()

    def wait(self) -> None:
        """Wait for one that started after this call, at most as long as one may take."""
        asked = time.monotonic()
        with self._done:
            if not self._done.wait_for(lambda: self._latest >= asked, 2 * PATIENCE):
                self.faults.append(f"no answer within {2 * PATIENCE} s")


class Connection:
    """A WebSocket with blocking calls."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.settimeout(PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"refused: {head[:40]!r}")

    def echo(self, word: bytes) -> None:
        """Send `word` and take it back; answers pings on the way."""
        self._send(1, word)
        while True:
            first, size = self._exactly(2)
            payload = self._exactly(size)
            if first & 0x0F == 9:
                self._send(10, payload)
            elif first & 0x0F == 1 and payload == word:
                return
            else:
                raise ConnectionError(f"got {bytes((first, size)) + payload!r}")

    def leave(self) -> None:
        """Close in order."""
        self._send(8, b"\x03\xe8")
        self._exactly(4)
        self._socket.close()

    def drop(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        self._socket.sendall(struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload)) + mask + masked)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the server ended the connection")
            data += more
        return data


def _reside(port: int, path: str, account: Account) -> None:
    while True:
        start = time.monotonic()
        connection: Connection | None = None
        try:
            connection = Connection(port, path)
            while True:
                start = time.monotonic()
                connection.echo(b"%f" % start)
                account.add(start)
                time.sleep(PAUSE)
        except OSError as error:
            if connection is not None:
                connection.drop()
            account.add(start, f"resident: {error!r}")
            time.sleep(NEWCOMER_PAUSE)


def _arrive(port: int, path: str, account: Account) -> None:
    while True:
        start = time.monotonic()
        fault = None
        try:
            connection = Connection(port, path)
            connection.echo(b"new")
            connection.leave()
        except OSError as error:
            fault = f"newcomer: {error!r}"
        account.add(start, fault)
        time.sleep(NEWCOMER_PAUSE)


def _main() -> None:
    port, path, newcomers = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "1"
    resident, arriving = Account(), Account()
    accounts = [resident, *([arriving] if newcomers else [])]
    threading.Thread(target=_reside, args=(port, path, resident), daemon=True).start()
    if newcomers:
        threading.Thread(target=_arrive, args=(port, path, arriving), daemon=True).start()
    for line in sys.stdin:
        if line.strip() == "begin":
            for account in accounts:
                account.begin()
            answer: dict[str, Any] = {}
        else:
            for account in accounts:
                account.wait()
            answer = {
                "echo_ms": round(resident.worst * 1000),
                "echoes": resident.count,
                "newcomer_ms": round(arriving.worst * 1000),
                "newcomers": arriving.count,
                "faults": [fault for account in accounts for fault in account.faults],
            }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
