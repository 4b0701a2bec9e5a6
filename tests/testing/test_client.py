"""The client: every wait has a time limit, and a refusal is shown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from pongee.testing import Client, CloseFrame, HandshakeRefused, connect
from tests.testing.echo import listening

pytestmark = pytest.mark.anyio


async def _talk(connection: ServerConnection) -> None:
    """Do what the client says."""
    async for message in connection:
        match message:
            case "close":
                await connection.close(4000, "as you wish")
            case "cut":
                connection.transport.abort()
            case "headers":
                assert connection.request is not None
                await connection.send(str(dict(connection.request.headers.raw_items())))
            case _:
                await connection.send(message)


def _server(**options: Any) -> Any:
    return serve(_talk, "127.0.0.1", 0, **options)


def _url(server: Any) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"


async def test_messages_go_both_ways_as_text_bytes_and_json() -> None:
    """`str` is a text frame, `bytes` a binary one."""
    async with _server() as server, connect(_url(server)) as client:
        await client.send("text")
        await client.send(b"bytes")
        await client.send_json({"a": [1]})

        assert await client.receive() == "text"
        assert await client.receive() == b"bytes"
        assert await client.receive_json() == {"a": [1]}


async def test_token_origin_headers_and_subprotocols_are_sent() -> None:
    """What a test gives is in the handshake."""
    options = {"subprotocols": ["chat", "other"]}
    async with (
        _server(**options) as server,
        connect(
            _url(server),
            token="t0ken",
            origin="https://a.example",
            headers={"X-Test": "1"},
            subprotocols=["other"],
        ) as client,
    ):
        await client.send("headers")
        sent = str(await client.receive())

        assert "'Authorization': 'Bearer t0ken'" in sent
        assert "'Origin': 'https://a.example'" in sent
        assert "'X-Test': '1'" in sent
        assert client.subprotocol == "other"


async def test_close_frame_and_loss_are_told_apart() -> None:
    """1006 means that no close frame came."""
    async with _server() as server:
        async with connect(_url(server)) as client:
            await client.send("unread")
            await client.send("close")
            assert await client.wait_closed() == CloseFrame(4000, "as you wish")
            with pytest.raises(ConnectionClosed):
                await client.receive()
        async with connect(_url(server)) as client:
            await client.send("cut")
            assert await client.wait_closed() == CloseFrame(1006, "")


async def test_cut_ends_without_a_close_frame() -> None:
    """The server sees a connection that is lost."""
    codes: list[int] = []

    async def note(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code or 0)

    async with serve(note, "127.0.0.1", 0) as server:
        async with connect(_url(server)) as client:
            client.cut()
            assert await client.wait_closed() == CloseFrame(1006, "")
        async with connect(_url(server)) as client:
            await client.close(4001, "bye")

    assert codes == [1006, 4001]


async def test_refused_handshake_shows_status_headers_and_body() -> None:
    """A test of a refusal reads all that the peer could read."""

    def refuse(connection: ServerConnection, request: Any) -> Response:
        headers = Headers({"Retry-After": "5", "Content-Length": "12"})
        return Response(429, "Too Many Requests", headers, b'{"detail":1}')

    async with _server(process_request=refuse) as server:
        with pytest.raises(HandshakeRefused, match="HTTP 429: ") as caught:
            async with connect(_url(server)):
                pass

    assert caught.value.status == 429
    assert caught.value.headers["retry-after"] == "5"
    assert caught.value.json() == {"detail": 1}


async def test_receive_and_wait_closed_have_time_limits() -> None:
    """A test fails instead of hanging; one wait may have its own limit."""
    async with _server() as server, connect(_url(server), timeout=0.02) as client:
        with pytest.raises(TimeoutError):
            await client.receive()
        with pytest.raises(TimeoutError):
            await client.wait_closed()
        with pytest.raises(TimeoutError):
            await client.receive(0.01)


async def test_server_that_never_answers_the_handshake_is_given_up() -> None:
    """The time limit covers the handshake as well."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as port:
        with pytest.raises(TimeoutError):
            async with connect(f"ws://127.0.0.1:{port}/ws", timeout=0.05):
                pass


async def test_send_to_a_server_that_does_not_read_has_a_time_limit() -> None:
    """A stalled server does not stall the test."""

    async def asleep(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def flood(client: Client) -> None:
        while True:
            await client.send(b"x" * 1_000_000)

    async with (
        serve(asleep, "127.0.0.1", 0, max_queue=1, max_size=None, close_timeout=0.1) as server,
        connect(_url(server), timeout=0.2, close_timeout=0.1) as client,
    ):
        with pytest.raises(TimeoutError):
            await flood(client)
        client.cut()
