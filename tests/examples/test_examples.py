"""Every example of the documentation runs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import httpx
import pytest

from pongee.playground.page import make_token
from pongee.testing import CloseFrame, HandshakeRefused, connect, eventually, serve

pytestmark = pytest.mark.anyio

SECRET = "e" * 40


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import an example anew, so that each test has an application of its own."""
    monkeypatch.setenv("APP_SECRET", SECRET)

    def fresh(name: str) -> Any:
        sys.modules.pop(f"examples.{name}", None)
        return importlib.import_module(f"examples.{name}")

    return fresh


async def test_chat(load: Any) -> None:
    """The README's example."""
    async with serve(load("chat").app) as server, connect(server.ws("/ws/chat/7")) as client:
        await client.send("hello")
        assert await client.receive() == "Room 7: hello"


async def test_typed(load: Any) -> None:
    """A union in, a model out, an answer for what does not fit."""
    async with serve(load("typed").app) as server, connect(server.ws("/ws/game")) as client:
        await client.send_json({"kind": "move", "x": 1, "y": 2})
        assert await client.receive_json() == {"event": "moved to 1,2"}
        await client.send_json({"kind": "fly"})
        assert (await client.receive_json())["code"] == "invalid_message"
        await client.send_json({"kind": "say", "text": "hi"})
        assert await client.receive_json() == {"event": "said hi"}


async def test_direct(load: Any) -> None:
    """Frames by plain calls, with no ASGI call left while the connection lives."""
    wire = "pongee.wire:WireProtocol"
    async with serve(load("direct").app, ws=wire) as server, connect(server.ws("/ws")) as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        await client.send(b"\x00")
        assert await client.receive() == b"\x00"
        assert not server.uvicorn.server_state.tasks


async def test_prices(load: Any) -> None:
    """Publish from an HTTP route to push-only sessions."""
    module = load("prices")
    async with (
        serve(module.app) as server,
        connect(server.ws("/ws/prices")) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        await eventually(lambda: module.pongee.local_channels())
        answer = await http.post(server.http("/prices/ACME?price=9.5"))
        assert answer.json() == {"watching": 1}
        assert await client.receive_json() == {"symbol": "ACME", "price": 9.5}


async def test_accounts(load: Any) -> None:
    """JWT in, refresh, log out."""
    token = make_token(SECRET, "ada", 600)
    async with (
        serve(load("accounts").app) as server,
        connect(server.ws("/ws/account"), subprotocols=["bearer", token]) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        assert await client.receive_json() == {"hello": "ada"}
        await client.send_json({"token": make_token(SECRET, "ada", 900)})
        assert await client.receive_json() == {"refreshed": "ok"}
        await client.send_json({"token": make_token(SECRET, "eve", 900)})
        assert await client.receive_json() == {"refreshed": "no"}
        assert (await http.post(server.http("/logout/ada"))).json() == {"closed": 1}
        assert await client.wait_closed() == CloseFrame(4403, "logged out")


async def test_database(load: Any) -> None:
    """Idle connections hold no database connection, however many there are."""
    module = load("database")
    async with serve(module.app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/ws/notes?user=ada&password=wrong")):
                pass
        assert refused.value.status == 401
        async with connect(server.ws("/ws/notes?user=ada&password=opens-sesame")) as client:
            await client.send("ada")
            assert await client.receive() == "known"
            assert module.open_connections == 0


async def test_the_example_test_passes(load: Any) -> None:
    """The documentation's own test is a test."""
    load("chat")
    sys.modules.pop("examples.test_chat", None)
    await importlib.import_module("examples.test_chat").test_everybody_in_the_room_hears()
