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
MASKED = 0x80

MAX_CONTROL = 125
"""Bytes of a control frame's payload (RFC 6455 section 5.5). More: 1002."""

MAX_FRAGMENTS = 4096
"""Fragments of one message, empty ones included: each costs more than its bytes. A limit of more
than 256 KiB a message allows one for each 64 bytes of it. More: 1008."""

_UINT16 = struct.Struct("!H")
_UINT64 = struct.Struct("!Q")
_HEAD64 = struct.Struct("!BBQ")
_HEAD16 = struct.Struct("!BBH")
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
        error: the violation that ended it, or `None`.
        stopped_early: the last `feed` returned as many messages as it was allowed to.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_decoder",
        "_fragments",
        "_max_fragments",
        "_max_size",
        "_opcode",
        "_parts",
        "_size",
        "error",
        "stopped_early",
    )

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._max_fragments = max(MAX_FRAGMENTS, max_size // 64)
        self._buffer: bytes | bytearray = b""
        self._closed = False  # a close frame came; what follows it is not looked at
        self._opcode = CONTINUATION  # of the message under way; CONTINUATION is none
        self._fragments = 0
        self._size = 0
        self._parts: list[str] | list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None
        self.error: FrameError | None = None
        self.stopped_early = False

    @property
    def waiting(self) -> int:
        """Bytes received and not yet parsed."""
        return len(self._buffer)

    def feed(self, data: bytes, at_most: int = 1 << 30) -> list[Message]:
        """Take bytes; return the messages they complete, in order.

        Args:
            data: as received; may be empty to go on with what waits.
            at_most: messages returned by this call. What is left waits for the next.

        Returns:
            Messages. If `error` is set afterwards, they came before the violation.
        """
        if self.error is not None or self._closed:
            self.stopped_early = False
            return []
        if self._buffer:
            buffer = bytearray(self._buffer) if type(self._buffer) is bytes else self._buffer
            buffer += data
            self._buffer = buffer
        else:
            self._buffer = data
        messages: list[Message] = []
        self.stopped_early = False
        try:
            self._parse(messages, at_most)
        except FrameError as error:
            self.error = error
            self._buffer = b""
            self._parts = []
        return messages

    def _parse(self, messages: list[Message], at_most: int) -> None:
        buffer, end = self._buffer, len(self._buffer)
        position = 0
        try:
            while end - position >= 2 and len(messages) < at_most:
                first, second = buffer[position], buffer[position + 1]
                size = second & 0x7F
                start = position + 2
                if size < 126 and second & MASKED and first == FINAL | TEXT and not self._opcode:
                    # By far the most frequent frame needs no further check.
                    if size > self._max_size:
                        raise FrameError(1009, "message too big")
                else:
                    size, start = self._header(buffer, end, position, first, second)
                    if start < 0:
                        return
                payload_start = start + 4
                payload_end = payload_start + size
                if payload_end > end:
                    return
                payload = apply_mask(
                    bytes(buffer[payload_start:payload_end]), bytes(buffer[start:payload_start])
                )
                position = payload_end
                message = self._frame(first, payload)
                if message is not None:
                    messages.append(message)
                    self.stopped_early = len(messages) == at_most
                    if message[0] == CLOSE:
                        # Whatever follows a close frame is not looked at (section 5.5.1).
                        self._closed = True
                        position = end
                        return
        finally:
            if position:
                self._buffer = buffer[position:] if position < end else b""

    def _header(
        self, buffer: bytes | bytearray, end: int, position: int, first: int, second: int
    ) -> tuple[int, int]:
        """Check a header; returns payload size and where the mask starts, or -1 for incomplete."""
        opcode = first & 0x0F
        if first & RESERVED:
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
        if self._size + size > self._max_size:
            raise FrameError(1009, "message too big")
        return size, start

    def _frame(self, first: int, payload: bytes) -> Message | None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            return opcode, payload
        if first & FINAL and not self._fragments:
            return (TEXT, _decode(payload)) if opcode == TEXT else (BINARY, payload)
        return self._fragment(opcode, payload, final=bool(first & FINAL))

    def _fragment(self, opcode: int, payload: bytes, *, final: bool) -> Message | None:
        if opcode:
            self._opcode = opcode
            self._decoder = _new_decoder() if opcode == TEXT else None
        self._fragments += 1
        if self._fragments > self._max_fragments:
            raise FrameError(1008, "too many fragments")
        self._size += len(payload)
        if self._decoder is not None:
            # Decoded as it comes, so that a wrong byte is found at once (section 8.1).
            try:
                self._parts.append(self._decoder.decode(payload, final))  # type: ignore[arg-type]
            except UnicodeDecodeError:
                raise FrameError(1007, "text is not UTF-8") from None
        else:
            self._parts.append(payload)  # type: ignore[arg-type]
        if not final:
            return None
        kind, parts = self._opcode, self._parts
        self._opcode = CONTINUATION
        self._fragments = self._size = 0
        self._parts = []
        self._decoder = None
        if kind == TEXT:
            return TEXT, "".join(parts)  # type: ignore[arg-type]
        return BINARY, b"".join(parts)  # type: ignore[arg-type]


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Write one final, unmasked frame. ▲"""
    size = len(payload)
    if size < 126:
        return bytes((FINAL | opcode, size)) + payload
    if size < 1 << 16:
        return _HEAD16.pack(FINAL | opcode, 126, size) + payload
    return _HEAD64.pack(FINAL | opcode, 127, size) + payload


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
