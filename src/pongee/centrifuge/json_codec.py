"""Frames of the JSON encoding: one object a line. ◇▲

Payloads travel through untouched: they are parsed by whoever uses them, and written as they are.
"""

from __future__ import annotations

import msgspec

from pongee.centrifuge.messages import Command, MalformedFrame, Reply, published
from pongee.channels.encoding import Format
from pongee.channels.publication import Publication
from pongee.errors import UsageError

__all__ = ["JSON_FORMAT", "PING", "decode", "encode", "encode_publication", "join"]

JSON_FORMAT: Format = "centrifuge-json"

PING = "{}"
"""Server to client: ping; client to server: pong."""

PONG = Command()

_decode_command = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.encode


def decode(frame: str | bytes) -> list[Command]:
    """Read the commands of one frame. ▲

    Raises:
        MalformedFrame: empty, no JSON, or a field of another type than the protocol's.
    """
    if frame == PING:
        return [PONG]
    try:
        if isinstance(frame, bytes):
            frame = frame.decode()
        if "\n" not in frame:
            return [_decode_command(frame)]
        commands = [_decode_command(line) for line in frame.split("\n") if line.strip()]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedFrame(_why(error)) from None
    if not commands:
        raise MalformedFrame("an empty frame")
    return commands


def _why(error: Exception) -> str:
    # A validation error names the field and the type; others may repeat what came.
    return str(error) if isinstance(error, msgspec.ValidationError) else "not JSON"


def encode(reply: Reply) -> str:
    """Write one reply or push."""
    return _encode(reply).decode()


def encode_publication(channel: str, publication: Publication) -> str:
    """Write the push that brings `publication`, once for all members of `channel`. ▲

    Raises:
        UsageError: its payload is bytes, which JSON cannot carry.
    """
    if publication.binary:
        raise UsageError("a JSON connection cannot receive bytes; publish JSON in this channel")
    name = _encode(channel)
    if publication.info is None and publication.tags is None:
        offset = b',"offset":%d' % publication.offset if publication.offset else b""
        parts = (b'{"push":{"channel":', name, b',"pub":{"data":', publication.data, offset, b"}}}")
        return b"".join(parts).decode()
    pub = _encode(published(publication))
    return b"".join((b'{"push":{"channel":', name, b',"pub":', pub, b"}}")).decode()


def join(messages: list[str]) -> str:
    """Join encoded messages to one frame."""
    return "\n".join(messages)
