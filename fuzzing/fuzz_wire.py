"""Feed the pure modules of the wire with whatever libFuzzer finds. Read `README.md` first.

The first byte of an input chooses one of `TARGETS`; what follows is that target's own. A target
raises if a promise is broken: an exception that no docstring names, a verdict that depends on how
the stream was cut, a message over the limit, more kept than the limit allows.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Callable
from typing import Any

import atheris  # type: ignore[import-untyped]

import pongee  # noqa: F401  # the front door and all behind it, so that none of it is instrumented

# What is tested is imported anew, instrumented.
for name in [name for name in sys.modules if name.startswith(("pongee.wire", "websockets."))]:
    del sys.modules[name]
with atheris.instrument_imports(include=["pongee.wire", "websockets"]):
    from pongee.wire.deflate import Deflate, negotiate
    from pongee.wire.frames import (
        BINARY,
        CLOSE,
        CONTINUATION,
        DEFLATE_SLACK,
        PING,
        PONG,
        TEXT,
        FrameError,
        FrameParser,
        Message,
        encode_close,
        may_travel,
        parse_close,
    )
    from pongee.wire.handshake import Accepted, Refusal, Request, accept, judge, refusal
    from pongee.wire.head import (
        judge_head,
        judge_part,
        judge_size,
        judge_text,
        origin_form,
        upgrade_of,
    )

Input = Any  # an `atheris.FuzzedDataProvider`, which has no types
Verdict = tuple[list[Message], int | None]

LIMITS = [0, 1, 125, 126, 1000, 1 << 16]
HEADER = 14
"""Bytes of the longest header, its mask included."""


def require(kept: bool, promise: str) -> None:
    """Fail with the promise that was broken; an `assert` could be switched off."""
    if not kept:
        raise AssertionError(promise)


# Frames


def feed_all(chunks: list[bytes], limit: int, deflate: bool, at_most: int = 1 << 30) -> Verdict:
    """Feed a parser; returns its messages and the code of its error."""
    parser = FrameParser(limit)
    parser.deflate = Deflate(12) if deflate else None
    messages: list[Message] = []
    for chunk in chunks:
        messages += parser.feed(chunk, at_most)
        while parser.stopped_early:
            messages += parser.feed(b"", at_most)
        check_kept(parser, limit)
    return messages, None if parser.error is None else parser.error.code


def check_kept(parser: FrameParser, limit: int) -> None:
    """What a parser holds between two calls is bounded by the limit."""
    slack = DEFLATE_SLACK + limit // 8 if parser.deflate is not None else 0
    most = max(limit + slack, 125) + HEADER
    require(parser.waiting < most, "bytes of more than one frame wait")
    parts = parser._parts
    require(sum(map(len, parts)) <= limit, "the parts of a message are over its limit")
    require(parser.error is None or not (parser.waiting or parts), "kept after an error")


def check_message(message: Message, limit: int) -> None:
    """A message is of its type and within its limit."""
    opcode, payload = message
    require(opcode in (TEXT, BINARY, CLOSE, PING, PONG), "an unknown kind of message")
    require(isinstance(payload, str) == (opcode == TEXT), "payload of the wrong type")
    size = len(payload.encode() if isinstance(payload, str) else payload)
    require(size <= (125 if opcode >= CLOSE else limit), "a message over its limit")


def check_stream(data: Input, stream: bytes, limit: int, deflate: bool) -> Verdict:
    """Whole, in chunks and a few messages at a time: one verdict."""
    places = sorted(data.ConsumeIntInRange(0, len(stream)) for _ in range(6))
    at_most = data.ConsumeIntInRange(1, 4)
    edges = [0, *places, len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    verdict = feed_all([stream], limit, deflate)
    require(feed_all(chunks, limit, deflate) == verdict, "the verdict depends on the cuts")
    require(feed_all([stream], limit, deflate, at_most) == verdict, "it depends on `at_most`")
    require(feed_all(chunks, limit, deflate, at_most) == verdict, "it depends on both")
    for message in verdict[0]:
        check_message(message, limit)
    kinds = [opcode for opcode, _ in verdict[0]]
    require(CLOSE not in kinds[:-1], "a message after a close frame")
    require(verdict[1] in (None, 1002, 1007, 1008, 1009), "an error of an unknown code")
    return verdict


def raw_frames(data: Input) -> None:
    """Any bytes as a stream of frames."""
    limit, deflate = data.PickValueInList(LIMITS), data.ConsumeBool()
    stream = data.ConsumeBytes(max(0, data.remaining_bytes() - 16))
    check_stream(data, stream, limit, deflate)


def frame(data: Input, first: int, payload: bytes) -> bytes:
    """Write a frame with any mask; a message's with any form of length."""
    size, form = len(payload), data.ConsumeIntInRange(0, 9) if first & 0x0F < CLOSE else 0
    if form == 9 or size >= 1 << 16:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    elif form == 8 or size >= 126:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | size))
    mask = bytes(data.ConsumeIntInRange(0, 255) for _ in range(4))
    key = mask * (size // 4 + 1)
    return head + mask + bytes(map(int.__xor__, payload, key))


def deflated(data: Input, payload: bytes) -> bytes:
    """Compress in any way, its tail left out."""
    level = data.ConsumeIntInRange(0, 9)
    strategy = data.PickValueInList([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY])
    flush = data.PickValueInList([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH])
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    return (deflate.compress(payload) + deflate.flush(flush)).removesuffix(b"\0\0\xff\xff")


def fragments(data: Input, opcode: int, payload: bytes, compressed: bool) -> bytes:
    """Write a message in up to five frames, with pings between them."""
    wire = deflated(data, payload) if compressed else payload
    count = data.ConsumeIntInRange(0, 4)
    places = sorted(data.ConsumeIntInRange(0, len(wire)) for _ in range(count))
    edges = [0, *places, len(wire)]
    stream = b""
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        first = CONTINUATION if index else opcode | (0x40 if compressed else 0)
        stream += frame(data, first | (0x80 if index == count else 0), wire[start:end])
        if index < count and data.ConsumeBool():
            stream += frame(data, 0x80 | PING, b"between")
    return stream


def payload_of(data: Input, opcode: int) -> bytes:
    """Take a payload that its kind of message may carry; a repeated one compresses well."""
    times: int = data.PickValueInList([1, 1, 1, 1, 1, 1, 2, 300, 5000])
    if opcode == TEXT:
        text: str = data.ConsumeUnicodeNoSurrogates(20)
        return text.encode() * times
    binary: bytes = data.ConsumeBytes(20)
    return binary * times


def sound_messages(data: Input) -> None:
    """Messages that are in order: what was written is what is read, up to the limit."""
    limit = data.PickValueInList(LIMITS)
    deflate, stream, written = data.ConsumeBool(), b"", list[Message]()
    for _ in range(data.ConsumeIntInRange(1, 5)):
        opcode = data.PickValueInList([TEXT, BINARY])
        payload = payload_of(data, opcode)
        stream += fragments(data, opcode, payload, deflate and data.ConsumeBool())
        written.append((opcode, payload.decode() if opcode == TEXT else payload))
        if len(payload) > limit:
            break
    messages, error = check_stream(data, stream, limit, deflate)
    too_big = len(payload) > limit
    read = [message for message in messages if message[0] != PING]
    require(read == (written[:-1] if too_big else written), "read other than written")
    require(error == (1009 if too_big else None), "a sound stream is refused, or a large one not")


def broken_frames(data: Input) -> None:
    """Frames of any first byte between messages in order, with payloads of all sorts."""
    limit, deflate, stream = data.PickValueInList(LIMITS), data.ConsumeBool(), b""
    for _ in range(data.ConsumeIntInRange(1, 8)):
        opcode = data.PickValueInList([TEXT, BINARY])
        sort = data.ConsumeIntInRange(0, 5)
        if sort == 0:
            stream += fragments(data, opcode, payload_of(data, opcode), deflate)
        elif sort == 1:
            stream += frame(data, data.ConsumeIntInRange(0, 255), data.ConsumeBytes(40))
        elif sort == 2:  # text that may be no text, compressed
            bits = data.PickValueInList([0x40, 0xC0])
            stream += frame(data, bits | opcode, deflated(data, data.ConsumeBytes(40)))
        elif sort == 3:  # a stream that may be no stream
            bits = data.PickValueInList([0x40, 0xC0])
            stream += frame(data, bits | opcode, data.ConsumeBytes(40))
        elif sort == 4:
            stream += frame(data, data.PickValueInList([0x00, 0x80]), data.ConsumeBytes(40))
        else:
            stream += data.ConsumeBytes(10)
    check_stream(data, stream, limit, deflate)


def close_payload(data: Input) -> None:
    """Any bytes as a close frame's payload; what is read can be written again."""
    payload = data.ConsumeBytes(data.remaining_bytes())
    try:
        code, reason = parse_close(payload)
    except FrameError as error:
        require(error.code in (1002, 1007), "a close frame's error of an unknown code")
        return
    require(code == 1005 or may_travel(code), "a close code that must not travel")
    if len(payload) <= 125:
        require(encode_close(code, reason)[2:] == payload, "a close frame reads as another")


# Handshakes

NAMES = [
    *(b"host", b"upgrade", b"connection", b"origin", b"content-length", b"transfer-encoding"),
    *(b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"),
    b"sec-websocket-extensions",
]
SOUND = (
    *((b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"host", b"a")),
    *((b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA==")),
)
OFFERS = [
    *("permessage-deflate", "server_max_window_bits=", "client_max_window_bits", "10", ",", ";"),
    *("server_no_context_takeover", "client_no_context_takeover", "=", '"', " ", "8", "x", "é"),
]


def offer(data: Input) -> str:
    """Take a header's text: any, or of the words that mean something."""
    if data.ConsumeBool():
        return bytes(data.ConsumeBytes(60)).decode("latin-1")
    return "".join(data.PickValueInList(OFFERS) for _ in range(data.ConsumeIntInRange(0, 12)))


def extensions(data: Input) -> None:
    """Any text as offers of extensions."""
    agreed = negotiate([offer(data) for _ in range(data.ConsumeIntInRange(0, 3))])
    if agreed is not None:
        answer, deflate = agreed
        require(answer.startswith("permessage-deflate; server_no_context"), "another answer")
        require(answer.isascii() and answer.isprintable(), "an answer that cannot travel")
        require(9 <= deflate.window_bits <= 12, "a window that zlib cannot make")


def headers(data: Input) -> list[tuple[bytes, bytes]]:
    """Take header fields: known names or any, with any values, some of them in order."""
    taken = list(SOUND) if data.ConsumeBool() else []
    for _ in range(data.ConsumeIntInRange(0, 6)):
        name = data.PickValueInList(NAMES) if data.ConsumeBool() else data.ConsumeBytes(10).lower()
        value = data.ConsumeBytes(30) if data.ConsumeBool() else offer(data).encode("latin-1")
        taken.append((name, value))
    if taken and data.ConsumeBool():
        del taken[data.ConsumeIntInRange(0, len(taken) - 1)]
    return taken


def handshake(data: Input) -> None:
    """Any header fields as an upgrade request; whatever the verdict, it can be written."""
    method = data.PickValueInList([b"GET", b"GET", b"GET", b"POST"])
    version = data.PickValueInList(["1.1", "1.1", "1.1", "1.0"])
    request = Request(method, b"/" + data.ConsumeBytes(20), version, headers(data))
    request.scope("")
    verdict = judge(request, deflate=data.ConsumeBool())
    if isinstance(verdict, Accepted):
        answer = accept(verdict, [], None)
        require(answer.endswith(b"\r\n\r\n") and answer.count(b"\r\n\r\n") == 1, "split answer")
        require(all(request.subprotocols), "an empty subprotocol is offered")
    else:
        check_refusal(verdict)


def check_refusal(verdict: Refusal | None) -> None:
    """A refusal has a status that says whose fault it is, and can be written."""
    if verdict is not None:
        require(400 <= verdict.status <= 505, "a refusal that is no error")
        refusal(verdict.status, verdict.headers, verdict.why.encode())


def request_head(data: Input) -> None:
    """Any bytes as the parts of a request's head, and as its text."""
    method, version = data.PickValueInList([b"GET", b"POST"]), data.PickValueInList(["1.1", "1.0"])
    fields = headers(data)
    target = data.PickValueInList([b"/", b"http://", b"*", b""]) + data.ConsumeBytes(20)
    check_refusal(judge_head(method, target, version, fields, websocket=data.ConsumeBool()))
    check_refusal(judge_part(target, fields, data.ConsumeIntInRange(0, 1 << 17)))
    check_refusal(judge_size(target, fields))
    upgrade_of(fields)
    require(origin_form(target) != b"" or not target, "a target without a path")
    times = data.PickValueInList([1, 60, 3000])
    text = data.ConsumeBytes(data.remaining_bytes())
    check_refusal(judge_text(text))
    check_refusal(judge_text(text[:40] * times))


TARGETS: tuple[Callable[[Input], None], ...] = (
    raw_frames,
    sound_messages,
    broken_frames,
    close_payload,
    extensions,
    handshake,
    request_head,
)


def fuzz_one(data: bytes) -> None:
    """Run the target that the first byte chooses."""
    if data:
        TARGETS[data[0] % len(TARGETS)](atheris.FuzzedDataProvider(data[1:]))


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
