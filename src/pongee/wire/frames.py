"""WebSocket frames: bytes to messages, and messages to bytes. ◇▲

RFC 6455 sections 5 to 8, the server's side. `FrameParser.feed` takes bytes in any chunking and
returns the messages they complete; the first violation ends it for good. A length over the limit is
refused from the header alone, so nothing is allocated for what a header only promises.
`encode_frame` writes a finished frame, unmasked as a server must.

The parser knows no socket, clock or event loop, and its verdict does not depend on how the stream
was cut: the same bytes give the same messages and the same error.
"""

from __future__ import annotations

import codecs
import struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # where the package could not be built with its C helper
    from websockets.utils import apply_mask

from pongee.wire.deflate import Deflate, InflateError, Inflator, TooLarge, compress

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MAX_FRAGMENTS",
    "PING",
    "PONG",
    "TEXT",
    "FrameError",
    "FrameParser",
    "Message",
    "encode_close",
    "encode_compressed",
    "encode_frame",
    "may_travel",
    "parse_close",
]

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

FINAL = 0x80
RESERVED = 0x70
RSV1 = 0x40
MASKED = 0x80
WHOLE_TEXT: Final = FINAL | TEXT
WHOLE_BINARY: Final = FINAL | BINARY
WHOLE = (WHOLE_TEXT, WHOLE_BINARY)

MAX_CONTROL = 125
"""Bytes of a control frame's payload (RFC 6455 section 5.5). More: 1002."""

MAX_FRAGMENTS = 4096
"""Fragments of one message, empty ones included: each costs more than its bytes. A limit of more
than 256 KiB a message allows one for each 64 bytes of it. More: 1008."""

FEED_FRAMES = 1024
"""Frames looked at by one call of `FrameParser.feed`, short messages apart: fragments cost time
though they complete nothing. More wait for the next call."""

FEED_SIZE = 64 * 1024
"""Characters and bytes returned by one call of `FrameParser.feed`, short texts apart; the message
that reaches it is its last. A few bytes may inflate to a thousand times as many."""

DEFLATE_SLACK = 1024
"""Bytes by which a compressed frame may be larger than the message limit, beside an eighth of that:
deflate's fixed code writes a byte with nine bits. More: 1009."""

VIEW_FROM = 16 * 1024
"""Bytes of a payload from which unmasking through a view is cheaper than from a copy."""

_UINT16 = struct.Struct("!H")
_UINT64 = struct.Struct("!Q")
_HEAD64 = struct.Struct("!BBQ")
_HEAD16 = struct.Struct("!BBH")
_SHORT_HEADS = {
    opcode: [bytes((FINAL | opcode, size)) for size in range(126)]
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
}
_new_decoder = codecs.getincrementaldecoder("utf-8")

Message = tuple[int, str | bytes]
"""Opcode and payload: TEXT with `str`; BINARY, CLOSE, PING and PONG with `bytes`."""


class FrameError(Exception):
    """The peer broke the protocol.

    Attributes:
        code: the close code to answer with (RFC 6455 section 7.4.1).
        reason: one line for the close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class FrameParser:
    """Incremental parser of one connection's incoming frames. ▲

    Args:
        max_size: bytes of one message, over all its fragments. More: `FrameError` 1009.

    Attributes:
        deflate: what was agreed on compression; set it before the first frame.
        error: the violation that ended it, or `None`.
        stopped_early: the last `feed` returned as many messages as it was allowed to, and there are
            bytes left.
    """

    __slots__ = (
        "_buffer",
        "_decoder",
        "_ended",
        "_fragments",
        "_inflator",
        "_max_fragments",
        "_max_size",
        "_opcode",
        "_parts",
        "_short",
        "_size",
        "_slack",
        "deflate",
        "error",
        "stopped_early",
    )

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._slack = DEFLATE_SLACK + max_size // 8
        self._max_fragments = max(MAX_FRAGMENTS, max_size // 64)
        self._buffer: bytes | bytearray = b""
        self._ended = False  # a violation or a close frame came; what follows is not looked at
        self._short = min(126, max_size + 1)  # sizes below need no more than a glance
        self._opcode = CONTINUATION  # of the message under way; CONTINUATION is none
        self._fragments = 0
        self._size = 0
        self._parts: list[str] | list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None
        self._inflator: Inflator | None = None
        self.deflate: Deflate | None = None
        self.error: FrameError | None = None
        self.stopped_early = False

    @property
    def waiting(self) -> int:
        """Bytes received and not yet parsed."""
        return len(self._buffer)

    def feed(self, data: bytes, at_most: int = 1 << 30) -> list[Message]:
        """Take bytes; return the messages they complete, in order. ▲

        Args:
            data: as received; may be empty to go on with what waits.
            at_most: messages returned by this call; `FEED_SIZE` bounds them too. What is left waits
                for the next.

        Returns:
            Messages. If `error` is set afterwards, they came before the violation.
        """
        self.stopped_early = False
        if self._ended:
            return []
        if self._buffer:
            buffer = bytearray(self._buffer) if type(self._buffer) is bytes else self._buffer
            buffer += data
            self._buffer = buffer
        else:
            # By far the most frequent: one short message, alone and whole. Budget: 0.4 µs.
            size = len(data) - 6
            if (
                0 <= size < self._short
                and data[1] == MASKED | size
                and not self._opcode
                and at_most
            ):
                first = data[0]
                if first == WHOLE_TEXT:
                    try:
                        return [(TEXT, apply_mask(data[6:], data[2:6]).decode())]
                    except UnicodeDecodeError:
                        self._fail(FrameError(1007, "text is not UTF-8"))
                        return []
                if first == WHOLE_BINARY:
                    return [(BINARY, apply_mask(data[6:], data[2:6]))]
            self._buffer = data
        messages: list[Message] = []
        try:
            self._parse(messages, at_most)
        except FrameError as error:
            self._fail(error)
        except UnicodeDecodeError:
            self._fail(FrameError(1007, "text is not UTF-8"))
        return messages

    def _fail(self, error: FrameError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._buffer = b""
        self._parts = []
        self._decoder = self._inflator = None

    def _parse(self, messages: list[Message], at_most: int) -> None:
        buffer, end = self._buffer, len(self._buffer)
        position = produced = looked = 0
        enough = False
        short = MASKED | self._short
        try:
            while end - position >= 2 and len(messages) < at_most and not enough:
                first, second = buffer[position], buffer[position + 1]
                if MASKED <= second < short and not self._opcode and first in WHOLE:
                    # A short, whole message needs no further check.
                    start = position + 6
                    stop = start + (second ^ MASKED)
                    if stop > end:
                        return
                    payload = apply_mask(buffer[start:stop], buffer[position + 2 : start])
                    position = stop
                    messages.append(
                        (TEXT, payload.decode()) if first == WHOLE_TEXT else (BINARY, payload)
                    )
                    continue
                size, start = self._header(buffer, end, position, first, second)
                stop = start + 4 + size
                if start < 0 or stop > end:
                    return
                if size < VIEW_FROM:
                    payload = apply_mask(buffer[start + 4 : stop], buffer[start : start + 4])
                else:
                    with memoryview(buffer) as view:
                        payload = apply_mask(view[start + 4 : stop], buffer[start : start + 4])
                position = stop
                message = self._frame(first, payload)
                if message is not None:
                    messages.append(message)
                    if message[0] == CLOSE:
                        # Whatever follows a close frame is not looked at (section 5.5.1).
                        self._end()
                        return
                    produced += len(message[1])
                looked += 1
                enough = produced >= FEED_SIZE or looked >= FEED_FRAMES
            enough = enough or 0 < at_most == len(messages)
            self.stopped_early = enough and position < end
        finally:
            if position and not self._ended:
                if position == end:
                    self._buffer = b""
                elif type(buffer) is bytearray:
                    del buffer[:position]  # moves what is left only now and then
                else:
                    self._buffer = buffer[position:]

    def _header(
        self, buffer: bytes | bytearray, end: int, position: int, first: int, second: int
    ) -> tuple[int, int]:
        """Check a header; returns payload size and where the mask starts, or -1 for incomplete."""
        opcode = first & 0x0F
        compressed = self.deflate is not None and first & RESERVED == RSV1 and 0 < opcode <= BINARY
        if first & RESERVED and not compressed:
            raise FrameError(1002, "reserved bit set")
        if not second & MASKED:
            raise FrameError(1002, "frame not masked")
        size = second & 0x7F
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(1002, "unknown opcode")
            if not first & FINAL:
                raise FrameError(1002, "fragmented control frame")
            if size > MAX_CONTROL:
                raise FrameError(1002, "control frame too long")
            return size, position + 2
        if opcode > BINARY:
            raise FrameError(1002, "unknown opcode")
        if (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            raise FrameError(1002, "unexpected continuation or its lack")
        if size == 126:
            if end - position < 4:
                return 0, -1
            size = _UINT16.unpack_from(buffer, position + 2)[0]
            start = position + 4
        elif size == 127:
            if end - position < 10:
                return 0, -1
            size = _UINT64.unpack_from(buffer, position + 2)[0]
            if size >> 63:
                raise FrameError(1002, "length with its top bit set")
            start = position + 10
        else:
            start = position + 2
        # What cannot be compressed grows; the size that counts is the inflated one.
        slack = self._slack if compressed or self._inflator is not None else 0
        if self._size + size > self._max_size + slack:
            raise FrameError(1009, "message too big")
        return size, start

    def _frame(self, first: int, payload: bytes) -> Message | None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            return opcode, payload
        if first & FINAL and opcode and not first & RSV1:
            return (TEXT, payload.decode()) if opcode == TEXT else (BINARY, payload)
        return self._fragment(first, opcode, payload)

    def _fragment(self, first: int, opcode: int, payload: bytes) -> Message | None:
        final = bool(first & FINAL)
        if opcode:
            self._opcode = opcode
            self._decoder = _new_decoder() if opcode == TEXT else None
            self._inflator = Inflator() if first & RSV1 else None
        self._fragments += 1
        if self._fragments > self._max_fragments:
            raise FrameError(1008, "too many fragments")
        if self._inflator is not None:
            payload = self._inflate(self._inflator, payload, final=final)
        self._size += len(payload)
        if self._decoder is not None:
            # Decoded as it comes, so that a wrong byte is found at once (section 8.1).
            self._parts.append(self._decoder.decode(payload, final))  # type: ignore[arg-type]
        else:
            self._parts.append(payload)  # type: ignore[arg-type]
        return self._finish() if final else None

    def _inflate(self, inflator: Inflator, payload: bytes, *, final: bool) -> bytes:
        try:
            return inflator.feed(payload, self._max_size - self._size, final=final)
        except TooLarge:
            raise FrameError(1009, "message too big") from None
        except InflateError:
            raise FrameError(1007, "not a deflate stream") from None

    def _finish(self) -> Message:
        kind, parts = self._opcode, self._parts
        self._opcode = CONTINUATION
        self._fragments = self._size = 0
        self._parts = []
        self._decoder = self._inflator = None
        if kind == TEXT:
            return TEXT, "".join(parts)  # type: ignore[arg-type]
        return BINARY, b"".join(parts)  # type: ignore[arg-type]


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Write one final, unmasked frame. ▲ Budget: 0.15 µs for a short one."""
    size = len(payload)
    if size < 126:
        return _SHORT_HEADS[opcode][size] + payload
    return _long_head(FINAL | opcode, size) + payload


def encode_compressed(opcode: int, payload: bytes, window_bits: int) -> bytes:
    """Write one final frame with its payload compressed (RFC 7692 section 6.1)."""
    data = compress(payload, window_bits)
    if len(data) < 126:
        return bytes((FINAL | RSV1 | opcode, len(data))) + data
    return _long_head(FINAL | RSV1 | opcode, len(data)) + data


def _long_head(first: int, size: int) -> bytes:
    if size < 1 << 16:
        return _HEAD16.pack(first, 126, size)
    return _HEAD64.pack(first, 127, size)


def encode_close(code: int, reason: str) -> bytes:
    """Write a close frame; 1005 means one without a code (section 7.1.5)."""
    if code == 1005:
        return encode_frame(CLOSE, b"")
    payload = _UINT16.pack(code) + reason.encode("utf-8", "replace")
    return encode_frame(CLOSE, _cut(payload))


def may_travel(code: int) -> bool:
    """Whether a close frame may carry `code` (section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_close(payload: bytes) -> tuple[int, str]:
    """Read a close frame's payload.

    Returns:
        Code and reason; 1005 for an empty payload.

    Raises:
        FrameError: 1002 for a code that must not travel, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise FrameError(1002, "close frame of one byte")
    code = _UINT16.unpack_from(payload)[0]
    if not may_travel(code):
        raise FrameError(1002, "close code not allowed")
    return code, _decode(payload[2:])


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(1007, "text is not UTF-8") from None


def _cut(payload: bytes) -> bytes:
    """Cut a close frame's payload to what fits, never inside a character."""
    if len(payload) <= MAX_CONTROL:
        return payload
    return payload[:2] + payload[2:MAX_CONTROL].decode("utf-8", "ignore").encode()
