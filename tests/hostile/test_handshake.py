"""Opening handshakes that are wrong, huge, endless, forged or cut off.

A row of the tables is an attack: its name, the bytes, the outcomes that are right, and where the
rule comes from. "RFC" without more is RFC 6455.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import repeat

import pytest

from tests.hostile.harness import MIB, Target
from tests.hostile.peer import CLOSE, Peer, close, frame, request

pytestmark = pytest.mark.anyio

KIB = 1024
NO_KEY = ("Sec-WebSocket-Key",)
SECOND = "GET /census HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """One request and what may come of it. ``ECHO`` in `data` stands for the echo's path."""

    name: str
    data: bytes
    right: set[str]
    source: str


def _swap(old: bytes, new: bytes) -> bytes:
    wrong = request("ECHO").replace(old, new)
    assert wrong != request("ECHO")
    return wrong


def _deflate(parameters: str) -> bytes:
    return request("ECHO", f"Sec-WebSocket-Extensions: permessage-deflate{parameters}")


TAKEN = {"101"}
BAD = {"http 400"}

SIZES = [
    Row(
        "200 headers",
        request("ECHO", *(f"X-{n}: v" for n in range(200))),
        {"101", "http 431"},
        "CVE-2024-37890",
    ),
    Row(
        "2,000 headers",
        request("ECHO", *(f"X-{n}: v" for n in range(2000))),
        {"http 431"},
        "CVE-2024-37890",
    ),
    Row(
        "cookie of 9 KiB",
        request("ECHO", "Cookie: a=" + "x" * 9 * KIB),
        {"101", "http 431"},
        "RFC 6585 section 5",
    ),
    Row(
        "header of 1 MiB",
        request("ECHO", "X-Big: " + "x" * MIB),
        {"http 431"},
        "RFC 6585 section 5",
    ),
    Row(
        "header name of 1 MiB",
        request("ECHO", "X" * MIB + ": x"),
        {"http 431"},
        "RFC 6585 section 5",
    ),
    Row(
        "target of 1 MiB",
        request("/" + "x" * MIB),
        {"http 414"},
        "RFC 9110 section 15.5.15",
    ),
    Row(
        "query of 1 MiB",
        request("ECHO&x=" + "x" * MIB),
        {"http 414"},
        "RFC 9110 section 15.5.15",
    ),
]

RULES = [
    Row("version 12", _swap(b"Version: 13", b"Version: 12"), {"http 426"}, "RFC section 4.4"),
    Row("version 8", _swap(b"Version: 13", b"Version: 8"), {"http 426"}, "RFC section 4.4"),
    Row("no key", request("ECHO", leave_out=NO_KEY), BAD, "RFC section 4.2.1"),
    Row(
        "key of 5 bytes",
        request("ECHO", "Sec-WebSocket-Key: aGVsbG8=", leave_out=NO_KEY),
        BAD,
        "RFC section 4.2.1",
    ),
    Row(
        "key that is not base64",
        request("ECHO", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==", leave_out=NO_KEY),
        BAD,
        "RFC section 4.2.1",
    ),
    Row(
        "two keys",
        request("ECHO", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        BAD,
        "RFC section 11.3.1",
    ),
    Row("POST", request("ECHO", method="POST"), {"http 405", "http 400"}, "RFC section 4.2.1"),
    Row(
        "HTTP/1.0",
        request("ECHO", version="1.0"),
        {"http 505", "http 426", "http 400"},
        "RFC section 4.2.1",
    ),
    Row(
        "Connection without upgrade",
        _swap(b"Connection: Upgrade", b"Connection: close"),
        {"http 426", "http 400", "http 404"},
        "RFC section 4.2.1",
    ),
    Row("no Host", request("ECHO", leave_out=("Host",)), BAD, "RFC 9112 section 3.2"),
    Row("two Hosts", request("ECHO", "Host: evil.example"), BAD, "RFC 9112 section 3.2"),
    Row("bare CR in a value", request("ECHO", "X-A: b\rX-C: d"), BAD, "RFC 9112 section 2.2"),
    Row("bare CR in the target", request("ECHO\rx"), BAD, "RFC 9112 section 2.2"),
    Row("NUL in a value", request("ECHO", "X-A: b\0c"), BAD, "CVE-2026-48710"),
    Row("NUL in a name", request("ECHO", "X-\0A: b"), BAD, "CVE-2026-48710"),
    Row("space before the colon", request("ECHO", "X-A : b"), BAD, "RFC 9112 section 5.1"),
    Row(
        "bytes over 127 in the query",
        request("ECHO&x=\xff\xe4"),
        BAD | TAKEN,
        "RFC section 10.7",
    ),
    Row(
        "bytes over 127 in the path",
        request("/\xff\xe4"),
        BAD | {"http 404", "http 403"},
        "RFC section 10.7",
    ),
    Row(
        "escapes in the query that are none",
        request("ECHO&x=%ff%00%zz"),
        BAD | TAKEN,
        "RFC section 10.7",
    ),
]

NEGOTIATION = [
    Row(f"permessage-deflate{wrong}", _deflate(wrong), BAD | TAKEN, "RFC 7692 section 7.1")
    for wrong in (
        "; server_max_window_bits=7",
        "; server_max_window_bits=16",
        "; server_max_window_bits=abc",
        "; server_max_window_bits",
        "; client_max_window_bits=0",
        "; client_max_window_bits=99999999999999999999",
        "; server_no_context_takeover=1",
        "; server_no_context_takeover; server_no_context_takeover",
        "; unknown",
        '; client_max_window_bits="',
        "; " + "; ".join(["client_max_window_bits"] * 200),
    )
]

NOT_HTTP = [
    Row(
        "TLS hello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        {"http 400", "closed"},
        "RFC section 10.7",
    ),
    Row(
        "HTTP/2 preface",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        {"http 400", "http 505", "closed"},
        "RFC section 10.7",
    ),
    Row(
        "64 KiB of noise",
        bytes((n * n * 31 + n * 7) % 251 for n in range(64 * KIB)),
        {"http 400", "closed"},
        "RFC section 10.7",
    ),
]


def _bytes_for(target: Target, row: Row) -> bytes:
    echo = target.echo.encode()
    data = row.data.replace(b"ECHO", echo)
    return data if b"?" in echo else data.replace(echo + b"&", echo + b"?")


async def _answer(peer: Peer, data: bytes) -> str:
    """Send a request; a connection that was opened is told as ``101`` and closed."""
    await peer.exchange(data, lambda: bool(peer.heads) and peer.heads[0].status == 101)
    if peer.told() == "open" and peer.heads:
        await peer.exchange(close(1000))
        return "101"
    return peer.told()


@pytest.mark.parametrize("row", [*SIZES, *RULES, *NOT_HTTP], ids=lambda row: row.name)
async def test_wrong_request_is_answered_at_once(target: Target, row: Row) -> None:
    """Refused with its status, or taken where that is harmless; never a hang."""
    async with target.attack(row.name, row.right) as attack, target.peer() as peer:
        attack.came(await _answer(peer, _bytes_for(target, row)))
        if row.name.startswith("version"):
            assert all(head.headers["sec-websocket-version"] == "13" for head in peer.heads)


@pytest.mark.parametrize("row", NOT_HTTP, ids=lambda row: row.name)
async def test_what_is_no_http_costs_one_line_of_the_log(target: Target, row: Row) -> None:
    """Somebody else's protocol must not fill the disk."""
    async with target.attack(f"{row.name}, log", row.right) as attack:
        printed = target.output().count("\n")
        for _ in range(10):
            async with target.peer() as peer:
                attack.came(await _answer(peer, row.data))
        lines = target.output().splitlines()[printed:]
        # The neighbour's own connections are logged meanwhile.
        assert len([line for line in lines if "127.0.0.1" not in line]) <= 10


@pytest.mark.parametrize("row", NEGOTIATION, ids=lambda row: row.name[:60])
async def test_impossible_compression_is_not_agreed_on(target: Target, row: Row) -> None:
    """400, or a connection without the extension."""
    async with target.attack(row.name[:60], row.right) as attack, target.peer() as peer:
        attack.came(await _answer(peer, _bytes_for(target, row)))
        assert all("sec-websocket-extensions" not in head.headers for head in peer.heads)


async def test_no_subprotocol_is_chosen_that_the_server_does_not_speak(target: Target) -> None:
    """A thousand are offered (CVE-2021-32640)."""
    offered = request(target.echo, "Sec-WebSocket-Protocol: " + ", ".join(map(str, range(1000))))
    async with target.attack("1,000 subprotocols", TAKEN | BAD) as attack, target.peer() as peer:
        attack.came(await _answer(peer, offered))
        assert all("sec-websocket-protocol" not in head.headers for head in peer.heads)


@pytest.mark.parametrize(
    ("name", "start", "more", "size"),
    [
        ("header that never ends", b"X-Big: ", b"x" * 64 * KIB, 64 * MIB),
        ("header lines that never end", b"", b"X-A: b\r\n" * 8 * KIB, 32 * MIB),
        ("target that never ends", b"", b"x" * 64 * KIB, 32 * MIB),
    ],
)
async def test_endless_head_is_cut_off(
    target: Target, name: str, start: bytes, more: bytes, size: int
) -> None:
    """431 or 414 within some tens of KiB, or an end; nothing of it is kept (RFC section 10.4)."""
    head = b"GET /" if "target" in name else request(target.echo)[:-2] + start
    async with (
        target.attack(name, {"http 431", "http 414", "closed"}) as attack,
        target.peer() as peer,
        asyncio.timeout(15),
    ):
        reading = asyncio.create_task(peer.read(within=15))
        await peer.send(head)
        for chunk in repeat(more, size // len(more)):
            if not await peer.send(chunk):
                break
        await reading
        attack.came(peer.told())


BODIES = {
    "Content-Length": request("ECHO", f"Content-Length: {len(SECOND)}") + SECOND.encode(),
    "chunked": request("ECHO", "Transfer-Encoding: chunked")
    + f"{len(SECOND):x}\r\n{SECOND}\r\n0\r\n\r\n".encode(),
    "both": request("ECHO", "Transfer-Encoding: chunked", "Content-Length: 5")
    + f"{len(SECOND):x}\r\n{SECOND}\r\n0\r\n\r\n".encode(),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_body_of_an_upgrade_is_no_second_request(target: Target, kind: str) -> None:
    """Refused, or taken for frames, which it is not; one HTTP answer only (CVE-2026-69243)."""
    right = {"http 400", "close 1002", "closed"}
    async with target.attack(f"body by {kind}", right) as attack, target.peer() as peer:
        await peer.send(BODIES[kind].replace(b"ECHO", target.echo.encode()))
        attack.came(await peer.outcome())


async def test_frame_in_the_same_write_as_the_handshake_is_echoed(target: Target) -> None:
    """Sent too early (section 4.1), but not lost in silence."""
    async with (
        target.attack("early frame", {"1 messages, close 1000"}) as attack,
        target.peer() as peer,
    ):
        await peer.send(request(target.echo) + frame(1, b"early"))
        assert await peer.messages(1) == [b"early"]
        await peer.send(close(1000))
        attack.came(await peer.outcome())


ENDS = ("reset", "close", "half-close")


@pytest.mark.parametrize("how", ENDS)
async def test_handshake_cut_at_each_hundredth_leaves_nothing(target: Target, how: str) -> None:
    """A hundred peers leave, each a little later in its request."""
    whole = request(target.echo)

    async def leave(hundredth: int) -> None:
        async with target.peer() as peer:
            await peer.send(whole[: len(whole) * hundredth // 100])
            if how == "reset":
                peer.reset()
            elif how == "half-close":
                peer.half_close()
                assert await peer.read(within=15)

    async with target.attack(f"100 handshakes, {how}"):
        await asyncio.gather(*(leave(hundredth) for hundredth in range(1, 101)))


async def test_half_close_after_the_handshake_ends_the_connection(target: Target) -> None:
    """Half a WebSocket is none."""
    async with (
        target.attack("half-close", {"cut", "close 1000", "close 1002"}) as attack,
        target.upgraded() as peer,
    ):
        peer.half_close()
        attack.came(await peer.outcome())


async def test_reset_while_the_server_closes_leaves_nothing(target: Target) -> None:
    """A hundred peers say goodbye and vanish in the same moment."""

    async def leave() -> None:
        async with target.upgraded() as peer:
            await peer.send(frame(CLOSE, b"\x03\xe8"))
            peer.reset()

    async with target.attack("100 close-and-reset races"):
        await asyncio.gather(*(leave() for _ in range(100)))
