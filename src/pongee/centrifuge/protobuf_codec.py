"""Frames of the Protobuf encoding: messages, each behind its length. ◇▲

Payloads travel through untouched, as bytes. How a struct becomes a Protobuf message and the reverse
is worked out once, when this module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import Struct
from msgspec.structs import fields

from pongee.centrifuge.messages import (
    MAX_OFFSET,
    Command,
    MalformedFrame,
    Push,
    Reply,
    published,
    raw,
)
from pongee.centrifuge.protobuf_schema import CLASSES, SCHEMA, Kind, ListOf, MapOf
from pongee.channels.encoding import Format
from pongee.channels.publication import Publication

__all__ = ["PING", "PROTOBUF_FORMAT", "decode", "encode", "encode_publication", "join"]

PROTOBUF_FORMAT: Format = "centrifuge-protobuf"

PING = b"\0"
"""Server to client: ping; client to server: pong. It is a message of no bytes."""

PONG = Command()

LENGTH_BYTES = 5
"""Bytes of a length at most: Protobuf knows no message of 2 GiB."""


# Protobuf messages to structs


def _reader(struct: type[Struct]) -> Callable[[Any], Struct]:
    converters = {name: _reads(field.kind) for name, field in SCHEMA[struct].items()}

    def read(message: Any) -> Struct:
        # Only fields that are set are listed; a struct's defaults are those of Protobuf.
        found = {}
        for field, value in message.ListFields():
            name = field.name
            convert = converters[name]
            found[name] = value if convert is None else convert(value)
        return struct(**found)

    return read


def _reads(kind: Kind) -> Callable[[Any], Any] | None:
    """Return what turns a field of this kind into a struct's; `None` where nothing need be done."""
    match kind:
        case ListOf(item):
            read = _reader(item)
            return lambda values: [read(value) for value in values]
        case MapOf(value):
            if isinstance(value, str):
                return dict
            read = _reader(value)
            return lambda values: {key: read(value) for key, value in values.items()}
        case "bytes":
            return raw
        case "uint64":
            return _offset
        case str():
            return None
        case _:
            return _reader(kind)


def _offset(value: int) -> int:
    if value > MAX_OFFSET:
        raise MalformedFrame("an offset that is too large")
    return value


# Structs to what makes Protobuf messages


def _writer(struct: type[Struct]) -> Callable[[Any], dict[str, Any]]:
    defaults = {field.name: field.default for field in fields(struct)}
    steps = [(name, defaults[name], _writes(field.kind)) for name, field in SCHEMA[struct].items()]

    def write(value: Any) -> dict[str, Any]:
        # A field without a default is always written: no value is `NODEFAULT`.
        found = {}
        for name, default, convert in steps:
            field = getattr(value, name)
            if field is not default:
                found[name] = field if convert is None else convert(field)
        return found

    return write


def _writes(kind: Kind) -> Callable[[Any], Any] | None:
    """Return what turns a struct's field into an argument; `None` where nothing need be done."""
    match kind:
        case ListOf(item):
            write = _writer(item)
            return lambda values: [write(value) for value in values]
        case MapOf(value):
            return None if isinstance(value, str) else _writes_map(value)
        case "bytes":
            return bytes
        case str():
            return None
        case _:
            return _writer(kind)


def _writes_map(struct: type[Struct]) -> Callable[[Any], Any]:
    # Protobuf makes messages of the dicts in fields and lists, but in maps only on some platforms.
    write, message = _writer(struct), CLASSES[struct]
    return lambda values: {key: message(**write(value)) for key, value in values.items()}


_read_command = _reader(Command)
_write_reply = _writer(Reply)
_parse_command = CLASSES[Command].FromString
_new_reply = CLASSES[Reply]


def decode(frame: str | bytes) -> list[Command]:
    """Read the commands of one frame. ▲

    Raises:
        MalformedFrame: empty, text, cut short, no Protobuf, or a text that is not UTF-8.
    """
    if isinstance(frame, str):
        raise MalformedFrame("a text frame on a Protobuf connection")
    if not frame:
        raise MalformedFrame("an empty frame")
    commands: list[Any] = []
    at, end = 0, len(frame)
    while at < end:
        size = frame[at]
        at += 1
        if not size:
            commands.append(PONG)
            continue
        if size > 0x7F:
            size, at = _long_length(frame, at - 1)
        stop = at + size
        if stop > end:
            raise MalformedFrame("a message that runs past its frame")
        try:
            message = _parse_command(frame[at:stop])
        except (DecodeError, ValueError):
            # Where Protobuf has no compiled part, a text that is not UTF-8 is a `ValueError`.
            raise MalformedFrame("not Protobuf") from None
        commands.append(_read_command(message))
        at = stop
    return commands


def _long_length(frame: bytes, at: int) -> tuple[int, int]:
    """Read a length of several bytes, 7 bits in each, the lowest first; returns where it ends."""
    length = shift = 0
    for byte in frame[at : at + LENGTH_BYTES]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return length, at
    raise MalformedFrame("a length that does not end")


def encode(reply: Reply) -> bytes:
    """Write one reply or push."""
    message = _new_reply(**_write_reply(reply)).SerializeToString()
    return _length(len(message)) + message


def _length(size: int) -> bytes:
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length)


def encode_publication(channel: str, publication: Publication) -> bytes:
    """Write the push that brings `publication`, once for all members of `channel`. ▲"""
    return encode(Reply(push=Push(channel=channel, pub=published(publication))))


def join(messages: list[bytes]) -> bytes:
    """Join encoded messages to one frame."""
    return b"".join(messages)
