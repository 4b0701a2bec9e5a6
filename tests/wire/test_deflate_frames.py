"""Compressed messages in the frame parser: the same verdict however cut, and bounded memory."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from pongee.wire.deflate import Deflate, compress
from pongee.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FEED_SIZE,
    PING,
    PONG,
    TEXT,
    FrameParser,
    Message,
    encode_compressed,
)
from tests.wire.test_deflate import TAIL, WINDOWS, deflated
from tests.wire.test_frames import Verdict, control, cut, frame, head, message

LIMIT = 1 << 16
RSV1 = 4
MEBIBYTE = 1 << 20


def spread(opcode: int, *pieces: bytes) -> list[bytes]:
    """Write one compressed message in as many frames as there are pieces."""
    last = len(pieces) - 1
    return [
        frame(opcode, piece, final=not last, rsv=RSV1)
        if index == 0
        else frame(CONTINUATION, piece, final=index == last)
        for index, piece in enumerate(pieces)
    ]


def packed(opcode: int, payload: bytes) -> bytes:
    """Write one compressed message in one frame."""
    return frame(opcode, deflated(payload), rsv=RSV1)


def parser(max_size: int) -> FrameParser:
    """Make a parser that has agreed on compression."""
    made = FrameParser(max_size)
    made.deflate = Deflate(12)
    return made


def ours(chunks: Iterable[bytes], max_size: int = LIMIT, at_most: int = 1 << 30) -> Verdict:
    """Feed a parser; returns its messages and the code of its error."""
    made, messages = parser(max_size), list[Message]()
    for chunk in chunks:
        messages += made.feed(chunk, at_most)
        while made.stopped_early:
            messages += made.feed(b"", at_most)
    return messages, None if made.error is None else made.error.code


def of_websockets(stream: bytes) -> Verdict:
    """What the websockets package makes of a stream of frames, compressed or not, of ASCII."""
    protocol = ServerProtocol(state=State.OPEN, max_size=None)
    protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
    protocol.receive_data(stream)
    messages: list[Message] = []
    kind, parts = 0, b""
    for event in protocol.events_received():
        opcode, data = int(event.opcode), bytes(event.data)  # type: ignore[union-attr]
        if opcode >= CLOSE:
            messages.append((opcode, data))
            continue
        kind, parts = (kind, parts + data) if opcode == CONTINUATION else (opcode, data)
        if event.fin:  # type: ignore[union-attr]
            messages.append((TEXT, parts.decode()) if kind == TEXT else (BINARY, parts))
    if protocol.parser_exc is None:
        return messages, None
    assert protocol.close_sent is not None
    return messages, protocol.close_sent.code


# Streams


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut bytes into pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@st.composite
def compressed(draw: st.DrawFn, *, ascii_only: bool = False) -> bytes:
    """One compressed message, whole or in fragments, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    letters = st.characters(max_codepoint=127 if ascii_only else None, exclude_categories=["Cs"])
    text = draw(st.text(letters, max_size=60)).encode() * draw(st.integers(0, 4))
    payload = text if opcode == TEXT or ascii_only else draw(st.binary(max_size=300))
    flush = draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]))
    frames = spread(opcode, *draw(pieces_of(deflated(payload, flush))))
    return b"".join(one + draw(st.just(b"") | control) for one in frames[:-1]) + frames[-1]


RSV_BROKEN = {
    "RSV1 on a continuation": frame(TEXT, deflated(b"a")[:1], final=False, rsv=RSV1)
    + frame(CONTINUATION, deflated(b"a")[1:], rsv=RSV1),
    "RSV1 on a continuation of a plain message": frame(TEXT, b"a", final=False)
    + frame(CONTINUATION, deflated(b"a"), rsv=RSV1),
    "RSV1 on a ping": frame(PING, deflated(b"a"), rsv=RSV1),
    "RSV1 on a pong": frame(PONG, b"", rsv=RSV1),
    "RSV1 on a close": frame(CLOSE, b"", rsv=RSV1),
    "RSV2": frame(TEXT, b"a", rsv=2),
    "RSV3": frame(BINARY, b"a", rsv=1),
    "RSV1 and RSV2": frame(TEXT, deflated(b"a"), rsv=6),
    "RSV1 and RSV3": frame(TEXT, deflated(b"a"), rsv=5),
    "RSV1 on an unknown opcode": frame(3, b"", rsv=RSV1),
}
NOISE = {
    "reserved kind of block": frame(TEXT, b"\x07", rsv=RSV1),
    "plain text": frame(TEXT, b"plain text", rsv=RSV1),
    "noise in a fragment": b"".join(spread(BINARY, deflated(b"a") + TAIL, b"\xff" * 9, b"")),
    "data after a final block": frame(BINARY, deflated(b"a", zlib.Z_FINISH) + b"x", rsv=RSV1),
    "a second stream": frame(BINARY, deflated(b"a", zlib.Z_FINISH) * 2, rsv=RSV1),
}
WRONG_TEXT = [b"a\xffb", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"cut \xe2\x82"]
broken = st.sampled_from([*RSV_BROKEN.values(), *NOISE.values()])
raw = st.builds(
    frame,
    st.sampled_from([TEXT, BINARY]),
    st.binary(max_size=80),
    final=st.booleans(),
    rsv=st.just(RSV1),
)
any_frames = st.lists(compressed() | message() | control | broken | raw, max_size=6).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(st.data(), any_frames)
def test_cuts_change_nothing(data: st.DataObject, stream: bytes) -> None:
    """The same bytes give the same messages and the same error, wherever they were cut."""
    at_once = ours([stream], 200)

    assert ours(data.draw(cut(stream)), 200) == at_once
    assert ours([bytes((byte,)) for byte in stream], 200) == at_once
    assert ours([stream], 200, at_most=data.draw(st.integers(1, 4))) == at_once


@settings(max_examples=200, deadline=None)
@given(st.data(), st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_fragments_change_nothing(data: st.DataObject, text: str) -> None:
    """A message is the same in one frame and in any fragments, as text and as bytes."""
    payload = text.encode()
    pieces = data.draw(pieces_of(deflated(payload)))

    assert ours(spread(TEXT, *pieces)) == ([(TEXT, text)], None)
    assert ours(spread(BINARY, *pieces)) == ([(BINARY, payload)], None)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(compressed(ascii_only=True) | message(ascii_only=True) | control, max_size=6),
    st.none() | st.sampled_from(list(RSV_BROKEN.values())),
)
def test_verdict_of_websockets(stream: list[bytes], end: bytes | None) -> None:
    """Messages, and the error at a reserved bit, are those of an independent implementation."""
    data = b"".join(stream) + (end or b"")

    assert ours([data]) == of_websockets(data)


# Tables


@pytest.mark.parametrize("stream", RSV_BROKEN.values(), ids=RSV_BROKEN)
def test_reserved_bits(stream: bytes) -> None:
    """Only RSV1 has a meaning, and only on a message's first frame (RFC 7692 section 6)."""
    assert ours([packed(TEXT, b"first"), stream]) == ([(TEXT, "first")], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_compressed_without_agreement(opcode: int) -> None:
    """RSV1 means nothing where compression was not agreed on."""
    plain = FrameParser(LIMIT)

    assert plain.feed(packed(opcode, b"a")) == []
    assert plain.error is not None
    assert plain.error.code == 1002


@pytest.mark.parametrize("stream", NOISE.values(), ids=NOISE)
def test_noise(stream: bytes) -> None:
    """Bytes that are no deflate stream are 1007: data that is not what it says."""
    assert ours([packed(TEXT, b"first"), stream]) == ([(TEXT, "first")], 1007)


def test_after_noise_nothing_is_taken() -> None:
    """Noise ends the stream like any violation."""
    made = parser(LIMIT)
    made.feed(NOISE["plain text"])

    assert made.feed(packed(TEXT, b"a")) == []
    assert made.waiting == 0


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x02\x00", (b"\x00" + TAIL) * 9 + b"\x00", b"\x03\x00"]
)
def test_empty_messages(data: bytes) -> None:
    """A stream of empty blocks is an empty message, as text too, and others follow it."""
    stream = [frame(TEXT, data, rsv=RSV1), *spread(BINARY, data, b"", b""), packed(TEXT, b"next")]

    assert ours(stream) == ([(TEXT, ""), (BINARY, b""), (TEXT, "next")], None)


def test_a_violation_lets_go_of_what_it_ends() -> None:
    """An unfinished message's parts are not kept once the stream has ended."""
    first, second = spread(BINARY, deflated(bytes(MEBIBYTE)), deflated(b""), b"")[:2]
    made = parser(2 * MEBIBYTE)
    tracemalloc.start()
    try:
        assert made.feed(first) == []
        held, _ = tracemalloc.get_traced_memory()
        assert made.feed(second + frame(3)) == []
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert made.error is not None
    assert held > MEBIBYTE
    assert left < MEBIBYTE // 16


def test_plain_messages_on_a_compressed_connection() -> None:
    """Each message says for itself whether it is compressed, in fragments too."""
    stream = [
        packed(TEXT, b"one"),
        frame(TEXT, b"two"),
        frame(TEXT, b"th", final=False),
        frame(CONTINUATION, b"ree"),
        *spread(TEXT, *[bytes((byte,)) for byte in deflated(b"four")]),
        frame(BINARY, deflated(b"five")),
    ]
    five: Message = (BINARY, deflated(b"five"))

    assert ours(stream) == (
        [(TEXT, word) for word in ("one", "two", "three", "four")] + [five],
        None,
    )


def test_control_frames_between_compressed_fragments() -> None:
    """A ping amid compressed fragments comes first, uncompressed, and the message is whole."""
    first, second = spread(TEXT, deflated(b"text")[:2], deflated(b"text")[2:])

    assert ours([first, frame(PING, b"p"), second]) == ([(PING, b"p"), (TEXT, "text")], None)


def test_messages_share_no_context() -> None:
    """Each message starts anew: one that refers to the message before it is 1007."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = random.Random(1).randbytes(200)
    both = [deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH) for _ in range(2)]
    frames = [frame(BINARY, one.removesuffix(TAIL), rsv=RSV1) for one in both]

    assert ours(frames) == ([(BINARY, text)], 1007)


def test_text_split_inside_characters() -> None:
    """Characters may be cut by compressed fragments, at each byte of the stream."""
    text = "é€😀" * 5
    data = deflated(text.encode(), level=0)

    assert ours(spread(TEXT, *[bytes((byte,)) for byte in data])) == ([(TEXT, text)], None)


@pytest.mark.parametrize("payload", WRONG_TEXT)
def test_wrong_text(payload: bytes) -> None:
    """Text is checked after inflating; bytes are bytes."""
    data = deflated(payload)

    assert ours([frame(TEXT, data, rsv=RSV1)]) == ([], 1007)
    assert ours(spread(TEXT, data[:2], data[2:])) == ([], 1007)
    assert ours([frame(BINARY, data, rsv=RSV1)]) == ([(BINARY, payload)], None)


def test_wrong_text_is_found_before_its_end() -> None:
    """A wrong byte in a compressed fragment is refused though the message goes on."""
    data = deflated(b"\xff" * 10, level=0)

    assert ours([frame(TEXT, data, final=False, rsv=RSV1)]) == ([], 1007)


# Limits


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("size", [10, 200, 70_000, MEBIBYTE])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_limit_of_a_message(opcode: int, size: int, extra: int) -> None:
    """What counts is the message, not its frames: exactly the limit passes, one more is 1009."""
    data = deflated(b"a" * (size + extra))
    third = len(data) // 3
    whole: str | bytes = "a" * size if opcode == TEXT else b"a" * size
    expected: Verdict = ([], 1009) if extra else ([(opcode, whole)], None)

    assert ours([frame(opcode, data, rsv=RSV1)], size) == expected
    assert ours(spread(opcode, data[:third], data[third : 2 * third], data[2 * third :]), size) == (
        expected
    )


@pytest.mark.parametrize(
    ("level", "memory", "strategy"),
    [
        (6, 8, zlib.Z_DEFAULT_STRATEGY),
        (6, 5, zlib.Z_DEFAULT_STRATEGY),
        (1, 1, zlib.Z_DEFAULT_STRATEGY),
        (6, 8, zlib.Z_FIXED),
    ],
)
def test_limit_of_what_cannot_be_compressed(level: int, memory: int, strategy: int) -> None:
    """Compressing may make a message larger: it passes nevertheless if it is within the limit."""
    payload = bytes(random.Random(1).choices(range(144, 256), k=MEBIBYTE))
    if strategy != zlib.Z_FIXED:
        payload = random.Random(1).randbytes(MEBIBYTE)
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, memory, strategy)
    data = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    stream = head(0xC2, len(data)) + bytes(4) + data

    assert len(data) > MEBIBYTE
    assert ours([stream], MEBIBYTE) == ([(BINARY, payload)], None)
    assert ours([stream], MEBIBYTE - 1) == ([], 1009)


@pytest.mark.parametrize("first", [0xC1, 0x42])
def test_limit_is_seen_in_the_header(first: int) -> None:
    """A frame that is far larger than the limit is refused before its payload has come."""
    assert ours([head(first, LIMIT + LIMIT // 8 + 1024)]) == ([], None)
    assert ours([head(first, LIMIT + LIMIT // 8 + 1025)]) == ([], 1009)
    assert ours([head(first, 1 << 62)]) == ([], 1009)


def test_limit_of_plain_messages_has_no_slack() -> None:
    """After a compressed message, a plain one is measured by its bytes."""
    assert ours([packed(TEXT, b"a"), head(0x82, LIMIT + 1)]) == ([(TEXT, "a")], 1009)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Half a MiB that inflates to 512 MiB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(deflate.compress(bytes(MEBIBYTE)) for _ in range(512))
    return (data + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def unmasked(first: int, payload: bytes) -> bytes:
    """Write a frame whose mask is zero, for what is large."""
    return head(first, len(payload)) + bytes(4) + payload


def in_one_frame(data: bytes) -> list[bytes]:
    return [unmasked(0xC2, data)]


def in_fragments(data: bytes) -> list[bytes]:
    """Spread over fragments of 256 bytes: each inflates to a quarter of a MiB."""
    pieces = [data[start : start + 256] for start in range(0, len(data), 256)]
    firsts = [0x42, *[0] * (len(pieces) - 2), 0x80]
    return [unmasked(*one) for one in zip(firsts, pieces, strict=True)]


def peak_of(parsers: list[FrameParser], chunks: list[bytes]) -> int:
    """Feed the same to all, in turns; returns the most bytes held at any time."""
    tracemalloc.start()
    try:
        for chunk in chunks:
            for one in parsers:
                assert one.feed(chunk) == []
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [MEBIBYTE, 16 * MEBIBYTE])
@pytest.mark.parametrize("spread_out", [in_one_frame, in_fragments])
def test_a_bomb_makes_no_more_than_the_limit(bomb: bytes, limit: int, spread_out: object) -> None:
    """Whatever the bytes promise, the limit and a MiB are all that is ever held."""
    assert callable(spread_out)
    made = parser(limit)

    assert peak_of([made], spread_out(bomb)) < limit + MEBIBYTE
    assert made.error is not None
    assert made.error.code == 1009


def test_a_bomb_that_comes_in_chunks(bomb: bytes) -> None:
    """While it comes, only what was sent is held; then that, unmasked, and the limit."""
    (stream,) = in_one_frame(bomb)
    made = parser(MEBIBYTE)
    chunks = [stream[start : start + 4096] for start in range(0, len(stream), 4096)]

    assert peak_of([made], chunks) < MEBIBYTE + 2 * len(stream) + MEBIBYTE // 4
    assert made.error is not None


def test_eight_bombs_at_once(bomb: bytes) -> None:
    """Each connection holds its own limit, and nothing after its end."""
    parsers = [parser(MEBIBYTE) for _ in range(8)]

    assert peak_of(parsers, in_fragments(bomb)) < 8 * 2 * MEBIBYTE
    assert {one.error and one.error.code for one in parsers} == {1009}


# One call


def test_one_call_makes_a_bounded_amount() -> None:
    """A chunk of many amplified messages is handed over little by little, all and in order."""
    size = FEED_SIZE // 4
    texts = [chr(ord("a") + index % 26) * size for index in range(100)]
    made, messages, calls = parser(MEBIBYTE), list[Message](), 1
    found = made.feed(b"".join(packed(TEXT, text.encode()) for text in texts))
    while made.stopped_early:
        assert sum(len(payload) for _, payload in found) <= FEED_SIZE + size
        messages += found
        found = made.feed(b"")
        calls += 1
    messages += found

    assert messages == [(TEXT, text) for text in texts]
    assert calls >= 25
    assert made.waiting == 0


def test_bytes_that_come_meanwhile_are_last() -> None:
    """What comes while messages wait is handed over after them."""
    made = parser(MEBIBYTE)
    large: Message = (BINARY, bytes(FEED_SIZE))

    assert made.feed(packed(*large) * 3) == [large]  # type: ignore[arg-type]
    assert made.stopped_early
    assert made.feed(packed(TEXT, b"later")) == [large]
    assert made.feed(b"") == [large]
    assert made.feed(b"") == [(TEXT, "later")]
    assert not made.stopped_early


# Writing


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(1, 300), st.sampled_from(WINDOWS))
def test_what_we_write_a_client_reads(text: str, times: int, bits: int) -> None:
    """The websockets package's client reads what `encode_compressed` writes, one after another."""
    client = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=None)
    client.extensions = [PerMessageDeflate(True, True, bits, 15)]
    payload = (text * times).encode("utf-8", "replace")
    client.receive_data(encode_compressed(TEXT, payload, bits))
    client.receive_data(encode_compressed(BINARY, payload, bits))
    found = client.events_received()

    assert client.parser_exc is None
    assert [(int(one.opcode), bytes(one.data)) for one in found] == [  # type: ignore[union-attr]
        (TEXT, payload),
        (BINARY, payload),
    ]


@pytest.mark.parametrize("size", [119, 120, 65_000, 70_000])
def test_every_form_of_length_is_written(size: int) -> None:
    """Bytes that cannot be compressed reach the longer forms of a length: 119 become 125."""
    payload = random.Random(size).randbytes(size)
    data = compress(payload, 12)

    written = encode_compressed(BINARY, payload, 12)

    assert written == head(0xC2, len(data), mask=False) + data
