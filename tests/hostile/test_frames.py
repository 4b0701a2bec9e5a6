"""Frames that break the protocol, and odd ones that do not.

A row is an attack: its name, the bytes sent after the handshake, the outcomes that are right, and
where the rule comes from. "RFC" without more is RFC 6455. The peer never answers the server's close
frame, so each row shows as well that TCP ends without its help.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from pongee.testing import eventually
from tests.hostile.harness import Target
from tests.hostile.peer import Peer, close, frame

pytestmark = pytest.mark.anyio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1, RSV2, RSV3 = 4, 2, 1


@dataclass(frozen=True)
class Row:
    """What is sent and what may come of it."""

    name: str
    data: bytes
    right: set[str]
    source: str


PROTOCOL = {"close 1002"}
SIZE = {"close 1002", "close 1009"}
UTF8 = {"close 1007"}

BROKEN = [
    Row("unmasked text", frame(TEXT, b"hello", masked=False), PROTOCOL, "RFC 5.1"),
    Row("unmasked ping", frame(PING, masked=False), PROTOCOL, "RFC 5.1"),
    Row("RSV1 without agreement", frame(TEXT, b"x", reserved=RSV1), PROTOCOL, "RFC 5.2"),
    Row("RSV2", frame(TEXT, b"x", reserved=RSV2), PROTOCOL, "RFC 5.2"),
    Row("RSV3 on a ping", frame(PING, reserved=RSV3), PROTOCOL, "CVE-2026-59881"),
    Row("opcode 3", frame(3), PROTOCOL, "RFC 5.2"),
    Row("opcode 11", frame(11), PROTOCOL, "RFC 5.2"),
    Row("ping of 126 bytes", frame(PING, bytes(126)), PROTOCOL, "RFC 5.5"),
    Row("ping that declares 64 KiB", frame(PING, announced=1 << 16), PROTOCOL, "RFC 5.5"),
    Row("fragmented ping", frame(PING, b"x", final=False), PROTOCOL, "RFC 5.5"),
    Row("continuation without a start", frame(CONTINUATION, b"x"), PROTOCOL, "RFC 5.4"),
    Row(
        "text inside a fragmented text",
        frame(TEXT, b"x", final=False) + frame(TEXT, b"y"),
        PROTOCOL,
        "RFC 5.4",
    ),
    Row("length with its top bit set", frame(TEXT, form=64, announced=1 << 63), SIZE, "RFC 5.2"),
    Row("length of all ones", frame(TEXT, form=64, announced=(1 << 64) - 1), SIZE, "RFC 5.2"),
    Row(
        "length of 2^63 - 1",
        frame(BINARY, form=64, announced=(1 << 63) - 1),
        SIZE,
        "CVE-2020-27813",
    ),
    Row("text of a wrong byte", frame(TEXT, b"a\xffb"), UTF8, "RFC 8.1"),
    Row("text with a surrogate", frame(TEXT, b"\xed\xa0\x80"), UTF8, "RFC 8.1"),
    Row("text with an overlong form", frame(TEXT, b"\xc0\xaf"), UTF8, "RFC 8.1"),
    Row("text over U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80"), UTF8, "RFC 8.1"),
    Row("text cut in a character", frame(TEXT, b"\xe4\xbd"), UTF8, "RFC 8.1"),
    Row(
        "wrong byte in a text without an end",
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"\xff", final=False),
        UTF8,
        "RFC 8.1",
    ),
    Row("close of one byte", frame(CLOSE, b"x"), PROTOCOL, "RFC 5.5.1"),
    *(
        Row(f"close {code}", close(code), PROTOCOL, "RFC 7.4")
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)
    ),
    Row("close with a reason that is not UTF-8", close(1000, b"\xff"), UTF8, "RFC 5.5.1"),
    Row("data after a close", close(1000) + frame(TEXT, b"late") * 9, {"close 1000"}, "RFC 5.5.1"),
    Row("two closes", close(1000) + close(1001), {"close 1000"}, "RFC 5.5.1"),
    Row(
        "close amid fragments",
        frame(TEXT, b"x", final=False) + close(1000) + frame(CONTINUATION, b"y"),
        {"close 1000"},
        "RFC 5.5.1",
    ),
    Row("broken frame after a close", close(1000) + frame(3), {"close 1000"}, "RFC 5.5.1"),
]

HELLO = {"1 messages, close 1000"}
VALID = [
    Row("16-bit length for 5 bytes", frame(TEXT, b"hello", form=16), HELLO | PROTOCOL, "RFC 5.2"),
    Row("64-bit length for 5 bytes", frame(TEXT, b"hello", form=64), HELLO | PROTOCOL, "RFC 5.2"),
    Row(
        "character split over fragments",
        frame(TEXT, b"\xe4\xbd", final=False) + frame(CONTINUATION, b"\xa0"),
        HELLO,
        "RFC 8.1",
    ),
    Row(
        "empty fragments",
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 9 + frame(CONTINUATION, b"x"),
        HELLO,
        "RFC 5.4",
    ),
    Row("1,000 unasked pongs", frame(PONG, b"x") * 1000 + frame(TEXT, b"x"), HELLO, "RFC 5.5.3"),
    Row("empty text", frame(TEXT), HELLO, "RFC 5.6"),
]


async def _end(peer: Peer, data: bytes, messages: int) -> str:
    """Send `data`, say goodbye when the echoes have come, and read to the end."""
    await peer.exchange(data, lambda: len(peer.texts()) >= messages)
    await peer.send(close(1000))
    return await peer.outcome()


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row.name)
async def test_broken_frame_ends_its_own_connection(target: Target, row: Row) -> None:
    """The code of the rule that was broken, one close frame, nothing after it, the end of TCP."""
    async with target.attack(row.name, row.right) as attack, target.upgraded() as peer:
        await peer.send(row.data)
        attack.came(await peer.outcome())


@pytest.mark.parametrize("over", [1, 1 << 20])
async def test_length_over_the_limit_is_refused_from_the_header(target: Target, over: int) -> None:
    """Nothing of the payload is waited for, or allocated (CVE-2026-27889)."""
    async with (
        target.attack(f"limit and {over}, no payload", SIZE) as attack,
        target.upgraded() as peer,
    ):
        await peer.send(frame(BINARY, form=64, announced=target.limit + over))
        attack.came(await peer.outcome())


@pytest.mark.parametrize("row", VALID, ids=lambda row: row.name)
async def test_odd_but_valid_frames_are_served(target: Target, row: Row) -> None:
    """What the protocol allows is served; a length in a longer form may be refused."""
    async with target.attack(row.name, row.right) as attack, target.upgraded() as peer:
        attack.came(await _end(peer, row.data, 1))


async def test_one_byte_a_write_is_served(target: Target) -> None:
    """A frame may come in any number of pieces."""
    right = {"2 messages, close 1000"}
    async with target.attack("one byte a write", right) as attack, target.upgraded() as peer:
        for byte in frame(TEXT, b"hello") + frame(PING, b"p") + frame(TEXT, b"x" * 126):
            await peer.send(bytes([byte]))
        attack.came(await _end(peer, b"", 2))
        assert peer.texts() == [b"hello", b"x" * 126]
        assert (0x80 | PONG, b"p") in peer.frames


async def test_200_messages_in_one_write_are_echoed_in_order(target: Target) -> None:
    """None is lost."""
    words = [f"{number}".encode() for number in range(200)]
    data = b"".join(frame(TEXT, word) for word in words)
    async with (
        target.attack("200 messages in a write", {"200 messages, close 1000"}) as attack,
        target.upgraded() as peer,
    ):
        attack.came(await _end(peer, data, 200))
        assert peer.texts() == words


async def test_ping_amid_fragments_is_answered_before_the_message(target: Target) -> None:
    """Control frames may come between fragments (section 5.4)."""
    async with target.attack("ping amid fragments", HELLO) as attack, target.upgraded() as peer:
        await peer.send(frame(TEXT, b"hel", final=False) + frame(PING, b"now"))
        await peer.read(lambda: bool(peer.frames))
        assert peer.frames == [(0x80 | PONG, b"now")]
        attack.came(await _end(peer, frame(CONTINUATION, b"lo"), 1))
        assert peer.texts() == [b"hello"]


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_cut_in_the_middle_of_a_frame_is_cleaned_up_at_once(target: Target, how: str) -> None:
    """Fifty peers leave, each a byte later in its frame (section 7.1.1)."""
    whole = frame(TEXT, b"x" * 60)

    async def leave(size: int) -> None:
        async with target.upgraded() as peer:
            await peer.send(whole[:size])
            if how == "reset":
                peer.reset()

    async with target.attack(f"50 frames cut by {how}"):
        before = target.descriptors()
        await asyncio.gather(*(leave(size) for size in range(1, 51)))
        await eventually(lambda: target.descriptors() <= before + 2, within=5, what="all closed")


async def test_rsv1_on_a_continuation_of_a_compressed_message(plain: Target) -> None:
    """Only a message's first frame says that it is compressed (RFC 7692 section 6.1)."""
    async with plain.attack("RSV1 on a continuation", PROTOCOL) as attack, plain.peer() as peer:
        head = await peer.upgrade(plain.echo, "Sec-WebSocket-Extensions: permessage-deflate")
        assert "permessage-deflate" in head.headers.get("sec-websocket-extensions", "")
        await peer.send(frame(TEXT, b"\xf2H", final=False, reserved=RSV1))
        await peer.send(frame(CONTINUATION, b"\xcd\xc9\xc9\x07\x00", reserved=RSV1))
        attack.came(await peer.outcome())
