"""The fallback over HTTP: streams down, requests up, and every refusal of theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware

from pongee import Caps, ClientLimits, OriginPolicy, Pongee, public
from pongee.centrifuge import protobuf_codec
from pongee.centrifuge.http_streams import _EmulationMessage
from pongee.centrifuge.messages import Command, Reply
from pongee.centrifuge.protobuf_schema import CLASSES
from pongee.testing import ManualClock, RawPeer, Server, eventually, serve

pytestmark = pytest.mark.anyio

CONNECT = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room"}}'
ELSEWHERE = "https://app.example.com"
HTTP = {"uvicorn": {"http": "httptools"}, "h11": {"http": "h11"}}
HTTP["wire"] = {"http": "pongee.wire.http:HeadProtocol"}


class Message(BaseModel):
    """What is said."""

    text: str


class Desk:
    """An application that speaks the fallback."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        self.pongee = Pongee(clock=self.clock, caps=Caps(max_connections=3))
        self.pongee.connection(
            auth=public, origins=OriginPolicy([ELSEWHERE]), limits=ClientLimits(**limits)
        )
        self.room = self.pongee.channel(
            "room", Message, presence=True, may_subscribe=public, may_publish="subscribers"
        )
        self.app = FastAPI()

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
        """Serve it, with a client for its address."""
        self.pongee.install(self.app)
        async with (
            serve(self.app, **options) as server,
            httpx.AsyncClient(base_url=server.http(""), timeout=5) as http,
        ):
            yield server, http


class Stream:
    """One stream, message by message."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            async for line in self._lines:
                text = line.removeprefix("data: ")
                if text.strip():
                    message: dict[str, Any] = json.loads(text)
                    return message
        raise AssertionError("the stream has ended")

    async def end(self) -> None:
        async with asyncio.timeout(5):
            async for line in self._lines:
                assert not line.strip(), line


@asynccontextmanager
async def stream_of(http: httpx.AsyncClient, kind: str) -> AsyncIterator[tuple[Stream, Any]]:
    """Open a stream of one kind and see its first two replies; gives it and the connect result."""
    if kind == "sse":
        opening = http.stream("GET", "/connection/sse", params={"cf_connect": CONNECT})
    else:
        opening = http.stream("POST", "/connection/http_stream", content=CONNECT)
    async with opening as response:
        assert response.status_code == 200
        stream = Stream(response)
        connected = (await stream.next())["connect"]
        assert (await stream.next())["id"] == 2
        yield stream, connected


async def emulate(http: httpx.AsyncClient, connected: Any, *commands: dict[str, Any]) -> int:
    frame = "\n".join(map(json.dumps, commands))
    body = {"node": connected["node"], "session": connected["session"], "data": frame}
    return (await http.post("/emulation", json=body)).status_code


@pytest.mark.parametrize("server", HTTP)
@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_conversation(kind: str, server: str) -> None:
    """Connect and subscribe in the first request; publish, ping and pong through the inlet."""
    desk = Desk()
    async with desk.open(**HTTP[server]) as (_, http):
        async with stream_of(http, kind) as (stream, connected):
            assert len(connected["session"]) >= 32
            headers = stream.response.headers
            assert headers["x-accel-buffering"] == "no"
            assert "no-store" in headers["cache-control"]
            say = {"channel": "room", "data": {"text": "grüß dich 😀\nzwei"}}
            assert await emulate(http, connected, {"id": 3, "publish": say}) == 204
            messages = [await stream.next(), await stream.next()]
            assert {"id": 3, "publish": {}} in messages
            (push,) = (one["push"] for one in messages if "push" in one)
            assert push["pub"]["data"] == say["data"]
            (client,) = desk.pongee._node.registry
            while not client._pinged:  # type: ignore[attr-defined]
                desk.clock.advance(1)
            assert await stream.next() == {}
            assert await emulate(http, connected, {}) == 204
            await eventually(lambda: not client._pinged, what="the pong")  # type: ignore[attr-defined]
        # The client went away: it is gone from the room at once.
        await eventually(lambda: desk.pongee.local_channels() == {}, what="it has left")
        assert (await desk.pongee.presence_stats("room")).clients == 0
        assert desk.pongee._node.service.sessions == {}
        assert await emulate(http, connected, {}) == 204  # its stream has told it


@pytest.mark.parametrize("server", HTTP)
async def test_conversation_in_protobuf(server: str) -> None:
    """Length-prefixed messages down, and an inlet in Protobuf."""
    desk = Desk()
    binary = {"Content-Type": "application/octet-stream"}

    def command(**fields: Any) -> bytes:
        data = CLASSES[Command](**fields).SerializeToString()
        return bytes([len(data)]) + data

    def replies(data: bytes) -> list[Any]:
        found = []
        while data:
            size = data[0] if data[0] < 128 else data[0] - 128 + 128 * data[1]
            head = 1 if data[0] < 128 else 2
            found.append(CLASSES[Reply].FromString(data[head : head + size]))
            data = data[head + size :]
        return found

    async with (
        desk.open(**HTTP[server]) as (_, http),
        http.stream(
            "POST", "/connection/http_stream", content=command(id=1, connect={}), headers=binary
        ) as response,
    ):
        chunks = response.aiter_bytes()
        (connected,) = replies(await anext(chunks))
        body = _EmulationMessage(
            node=connected.connect.node,
            session=connected.connect.session,
            data=command(id=2, subscribe={"channel": "room"}),
        )
        answer = await http.post("/emulation", content=body.SerializeToString(), headers=binary)
        assert answer.status_code == 204
        (subscribed,) = replies(await anext(chunks))
        assert subscribed.id == 2
        await desk.room.publish(Message(text="hi"))
        (pushed,) = replies(await anext(chunks))
        assert json.loads(pushed.push.pub.data) == {"text": "hi"}
        # A frame in JSON is not for this client.
        text = {"node": connected.connect.node, "session": connected.connect.session, "data": "{"}
        assert (await http.post("/emulation", json=text)).status_code == 400
        assert desk.pongee.local_channels() == {"room": 1}
    assert protobuf_codec.PING == b"\0"


@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_server_ends_a_stream_with_a_farewell(kind: str) -> None:
    """A disconnect push, then the end of the body; draining does the same."""
    desk = Desk()
    async with desk.open() as (_, http):
        async with stream_of(http, kind) as (stream, connected):
            await desk.pongee.disconnect(id=connected["client"], code=4123, reason="go")
            assert (await stream.next())["push"]["disconnect"] == {"code": 4123, "reason": "go"}
            await stream.end()
        async with stream_of(http, kind) as (stream, _):
            drain = asyncio.ensure_future(desk.pongee.drain(0))
            await asyncio.sleep(0)
            desk.clock.advance(1)
            push = (await stream.next())["push"]
            assert push["disconnect"] == {"code": 3001, "reason": "shutdown"}
            await stream.end()
            await drain
        answer = await http.post("/connection/http_stream", content=CONNECT)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_wrong_command_ends_the_stream() -> None:
    """With the code a WebSocket would be closed with."""
    async with (
        Desk().open() as (_, http),
        http.stream("POST", "/connection/http_stream", content="{") as response,
    ):
        stream = Stream(response)
        push = (await stream.next())["push"]
        assert push["disconnect"] == {"code": 3501, "reason": "bad request"}
        await stream.end()


async def test_statuses() -> None:
    """Each wrong request is told so."""
    async with Desk(max_message_size=1000).open() as (_, http):
        for method, path, options, status in (
            ("GET", "/connection/http_stream", {}, 405),
            ("PUT", "/connection/sse", {}, 405),
            ("GET", "/emulation", {}, 405),
            ("POST", "/connection/http_stream", {"content": b""}, 400),
            ("GET", "/connection/sse", {}, 400),
            ("POST", "/connection/http_stream", {"content": b"x" * 1001}, 413),
            ("GET", "/connection/sse", {"params": {"cf_connect": "x" * 1001}}, 413),
            ("POST", "/emulation", {"content": b"x" * 1001}, 413),
            ("POST", "/emulation", {"content": b"{"}, 400),
            ("POST", "/emulation", {"json": {"node": "n", "session": "s"}}, 400),
            ("POST", "/emulation", {"json": {"node": "n", "session": "s", "data": {}}}, 400),
            ("POST", "/emulation", {"json": {"node": "n", "session": "s", "data": "{}"}}, 404),
            (
                "POST",
                "/emulation",
                {"content": b"\xff", "headers": {"Content-Type": "application/octet-stream"}},
                400,
            ),
        ):
            answer = await http.request(method, path, **options)
            assert answer.status_code == status, (method, path, answer.text)


async def test_other_origins_get_what_a_browser_asks_for_or_nothing() -> None:
    """An allowed one is named, with credentials; others are refused, at every route."""
    desk = Desk()
    async with desk.open() as (_, http):
        allowed, refused = {"Origin": ELSEWHERE}, {"Origin": "https://evil.example"}
        for path in ("/connection/http_stream", "/connection/sse", "/emulation"):
            answer = await http.options(path, headers=allowed)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == ELSEWHERE
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == "content-type"
            assert (await http.options(path, headers=refused)).status_code == 403
            answer = await http.post(path, content=CONNECT, headers=refused)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        async with http.stream(
            "POST", "/connection/http_stream", content=CONNECT, headers=allowed
        ) as response:
            assert response.headers["access-control-allow-origin"] == ELSEWHERE
            assert response.headers["access-control-allow-credentials"] == "true"


async def test_streams_count_as_connections() -> None:
    """The cap of the process holds for them, and a place is free again after."""
    desk = Desk()
    async with desk.open() as (_, http):
        async with (
            stream_of(http, "sse"),
            stream_of(http, "http_stream"),
            stream_of(http, "sse"),
        ):
            answer = await http.post("/connection/http_stream", content=CONNECT)
            assert answer.status_code == 503
        await eventually(
            lambda: desk.pongee._node.capacity.connections == 0, what="their places are free"
        )


async def test_compression_does_not_hold_messages_back() -> None:
    """A middleware that compresses responses lets streams through."""
    desk = Desk()
    desk.app.add_middleware(GZipMiddleware, minimum_size=1)
    async with desk.open() as (_, http), stream_of(http, "http_stream") as (stream, _connected):
        await desk.room.publish(Message(text="x" * 5000))
        assert (await stream.next())["push"]["pub"]["data"] == {"text": "x" * 5000}


async def test_reader_that_stalls_is_let_go() -> None:
    """What waits for it is bounded, and the room forgets it."""
    desk = Desk(outbox_messages=10, write_deadline=5, close_timeout=2)
    async with desk.open() as (server, _), RawPeer(server.port, "/") as peer:
        body = CONNECT.encode()
        head = f"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        await peer.send(head.encode() + b"\r\n\r\n" + body)
        await eventually(lambda: desk.pongee.local_channels() == {"room": 1}, what="it is in")
        published = 0
        while desk.pongee.local_channels():
            await desk.room.publish(Message(text="x" * 50_000))
            await asyncio.sleep(0)
            published += 1
            assert published < 3000
        for _ in range(20):
            desk.clock.advance(1)
            await asyncio.sleep(0)
        await eventually(lambda: not desk.pongee._node.runtime.unfinished, what="it is forgotten")


async def test_tokens_in_the_address_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The connect command of ``sse`` may hold one."""
    secret = "a-token-that-nobody-may-read"
    async with Desk().open() as (_, http):
        command = '{"id":1,"connect":{"token":"' + secret + '"}}'
        async with http.stream(
            "GET", "/connection/sse", params={"cf_connect": command}
        ) as response:
            push = (await Stream(response).next())["push"]
            assert push["disconnect"]["code"] == 3500
    assert secret not in "".join(r.getMessage() for r in caplog.records if r.name != "httpx")


async def test_payloads_travel_through_untouched() -> None:
    """Escaped where they must be, and else as they were: numbers that no parser keeps, too."""
    desk = Desk()
    desk.pongee.channel("any", Any, may_subscribe=public)
    connect = CONNECT.replace('"room"', '"any"')
    async with (
        desk.open() as (_, http),
        http.stream("POST", "/connection/http_stream", content=connect) as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        await anext(lines)
        await desk.pongee.publish("any", {"big": 12345678901234567890123, "text": "é😀"})
        async with asyncio.timeout(5):
            pushed = await anext(lines)
    assert '{"big":12345678901234567890123,"text":"\\u00e9\\ud83d\\ude00"}' in pushed


async def test_client_that_leaves_in_its_request_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody can fill the log by that."""
    async with Desk().open() as (server, http):
        for path in ("/connection/http_stream", "/emulation"):
            async with RawPeer(server.port, "/") as peer:
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
                await peer.send(head.encode())
                peer.reset()
        assert (await http.post("/emulation", content=b"{")).status_code == 400
    assert "Exception" not in caplog.text
