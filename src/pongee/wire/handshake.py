"""The opening handshake: a request to a verdict, a scope and an answer. ◇

The rules are those of RFC 6455 section 4.2. Header fields are read, keys answered and extensions
negotiated by the ``websockets`` package's own functions; what nearly every client sends is
recognised first. The HTTP class in front has parsed the request; `read_request` reads one that was
written out again, as uvicorn's own HTTP classes do.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_connection, parse_subprotocol, parse_upgrade
from websockets.utils import accept_key

from pongee.wire.deflate import Deflate, negotiate

__all__ = ["Accepted", "Refusal", "Request", "accept", "judge", "read_request", "refusal"]

Headers = list[tuple[bytes, bytes]]

LISTS_SIZE = 12 * 1024
"""Bytes of Upgrade, Connection and Sec-WebSocket-Protocol, which may hold a token of 8 KiB. Their
lists are parsed before any guard can speak. More: 431."""


@dataclass(slots=True)
class Request:
    """An upgrade request, parsed.

    Attributes:
        method: as sent, such as ``GET``.
        target: path and query, as sent.
        version: of HTTP, such as ``1.1``.
        headers: names in lower case, in the order sent.
        subprotocols: that the client offers; `judge` reads them.
    """

    method: bytes
    target: bytes
    version: str
    headers: Headers
    subprotocols: list[str] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """All values of one header."""
        return [value for known, value in self.headers if known == name]

    def scope(self, root: str) -> dict[str, Any]:
        """Write the parts of the ASGI scope that the request tells."""
        raw_path, _, query = self.target.partition(b"?")
        path = raw_path.decode("latin-1")
        if "%" in path:
            path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
        return {
            "http_version": self.version,
            "path": root + path,
            "raw_path": root.encode("ascii") + raw_path,
            "query_string": query,
            "headers": self.headers,
            "subprotocols": self.subprotocols,
        }


@dataclass(slots=True)
class Accepted:
    """A handshake that may proceed.

    Attributes:
        key: the answer to the client's.
        extensions: value of the answer's ``Sec-WebSocket-Extensions``, or `None`.
        deflate: what was agreed on compression, or `None`.
    """

    key: str
    extensions: str | None = None
    deflate: Deflate | None = None


@dataclass(slots=True)
class Refusal:
    """A handshake that may not."""

    status: int
    why: str
    headers: Headers = field(default_factory=list)


def read_request(head: bytes) -> Request:
    """Read a head that an HTTP parser has accepted, up to and with its empty line."""
    first, *lines = head[:-4].split(b"\r\n")
    method, target, version = first.split(b" ", 2)
    pairs = (line.partition(b":") for line in lines)
    headers = [(name.lower(), value.strip()) for name, _, value in pairs]
    return Request(method, target, version.removeprefix(b"HTTP/").decode("latin-1"), headers)


def judge(request: Request, *, deflate: bool) -> Accepted | Refusal:
    """Apply RFC 6455 section 4.2.1 to `request`.

    Args:
        request: with its headers' names in lower case.
        deflate: whether compression may be agreed on.
    """
    if request.method != b"GET":
        return Refusal(405, "A WebSocket handshake is a GET request", [(b"Allow", b"GET")])
    if request.version != "1.1":
        return Refusal(505, "A WebSocket handshake needs HTTP/1.1")
    upgrade, connection = request.values(b"upgrade"), request.values(b"connection")
    offered = request.values(b"sec-websocket-protocol")
    if sum(map(len, (*upgrade, *connection, *offered))) > LISTS_SIZE:
        return Refusal(431, f"The lists of a handshake have more than {LISTS_SIZE} bytes")
    if upgrade != [b"websocket"] and not _names(upgrade, "websocket", parse_upgrade):
        return Refusal(426, "Upgrade: websocket is missing", [(b"Upgrade", b"websocket")])
    if connection != [b"Upgrade"] and not _names(connection, "upgrade", parse_connection):
        return Refusal(426, "Connection: Upgrade is missing", [(b"Upgrade", b"websocket")])
    if request.values(b"sec-websocket-version") != [b"13"]:
        # The version we speak is named, so that the client can come back (section 4.4).
        return Refusal(426, "Speak version 13", [(b"Sec-WebSocket-Version", b"13")])
    keys = request.values(b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64, once")
    try:
        for line in (value.decode("latin-1") for value in offered):
            request.subprotocols += parse_subprotocol(line)
    except InvalidHeader:
        return Refusal(400, "Sec-WebSocket-Protocol must be a list of names")
    accepted = Accepted(accept_key(keys[0].decode("ascii")))
    if deflate:
        offers = request.values(b"sec-websocket-extensions")
        agreed = negotiate([offer.decode("latin-1") for offer in offers]) if offers else None
        if agreed is not None:
            accepted.extensions, accepted.deflate = agreed
    return accepted


def _names(values: list[bytes], wanted: str, parse: Any) -> bool:
    try:
        return any(
            name.lower() == wanted for value in values for name in parse(value.decode("latin-1"))
        )
    except InvalidHeader:
        return False


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept(
    accepted: Accepted, headers: Iterable[tuple[bytes, bytes]], subprotocol: str | None
) -> bytes:
    """Write the answer that opens the connection."""
    told = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", accepted.key.encode("ascii")),
    ]
    if accepted.extensions is not None:
        told.append((b"Sec-WebSocket-Extensions", accepted.extensions.encode("ascii")))
    if subprotocol:
        told.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
    lines = [b"HTTP/1.1 101 Switching Protocols", *_lines([*told, *headers])]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refusal(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Write an HTTP answer that refuses, and ends the connection."""
    told = list(headers)
    known = {name.lower() for name, _ in told}
    for name, value in (
        (b"Date", email.utils.formatdate(usegmt=True).encode("ascii")),
        (b"Connection", b"close"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Content-Type", b"text/plain; charset=utf-8"),
    ):
        if name.lower() not in known:
            told.append((name, value))
    try:
        phrase = HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        phrase = b""
    first = b"HTTP/1.1 %d %s" % (status, phrase)
    return b"\r\n".join([first, *_lines(told)]) + b"\r\n\r\n" + body


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    lines = [name + b": " + value for name, value in headers]
    for line in lines:
        if b"\r" in line or b"\n" in line:
            raise RuntimeError(f"a header must not hold a line break: {line!r}")
    return lines
