"""What the tests of our HTTP classes share: an application, and a peer's eyes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pongee.testing import RawPeer
from pongee.wire.http import H11HeadProtocol, HeadProtocol
from tests.wire.harness import Event, Receive, Send, echo, wire

CLASSES = [HeadProtocol, H11HeadProtocol]
SHORT = 0.3

GET = b"GET / HTTP/1.1\r\nHost: example.test\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GREETING = b"HELLO"


def hurried(http: Any, **timeouts: float) -> Any:
    """Shorten the deadlines of a class."""
    return type("Hurried", (http,), timeouts or {"head_timeout": SHORT})


class Web:
    """Answers a request with its body, or with a greeting; echoes on a WebSocket."""

    def __init__(self) -> None:
        self.scopes: list[Event] = []
        self.received: list[Event] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        body, more = b"", True
        while more:
            event = await receive()
            self.received.append(event)
            body += event.get("body", b"")
            more = event.get("more_body", False)
        await self.open.wait()
        body = body or GREETING
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def peer_of(http: Any, app: Any = None, **config: Any) -> AsyncIterator[RawPeer]:
    """Serve, and connect one peer."""
    async with (
        wire(app or Web(), http=http, **config) as server,
        RawPeer(server.port, "/", receive_buffer=65536) as peer,
    ):
        yield peer


def statuses(answers: bytes) -> list[int]:
    """Status codes of all answers in a stream."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


async def read_until(peer: RawPeer, end: bytes) -> bytes:
    """Read up to and with `end`."""
    data = b""
    while not data.endswith(end):
        more = await peer.read()
        assert more, f"the stream ended after {data!r}"
        data += more
    return data


async def answered(http: Any, *pieces: bytes, app: Any = None, **config: Any) -> bytes:
    """Send to a fresh server; returns all that comes until it closes."""
    async with peer_of(http, app, **config) as peer:
        for piece in pieces:
            await peer.send(piece)
        return await peer.read_to_end(10)


def padded(size: int) -> bytes:
    """Write a head of exactly so many bytes."""
    head = GET + b"X: \r\n\r\n"
    return head[:-4] + b"v" * (size - len(head)) + b"\r\n\r\n"
