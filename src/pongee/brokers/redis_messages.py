"""What travels through Redis, and what is kept there, as bytes. ◇

A publication is written once, without its position, and never read or written anew on the way: the
server's script puts the position before it. What begins a message says what it is:

    p<offset>:<epoch>:<publication>     offset 0 and no epoch in a channel without a stream
    j<client>                           somebody came
    l<client>                           somebody left

Publications and clients are MessagePack maps, so that versions with more fields can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from pongee.channels.publication import ClientInfo, Position, Presence, Publication

__all__ = [
    "Reader",
    "read_position",
    "write_client",
    "write_message",
    "write_presence",
    "write_publication",
]

logger = logging.getLogger("pongee.brokers")

_encode = msgspec.msgpack.Encoder().encode
_decode_publication = msgspec.msgpack.Decoder(Publication).decode
_decode_client = msgspec.msgpack.Decoder(ClientInfo).decode


def write_publication(publication: Publication) -> bytes:
    """Write what is kept; the position is not part of it."""
    if publication.offset or publication.epoch:
        publication = msgspec.structs.replace(publication, offset=0, epoch="")
    return _encode(publication)


def write_message(data: bytes) -> bytes:
    """Put before a written publication that it has no position."""
    return b"p0::" + data


def write_client(info: ClientInfo) -> bytes:
    """Write who it is."""
    return _encode(info)


def write_presence(presence: Presence) -> bytes:
    """Write that somebody came or left."""
    return (b"l" if presence.left else b"j") + _encode(presence.info)


def read_position(text: bytes) -> Position:
    """Read ``offset:epoch``."""
    offset, _, epoch = text.partition(b":")
    return Position(int(offset), epoch.decode())


class Reader:
    """Reads what others have written, which may be anything.

    What cannot be read is `None`, and said once: somebody else may write under our names again and
    again.

    Args:
        name: of the server, for the log.
        prefix: begins our names there, for the log.

    Attributes:
        unread: how many could not be read.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self.unread = 0
        self._name = name
        self._prefix = prefix

    def message(self, message: bytes) -> Publication | Presence | None:
        """Read a message."""
        kind = message[:1]
        try:
            if kind == b"p":
                middle = message.index(b":")
                end = message.index(b":", middle + 1)
                publication = _decode_publication(message[end + 1 :])
                publication.offset = int(message[1:middle])
                publication.epoch = message[middle + 1 : end].decode()
                return publication
            if kind in (b"j", b"l"):
                return Presence(_decode_client(message[1:]), kind == b"l")
        except (msgspec.DecodeError, ValueError):
            pass
        self._cannot_read("a message")
        return None

    def page(self, entries: Iterable[tuple[bytes, list[bytes]]], epoch: str) -> list[Publication]:
        """Read entries of a stream."""
        publications = []
        for place, (_, _, _, data) in entries:
            try:
                publication = _decode_publication(data)
                publication.offset = int(place.partition(b"-")[0])
            except (msgspec.DecodeError, ValueError):
                self._cannot_read("a publication")
            else:
                publication.epoch = epoch
                publications.append(publication)
        return publications

    def present(self, entries: Iterable[bytes]) -> dict[str, ClientInfo]:
        """Read entries of presence, each of which has its user before it."""
        there = {}
        for entry in entries:
            length, _, rest = entry.partition(b":")
            try:
                info = _decode_client(rest[int(length) :])
            except (msgspec.DecodeError, ValueError):
                self._cannot_read("an entry of presence")
            else:
                there[info.client] = info
        return there

    def _cannot_read(self, what: str) -> None:
        self.unread += 1
        if self.unread == 1:
            logger.warning(
                "%s: %s that cannot be read is ignored, and so will be others; another version, or "
                "something that is not Pongee, writes under the prefix %s",
                self._name,
                what,
                self._prefix,
            )
