"""permessage-deflate (RFC 7692): negotiation, and one message at a time. ◇

Offers are judged by the ``websockets`` package's own code. Neither side keeps context from one
message to the next: so one compressed frame serves every client that agreed on the same window, and
an idle connection holds none. Inflating never makes more than the message limit allows, whatever
the bytes promise.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionName

__all__ = ["Deflate", "InflateError", "Inflator", "TooLarge", "compress", "negotiate"]

MAX_OFFERS = 16
"""Offers of one handshake that are looked at. More: as if they were not there."""

MAX_OFFERED = 2048
"""Characters of those offers. More: no compression. Reading 64 KiB of commas takes 36 ms."""

WINDOW_BITS = 12
"""Window used for compressing: 4 KiB. A larger one gains little on messages, which are small, and
costs memory and time for each; fewer bits are used where the client asks for fewer."""

MEM_LEVEL = 5
"""zlib's working memory, to match that window: 32 KiB for both, instead of 256 KiB."""

PIECE = 4 * 1024
"""Bytes inflated from at a time. What they leave over is copied for each step."""

STEP = 64 * 1024
"""Bytes inflated to at a time: zlib holds twice what it returns at once."""

_TAIL = b"\x00\x00\xff\xff"
"""What a message leaves out at its end (section 7.2.1)."""

_NAME = ExtensionName("permessage-deflate")
_FACTORY = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)


class InflateError(Exception):
    """The bytes are no deflate stream."""


class TooLarge(Exception):
    """There is more in the bytes than may be made of them."""


@dataclass(frozen=True, slots=True)
class Deflate:
    """What was agreed on.

    Attributes:
        window_bits: for messages to the client.
    """

    window_bits: int


def negotiate(offers: Sequence[str]) -> tuple[str, Deflate] | None:
    """Accept the first offer we can, as the values of ``Sec-WebSocket-Extensions`` make them.

    An offer with parameters that are unknown, repeated or impossible is declined (section 7.1), and
    so is a header that cannot be read, or that is too long: compression is never worth a refusal.

    Returns:
        The value of the answer's header, and what it says; `None` is no compression.
    """
    if sum(map(len, offers)) > MAX_OFFERED:
        return None
    try:
        parsed = [offer for header in offers for offer in parse_extension(header)]
    except InvalidHeader:
        return None
    for name, parameters in parsed[:MAX_OFFERS]:
        if name != _NAME:
            continue
        try:
            told, agreed = _FACTORY.process_request_params(parameters, [])
        except NegotiationError:
            continue
        bits = min(agreed.local_max_window_bits, WINDOW_BITS)
        if bits > 8:  # zlib makes no raw stream with a window of 256 bytes
            return build_extension([(_NAME, told)]), Deflate(bits)
    return None


def compress(payload: bytes, window_bits: int) -> bytes:
    """Compress one message, independent of all others."""
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -window_bits, MEM_LEVEL)
    data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_TAIL)


class Inflator:
    """Inflates one message, whose fragments are fed one by one.

    A message that stops amid a block gives what was inflated until then: zlib does not tell it from
    one that ends between two, and other servers take it too.
    """

    __slots__ = ("_inflate",)

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    def feed(self, data: bytes, room: int, *, final: bool) -> bytes:
        """Inflate a fragment.

        Args:
            data: the fragment's payload.
            room: bytes that may be made of it; no more than `STEP` over that are ever held.
            final: whether it is the message's last.

        Raises:
            InflateError: it is no deflate stream.
            TooLarge: there is more in it than `room`.
        """
        if final and len(data) < PIECE:
            data, final = data + _TAIL, False
        made: list[bytes] = []
        view = memoryview(data)
        for start in range(0, len(data), PIECE):
            room = self._inflate_piece(view[start : start + PIECE], room, made)
        if final:
            self._inflate_piece(memoryview(_TAIL), room, made)
        return b"".join(made)

    def _inflate_piece(self, piece: bytes | memoryview, room: int, made: list[bytes]) -> int:
        """Append to `made`; returns what is left of `room`."""
        inflate = self._inflate
        if inflate.eof:
            _check_rest(bytes(piece))
            return room
        while True:
            try:
                made.append(inflate.decompress(piece, STEP))
            except zlib.error as error:
                raise InflateError(str(error)) from None
            size = len(made[-1])
            room -= size
            if room < 0:
                raise TooLarge
            if size < STEP:
                break
            piece = inflate.unconsumed_tail
        _check_rest(inflate.unused_data)
        return room


def _check_rest(data: bytes) -> None:
    # A stream may end with a last block (section 7.2.3.4); only empty blocks may follow it.
    if data.strip(b"\x00\xff"):
        raise InflateError("data after the last block")
