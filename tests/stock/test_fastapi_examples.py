"""FastAPI's documented WebSocket applications, on our class and on uvicorn's default."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import httpx
import pytest

from pongee.testing import HandshakeRefused, connect, eventually
from tests.stock import fastapi_app as examples
from tests.stock.conftest import Stock

pytestmark = pytest.mark.anyio


async def test_page_and_echo_on_one_port(stock: Stock) -> None:
    """The page comes over HTTP, the echo over WebSocket, both from one server."""
    async with (
        stock.serve(examples.simple) as server,
        httpx.AsyncClient(trust_env=False) as browser,
    ):
        page = await browser.get(server.http("/"))
        async with connect(server.ws("/ws")) as client:
            await client.send("hello")
            assert await client.receive() == "You wrote: hello"
            assert (await browser.get(server.http("/"))).text == page.text
    assert page.status_code == 200
    assert "new WebSocket(" in page.text


async def test_plain_request_to_a_websocket_route(stock: Stock) -> None:
    """A request without an upgrade is HTTP, where the route does not exist."""
    async with (
        stock.serve(examples.simple) as server,
        httpx.AsyncClient(trust_env=False) as browser,
    ):
        assert (await browser.get(server.http("/ws"))).status_code == 404
        assert (await browser.post(server.http("/ws"), content=b"x")).status_code == 404
        async with connect(server.ws("/ws")) as client:
            await client.send("hello")
            assert await client.receive() == "You wrote: hello"


async def test_uncaught_disconnect_ends_the_call(
    stock: Stock, caplog: pytest.LogCaptureFixture
) -> None:
    """A route that does not catch the disconnect leaves no call and no connection."""
    async with stock.serve(examples.simple) as server:
        state = server.uvicorn.server_state
        async with connect(server.ws("/ws")) as client:
            await client.send("hello")
            assert await client.receive() == "You wrote: hello"
            await client.close(1001)
            assert client.connection.close_code == 1001
        await eventually(lambda: not state.tasks and not state.connections, what="all has ended")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "WebSocketDisconnect" in caplog.text


@pytest.mark.parametrize(
    ("query", "headers", "known_by"),
    [
        ("?token=fresh", {}, "fresh"),
        ("", {"Cookie": "session=baked"}, "baked"),
        ("?token=fresh", {"Cookie": "a=1; session=baked"}, "baked"),
    ],
)
async def test_cookie_or_token_is_let_in(
    stock: Stock, query: str, headers: dict[str, str], known_by: str
) -> None:
    """A cookie or a query token reaches the dependency, and both the route."""
    async with (
        stock.serve(examples.guarded) as server,
        connect(server.ws(f"/items/spoon/ws{query}"), headers=headers) as client,
    ):
        await client.send("hello")
        assert await client.receive() == f"known by {known_by}"
        assert await client.receive() == "hello for spoon"


async def test_optional_parameter(stock: Stock) -> None:
    """A typed query parameter is converted, and percent-encoding undone."""
    async with (
        stock.serve(examples.guarded) as server,
        connect(server.ws("/items/a%20b/ws?token=%C3%A9&q=3")) as client,
    ):
        await client.send("hello")
        assert [await client.receive() for _ in range(3)] == [
            "known by é",
            "q is 3",
            "hello for a b",
        ]


@pytest.mark.parametrize("query", ["", "?token=fresh&q=three"])
async def test_dependency_turns_away(stock: Stock, query: str) -> None:
    """What a dependency raises before accept, and what validation finds, is 403."""
    async with stock.serve(examples.guarded) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws(f"/items/spoon/ws{query}")):
                pass
    assert refused.value.status == 403


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_manager_broadcasts_and_forgets(stock: Stock, how: str) -> None:
    """Everybody hears everybody, and that somebody left, whichever way."""
    examples.manager.active_connections.clear()
    async with (
        stock.serve(examples.rooms) as server,
        connect(server.ws("/ws/1")) as ada,
        connect(server.ws("/ws/2")) as bob,
    ):
        async with connect(server.ws("/ws/3")) as eve:
            members = examples.manager.active_connections
            await eventually(lambda: len(members) == 3, what="three are here")
            await ada.send("hello")
            assert await ada.receive() == "you: hello"
            for client in (ada, bob, eve):
                assert await client.receive() == "1: hello"
            if how == "close":
                await eve.close()
            else:
                eve.cut()
        for client in (ada, bob):
            assert await client.receive() == "3 left"
        assert len(members) == 2


async def test_manager_with_many_clients(stock: Stock) -> None:
    """A dozen clients get every broadcast of a burst, in order."""
    examples.manager.active_connections.clear()
    async with stock.serve(examples.rooms) as server, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(server.ws(f"/ws/{number}")))
            for number in range(12)
        ]
        burst = [str(number) for number in range(10)]
        for text in burst:
            await clients[0].send(text)
        for client in clients[1:]:
            assert [await client.receive() for _ in burst] == [f"0: {text}" for text in burst]
        for text in burst:
            assert await clients[0].receive() == f"you: {text}"
            assert await clients[0].receive() == f"0: {text}"
