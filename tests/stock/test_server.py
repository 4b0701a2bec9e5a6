"""What the server around an application gives it: settings, state, limits, the end of everything.

On our class and on uvicorn's default, with plain ASGI applications.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from pongee.testing import HandshakeRefused, RawPeer, connect, eventually
from tests.stock.conftest import Stock

pytestmark = pytest.mark.anyio


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(event | {"type": "websocket.send"})


# Settings


@pytest.mark.parametrize("server_header", [True, False])
async def test_server_header(stock: Stock, server_header: bool) -> None:
    """The server names itself, or not."""
    async with (
        stock.serve(echo, lifespan="off", server_header=server_header) as server,
        connect(server.ws("/")) as client,
    ):
        assert client.connection.response is not None
        headers = client.connection.response.headers
        assert headers.get_all("Server") == ["uvicorn"] * server_header
        assert len(headers.get_all("Date")) == 1


async def test_messages_up_to_the_default_limit(stock: Stock) -> None:
    """Sixteen MiB come back as they went; a byte more is 1009."""
    largest = bytes(range(256)) * (1 << 16)
    async with (
        stock.serve(echo, lifespan="off") as server,
        connect(server.ws("/"), timeout=30) as client,
    ):
        await client.send(largest)
        assert await client.receive() == largest
        with suppress(ConnectionClosed):  # it may be refused from the header alone
            await client.send(largest + b"x")
        assert (await client.wait_closed()).code == 1009


@pytest.mark.parametrize("fragments", [1, 3, 64])
async def test_limit_counts_all_fragments(stock: Stock, fragments: int) -> None:
    """A message in fragments is held to the same limit: 3 KiB pass and 3 KiB and a byte do not."""
    part = b"x" * (3072 // fragments)
    async with (
        stock.serve(echo, lifespan="off", ws_max_size=len(part) * fragments) as server,
        connect(server.ws("/")) as client,
    ):
        await client.connection.send([part] * fragments)
        assert await client.receive() == part * fragments
        await client.connection.send([part] * fragments + [b"x"])
        assert (await client.wait_closed()).code == 1009


@pytest.mark.parametrize("allowed", [True, False])
async def test_client_that_offers_compression(stock: Stock, allowed: bool) -> None:
    """Offered compression works whether taken up or not, and is not where it was switched off."""
    async with (
        stock.serve(echo, lifespan="off", ws_per_message_deflate=allowed) as server,
        connect(server.ws("/"), extensions=[ClientPerMessageDeflateFactory()]) as client,
    ):
        for data in ("", "a", "ab" * 50_000, b"\x00" * 100_000, "é😀" * 100):
            await client.send(data)
            assert await client.receive() == data
        await client.connection.send(["abc"] * 100)
        assert await client.receive() == "abc" * 100
        assert client.connection.response is not None
        if not allowed:
            assert "Sec-WebSocket-Extensions" not in client.connection.response.headers


async def test_lifespan_state_is_a_shallow_copy(stock: Stock) -> None:
    """Each connection has the lifespan's state of its own, with the objects in it shared."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"] |= {"number": 1, "shared": []}
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        seen.append({"number": scope["state"]["number"], "shared": [*scope["state"]["shared"]]})
        scope["state"]["number"] = 2
        scope["state"]["shared"].append("x")
        await echo(scope, receive, send)

    async with stock.serve(app) as server:
        for _ in range(2):
            async with connect(server.ws("/")):
                pass
    assert seen == [{"number": 1, "shared": []}, {"number": 1, "shared": ["x"]}]


async def test_unix_socket(stock: Stock, tmp_path: Path) -> None:
    """On a Unix socket the scope says where, and all else is as usual."""
    path = str(tmp_path / "s")
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    config = uvicorn.Config(app, ws=stock.ws, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started, what="the server starts")
        async with unix_connect(path, "ws://localhost/", compression=None) as client:
            await client.send("hello")
            async with asyncio.timeout(5):
                assert await client.recv() == "hello"
    finally:
        server.should_exit = True
        await asyncio.wait({running}, timeout=10)
        listener.close()
    assert [(scope["server"], scope["client"]) for scope in scopes] == [((path, None), None)]


# The application's view of the end


@pytest.mark.parametrize("kind", ["accept", "close", "http.response.start"])
async def test_client_that_leaves_before_accept(stock: Stock, kind: str) -> None:
    """Who leaves during the handshake is told as 1006, and answering is an OSError then."""
    received: list[Any] = []
    raised: list[BaseException] = []
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        received.append(await receive())
        try:
            await send({"type": f"websocket.{kind}", "status": 401, "headers": []})
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            gone.set()

    async with stock.serve(app, lifespan="off") as server:
        async with RawPeer(server.port, "/") as peer:
            handshake = asyncio.create_task(peer.handshake())
            await eventually(lambda: received, what="the application is called")
            handshake.cancel()
            await asyncio.wait({handshake})
            peer.reset()
        async with asyncio.timeout(5):
            await gone.wait()
        state = server.uvicorn.server_state
        await eventually(lambda: not state.tasks and not state.connections, what="all is over")
    assert received == [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1006},
    ]
    assert [isinstance(error, OSError) for error in raised] == [True]


async def test_sender_without_a_receiver_notices(stock: Stock) -> None:
    """An application that only sends is told by an OSError that its client has gone."""
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.005)
        except OSError as error:
            raised.append(error)

    async with stock.serve(app, lifespan="off") as server:
        async with connect(server.ws("/")) as client:
            assert await client.receive() == "tick"
            client.cut()
        await eventually(lambda: raised, what="the OSError")


async def test_slow_reader_holds_up_its_sender(stock: Stock) -> None:
    """`send` waits for a client that does not read, and goes on when it does."""
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(200):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1
        await send({"type": "websocket.close"})

    async with stock.serve(app, lifespan="off") as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        before = -1
        while before != sent or not sent:  # until it does not get on
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 200

        size = 0
        while size < 200 * (100_000 + 10):
            size += len(await peer.read())
        await eventually(lambda: sent == 200, what="all is sent")


async def test_shutdown_with_many_connections(stock: Stock) -> None:
    """Everybody is told 1012: twenty clients, and twenty application calls."""
    told: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told.append((await receive())["code"])

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(stock.serve(app, lifespan="off"))
        clients = [await stack.enter_async_context(connect(server.ws("/"))) for _ in range(20)]
        server.uvicorn.should_exit = True
        assert [(await client.wait_closed()).code for client in clients] == [1012] * 20
        await eventually(lambda: len(told) == 20, what="every call is told")
    assert told == [1012] * 20


async def test_receive_after_the_end_does_not_hang(stock: Stock) -> None:
    """Asking again after the disconnect tells of it again, or raises; the call does not hang."""
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            for _ in range(2):
                assert (await receive())["type"] == "websocket.disconnect"
        finally:
            ended.set()

    async with stock.serve(app, lifespan="off") as server:
        async with connect(server.ws("/")):
            pass
        async with asyncio.timeout(1):
            await ended.wait()


async def test_refusing_leaves_the_server_as_it_was(stock: Stock) -> None:
    """A hundred refused handshakes leave no connection and no call."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with stock.serve(app, lifespan="off") as server:
        for _ in range(100):
            with pytest.raises(HandshakeRefused):
                async with connect(server.ws("/")):
                    pass
        state = server.uvicorn.server_state
        await eventually(lambda: not state.tasks and not state.connections, what="nothing is left")
