"""The protocol on a real uvicorn: what applications and peers see of it."""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.responses import JSONResponse
from websockets.exceptions import ConnectionClosed

from pongee.testing import HandshakeRefused, RawPeer, Relay, connect, eventually
from pongee.wire import bounds as module
from tests.wire.harness import (
    CLOSE,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Accepting,
    Event,
    Receive,
    Send,
    all_gone,
    connections,
    echo,
    exactly,
    frames,
    masked_frame,
    rest,
    wire,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every test runs on both event loops."""
    if request.param:
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param}


HTTP = pytest.mark.parametrize("http", ["h11", "httptools"])


def fastapi_app() -> FastAPI:
    """Make routes as FastAPI's tutorial writes them."""
    app = FastAPI()

    @app.websocket("/echo")
    async def echo_route(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    @app.websocket("/chosen")
    async def chosen(websocket: WebSocket) -> None:
        await websocket.accept("two", headers=[(b"x-answer", b"42"), (b"x-name", b"caf\xe9")])
        await websocket.close(4001, "served")

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(
            JSONResponse({"detail": "no"}, status_code=418, headers={"x-why": "teapot"})
        )

    @app.websocket("/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.close(4000)

    @app.websocket("/policy")
    async def policy(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(1008, "against the rules")

    return app


# Messages


@HTTP
async def test_echo(http: str) -> None:
    """Text, bytes, empty and large messages come back as they went, whatever read the request."""
    messages: list[str | bytes] = ["é€😀", b"\x00\xff", "", b"", "a" * 70_000, b"b" * (1 << 20)]
    async with wire(echo, http=http) as server, connect(server.ws("/")) as client:
        for message in messages:
            await client.send(message)
            assert await client.receive() == message


async def test_many_messages_in_one_write() -> None:
    """Messages that came together are answered one by one, in order."""
    async with wire(echo) as server, RawPeer(server.port, "/", receive_buffer=1 << 16) as peer:
        await peer.handshake()
        texts = [str(number).encode() for number in range(200, 400)]
        await peer.send(b"".join(masked_frame(TEXT, text) for text in texts))

        assert frames(await exactly(peer, 200 * 5)) == [(TEXT, text) for text in texts]


async def test_fragments_with_a_ping_between() -> None:
    """A fragmented message is one event, and a ping amid it is answered first."""
    async with wire(echo) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send_frame(TEXT, "é".encode()[:1], final=False)
        await peer.send_frame(PING, b"p")
        await peer.send_frame(0, b"", final=False)
        await peer.send_frame(0, "é".encode()[1:])

        assert frames(await exactly(peer, 3 + 4)) == [(PONG, b"p"), (TEXT, "é".encode())]


async def test_a_byte_a_write() -> None:
    """A frame may come a byte at a time."""
    async with wire(echo) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        for byte in masked_frame(TEXT, b"slow") + masked_frame(PING, b"p"):
            await peer.send(bytes((byte,)))

        assert sorted(frames(await exactly(peer, 6 + 3))) == [(TEXT, b"slow"), (PONG, b"p")]


@HTTP
async def test_fastapi_routes(http: str) -> None:
    """A FastAPI route serves as it is."""
    async with wire(fastapi_app(), http=http) as server:
        async with connect(server.ws("/echo")) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
        await all_gone(server)


# Handshake


async def test_subprotocol_and_headers() -> None:
    """The application chooses a subprotocol and adds headers, non-ASCII ones as Latin-1."""
    async with (
        wire(fastapi_app()) as server,
        connect(server.ws("/chosen"), subprotocols=["one", "two"]) as client,
    ):
        response = client.connection.response
        assert response is not None
        assert client.subprotocol == "two"
        assert response.headers["x-answer"] == "42"
        assert response.headers["x-name"] == "café"
        end = await client.wait_closed()
        assert (end.code, end.reason) == (4001, "served")


@pytest.mark.parametrize("date", [True, False])
async def test_the_servers_own_headers(date: bool) -> None:
    """The answer has the server's default headers once each, and no others of their kind."""
    async with (
        wire(echo, date_header=date, headers=[("x-own", "1")]) as server,
        connect(server.ws("/")) as client,
    ):
        assert client.connection.response is not None
        headers = client.connection.response.headers
        assert len(headers.get_all("Date")) == int(date)
        assert headers.get_all("Server") == ["uvicorn"]
        assert headers.get_all("X-Own") == ["1"]


@HTTP
async def test_scope_is_uvicorns_own(http: str) -> None:
    """An application gets the very scope that uvicorn's default implementation writes."""
    request = (
        b"GET /a%20b/caf%C3%A9?x=%31&token=t%20 HTTP/1.1\r\nHost: example.test\r\n"
        b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nX-Twice: 1\r\nx-twice: 2\r\n"
        b"X-Latin: caf\xe9\r\nCookie: a=b; c=d\r\nOrigin: http://example.test\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: one,two\r\nSec-WebSocket-Protocol: three\r\n\r\n"
    )
    scopes: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    for count, implementation in enumerate(("pongee.wire:WireProtocol", "auto"), 1):
        async with (
            wire(app, ws=implementation, http=http, root_path="/root") as server,
            RawPeer(server.port, "/") as peer,
        ):
            await peer.send(request)
            await eventually(lambda count=count: len(scopes) == count, what="the scope")  # type: ignore[misc]
            scope = scopes[-1]
            assert scope["server"] == ("127.0.0.1", server.port)
            scope["server"] = scope["client"] = (scope["client"][0], 0)
            scope["extensions"].pop("pongee.direct", None)  # direct mode is ours alone

    assert len(scopes) == 2
    assert scopes[0] == scopes[1]
    assert {key: type(value) for key, value in scopes[0].items()} == {
        key: type(value) for key, value in scopes[1].items()
    }


async def test_state_of_the_lifespan() -> None:
    """What the lifespan put into the state is in the scope."""

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["answer"] = 42
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(scope["state"]["answer"])})

    async with wire(app, lifespan="on") as server, connect(server.ws("/")) as client:
        assert await client.receive() == "42"


async def test_denial_response() -> None:
    """A denial response arrives with its status, headers and body."""
    async with wire(fastapi_app()) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/denied")):
                pass
        assert refused.value.status == 418
        assert refused.value.headers["x-why"] == "teapot"
        assert refused.value.headers["content-type"] == "application/json"
        assert refused.value.json() == {"detail": "no"}
        await all_gone(server)


async def test_denial_response_in_parts() -> None:
    """A denial response may come in several parts; the application then hears of the end."""
    ended: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        assert "websocket.http.response" in scope["extensions"]
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"two"})
        ended.append(await receive())

    async with wire(app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/")):
                pass
        assert (refused.value.status, refused.value.body) == (401, "one two")
        await all_gone(server)
    assert ended == [{"type": "websocket.disconnect", "code": 1006}]


async def test_close_before_accept_is_403() -> None:
    """Closing before accepting refuses with 403, and nothing can be sent after."""
    async with wire(fastapi_app()) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/closed")):
                pass
        assert refused.value.status == 403
        await all_gone(server)


@pytest.mark.parametrize("how", ["raises", "returns", "stops amid a denial"])
async def test_no_answer_to_the_handshake_is_500(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that ends without an answer is answered for with 500, and logged."""

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        if how == "raises":
            raise ValueError("boom")
        if how == "stops amid a denial":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})

    async with wire(app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/")):
                pass
        assert refused.value.status == 500
        assert "boom" not in refused.value.body
        await all_gone(server)
    assert ("boom" in caplog.text) == (how == "raises")
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Sec-WebSocket-Version", "12", 426),
        ("Sec-WebSocket-Key", "short", 400),
        ("Sec-WebSocket-Key", "", 400),
    ],
)
async def test_bad_handshakes(header: str, value: str, status: int) -> None:
    """A handshake that breaks the rules is refused, and the application does not run."""
    app = Accepting()
    lines = REQUEST.decode().split("\r\n")
    changed = [f"{header}: {value}" if line.startswith(header) else line for line in lines]
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.send("\r\n".join(changed).encode())
        answer = await peer.read_to_end()

        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (b"Sec-WebSocket-Version: 13" in answer) == (status == 426)
        await all_gone(server)
    assert app.events == []


async def test_handshake_that_the_application_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handshake not finished in time is dropped, and the application told."""
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT", 0.2)
    events: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.send(REQUEST)
        assert await peer.read_to_end(2) == b""
        await all_gone(server)
    assert events[-1] == {"type": "websocket.disconnect", "code": 1006}


# The end


async def test_close_by_the_peer() -> None:
    """The peer's code and reason are told, its code is sent back, and TCP ends."""
    app = Accepting()
    async with wire(app) as server, connect(server.ws("/")) as client:
        await client.close(4321, "enough é")
        assert client.connection.close_code == 4321
        await eventually(lambda: app.end, what="the end")
        await all_gone(server)
    assert app.events == [{"type": "websocket.disconnect", "code": 4321, "reason": "enough é"}]


async def test_close_without_a_code() -> None:
    """A close frame without a code is 1005 to the application, and answered in kind."""
    app = Accepting()
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send_frame(CLOSE, b"")
        assert await rest(peer) == [(CLOSE, b"")]
        await eventually(lambda: app.end, what="the end")
    assert app.events == [{"type": "websocket.disconnect", "code": 1005, "reason": ""}]


@pytest.mark.parametrize("reason", [None, "", "done", "é" * 100])
async def test_close_by_the_application(reason: str | None) -> None:
    """The application's code and reason arrive, a long reason as far as it fits."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4002, "reason": reason})

    app = Accepting(script)
    async with wire(app) as server, connect(server.ws("/")) as client:
        end = await client.wait_closed()
        assert (end.code, end.reason) == (4002, (reason or "")[:61])
        await all_gone(server)
    assert app.end is not None
    assert app.end["code"] == 4002


async def test_return_is_1000() -> None:
    """An application that returns has closed, normally."""
    async with wire(Accepting(listen=False)) as server, connect(server.ws("/")) as client:
        assert (await client.wait_closed()).code == 1000
        await all_gone(server)


async def test_exception_is_1011(caplog: pytest.LogCaptureFixture) -> None:
    """An application that raises after accept ends in 1011, and its traceback is logged."""

    async def script(receive: Receive, send: Send) -> None:
        raise ValueError("boom")

    async with wire(Accepting(script)) as server, connect(server.ws("/")) as client:
        end = await client.wait_closed()
        assert (end.code, end.reason) == (1011, "")
        await all_gone(server)
    assert "boom" in caplog.text


async def test_websocket_exception() -> None:
    """FastAPI's exception ends with its own code."""
    async with wire(fastapi_app()) as server, connect(server.ws("/policy")) as client:
        end = await client.wait_closed()
        assert (end.code, end.reason) == (1008, "against the rules")


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000, 70_000])
async def test_codes_the_application_must_not_send(code: int) -> None:
    """A close code that must not travel is refused where it comes from, and never sent."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": code})

    app = Accepting(script)
    async with wire(app) as server, connect(server.ws("/")) as client:
        assert (await client.wait_closed()).code == 1011
    assert isinstance(app.raised[0], RuntimeError)
    assert str(code) in str(app.raised[0])


@pytest.mark.parametrize("kind", ["websocket.send", "websocket.close"])
async def test_nothing_after_the_applications_close(kind: str) -> None:
    """What an application sends after its own close is its mistake."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})
        await send({"type": kind, "text": "late"})

    app = Accepting(script)
    async with wire(app) as server, connect(server.ws("/")) as client:
        assert (await client.wait_closed()).code == 1000
        await all_gone(server)
    assert [type(error) for error in app.raised] == [RuntimeError]


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start", "nonsense"])
async def test_messages_out_of_place(kind: str) -> None:
    """An ASGI message that has no place raises where it was sent."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": kind, "status": 400})

    app = Accepting(script)
    async with wire(app) as server, connect(server.ws("/")) as client:
        assert (await client.wait_closed()).code == 1011
    assert [type(error) for error in app.raised] == [RuntimeError]


@pytest.mark.parametrize("how", ["close", "reset", "end of stream"])
async def test_send_after_loss_is_an_os_error(how: str) -> None:
    """Sending to a peer that has gone raises a subclass of OSError."""

    async def script(receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.disconnect"
        await send({"type": "websocket.send", "text": "late"})

    app = Accepting(script)
    async with wire(app) as server:
        async with RawPeer(server.port, "/") as peer:
            await peer.handshake()
            if how == "close":
                await peer.send_frame(CLOSE, b"")
            elif how == "reset":
                peer.reset()
        await all_gone(server)
    assert isinstance(app.raised[0], OSError)


@pytest.mark.parametrize("how", ["reset", "end of stream", "half-close", "amid a frame"])
async def test_abrupt_loss_is_1006(how: str) -> None:
    """A connection that ends without a close frame is 1006, and cleaned up at once."""
    app = Accepting()
    async with wire(app) as server:
        async with RawPeer(server.port, "/") as peer:
            await peer.handshake()
            if how == "amid a frame":
                await peer.send(masked_frame(TEXT, b"half")[:-2])
            if how == "half-close":
                peer.half_close()
                assert await peer.read_to_end() == b""
            elif how != "end of stream":
                peer.reset()
        await all_gone(server)
    assert app.events == [{"type": "websocket.disconnect", "code": 1006}]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (b"\x03\xe8\xff", 1007),
        *((struct.pack("!H", code), 1002) for code in (0, 999, 1005, 1006, 1015, 2999, 65535)),
    ],
)
async def test_bad_close_frames(payload: bytes, code: int) -> None:
    """A bad close frame is answered with the code of its fault, never with its own."""
    app = Accepting()
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send_frame(CLOSE, payload)
        ((opcode, answer),) = await rest(peer)
        assert (opcode, answer[:2]) == (CLOSE, struct.pack("!H", code))
        await eventually(lambda: app.end, what="the end")
    assert app.end is not None
    assert app.end["code"] == code


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (masked_frame(3), 1002),
        (masked_frame(TEXT, b"\xff"), 1007),
        (b"\x82\xff" + struct.pack("!Q", 1 << 20), 1009),
        (b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5000, 1008),
    ],
)
async def test_violations(stream: bytes, code: int) -> None:
    """A violation ends the connection with its code, which the application hears too."""
    app = Accepting()
    async with wire(app, ws_max_size=1000) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(masked_frame(TEXT, b"before") + stream)
        ((opcode, payload),) = await rest(peer)
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", code))
        await all_gone(server)
    assert [event.get("text") for event in app.events] == ["before", None]
    assert app.end is not None
    assert app.end["code"] == code


async def test_data_after_close() -> None:
    """After the peer's close nothing is processed, and one close frame goes back."""
    app = Accepting()
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(
            masked_frame(CLOSE, b"\x03\xe8") + masked_frame(TEXT, b"late") + masked_frame(CLOSE)
        )
        assert await rest(peer) == [(CLOSE, b"\x03\xe8")]
        await all_gone(server)
    assert [event["type"] for event in app.events] == ["websocket.disconnect"]


async def test_messages_between_our_close_and_its_answer_are_dropped() -> None:
    """Past its own close the application hears of the end alone."""

    async def script(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4000})

    app = Accepting(script)
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.read(4)
        await peer.send_frame(TEXT, b"late")
        await peer.send_frame(CLOSE, struct.pack("!H", 4000))
        assert await peer.read_to_end() == b""
        await all_gone(server)
    assert [event["code"] for event in app.events] == [4000]


async def test_peer_that_never_answers_our_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not answer our close frame is cut when its time is over."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.3)
    async with wire(Accepting(listen=False)) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        assert await rest(peer, 3) == [(CLOSE, b"\x03\xe8")]
        await all_gone(server)


async def test_unread_messages_do_not_delay_the_end() -> None:
    """The peer's answer to our close is read, though messages wait that nobody will receive."""
    full = asyncio.Event()

    async def script(receive: Receive, send: Send) -> None:
        await full.wait()

    async with wire(Accepting(script, listen=False)) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(masked_frame(TEXT, b"x") * 2000)
        (connection,) = connections(server)
        await eventually(lambda: not connection.transport.is_reading(), what="reading pauses")
        full.set()
        assert frames(await peer.read(4)) == [(CLOSE, b"\x03\xe8")]
        await peer.send_frame(CLOSE, b"\x03\xe8")

        assert await peer.read_to_end(3) == b""
        await all_gone(server)


async def test_server_shutdown() -> None:
    """A server that leaves tells the application and the peer 1012, and waits for neither."""
    app = Accepting()
    async with wire(app) as server, connect(server.ws("/")) as client:
        server.uvicorn.should_exit = True
        assert (await client.wait_closed()).code == 1012
        await eventually(lambda: app.end, what="the end")
    assert app.events == [{"type": "websocket.disconnect", "code": 1012}]


async def test_server_shutdown_during_the_handshake() -> None:
    """A handshake under way when the server leaves is refused with 503."""
    events: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.send(REQUEST)
        await eventually(lambda: events, what="connect")
        server.uvicorn.should_exit = True
        assert (await peer.read_to_end()).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: len(events) == 2, what="the end")


# Pings


async def test_pings_are_answered_while_the_application_is_busy() -> None:
    """A pong needs nothing of the application, and carries the ping's payload."""

    async def script(receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"

    async with wire(Accepting(script, listen=False)) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        for payload in (b"", b"p", b"q" * 125):
            await peer.send_frame(PING, payload)
            assert frames(await peer.read()) == [(PONG, payload)]


async def test_unasked_pongs_are_ignored() -> None:
    """A thousand pongs nobody asked for change nothing."""
    async with wire(echo) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(masked_frame(PONG, b"unasked") * 1000 + masked_frame(TEXT, b"still here"))
        assert frames(await peer.read()) == [(TEXT, b"still here")]


async def test_answered_pings_keep_a_connection() -> None:
    """A peer that answers is pinged again and again, and kept."""
    app = Accepting()
    async with (
        wire(app, ws_ping_interval=0.1, ws_ping_timeout=0.5) as server,
        RawPeer(server.port, "/") as peer,
    ):
        await peer.handshake()
        payloads = set()
        for _ in range(4):
            ((opcode, payload),) = frames(await peer.read())
            assert opcode == PING
            payloads.add(payload)
            await peer.send_frame(PONG, payload)
        assert len(payloads) == 4
        assert app.events == []


async def test_ping_timeout() -> None:
    """A peer that vanished without a word is gone within interval and timeout."""
    app = Accepting()
    async with (
        wire(app, ws_ping_interval=0.3, ws_ping_timeout=0.3) as server,
        Relay(server.port) as relay,
        RawPeer(relay.port, "/") as peer,
    ):
        await peer.handshake()
        relay.freeze()
        loop = asyncio.get_running_loop()
        frozen = loop.time()
        await eventually(lambda: app.end, within=3, what="the timeout")
        # Two appointments, each up to two ticks late, and what a busy machine adds.
        assert loop.time() - frozen < 0.3 + 0.3 + 4 * 0.1 + 0.5
        await all_gone(server, within=2)
    assert app.events == [{"type": "websocket.disconnect", "code": 1006}]


@pytest.mark.parametrize("stuck", [b"\x81", masked_frame(TEXT, b"half")[:-2]])
async def test_ping_timeout_amid_a_frame(stuck: bytes) -> None:
    """A peer stuck in half a frame is told of the ping timeout, and gone."""
    async with (
        wire(Accepting(), ws_ping_interval=0.1, ws_ping_timeout=0.2) as server,
        RawPeer(server.port, "/") as peer,
    ):
        await peer.handshake()
        await peer.send(stuck)
        ping, close = await rest(peer, 3)
        assert ping[0] == PING
        assert close == (CLOSE, struct.pack("!H", 1011) + b"keepalive ping timeout")
        await all_gone(server)


async def test_application_that_never_reads_is_not_the_peers_fault() -> None:
    """While messages wait for the application, pongs behind them are not missed."""
    go_on = asyncio.Event()

    async def script(receive: Receive, send: Send) -> None:
        await go_on.wait()

    app = Accepting(script)
    async with (
        wire(app, ws_ping_interval=0.1, ws_ping_timeout=0.1) as server,
        RawPeer(server.port, "/") as peer,
    ):
        await peer.handshake()
        await peer.send(masked_frame(TEXT, b"x") * 1000)
        pings = 0
        while pings < 4:
            pings += len(frames(await peer.read()))
        assert connections(server)
        # Once the application reads, all of it arrives, and the peer is asked as before.
        go_on.set()
        await peer.send_frame(CLOSE, b"\x03\xe8")
        await eventually(lambda: app.end, what="the end")
    assert len(app.events) == 1001
    assert app.end == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


# Peers that do not read, or send too much


async def test_stalled_reader_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes nothing is cut at the write deadline; `send` raises OSError."""
    monkeypatch.setattr(module, "WRITE_TIMEOUT", 0.3)

    async def script(receive: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1 << 18)})

    app = Accepting(script)
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await all_gone(server)
    assert isinstance(app.raised[0], OSError)


async def test_stalled_reader_does_not_hold_up_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that leaves does not wait for a peer that takes nothing."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.3)

    async def script(receive: Receive, send: Send) -> None:
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(1 << 18)})

    app = Accepting(script)
    async with wire(app, shutdown_timeout=5) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        (connection,) = connections(server)
        await eventually(lambda: not connection.can_write, what="the buffer is full")
        server.uvicorn.should_exit = True
        await all_gone(server, within=3)


async def test_owed_pongs_are_bounded() -> None:
    """A peer that sends pings and reads nothing is owed no more than the write buffer holds."""
    payload = b"p" * 100
    async with wire(echo) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        (connection,) = connections(server)
        most = 0
        chunk = masked_frame(PING, payload) * 1000
        for _ in range(120):
            await peer.send(chunk)
            most = max(most, connection.transport.get_write_buffer_size())
        await peer.send_frame(PING, b"latest")
        await eventually(lambda: connection._owed_pong == b"latest", what="all is parsed")

        assert 0 < most <= 64 * 1024 + 102
        answers = b""
        while not answers.endswith(b"latest"):
            answers += await peer.read()
        assert {opcode for opcode, _ in frames(answers)} == {PONG}
        assert len(frames(answers)) < 120_000


async def test_flood_of_tiny_messages_leaves_room_for_others() -> None:
    """A hundred thousand messages of one byte do not delay a neighbour's echo."""
    received = 0

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        nonlocal received
        if scope["path"] == "/echo":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            received += 1

    async with (
        wire(app) as server,
        connect(server.ws("/echo")) as neighbour,
        RawPeer(server.port, "/flood") as peer,
    ):
        await peer.handshake()
        flood = asyncio.create_task(peer.send(masked_frame(TEXT, b"x") * 100_000, timeout=30))
        loop = asyncio.get_running_loop()
        slowest = 0.0
        meanwhile = 0
        while received < 100_000:
            before = loop.time()
            await neighbour.send("ping")
            assert await neighbour.receive() == "ping"
            slowest = max(slowest, loop.time() - before)
            meanwhile += 1
        await flood
    assert slowest < 0.25
    assert meanwhile >= 10


async def test_message_of_the_limit_and_one_byte_more() -> None:
    """A message of exactly the limit is echoed; one byte more is 1009."""
    async with wire(echo, ws_max_size=100_000) as server, connect(server.ws("/")) as client:
        await client.send(b"a" * 100_000)
        assert await client.receive() == b"a" * 100_000
        await client.send(b"a" * 100_001)
        assert (await client.wait_closed()).code == 1009


async def test_resets_leave_nothing() -> None:
    """A peer that resets, at whatever moment, leaves no connection and no task."""
    stages: list[Any] = [REQUEST[:20], REQUEST[:-1], REQUEST, None, b"\x81", masked_frame(TEXT)]
    async with wire(echo) as server, connect(server.ws("/")) as neighbour:
        for stage in stages * 10:
            async with RawPeer(server.port, "/") as peer:
                if stage is None or not stage.startswith(b"GET"):
                    await peer.handshake()
                await peer.send(stage or b"")
                peer.reset()
        state = server.uvicorn.server_state
        await eventually(
            lambda: len(state.connections) == len(state.tasks) == 1, what="the baseline"
        )
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"


# Around it


async def test_query_strings_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A query string may hold a token: the log has the path alone."""
    app = fastapi_app()
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with wire(app) as server:
            async with connect(server.ws("/echo?token=hush")):
                pass
            for path in ("/closed", "/denied"):
                with pytest.raises(HandshakeRefused):
                    async with connect(server.ws(f"{path}?token=hush")):
                        pass
    lines = [line for line in caplog.messages if "WebSocket" in line]
    assert [line.split(" - ")[1] for line in lines] == [
        '"WebSocket /echo" [accepted]',
        '"WebSocket /closed" 403',
        '"WebSocket /denied" 418',
    ]
    # websockets, as the client, logs its own requests.
    server_side = [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert not any("hush" in record.getMessage() for record in server_side)


@HTTP
async def test_tls(http: str, certificate: tuple[Path, Path]) -> None:
    """Over TLS all is the same, and the scheme says so."""
    schemes: list[str] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    key, own = certificate
    trust = ssl.create_default_context(cafile=str(own))
    async with wire(app, http=http, ssl_keyfile=str(key), ssl_certfile=str(own)) as server:
        async with connect(f"wss://127.0.0.1:{server.port}/", ssl=trust) as client:
            for message in ("hello", b"b" * (1 << 20)):
                await client.send(message)
                assert await client.receive() == message
            await client.close(4000, "bye")
            assert client.connection.close_code == 4000
        async with connect(f"wss://127.0.0.1:{server.port}/", ssl=trust) as client:
            client.cut()
            with pytest.raises(ConnectionClosed):
                await client.receive()
        await all_gone(server)
    assert schemes == ["wss", "wss"]
