"""The frame parser: the same verdict however a stream is cut, and the verdict of others."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import State
from websockets.server import ServerProtocol
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from pongee.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FEED_FRAMES,
    MAX_FRAGMENTS,
    PING,
    PONG,
    TEXT,
    VIEW_FROM,
    FrameError,
    FrameParser,
    Message,
    encode_close,
    encode_frame,
    parse_close,
)

LIMIT = 1 << 16
MASK = b"\x01\x82\xf3\x04"

Verdict = tuple[list[Message], int | None]


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """Apply a mask the slow and obvious way."""
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def head(first: int, size: int, *, form: int = 0, mask: bool = True) -> bytes:
    """Write a frame's header; `form` forces 16 or 64 bits of length."""
    bit = 0x80 if mask else 0
    if form == 64 or size >= 1 << 16:
        return struct.pack("!BBQ", first, bit | 127, size)
    if form == 16 or size >= 126:
        return struct.pack("!BBH", first, bit | 126, size)
    return bytes((first, bit | size))


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, rsv: int = 0, form: int = 0
) -> bytes:
    """Write a masked frame as a client would."""
    first = (0x80 if final else 0) | rsv << 4 | opcode
    return head(first, len(payload), form=form) + MASK + masked(payload)


def fragments(opcode: int, *payloads: bytes) -> bytes:
    """Write one message in as many frames as there are payloads."""
    last = len(payloads) - 1
    return b"".join(
        frame(CONTINUATION if index else opcode, payload, final=index == last)
        for index, payload in enumerate(payloads)
    )


def ours(chunks: Iterable[bytes], max_size: int = LIMIT, at_most: int = 1 << 30) -> Verdict:
    """Feed a parser; returns its messages and the code of its error."""
    parser = FrameParser(max_size)
    messages: list[Message] = []
    for chunk in chunks:
        messages += parser.feed(chunk, at_most)
        while parser.stopped_early:
            messages += parser.feed(b"", at_most)
    return messages, None if parser.error is None else parser.error.code


def with_close_read(verdict: Verdict) -> tuple[list[object], int | None]:
    """Read the close frame that ends a verdict, if there is one, as the protocol would."""
    messages, error = verdict
    if not messages or messages[-1][0] != CLOSE:
        return list(messages), error
    payload = messages[-1][1]
    assert isinstance(payload, bytes)
    try:
        return [*messages[:-1], (CLOSE, parse_close(payload))], None
    except FrameError as broken:
        return list(messages[:-1]), broken.code


def as_bytes(payload: object) -> bytes:
    """Copy what wsproto may hold as a bytearray."""
    assert isinstance(payload, bytes | bytearray)
    return bytes(payload)


def of_wsproto(stream: bytes) -> tuple[list[object], int | None]:
    """What wsproto makes of a stream of whole frames."""
    parser = FrameProtocol(client=False, extensions=[])
    parser.receive_bytes(stream)
    messages: list[object] = []
    parts: list[str | bytes] = []
    try:
        for found in parser.received_frames():
            opcode = int(found.opcode)
            if opcode == CLOSE:
                assert isinstance(found.payload, tuple)
                code, reason = found.payload
                return [*messages, (CLOSE, (int(code), reason or ""))], None
            if opcode >= CLOSE:
                messages.append((opcode, as_bytes(found.payload)))
                continue
            payload = found.payload
            parts.append(payload if isinstance(payload, str) else as_bytes(payload))
            if found.message_finished:
                empty: str | bytes = "" if opcode == TEXT else b""
                messages.append((opcode, empty.join(parts)))  # type: ignore[arg-type]
                parts = []
    except ParseFailed as broken:
        return messages, int(broken.code)
    return messages, None


def of_websockets(stream: bytes, max_size: int) -> Verdict:
    """What the websockets package makes of a stream of whole frames of ASCII."""
    protocol = ServerProtocol(state=State.OPEN, max_size=max_size)
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

control = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def message(draw: st.DrawFn, *, ascii_only: bool = False, most: int = 300) -> bytes:
    """One valid message, whole or in fragments, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    if ascii_only:
        payload = draw(st.text(st.characters(max_codepoint=127), max_size=most)).encode()
    elif opcode == TEXT:
        payload = draw(st.text(max_size=most)).encode()
    else:
        payload = draw(st.binary(max_size=most))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    edges = [0, *cuts, len(payload)]
    stream = b""
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        kind = opcode if index == 0 else CONTINUATION
        stream += frame(kind, payload[start:end], final=index == len(cuts))
        if index < len(cuts):
            stream += draw(st.just(b"") | control)
    return stream


broken = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, PING]), st.just(b"x"), rsv=st.integers(1, 7)),
    st.builds(frame, st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), st.binary(max_size=9)),
    st.builds(frame, st.sampled_from([PING, PONG, CLOSE]), final=st.just(False)),
    st.builds(frame, st.just(PING), st.binary(min_size=126, max_size=200)),
    st.builds(frame, st.just(CONTINUATION), st.binary(max_size=9)),
    st.just(frame(TEXT, b"a", final=False) + frame(TEXT, b"b")),
    st.just(head(0x81, 3, mask=False) + b"abc"),
    st.builds(frame, st.just(TEXT), st.sampled_from([b"\xff", b"a\xed\xa0\x80", b"\xc0\xaf"])),
    st.builds(frame, st.just(TEXT), st.just(b"\xe2\x82")),
)
closing = st.one_of(
    st.builds(frame, st.just(CLOSE), st.binary(max_size=4)),
    st.builds(
        lambda code, reason: frame(CLOSE, struct.pack("!H", code) + reason.encode()[:40]),
        st.integers(0, 6000),
        st.text(max_size=10),
    ),
)
any_frames = st.lists(message() | control | broken | closing, max_size=6).map(b"".join)
noise = st.tuples(any_frames, st.binary(max_size=60)).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *places, len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=300, deadline=None)
@given(st.data(), noise)
def test_cuts_change_nothing(data: st.DataObject, stream: bytes) -> None:
    """The same bytes give the same messages and the same error, wherever they were cut."""
    at_once = ours([stream], 200)

    assert ours(data.draw(cut(stream)), 200) == at_once
    assert ours([bytes((byte,)) for byte in stream], 200) == at_once
    assert ours([stream], 200, at_most=data.draw(st.integers(1, 4))) == at_once


@settings(max_examples=400, deadline=None)
@given(any_frames)
def test_verdict_of_wsproto(stream: bytes) -> None:
    """Messages and error class are those of an independent implementation."""
    assert with_close_read(ours([stream])) == of_wsproto(stream)


@settings(max_examples=300, deadline=None)
@given(st.lists(message(ascii_only=True, most=150) | control, max_size=6).map(b"".join))
def test_verdict_of_websockets_on_sizes(stream: bytes) -> None:
    """What is too big is so for the websockets package too, in one frame or in fragments."""
    limit = 125

    assert ours([stream], limit) == of_websockets(stream, limit)


# Tables

BROKEN = {
    "unmasked text": (head(0x81, 3, mask=False) + b"abc", 1002),
    "unmasked ping": (head(0x89, 0, mask=False), 1002),
    "RSV1": (frame(TEXT, b"a", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"a", rsv=2), 1002),
    "RSV3 on a ping": (frame(PING, b"", rsv=1), 1002),
    "RSV1 on a continuation": (
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", rsv=4),
        1002,
    ),
    "opcode 3": (frame(3), 1002),
    "opcode 7": (frame(7), 1002),
    "opcode 11": (frame(11), 1002),
    "opcode 15": (frame(15), 1002),
    "fragmented ping": (frame(PING, b"", final=False), 1002),
    "fragmented close": (frame(CLOSE, b"", final=False), 1002),
    "continuation without a start": (frame(CONTINUATION, b"a"), 1002),
    "continuation after a whole message": (fragments(TEXT, b"a", b"b") + frame(0, b"c"), 1002),
    "text inside a text": (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), 1002),
    "binary inside a text": (frame(TEXT, b"a", final=False) + frame(BINARY, b"b"), 1002),
    "wrong byte": (frame(TEXT, b"a\xffb"), 1007),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "over U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "cut at the end": (frame(TEXT, b"\xe2\x82"), 1007),
    "cut at the end of fragments": (fragments(TEXT, b"a", b"\xe2\x82"), 1007),
}
FROM_THE_HEADER = {
    "ping of 126 bytes": (head(0x89, 126), 1002),
    "ping that declares 64 KiB": (head(0x89, 1 << 16)[:2], 1002),
    "top bit set": (head(0x82, 1 << 63), 1002),
    "all ones": (head(0x82, (1 << 64) - 1), 1002),
    "2^63-1": (head(0x82, (1 << 63) - 1), 1009),
    "one over the limit": (head(0x82, LIMIT + 1), 1009),
    "RSV1": (b"\xc1\x80", 1002),
    "unmasked": (b"\x81\x00", 1002),
    "unknown opcode": (b"\x83\x80", 1002),
}


@pytest.mark.parametrize(("stream", "code"), BROKEN.values(), ids=BROKEN)
def test_violations(stream: bytes, code: int) -> None:
    """Each violation ends the stream with its own code, and what came before it counts."""
    before = frame(TEXT, b"first")

    messages, error = ours([before + stream + frame(TEXT, b"later")])

    assert messages[0] == (TEXT, "first")
    assert (TEXT, "later") not in messages
    assert error == code


@pytest.mark.parametrize(("header", "code"), FROM_THE_HEADER.values(), ids=FROM_THE_HEADER)
def test_violations_seen_in_the_header(header: bytes, code: int) -> None:
    """A header that is wrong needs no payload to be refused."""
    assert ours([header]) == ([], code)
    assert ours([bytes((byte,)) for byte in header]) == ([], code)


def test_promised_length_allocates_nothing() -> None:
    """A header that announces 16 MiB costs what was sent, not what was announced."""
    parser = FrameParser(1 << 24)
    tracemalloc.start()
    try:
        assert parser.feed(head(0x82, 1 << 24) + MASK + b"abc") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert parser.error is None
    assert parser.waiting == 17
    assert peak < 64 * 1024


@pytest.mark.parametrize("form", [16, 64])
def test_longer_length_forms_are_taken(form: int) -> None:
    """A length in a longer form than needed is taken: the payload is unambiguous."""
    assert ours([frame(TEXT, b"abc", form=form)]) == ([(TEXT, "abc")], None)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_size_at_each_form_of_length(opcode: int, size: int) -> None:
    """Every form of length is read, at its edges."""
    payload = b"a" * size
    expected: str | bytes = payload.decode() if opcode == TEXT else payload

    assert ours([frame(opcode, payload)]) == ([(opcode, expected)], None)


@pytest.mark.parametrize("size", [VIEW_FROM - 1, VIEW_FROM, 3 * VIEW_FROM])
@pytest.mark.parametrize("chunk", [1000, VIEW_FROM, 1 << 20])
@pytest.mark.parametrize("at_most", [1, 1 << 30])
def test_large_payloads_amid_small_ones(size: int, chunk: int, at_most: int) -> None:
    """Unmasked from a copy or from a view, kept or as it came: the frames behind are whole."""
    large, small = bytes(range(256)) * (size // 256 + 1), frame(PING, b"p") * 3
    stream = (frame(BINARY, large[:size]) + small) * 2
    chunks = [stream[start : start + chunk] for start in range(0, len(stream), chunk)]
    expected: list[Message] = [(BINARY, large[:size]), *[(PING, b"p")] * 3]

    assert ours(chunks, at_most=at_most) == (expected * 2, None)


@pytest.mark.parametrize("behind", [b"", frame(PING)])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_short_message_inside_another(opcode: int, behind: bytes) -> None:
    """A short, whole message is refused amid fragments, alone in its chunk or not."""
    assert ours([frame(BINARY, b"a", final=False), frame(opcode, b"b") + behind]) == ([], 1002)


def test_split_characters_are_valid() -> None:
    """A character may be split over fragments, at each of its bytes."""
    pieces = [bytes((byte,)) for byte in "é€😀".encode()]

    assert ours([fragments(TEXT, *pieces)]) == ([(TEXT, "é€😀")], None)


def test_wrong_text_is_found_before_its_end() -> None:
    """A wrong byte in a fragment is refused at once, though the message goes on."""
    stream = frame(TEXT, b"ok", final=False) + frame(CONTINUATION, b"\xff", final=False)

    assert ours([stream]) == ([], 1007)


def test_binary_is_not_checked_for_text() -> None:
    """Bytes are bytes, in fragments too."""
    assert ours([fragments(BINARY, b"\xff", b"", b"\xc0")]) == ([(BINARY, b"\xff\xc0")], None)


def test_control_frames_between_fragments() -> None:
    """A ping amid fragments comes first, and the message is whole."""
    stream = frame(TEXT, b"a", final=False) + frame(PING, b"p") + frame(CONTINUATION, b"b")

    assert ours([stream]) == ([(PING, b"p"), (TEXT, "ab")], None)


def test_empty_fragments() -> None:
    """Empty fragments are valid, and an empty message in them is one."""
    stream = fragments(TEXT, b"", b"", b"") + fragments(BINARY, b"", b"a", b"")

    assert ours([stream]) == ([(TEXT, ""), (BINARY, b"a")], None)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("size", [10, 125, 200])
def test_limit_of_a_message(size: int, extra: int) -> None:
    """A message of exactly the limit passes; one byte more is 1009, in fragments too."""
    payload = b"a" * (size + extra)
    half = size // 2
    code = 1009 if extra else None

    assert ours([frame(BINARY, payload)], size)[1] == code
    assert ours([fragments(BINARY, payload[:half], payload[half:])], size)[1] == code
    assert ours([fragments(TEXT, payload[:half], payload[half:])], size)[1] == code


def test_limit_over_fragments_is_seen_in_the_header() -> None:
    """The fragment that would pass the limit is refused before its payload has come."""
    stream = frame(BINARY, b"a" * 60, final=False) + head(CONTINUATION, 41)

    assert ours([stream], 100) == ([], 1009)


def test_control_frames_do_not_count_as_messages() -> None:
    """The message limit does not bound control frames: they have their own."""
    stream = frame(PING, b"p" * 125) + frame(CLOSE, struct.pack("!H", 1000) + b"r" * 123)

    messages, error = ours([stream], 16)

    assert [opcode for opcode, _ in messages] == [PING, CLOSE]
    assert error is None


@pytest.mark.parametrize("payload", [b"", b"a"])
def test_limit_of_fragments(payload: bytes) -> None:
    """A message may have 4,096 fragments, empty ones included; one more is 1008."""
    full = frame(TEXT, payload, final=False) + frame(0, payload, final=False) * (MAX_FRAGMENTS - 2)

    assert ours([full + frame(0, payload)]) == ([(TEXT, payload.decode() * MAX_FRAGMENTS)], None)
    assert ours([full + frame(0, payload, final=False) + frame(0, payload)]) == ([], 1008)


def test_limit_of_fragments_grows_with_that_of_bytes() -> None:
    """A large limit allows a fragment for each 64 bytes of it: 60,000 of one byte are served."""
    stream = fragments(BINARY, *[b"a"] * 60_000)

    assert ours([stream], 16 << 20) == ([(BINARY, b"a" * 60_000)], None)


def test_at_most() -> None:
    """`feed` stops where it is told to, says so, and goes on without new bytes."""
    parser = FrameParser(LIMIT)

    assert parser.feed(frame(TEXT, b"a") * 5, 2) == [(TEXT, "a")] * 2
    assert parser.stopped_early
    assert parser.feed(b"", 2) == [(TEXT, "a")] * 2
    assert parser.feed(b"", 2) == [(TEXT, "a")]
    assert not parser.stopped_early
    assert parser.waiting == 0


def test_at_most_none_only_keeps() -> None:
    """Told to return nothing, the parser keeps what came for later."""
    parser = FrameParser(LIMIT)

    assert parser.feed(frame(TEXT, b"a"), 0) == []
    assert parser.waiting == len(frame(TEXT, b"a"))
    assert not parser.stopped_early
    assert parser.feed(frame(TEXT, b"b")) == [(TEXT, "a"), (TEXT, "b")]


def test_error_is_final() -> None:
    """After a violation nothing is taken any more, and nothing is kept."""
    parser = FrameParser(LIMIT)
    parser.feed(frame(3))
    error = parser.error

    assert parser.feed(frame(TEXT, b"a") * 100) == []
    assert parser.error is error
    assert parser.waiting == 0


def test_nothing_after_close() -> None:
    """What follows a close frame is not looked at, whether it came with it or later."""
    parser = FrameParser(LIMIT)

    assert parser.feed(frame(CLOSE) + frame(TEXT, b"a")) == [(CLOSE, b"")]
    assert parser.feed(frame(TEXT, b"a") + frame(3)) == []
    assert parser.error is None
    assert parser.waiting == 0


def test_close_amid_fragments() -> None:
    """A close frame counts at once, an unfinished message before it does not."""
    assert ours([frame(TEXT, b"a", final=False) + frame(CLOSE)]) == ([(CLOSE, b"")], None)


# Writing


@given(st.sampled_from([BINARY, PING, PONG]), st.binary(max_size=125))
def test_encode_frame_of_bytes(opcode: int, payload: bytes) -> None:
    """What we write, a client of another make reads."""
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(encode_frame(opcode, payload))
    (found,) = client.received_frames()

    assert (found.opcode, as_bytes(found.payload), found.message_finished) == (
        opcode,
        payload,
        True,
    )


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 200_000])
def test_encode_frame_at_each_form_of_length(size: int) -> None:
    """Every form of length is written minimal, as section 5.2 asks."""
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(encode_frame(TEXT, b"a" * size))
    parts = list(client.received_frames())

    assert "".join(str(part.payload) for part in parts) == "a" * size
    assert parts[-1].message_finished


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", (1005, "")),
        (b"\x03\xe8", (1000, "")),
        (b"\x03\xe8bye", (1000, "bye")),
        (struct.pack("!H", 4999) + "é".encode(), (4999, "é")),
    ],
)
def test_parse_close(payload: bytes, expected: tuple[int, str]) -> None:
    """A close frame has a code and a reason, a code, or neither."""
    assert parse_close(payload) == expected


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4000, 4999])
def test_close_codes_that_travel(code: int) -> None:
    """The registered codes, and those of libraries and applications, are taken."""
    assert parse_close(struct.pack("!H", code)) == (code, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_must_not_travel(code: int) -> None:
    """Any other code is a protocol error."""
    with pytest.raises(FrameError) as caught:
        parse_close(struct.pack("!H", code))
    assert caught.value.code == 1002


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_broken_close_payloads(payload: bytes, code: int) -> None:
    """One byte is no code; a reason that is not UTF-8 is 1007."""
    with pytest.raises(FrameError) as caught:
        parse_close(payload)
    assert caught.value.code == code


@pytest.mark.parametrize("reason", ["", "bye", "é" * 61, "a" * 123, "\U0001f600"])
def test_encode_close(reason: str) -> None:
    """A reason that fits arrives as it is."""
    written = encode_close(4001, reason)

    assert parse_close(written[2:]) == (4001, reason)


@given(st.text(min_size=42))
def test_long_reasons_are_cut_between_characters(reason: str) -> None:
    """A reason too long is cut to the longest beginning that fits, inside no character."""
    payload = encode_close(1000, reason)[2:]
    _, arrived = parse_close(payload)

    assert len(payload) <= 125
    assert reason.startswith(arrived)
    assert arrived == reason or len((arrived + reason[len(arrived)]).encode()) > 123


def test_close_without_a_code() -> None:
    """1005 never travels: it is the close frame without a code."""
    assert encode_close(1005, "") == b"\x88\x00"


def test_reason_with_a_lone_surrogate() -> None:
    """A reason that no encoding can carry does not keep the close frame from going out."""
    assert parse_close(encode_close(1000, "a\ud800b")[2:]) == (1000, "a?b")


def test_frames_that_complete_nothing_count_too() -> None:
    """One call looks at a bounded number of fragments, and the next goes on with them."""
    parser = FrameParser(1 << 20)
    parser.feed(frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False) * FEED_FRAMES)
    assert parser.stopped_early
    assert parser.feed(frame(CONTINUATION, b"end")) == [(TEXT, "end")]
