"""A WebSocket client that fails fast and shows what was on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

__all__ = ["Client", "CloseFrame", "HandshakeRefused", "connect"]


@dataclass(frozen=True)
class CloseFrame:
    """How a connection ended: 1006 means that no close frame came."""

    code: int
    reason: str


class HandshakeRefused(Exception):
    """The server answered the handshake with an HTTP response.

    Attributes:
        status: the HTTP status.
        headers: by lower-case name.
        body: as text.
    """

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


class Client:
    """One connection. Every wait has a time limit.

    Args:
        connection: of the ``websockets`` package, open.
        timeout: seconds for each wait.
    """

    def __init__(self, connection: ClientConnection, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout

    @property
    def subprotocol(self) -> str | None:
        """What the server chose."""
        return self.connection.subprotocol

    async def send(self, data: str | bytes) -> None:
        """Send one message: `str` as text, `bytes` as binary."""
        async with asyncio.timeout(self.timeout):
            await self.connection.send(data)

    async def send_json(self, data: Any) -> None:
        """Send `data` as JSON text."""
        await self.send(json.dumps(data))

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message.

        Raises:
            TimeoutError: none came in time.
            ConnectionClosed: of the ``websockets`` package.
        """
        async with asyncio.timeout(self.timeout if timeout is None else timeout):
            return await self.connection.recv()

    async def receive_json(self) -> Any:
        """Return the next message, read as JSON."""
        return json.loads(await self.receive())

    async def wait_closed(self) -> CloseFrame:
        """Read on until the connection has ended; returns how."""
        async with asyncio.timeout(self.timeout):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                if closed.rcvd is None:
                    return CloseFrame(1006, "")
                return CloseFrame(closed.rcvd.code, closed.rcvd.reason)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from this side."""
        await self.connection.close(code, reason)

    def cut(self) -> None:
        """Vanish with a reset, without a close frame."""
        self.connection.transport.abort()


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    origin: str | None = None,
    headers: dict[str, str] | None = None,
    subprotocols: list[str] | None = None,
    timeout: float = 5.0,
    **options: Any,
) -> AsyncIterator[Client]:
    """Open a WebSocket.

    Args:
        url: ``ws://…``.
        token: sent as ``Authorization: Bearer``.
        origin: sent as ``Origin``.
        headers: more headers.
        subprotocols: offered.
        timeout: seconds for each wait.
        options: anything ``websockets.asyncio.client.connect`` takes.

    Raises:
        HandshakeRefused: the server answered with an HTTP response.
    """
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    if origin is not None:
        sent["Origin"] = origin
    defaults: dict[str, Any] = {
        "additional_headers": sent,
        "subprotocols": [Subprotocol(name) for name in subprotocols or []] or None,
        "compression": None,
        "ping_interval": None,
        "open_timeout": timeout,
        "close_timeout": 1,
        "max_size": None,
        "proxy": None,
    }
    try:
        connection = await websockets_connect(url, **(defaults | options))
    except InvalidStatus as refused:
        response = refused.response
        raise HandshakeRefused(
            response.status_code,
            {name.lower(): value for name, value in response.headers.raw_items()},
            bytes(response.body or b"").decode("utf-8", "replace"),
        ) from None
    try:
        yield Client(connection, timeout)
    finally:
        await connection.close()
