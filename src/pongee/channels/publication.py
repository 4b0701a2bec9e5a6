"""What a channel carries: publications, positions, and who is there. ◇

A publication's payload is kept as finished bytes: it is checked and written once, by whoever
publishes, and every broker, history and client gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from pongee.channels.encoding import Format, check_text, to_json
from pongee.errors import UsageError

__all__ = [
    "NOWHERE",
    "ClientInfo",
    "Position",
    "Presence",
    "Publication",
    "encode_plain",
    "publication_of",
]


class Position(NamedTuple):
    """A place in a channel's stream.

    Attributes:
        offset: of a publication; the first of an epoch is 1, and 0 is before it.
        epoch: names one life of the stream; offsets of different epochs cannot be compared.
    """

    offset: int
    epoch: str


NOWHERE = Position(0, "")
"""The position of a publication in a channel without history."""


class ClientInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is in a channel, or who published.

    Attributes:
        user: the user's id, ``""`` for one who is anonymous.
        client: the connection's id.
        conn_info: JSON about the connection, or nothing.
        chan_info: JSON about the connection in this channel, or nothing.
    """

    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


class Publication(msgspec.Struct, omit_defaults=True):
    """One message of a channel.

    Attributes:
        data: the payload: JSON without line breaks, unless `binary`.
        offset: in its channel's stream; 0 where the channel has no history.
        info: the client that published it; `None` for one that the application published.
        tags: names and values that travel beside the payload.
        binary: `data` is no JSON but bytes, for sessions that take bytes.
        key: what ``latest_per_key`` compares.
        epoch: of its stream.
    """

    data: bytes
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    binary: bool = False
    key: str | None = None
    epoch: str = ""

    @property
    def position(self) -> Position:
        """Where it is."""
        return Position(self.offset, self.epoch)


class Presence(msgspec.Struct, frozen=True):
    """Somebody came to a channel, or left it."""

    info: ClientInfo
    left: bool


def publication_of(
    data: Any, *, key: str | None = None, tags: Mapping[str, str] | None = None
) -> Publication:
    """Write `data` as a publication: ``bytes`` as they are, anything else as JSON.

    Raises:
        UsageError: it cannot be written as JSON, or `tags` is no mapping of texts.
    """
    if tags is not None and not all(
        isinstance(text, str) for pair in tags.items() for text in pair
    ):
        raise UsageError("tags are texts: a mapping of str to str")
    plain = dict(tags) if tags else None
    if isinstance(data, bytes | bytearray | memoryview):
        return Publication(bytes(data), key=key, tags=plain, binary=True)
    if isinstance(data, str):
        check_text(data)
    return Publication(to_json(data).encode(), key=key, tags=plain)


def encode_plain(publication: Publication, form: Format) -> str | bytes:
    """Write `publication` for plain endpoints of one format.

    Text endpoints get a JSON string's text and any other JSON as text; binary endpoints the same,
    a text as its UTF-8; JSON endpoints get JSON. Bytes are bytes to the first two.

    Raises:
        UsageError: bytes that JSON cannot carry.
    """
    data = publication.data
    if publication.binary:
        return to_json(data) if form == "json" else data
    if form != "json" and data.startswith(b'"'):
        text: str = msgspec.json.decode(data)
        return text.encode() if form == "bytes" else text
    return data.decode()
