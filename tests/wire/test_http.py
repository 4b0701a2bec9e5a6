"""uvicorn's HTTP with our limits, on real sockets: both classes, unless a test says why not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from pathlib import Path
from typing import Any, cast

import pytest

from pongee.testing import RawPeer, eventually
from pongee.wire.head import HEAD_SIZE, HEADERS, TARGET_SIZE
from pongee.wire.http import LINGER_SIZE, H11HeadProtocol, HeadProtocol
from pongee.wire.wheel import wheel_of
from tests.wire.harness import REQUEST, Event, Receive, Send, all_gone, connections, wire
from tests.wire.http_harness import (
    CHUNKED,
    CLASSES,
    GET,
    GREETING,
    SHORT,
    Web,
    answered,
    hurried,
    padded,
    peer_of,
    read_until,
    statuses,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """On uvloop with httptools, as uvicorn chooses where it can; on asyncio with h11."""
    uses_h11 = "http" in request.fixturenames and request.getfixturevalue("http") is H11HeadProtocol
    return "asyncio", {"use_uvloop": not uses_h11}


@pytest.fixture(params=CLASSES, ids=lambda made: made.__name__)
def http(request: pytest.FixtureRequest) -> Any:
    """The class under test."""
    return request.param


# The deadline


async def test_a_silent_connection_is_closed_without_an_answer(http: Any) -> None:
    """The deadline of the first head runs from the connection's first moment."""
    assert await answered(hurried(http)) == b""


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nHo", GET], ids=["G", "Ho", "fields"])
async def test_a_head_that_stops_half_way_is_answered_408(http: Any, part: bytes) -> None:
    """RFC 9110 section 15.5.9; the connection closes behind the answer."""
    answer = await answered(hurried(http), part)
    assert statuses(answer) == [408]
    assert b"\r\nConnection: close\r\n" in answer


async def test_bytes_do_not_extend_the_deadline(http: Any) -> None:
    """A head that trickles in is as late as one that stops."""
    async with peer_of(hurried(http)) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nX: ")
        answer = asyncio.create_task(peer.read(timeout=20))
        for _ in range(200):
            await peer.send(b"a")
            done, _ = await asyncio.wait([answer], timeout=0.05)
            if done:
                break
        assert answer.done(), "the deadline moves with every byte"
        assert statuses(answer.result()) == [408]


async def test_a_later_head_has_the_same_deadline(http: Any) -> None:
    """It runs from that head's first byte."""
    async with peer_of(hurried(http), timeout_keep_alive=60) as peer:
        await peer.send(GET + b"\r\n")
        await read_until(peer, GREETING)
        await peer.send(b"GET /")
        assert statuses(await peer.read_to_end()) == [408]


async def test_keep_alive_and_bodies_have_no_deadline_of_a_head(http: Any) -> None:
    """Between requests, within a body and behind a whole request the clock does not run."""
    app = Web()
    async with peer_of(hurried(http), app, timeout_keep_alive=60) as peer:
        await peer.send(GET + b"\r\n")
        await read_until(peer, GREETING)
        await asyncio.sleep(2 * SHORT)
        await peer.send(CHUNKED + b"2\r\nab\r\n")
        await asyncio.sleep(2 * SHORT)
        app.open.clear()
        await peer.send(b"2\r\ncd\r\n")
        await eventually(lambda: app.received[-1].get("body") == b"cd", what="all has come")
        await peer.send(b"0\r\n\r\n")
        await asyncio.sleep(2 * SHORT)
        app.open.set()
        assert statuses(await read_until(peer, b"abcd")) == [200]
        await asyncio.sleep(2 * SHORT)
        await peer.send(GET + b"\r\n")
        await read_until(peer, GREETING)


async def test_keep_alive_does_not_cut_a_head_short() -> None:
    """A head begun while its predecessor is answered has its own deadline, not the idle one.

    On h11 a second head is not looked at before the first is answered.
    """
    app = Web()
    app.open.clear()
    async with peer_of(HeadProtocol, app, timeout_keep_alive=0.2) as peer:
        await peer.send(GET + b"\r\nGET /2 HT")
        await eventually(lambda: app.received, what="the application waits")
        app.open.set()
        await read_until(peer, GREETING)
        await asyncio.sleep(0.5)
        await peer.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        await read_until(peer, GREETING)


async def test_a_head_we_did_not_read_to_its_end_is_not_late() -> None:
    """Behind a second request that waits, uvicorn stops reading. h11 waits behind the first."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        begun.set()  # and asks for no body, which would make uvicorn read on
        await go_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with peer_of(hurried(HeadProtocol), app) as peer:
        await peer.send((GET + b"\r\n") * 2 + b"GET /3 HT")
        await begun.wait()
        await peer.send(b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(3 * SHORT)
        go_on.set()
        assert statuses(await peer.read_to_end()) == [204, 204, 204]


async def test_empty_lines_do_not_keep_a_connection_open() -> None:
    """They may stand before a request (RFC 9112 section 2.2) and are no part of one; h11: 400."""
    async with peer_of(hurried(HeadProtocol), timeout_keep_alive=60) as peer:
        await peer.send(GET + b"\r\n")
        await read_until(peer, GREETING)
        await peer.send(b"\r\n")
        assert await peer.read_to_end() == b""


async def test_a_peer_that_does_not_take_its_refusal_is_aborted(http: Any) -> None:
    """Neither its silence nor an end of stream that never comes holds the connection."""
    short = hurried(http, linger_timeout=SHORT)
    async with wire(Web(), http=short) as server, RawPeer(server.port, "/") as peer:
        await peer.send(b"\x16\x03\x01\r\n\r\n")
        await eventually(lambda: connections(server), what="the connection is there")
        await all_gone(server)


async def test_no_timer_is_left_behind(http: Any) -> None:
    """However a connection ends: answered, refused, upgraded, gone."""
    wheel = wheel_of(asyncio.get_running_loop())
    for sent in (b"", b"GET /", GET + b"\r\n", b"\0\r\n\r\n", REQUEST):
        async with wire(Web(), http=http) as server:
            async with RawPeer(server.port, "/") as peer:
                await peer.send(sent)
                await eventually(lambda: connections(server), what="connected")
                if sent.endswith(b"\r\n\r\n"):
                    assert await peer.read()
            await all_gone(server)
        await eventually(lambda: len(wheel) == 0, what=f"no timer after {sent!r}")


@pytest.mark.parametrize("sent", [b"", b"GET / HT"], ids=["silent", "half a head"])
async def test_a_silent_peer_does_not_hold_up_the_shutdown(
    http: Any, sent: bytes, certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Not over TLS either, which waits for the peer's farewell by itself."""
    key, chain = map(str, certificate)
    short = hurried(http, linger_timeout=SHORT)
    tls = {"ssl_keyfile": key, "ssl_certfile": chain}
    trust = ssl.create_default_context(cafile=chain)
    peers = []
    for options, context in (({}, None), (tls, trust)):
        async with wire(Web(), http=short, shutdown_timeout=10, **options) as server:
            _, peer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            peers.append(peer)
            peer.write(sent)
            await eventually(lambda: connections(server), what="connected")
            # From here on it hears nothing, and answers nothing: no farewell either.
            cast("asyncio.Transport", peer.transport).pause_reading()
    for peer in peers:
        peer.transport.abort()
    assert "timeout graceful shutdown exceeded" not in caplog.text


# Limits


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * (TARGET_SIZE - 1)), 200),
        (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * TARGET_SIZE), 414),
        (padded(HEAD_SIZE), 200),
        (padded(HEAD_SIZE + 1), 431),
        (padded(4 * HEAD_SIZE), 431),
        (GET + b"X: a\r\n" * (HEADERS - 1) + b"\r\n", 200),
        (GET + b"X: a\r\n" * HEADERS + b"\r\n", 431),
    ],
    ids=["target", "target+1", "head", "head+1", "large head", "fields", "fields+1"],
)
async def test_limits_are_exact_and_answered(http: Any, head: bytes, expected: int) -> None:
    """However the head is cut into packets."""
    async with peer_of(http) as peer:
        await peer.send(head[:40_000])
        await asyncio.sleep(0.02)  # most of the time two packets
        await peer.send(head[40_000:])
        assert statuses(await peer.read()) == [expected]


@pytest.mark.parametrize(
    ("start", "piece", "expected"),
    [
        (GET + b"X: ", b"a" * 65536, 431),
        (GET, b"X: a\r\n" * 100, 431),
        (b"GET /", b"a" * 65536, 414),
        (CHUNKED + b"2\r\nab\r\n0\r\nX: ", b"a" * 65536, 431),
        (CHUNKED + b"2\r\nab\r\n0\r\n", b"X: a\r\n" * 100, 431),
    ],
    ids=["line", "lines", "target", "trailer line", "trailer lines"],
)
async def test_a_head_without_an_end_is_cut_at_the_limit(
    http: Any, start: bytes, piece: bytes, expected: int
) -> None:
    """Of 64 MiB only what waits in the kernel's buffers is taken, and none of that is kept."""
    async with peer_of(http) as peer:
        await peer.send(start)
        answer = asyncio.create_task(peer.read(timeout=20))
        sent = 0
        while sent < 64 << 20 and not answer.done():
            try:
                await peer.send(piece, timeout=0.5)
            except (TimeoutError, ConnectionError):
                break
            sent += len(piece)
            await asyncio.sleep(0)
        in_h11s_words = http is H11HeadProtocol and start.startswith(CHUNKED)
        assert statuses(await answer) == [400 if in_h11s_words else expected]
        assert sent < 32 << 20


async def test_a_refusal_is_not_lost_to_what_was_sent_with_it(http: Any) -> None:
    """Bytes unread at a close make TCP reset, and the peer lose the answer."""
    async with peer_of(http) as peer:
        await peer.send(GET + b"X: " + b"a" * (LINGER_SIZE - 65536))
        answer = b""
        while more := await peer.read():  # a reset raises
            answer += more
        assert statuses(answer) == [431]


async def test_a_peer_that_goes_on_after_its_refusal_is_not_listened_to(http: Any) -> None:
    """Within the time it has, it may not send what it likes."""
    async with peer_of(http) as peer:
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 512 << 20:
                await peer.send(b"\0" * 65536, timeout=0.5)
                sent += 65536
        assert sent < 32 << 20


async def test_a_trailer_does_not_slip_in_among_the_headers(http: Any) -> None:
    """RFC 9110 section 6.5.1: it is merged only by who knows the field."""
    app = Web()
    async with peer_of(http, app) as peer:
        await peer.send(CHUNKED + b"2\r\nab\r\n")
        await eventually(lambda: app.received, what="the application has the body")
        await peer.send(b"0\r\nX-User: root\r\n\r\n")
        await read_until(peer, b"ab")
    assert [name for name, _ in app.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


async def test_a_large_body_is_no_head(http: Any) -> None:
    """A head right behind a body of any size is measured by itself."""
    body = b"x" * 300_000
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + body
    async with peer_of(http) as peer:
        await peer.send(request + GET)
        await read_until(peer, body)
        await peer.send(b"\r\n")
        await read_until(peer, GREETING)


# What stays uvicorn's


async def test_requests_may_be_pipelined(http: Any) -> None:
    """RFC 9112 section 9.3.2: answers in order."""
    posts = b"".join(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % number
        for number in range(20)
    )
    async with peer_of(http) as peer:
        await peer.send(posts + GET + b"Connection: close\r\n\r\n")
        answers = await peer.read_to_end()
    assert statuses(answers) == [200] * 21
    assert re.findall(rb"\r\n\r\n(\d\d)", answers) == [b"%02d" % number for number in range(20)]


async def test_a_peer_that_asks_is_told_to_continue(http: Any) -> None:
    """RFC 9110 section 10.1.1."""
    async with peer_of(http) as peer:
        await peer.send(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert await read_until(peer, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await peer.send(b"2\r\nab\r\n0\r\n\r\n")
        assert statuses(await read_until(peer, b"ab")) == [200]


async def test_http_1_0_is_answered_and_closed(http: Any) -> None:
    """Without Host, as that version had it."""
    answer = await answered(http, b"GET / HTTP/1.0\r\n\r\n")
    assert statuses(answer) == [200]
    assert answer.endswith(GREETING)
