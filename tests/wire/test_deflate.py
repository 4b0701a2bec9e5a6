"""Compression apart from frames: what is agreed on, and one message's way through zlib."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionName

from pongee.wire.deflate import (
    MAX_OFFERED,
    MAX_OFFERS,
    PIECE,
    STEP,
    WINDOW_BITS,
    Deflate,
    InflateError,
    Inflator,
    TooLarge,
    compress,
    negotiate,
)

NAME = "permessage-deflate"
PLAIN = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
TAIL = b"\x00\x00\xff\xff"
WINDOWS = range(9, 16)
ROOM = 1 << 20


def deflated(payload: bytes, flush: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    """Compress as a client would, with the largest window."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(flush)).removesuffix(TAIL)


def inflated(*pieces: bytes, room: int = ROOM) -> bytes:
    """Feed one message's fragments to an `Inflator`."""
    inflator = Inflator()
    made = b""
    for index, piece in enumerate(pieces, 1):
        made += inflator.feed(piece, room - len(made), final=index == len(pieces))
    return made


payloads = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=60), st.integers(0, 2000)),
    st.builds(
        lambda seed, size: random.Random(seed).randbytes(size),
        st.integers(),
        st.integers(0, 3 * PIECE),
    ),
)


# Negotiation

AGREED = {
    "plain": ("", PLAIN, 12),
    "server_no_context_takeover": ("; server_no_context_takeover", PLAIN, 12),
    "client_no_context_takeover": ("; client_no_context_takeover", PLAIN, 12),
    "client_max_window_bits": ("; client_max_window_bits", PLAIN, 12),
    "quoted": ('; server_max_window_bits="10"', f"{PLAIN}; server_max_window_bits=10", 10),
    "all": (
        "; server_max_window_bits=11; client_max_window_bits=13"
        "; client_no_context_takeover; server_no_context_takeover",
        f"{PLAIN}; server_max_window_bits=11; client_max_window_bits=13",
        11,
    ),
    **{
        f"server_max_window_bits={bits}": (
            f"; server_max_window_bits={bits}",
            f"{PLAIN}; server_max_window_bits={bits}",
            min(bits, WINDOW_BITS),
        )
        for bits in WINDOWS
    },
    **{
        f"client_max_window_bits={bits}": (
            f"; client_max_window_bits={bits}",
            f"{PLAIN}; client_max_window_bits={bits}",
            12,
        )
        for bits in range(8, 16)
    },
}
DECLINED = [
    # What zlib cannot do, and what nobody can.
    "server_max_window_bits=8",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=010",
    "server_max_window_bits=1e1",
    "server_max_window_bits",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=x",
    "server_no_context_takeover=1",
    "client_no_context_takeover=yes",
    # Repeated, unknown.
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits; client_max_window_bits=10",
    "level=9",
    "SERVER_MAX_WINDOW_BITS=10",
]
UNREADABLE = [
    f"{NAME};",
    f"{NAME}; ;",
    f"{NAME}; =",
    f"{NAME}; server_max_window_bits=",
    f'{NAME}; server_max_window_bits="10',
    f"{NAME} x",
    "\x00",
    "é",
    "=",
    ";",
]


@pytest.mark.parametrize(("offer", "answer", "bits"), AGREED.values(), ids=AGREED)
def test_offers_that_are_accepted(offer: str, answer: str, bits: int) -> None:
    """Neither side keeps context; a smaller window for us is obeyed, one for the client allowed."""
    assert negotiate([NAME + offer]) == (answer, Deflate(bits))


@pytest.mark.parametrize("parameters", DECLINED)
def test_offers_that_are_declined(parameters: str) -> None:
    """An offer that cannot be kept is as if it were not there (RFC 7692 section 7.1)."""
    assert negotiate([f"{NAME}; {parameters}"]) is None
    assert negotiate([f"{NAME}; {parameters}, {NAME}"]) == (PLAIN, Deflate(12))
    assert negotiate([f"{NAME}; {parameters}", NAME]) == (PLAIN, Deflate(12))


@pytest.mark.parametrize("header", UNREADABLE)
def test_headers_that_cannot_be_read(header: str) -> None:
    """Such a header is no compression and no refusal, whatever else is offered."""
    assert negotiate([header]) is None
    assert negotiate([NAME, header]) is None


@pytest.mark.parametrize("offers", [[], [""], [","], ["x-webkit-deflate-frame"], ["bbf, mux"]])
def test_nothing_that_we_know_is_offered(offers: list[str]) -> None:
    """Without an offer of permessage-deflate there is no compression."""
    assert negotiate(offers) is None


def test_first_offer_that_can_be_kept_wins() -> None:
    """Offers stand in the client's order of preference, over all lines of the header."""
    offers = [
        f"mux, {NAME}; server_max_window_bits=8",
        f"{NAME}; server_max_window_bits=10, {NAME}",
    ]

    assert negotiate(offers) == (f"{PLAIN}; server_max_window_bits=10", Deflate(10))


def test_only_the_first_offers_are_looked_at() -> None:
    """After a bounded number the rest of a header is as if it were not there."""
    declined = f"{NAME}; level=9"

    assert negotiate([", ".join([declined] * (MAX_OFFERS - 1) + [NAME])]) is not None
    assert negotiate([", ".join([declined] * MAX_OFFERS + [NAME])]) is None
    assert negotiate([declined] * 1000 + [NAME]) is None


def test_long_offers_are_not_read() -> None:
    """A header that would take long to read is no compression, in one line or in many."""
    fits = NAME + "," * (MAX_OFFERED - len(NAME))

    assert negotiate([fits]) == (PLAIN, Deflate(12))
    assert negotiate([fits + ","]) is None
    assert negotiate([NAME] * 200) is None


@settings(deadline=None)
@given(
    st.none() | st.integers(8, 15),
    st.none() | st.just(True) | st.integers(9, 15),
    st.booleans(),
    st.booleans(),
)
def test_a_client_takes_our_answer(
    server: int | None, client: int | None, no_server: bool, no_client: bool
) -> None:
    """Whatever the websockets package's client offers, it agrees with the answer."""
    offer = ClientPerMessageDeflateFactory(no_server, no_client, server, client)
    name = ExtensionName(NAME)
    answer = negotiate([build_extension([(name, list(offer.get_request_params()))])])
    if server == 8:
        assert answer is None
        return
    assert answer is not None
    ((told_name, told),) = parse_extension(answer[0])
    agreed = offer.process_response_params(told, [])

    assert told_name == NAME
    assert agreed.remote_no_context_takeover
    assert agreed.local_no_context_takeover
    assert agreed.remote_max_window_bits >= answer[1].window_bits
    with pytest.raises(NegotiationError):
        offer.process_response_params(told, [agreed])


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=4))
def test_any_header_is_judged(offers: list[str]) -> None:
    """No header text raises."""
    assert negotiate(offers) is None or NAME in "".join(offers)


# Compressing


@settings(deadline=None)
@given(payloads, st.sampled_from(WINDOWS))
def test_what_we_compress_zlib_reads(payload: bytes, bits: int) -> None:
    """One message in one stream, its tail left out, read with the window agreed on."""
    data = compress(payload, bits)

    assert zlib.decompressobj(-bits).decompress(data + TAIL) == payload
    assert inflated(data) == payload


@settings(deadline=None)
@given(payloads, st.sampled_from(WINDOWS))
def test_what_we_compress_websockets_reads(payload: bytes, bits: int) -> None:
    """The websockets package as the client, with one decoder per message."""
    client = PerMessageDeflate(True, True, bits, 15)
    frame = Frame(Opcode.BINARY, compress(payload, bits), rsv1=True)

    assert bytes(client.decode(frame).data) == payload


@settings(deadline=None)
@given(payloads, st.sampled_from(WINDOWS))
def test_what_websockets_compresses_we_read(payload: bytes, bits: int) -> None:
    """The websockets package as the client, with any window it may use."""
    client = PerMessageDeflate(True, True, 15, bits, {"memLevel": 5})

    assert inflated(bytes(client.encode(Frame(Opcode.BINARY, payload)).data)) == payload


@pytest.mark.parametrize("bits", WINDOWS[:-1])
def test_compressing_stays_inside_the_window(bits: int) -> None:
    """No distance is larger than the client's window, which may be all it keeps."""
    payload = random.Random(bits).randbytes((1 << bits) + 200) * 3
    client = zlib.decompressobj(-bits)
    data, made = compress(payload, bits) + TAIL, b""
    while data:
        # Little by little, so that the output itself does not serve as a larger window.
        made += client.decompress(data, 64)
        data = client.unconsumed_tail

    assert made + client.flush() == payload


def test_compressing_makes_smaller() -> None:
    """What repeats itself within the window becomes much smaller."""
    assert len(compress(b'{"price": 101.5, "size": 3}' * 100, 12)) < 100


def test_the_tail_stays_at_home() -> None:
    """What every message would end with is left out (RFC 7692 section 7.2.1)."""
    assert compress(b"", 12) == b"\x00"
    assert not compress(b"text" * 50, 12).endswith(TAIL)


# Inflating


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


def amid_empty_ones(data: bytes) -> list[bytes]:
    return [b"", data[:1], b"", data[1:], b""]


CUTS: list[Callable[[bytes], list[bytes]]] = [whole, bytewise, amid_empty_ones]


def verdict(pieces: list[bytes], room: int) -> bytes | type[Exception]:
    """What comes of a message's fragments: its bytes, or why there are none."""
    try:
        return inflated(*pieces, room=room)
    except (InflateError, TooLarge) as error:
        return type(error)


@settings(max_examples=300, deadline=None)
@given(st.data(), payloads.map(deflated) | st.binary(max_size=200), st.integers(0, 1000))
def test_fragments_change_nothing(data: st.DataObject, stream: bytes, room: int) -> None:
    """A message's bytes are one stream, sound or not, however they are spread over fragments.

    Of one that is too large, and noise as well, either may be said.
    """
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *places, len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]

    whole, spread = verdict([stream], room), verdict(pieces, room)

    assert spread == whole or not (isinstance(whole, bytes) or isinstance(spread, bytes))
    assert verdict(pieces, ROOM) == verdict([stream], ROOM)


@settings(deadline=None)
@given(payloads)
@example(b"a" * (STEP - 1))
@example(b"a" * STEP)
@example(b"a" * (2 * STEP + 1))
def test_room_is_exact(payload: bytes) -> None:
    """A message fits into as many bytes as it has, and not into one less."""
    data = deflated(payload)

    assert verdict([data], len(payload)) == payload
    if payload:
        assert verdict([data], len(payload) - 1) is TooLarge
        assert verdict(bytewise(data), len(payload) - 1) is TooLarge


@pytest.mark.parametrize("cut", CUTS)
def test_a_final_block_ends_the_stream(cut: Callable[[bytes], list[bytes]]) -> None:
    """A stream may be closed for good (RFC 7692 section 7.2.3.4), with or without a byte after."""
    data = deflated(b"hello" * 20, zlib.Z_FINISH)

    assert inflated(*cut(data)) == b"hello" * 20
    assert inflated(*cut(data + b"\x00")) == b"hello" * 20
    assert inflated(*cut(data + b"\x00" + TAIL)) == b"hello" * 20


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rest", [b"x", b"\x00x", deflated(b"more")])
def test_data_after_the_final_block(cut: Callable[[bytes], list[bytes]], rest: bytes) -> None:
    """What follows a closed stream would be lost in silence: it is refused."""
    with pytest.raises(InflateError):
        inflated(*cut(deflated(b"hello", zlib.Z_FINISH) + rest))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x02\x00",
        (b"\x00" + TAIL) * 3 + b"\x00",
        b"\x03\x00",
        b"\x02\x00" + TAIL + b"\x00",
    ],
    ids=["nothing", "stored", "fixed code", "several", "final", "mixed"],
)
def test_empty_blocks_make_an_empty_message(
    cut: Callable[[bytes], list[bytes]], data: bytes
) -> None:
    """Each way to write nothing is an empty message (RFC 7692 section 7.2.3.6)."""
    assert inflated(*cut(data)) == b""


def test_blocks_of_each_kind() -> None:
    """Stored blocks, fixed codes and dynamic ones follow each other in one message."""
    deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
    stored = deflate.compress(b"one ") + deflate.flush(zlib.Z_SYNC_FLUSH)
    fixed = deflated(b"two ") + TAIL
    dynamic = deflated(bytes(range(256)) * 40, level=9)

    assert inflated(stored + fixed + dynamic) == b"one two " + bytes(range(256)) * 40


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "data", [b"\x07", b"\x06", b"\x00\x01\x00\x00\x00", b"plain text", b"\xff" * 9]
)
def test_noise(cut: Callable[[bytes], list[bytes]], data: bytes) -> None:
    """Bytes that are no deflate stream are refused."""
    with pytest.raises(InflateError):
        inflated(*cut(data))


@pytest.mark.parametrize("size", [10, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_the_tail_is_put_back(size: int) -> None:
    """The four bytes left out belong to the stream, here to the data of its last block."""
    payload = random.Random(size).randbytes(size - 5)
    length = size - 5 + len(TAIL)
    stored = b"\x00" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")

    assert inflated(stored + payload) == payload + TAIL


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_final_block_around_a_piece(size: int) -> None:
    """A message inflated piece by piece is whole, wherever its last block ends."""
    payload = random.Random(size).randbytes(size - 5)
    data = deflated(payload, zlib.Z_FINISH, level=0)

    assert len(data) == size
    assert inflated(data) == payload
    assert inflated(data + b"\x00") == payload


def test_the_client_may_use_the_largest_window() -> None:
    """A client that was told no window refers as far back as 32 KiB."""
    payload = random.Random(1).randbytes(30_000) * 3

    assert inflated(deflated(payload)) == payload
