"""Bad requests and upgrades on our HTTP classes: both, unless a test says why not."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest

from pongee.testing import RawPeer, Server, eventually
from pongee.wire.head import HEAD_SIZE
from pongee.wire.http import H11HeadProtocol, HeadProtocol
from tests.wire.harness import (
    REQUEST,
    TEXT,
    Event,
    Receive,
    Send,
    connections,
    frames,
    masked_frame,
    wire,
)
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


# Rules

UPGRADE = REQUEST.removesuffix(b"\r\n")
BAD = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "odd host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "bare CR": (GET + b"X: a\rb\r\n\r\n", 400),
    "NUL": (GET + b"X: a\0b\r\n\r\n", 400),
    "space before colon": (GET + b"X : a\r\n\r\n", 400),
    "folded": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "no colon": (GET + b"X\r\n\r\n", 400),
    "no name": (GET + b": a\r\n\r\n", 400),
    "high byte in target": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "control in target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no slash": (b"GET room HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "version 2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "negative length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "upgrade by POST": (REQUEST.replace(b"GET", b"POST"), 405),
    "upgrade in 1.0": (REQUEST.replace(b"1.1", b"1.0"), 505),
    "upgrade with body": (UPGRADE + b"Content-Length: 5\r\n\r\nhello", 400),
    "upgrade in chunks": (UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "upgrade without host": (REQUEST.replace(b"Host", b"Hots"), 400),
    "TLS hello": (bytes.fromhex("1603010200010001fc0303") + bytes(400) + b"\r\n\r\n", 400),
    "noise": (b"\x80\xff\x00noise\r\n\r\n" * 9, 400),
}


@pytest.mark.parametrize(("sent", "expected"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_gets_one_answer_and_the_end(
    http: Any, sent: bytes, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9112 sections 2.2, 3 and 5, RFC 6455 section 4.1; one log line, no traceback."""
    app = Web()
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with peer_of(http, app) as peer:
            caplog.clear()
            await peer.send(sent)
            answer = await peer.read_to_end()
            assert not app.scopes
            assert [line.getMessage() for line in caplog.records] == [
                "Invalid HTTP request received."
            ]
    assert not any(line.exc_info for line in caplog.records)
    assert statuses(answer) == [expected]
    assert b"\r\nConnection: close\r\n" in answer


async def test_the_preface_of_http_2_is_refused(http: Any) -> None:
    """A client that has prior knowledge of the wrong thing hears of it."""
    answer = await answered(http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert statuses(answer) in ([400], [505])


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    """Else a peer takes it for the answer to an earlier request. h11 looks at one at a time."""
    app = Web()
    app.open.clear()
    async with peer_of(HeadProtocol, app) as peer:
        await peer.send((GET + b"\r\n") * 2 + b"GET / HTTP/1.1\r\n\r\n" + GET + b"\r\n")
        await eventually(lambda: app.received, what="the application waits")
        app.open.set()
        answers = await peer.read_to_end()
    assert statuses(answers) == [200, 200, 400]
    assert len(app.scopes) == 2


async def test_a_body_gone_wrong_is_answered_once(http: Any) -> None:
    """The application hears of a disconnect, and can send nothing behind the answer."""
    app = Web()
    async with peer_of(http, app) as peer:
        await peer.send(CHUNKED + b"2\r\nab\r\n")
        await eventually(lambda: app.received, what="the application has a piece")
        await peer.send(b"no length\r\n")
        assert statuses(await peer.read_to_end()) == [400]
        assert app.received[-1]["type"] == "http.disconnect"


async def test_nobody_is_told_to_continue_behind_a_refusal(http: Any) -> None:
    """An application that asks for a body late finds its peer gone, and no error."""
    begun, refused = asyncio.Event(), asyncio.Event()
    received: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        begun.set()
        await refused.wait()
        received.append(await receive())

    async with peer_of(http, app) as peer:
        await peer.send(CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n")
        await begun.wait()
        await peer.send(b"no length\r\n")
        answers = await peer.read(1000)
        refused.set()
        await eventually(lambda: received, what="the application hears of it")
        answers += await peer.read_to_end()
    assert statuses(answers) == [400]
    assert received == [{"type": "http.disconnect"}]


async def test_a_body_gone_wrong_behind_a_begun_answer_cuts_it(http: Any) -> None:
    """A second answer in the middle of the first would be read as its body."""

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"100")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with peer_of(http, app) as peer:
        await peer.send(CHUNKED + b"2\r\nab\r\n")
        await read_until(peer, b"\r\n\r\n")
        await peer.send(b"no length\r\n")
        assert await peer.read_to_end() == b""


# Upgrades


@pytest.mark.parametrize("ws", ["pongee.wire:WireProtocol", "websockets-sansio"])
async def test_a_frame_in_the_packet_of_the_request_is_not_lost(http: Any, ws: str) -> None:
    """A relay may have joined what its client sent apart."""
    async with peer_of(http, ws=ws, ws_per_message_deflate=False) as peer:
        await peer.send(REQUEST + masked_frame(TEXT, b"early"))
        answer = await read_until(peer, b"early")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert statuses(head) == [101]
    assert frames(rest) == [(TEXT, b"early")]


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_other_websocket_classes_work_as_with_uvicorn(http: Any, ws: str) -> None:
    """The class in front does not choose the one behind."""
    async with peer_of(http, ws=ws, ws_per_message_deflate=False) as peer:
        await peer.send(REQUEST)
        assert statuses(await read_until(peer, b"\r\n\r\n")) == [101]
        await peer.send(masked_frame(TEXT, b"hello"))
        assert frames(await read_until(peer, b"hello")) == [(TEXT, b"hello")]


async def test_a_request_may_come_byte_by_byte(http: Any) -> None:
    """Wherever it is cut, frames begin right behind it."""
    sent = REQUEST + masked_frame(TEXT, b"early")
    async with wire(Web(), http=http) as server:
        # Around the end of the head each cut counts; each makes two packets.
        for cut in range(len(REQUEST) - 5, len(sent)):
            async with RawPeer(server.port, "/") as peer:
                await peer.send(sent[:cut])
                await eventually(lambda: connections(server), what="connected")
                await asyncio.sleep(0.01)  # most of the time a packet of its own
                await peer.send(sent[cut:])
                await read_until(peer, masked_frame(TEXT, b"early")[6:])
        async with RawPeer(server.port, "/") as peer:
            for at in range(len(sent)):
                await peer.send(sent[at : at + 1])
            await read_until(peer, b"early")


async def test_the_request_arrives_as_it_was_parsed(http: Any) -> None:
    """Names in lower case, values without the space around them, a target in absolute form."""
    app = Web()
    target = b"http://example.test/a%20b?c=%20"
    request = REQUEST.replace(b"/room", target).replace(b"Version: 13", b"Version:  13 ")
    async with peer_of(http, app) as peer:
        await peer.send(request)
        assert statuses(await read_until(peer, b"\r\n\r\n")) == [101]
    scope = app.scopes[0]
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/a b",
        b"/a%20b",
        b"c=%20",
    )
    assert (b"sec-websocket-version", b"13") in scope["headers"]
    assert (b"host", b"example.test") in scope["headers"]


async def test_an_upgrade_named_in_lists_is_one(http: Any) -> None:
    """RFC 9110 sections 7.6.1 and 7.8, and as browsers and proxies send it."""
    lists = REQUEST.replace(
        b"Connection: Upgrade", b"Connection: upgrade\r\nConnection: keep-alive"
    ).replace(b"Upgrade: websocket", b"Upgrade: WebSocket, h2c")
    async with peer_of(http) as peer:
        await peer.send(lists)
        assert statuses(await read_until(peer, b"\r\n\r\n")) == [101]


async def test_an_upgrade_may_follow_requests_on_its_connection(http: Any) -> None:
    """Nothing of HTTP is left on it then: no keep-alive, no deadline."""
    quick = hurried(http, head_timeout=0.2, timeout_keep_alive=0.1)
    async with peer_of(quick) as peer:
        await peer.send(GET + b"\r\n")
        await read_until(peer, GREETING)
        await peer.send(REQUEST)
        assert statuses(await read_until(peer, b"\r\n\r\n")) == [101]
        await asyncio.sleep(0.5)
        await peer.send(masked_frame(TEXT, b"still"))
        await read_until(peer, b"still")


async def test_an_upgrade_behind_an_unanswered_request_does_not_overtake(http: Any) -> None:
    """Its answer comes second; httptools reads on meanwhile, so there it is refused."""
    app = Web()
    app.open.clear()
    async with peer_of(http, app) as peer:
        await peer.send(GET + b"\r\n" + REQUEST)
        await eventually(lambda: app.received, what="the application waits")
        app.open.set()
        answers = b""
        while len(statuses(answers)) < 2:
            answers += await peer.read()
    assert statuses(answers) == [200, 400 if http is HeadProtocol else 101]


async def test_an_upgrade_we_do_not_speak_is_plain_http(http: Any) -> None:
    """RFC 9110 section 7.8: it may be ignored; the request behind it is not."""
    upgrade = GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with peer_of(http) as peer:
        await peer.send(upgrade * 2 + GET + b"Connection: close\r\n\r\n")
        answers = await peer.read_to_end()
    assert statuses(answers) == [200, 200, 200]


async def test_without_a_websocket_class_an_upgrade_is_plain_http(http: Any) -> None:
    """As uvicorn has it with ``ws="none"``."""
    async with peer_of(http, ws="none") as peer:
        await peer.send(REQUEST.replace(b"GET", b"POST"))
        assert statuses(await read_until(peer, GREETING)) == [200]


async def test_nothing_of_http_stays_in_memory_after_an_upgrade(http: Any) -> None:
    """Without a collector's help: an idle WebSocket does not pay for a parser."""
    async with wire(Web(), http=http) as server, RawPeer(server.port, "/") as peer:
        await eventually(lambda: connections(server), what="connected")
        known = weakref.ref(next(iter(connections(server))))
        assert type(known()) is http
        gc.disable()
        try:
            await peer.send(REQUEST)
            await read_until(peer, b"\r\n\r\n")
            await eventually(lambda: known() is None, what="the HTTP protocol is gone")
        finally:
            gc.enable()


async def test_over_tls_all_is_the_same(http: Any, certificate: tuple[Path, Path]) -> None:
    """A refusal, a late head, and an upgrade with a frame behind it."""
    key, chain = map(str, certificate)
    trust = ssl.create_default_context(cafile=chain)
    short = hurried(http, head_timeout=1.0, linger_timeout=SHORT)

    async def exchange(server: Server, sent: bytes, end: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trust)
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.readuntil(end)
        writer.transport.abort()
        return answer

    async with wire(Web(), http=short, ssl_keyfile=key, ssl_certfile=chain) as server:
        late = b"not complete in time\n"
        assert statuses(await exchange(server, padded(HEAD_SIZE + 1), b"bytes\n")) == [431]
        assert statuses(await exchange(server, b"GET /", late)) == [408]
        sent = REQUEST + masked_frame(TEXT, b"early")
        assert statuses(await exchange(server, sent, b"early")) == [101]
