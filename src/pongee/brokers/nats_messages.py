"""What Pongee's messages in NATS look like. ◇▲

Seventeen bytes, then a body. The seventeen are its kind, an offset and an epoch, so that a
publication is written once and its position put before it; they are all that a server's answer has
to be looked at for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from math import ceil
from struct import Struct, error
from typing import NamedTuple, TypeVar

import msgspec

from pongee.channels.publication import ClientInfo, Position, Publication

__all__ = [
    "CLEARED",
    "CONTROL",
    "JOIN",
    "KEY",
    "LEAVE",
    "LONGEST",
    "MARK",
    "PUBLICATION",
    "TOKEN",
    "YIELD",
    "Head",
    "Undecodable",
    "body_of",
    "conditions",
    "encode_info",
    "encode_publication",
    "header",
    "info_of",
    "pack",
    "position_of",
    "publication_in",
    "seconds",
    "sent_at",
    "unpack",
]

PUBLICATION = b"P"
MARK = b"M"
"""Holds a stream's position, and is no publication."""
CLEARED = b"R"
"""The same, and whatever was published before it has been removed."""
KEY = b"K"
"""Which position an idempotency key has got."""
JOIN = b"J"
LEAVE = b"L"
CONTROL = b"C"
YIELD = b"Y"
"""Asks the processes that publish to a channel, which the body names, to let another one pass."""
TOKEN = b"T"
"""Sent by a node to itself, to see that it comes."""

LONGEST = 10 * 365 * 86400.0
"""Seconds. Whatever shall be kept for longer is kept for as long."""

T = TypeVar("T")

_HEAD = Struct(">cQ8s")
_NO_EPOCH = bytes(8)

_encode = msgspec.msgpack.Encoder().encode
_decode_publication = msgspec.msgpack.Decoder(Publication).decode
_decode_info = msgspec.msgpack.Decoder(ClientInfo).decode


class Head(NamedTuple):
    """What stands before a message's body."""

    kind: bytes
    offset: int
    epoch: str


class Undecodable(ValueError):
    """Some other program's message, or another version's."""


def pack(kind: bytes, offset: int = 0, epoch: str = "", body: bytes = b"") -> bytes:
    """Write a message."""
    return _HEAD.pack(kind, offset, epoch.encode() or _NO_EPOCH) + body


def unpack(data: bytes) -> Head:
    """Read what stands before the body.

    Raises:
        Undecodable: there is too little.
    """
    try:
        kind, offset, epoch = _HEAD.unpack_from(data)
        return Head(kind, offset, "" if epoch == _NO_EPOCH else epoch.decode())
    except (error, UnicodeDecodeError):
        raise Undecodable from None


def body_of(data: bytes) -> memoryview:
    """Return what follows the head."""
    return memoryview(data)[_HEAD.size :]


def encode_publication(publication: Publication) -> bytes:
    """Write a publication without its position."""
    if publication.offset or publication.epoch:
        publication = msgspec.structs.replace(publication, offset=0, epoch="")
    return _encode(publication)


def publication_in(data: bytes, head: Head) -> Publication:
    """Read a publication with its position.

    Raises:
        Undecodable: it is none.
    """
    publication = _read(_decode_publication, data)
    publication.offset, publication.epoch = head.offset, head.epoch
    return publication


def encode_info(info: ClientInfo) -> bytes:
    """Write who somebody is."""
    return _encode(info)


def info_of(data: bytes) -> ClientInfo:
    """Read who somebody is.

    Raises:
        Undecodable: it is nobody.
    """
    return _read(_decode_info, data)


def _read(decode: Callable[[memoryview], T], data: bytes) -> T:
    try:
        return decode(body_of(data))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Undecodable from None


def conditions(
    *, expected: int | None = None, ttl: float | None = None, more: bytes = b""
) -> bytes:
    """Write the headers of a message that shall be stored.

    Args:
        expected: sequence that its subject's last message must have, 0 for none; `None` for any.
        ttl: seconds until the server forgets it; at least, since the server counts whole ones.
        more: lines.
    """
    lines = b"NATS/1.0\r\n"
    if expected is not None:
        lines += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % expected
    if ttl is not None:
        lines += b"Nats-TTL: %ds\r\n" % (ceil(min(ttl, LONGEST)) + 1)
    return lines + more + b"\r\n"


def header(raw: bytes, name: bytes) -> bytes | None:
    """Find the value of a header, written as servers write it."""
    start = raw.find(b"\r\n" + name + b": ")
    if start < 0:
        return None
    start += len(name) + 4
    return raw[start : raw.find(b"\r\n", start)]


def sent_at(raw: bytes) -> float:
    """Read when the server stored a message: seconds since 1970 on its clock."""
    return seconds((header(raw, b"Nats-Time-Stamp") or b"").decode())


def seconds(text: str) -> float:
    """Read a server's time: seconds since 1970; 0 for none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def position_of(head: Head) -> Position:
    """Return the position in a head."""
    return Position(head.offset, head.epoch)
