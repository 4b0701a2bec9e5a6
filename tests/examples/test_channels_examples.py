"""Every example of the pages about channels runs, against the Python SDK or frames by hand."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest

import centrifuge
from pongee.testing import Client, CloseFrame, Server, connect, eventually, serve

pytestmark = pytest.mark.anyio

SECRET = "e" * 40
PATH = "/connection/websocket"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import an example anew, so that each test has an application of its own."""
    monkeypatch.setenv("APP_SECRET", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the Python SDK asks the environment

    def fresh(name: str) -> Any:
        sys.modules.pop(f"examples.{name}", None)
        return importlib.import_module(f"examples.{name}")

    return fresh


def token(user: str, **claims: Any) -> str:
    """Make a connection token."""
    return jwt.encode({"sub": user, "exp": time.time() + 60, **claims}, SECRET)


class Talk:
    """Commands and pushes as JSON lines."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pushes: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        self._id = 0

    async def next(self) -> dict[str, Any]:
        """Take the next line."""
        while not self._lines:
            text = await self.client.receive()
            assert isinstance(text, str)
            self._lines = [json.loads(line) for line in text.split("\n") if line]
        return self._lines.pop(0)

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command; returns its reply, and notes the pushes before it."""
        self._id += 1
        await self.client.send_json({"id": self._id, **command})
        while (line := await self.next()).get("id") != self._id:
            self.pushes += [line["push"]] if "push" in line else []
        return line

    async def push(self, kind: str) -> dict[str, Any]:
        """Wait for a push of one kind."""
        while True:
            for number, push in enumerate(self.pushes):
                if kind in push:
                    return self.pushes.pop(number)
            line = await self.next()
            self.pushes += [line["push"]] if "push" in line else []


@asynccontextmanager
async def talk(server: Server, user: str = "", **request: Any) -> AsyncIterator[Talk]:
    """Connect as `user`; the reply is the first push."""
    async with connect(server.ws(PATH)) as client:
        one = Talk(client)
        wish = {"token": token(user), **request} if user else request
        reply = await one.ask(connect=wish)
        one.pushes.insert(0, {"connected": reply.get("connect")})
        yield one


async def test_rooms(load: Any) -> None:
    """The README's example, with the README's client."""
    module, client_module = load("rooms"), load("channels_client")
    heard: list[Any] = []

    async def hear(ctx: centrifuge.PublicationContext) -> None:
        heard.append(ctx.pub.data)

    events = centrifuge.SubscriptionEventHandler()
    events.on_publication = hear
    async with serve(module.app) as server, httpx.AsyncClient(trust_env=False) as http:
        ear = centrifuge.Client(server.ws(PATH), token=token("bob"), proxy=None)
        room = ear.new_subscription("chat:7", events=events)
        await ear.connect()
        await room.subscribe()
        await room.ready(timeout=10)
        speaker = asyncio.create_task(client_module.main(server.ws(PATH), token("ada")))
        await eventually(lambda: heard == ["hello from Python"])
        await room.publish("darn it")
        await eventually(lambda: heard[1:] == ["*** it"])
        present = await module.pongee.presence("chat:7")
        assert {one.user for one in present.values()} == {"ada", "bob"}
        answer = await http.post(server.http("/rooms/7?text=welcome"))
        assert answer.json() == {"offset": 3}
        await eventually(lambda: heard[2:] == ["welcome"])
        assert len((await module.pongee.history("chat:7")).publications) == 3
        await ear.disconnect()
        speaker.cancel()


async def test_rooms_refuse(load: Any) -> None:
    """Without a token nobody comes; without a subscription nobody publishes."""
    async with serve(load("rooms").app) as server:
        async with connect(server.ws(PATH)) as client:
            await client.send_json({"id": 1, "connect": {}})
            assert (await client.wait_closed()).code == 3501
        async with talk(server, "ada") as ada:
            reply = await ada.ask(publish={"channel": "chat:7", "data": "hi"})
            assert reply["error"]["code"] == 103
            await ada.ask(subscribe={"channel": "chat:7"})
            reply = await ada.ask(publish={"channel": "chat:7", "data": "x" * 501})
            assert reply["error"]["code"] == 107
            assert (await ada.ask(subscribe={"channel": "other"}))["error"]["code"] == 102


async def test_members(load: Any) -> None:
    """Dependencies open and close around each event; handlers refuse, change and answer."""
    module = load("channels_members")
    async with serve(module.app) as server, talk(server, "ada") as ada, talk(server, "eve") as eve:
        reply = await ada.ask(subscribe={"channel": "project:1", "data": {"from": "here"}})
        assert reply["subscribe"]["data"] == {
            "hello": "ada",
            "project": 1,
            "you_sent": {"from": "here"},
        }
        assert module.open_connections == 0
        reply = await eve.ask(subscribe={"channel": "project:1"})
        assert reply["error"] == {"code": 103, "message": "you do not belong to this project"}
        assert (await eve.ask(presence={"channel": "project:1"}))["error"]["code"] == 103
        assert (await eve.ask(subscribe={"channel": "project:x"}))["error"]["code"] == 102
        await ada.ask(publish={"channel": "project:1", "data": {"text": "hi", "by": "eve"}})
        assert (await ada.push("pub"))["pub"]["data"] == {"text": "hi", "by": "ada"}
        reply = await ada.ask(publish={"channel": "project:1", "data": {"text": " "}})
        assert reply["error"] == {"code": 400, "message": "say something"}
        assert (await ada.ask(history={"channel": "project:1"}))["error"]["code"] == 103
        assert module.open_connections == 0


async def test_connection(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens, a personal channel, what the server subscribes to, RPC, and the end."""
    module = load("channels_connection")
    async with (
        serve(module.app) as server,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        shown = (await http.post(server.http("/tokens/ada"))).json()
        deal = (await http.post(server.http("/tokens/ada/deals/9"))).json()
        async with talk(server, "ada", token=shown, data="hi", name="raw") as ada:
            connected = (await ada.push("connected"))["connected"]
            assert connected["data"] == {"you": "ada", "you_sent": "hi"}
            assert set(connected["subs"]) == {"#ada", "news"}
            assert connected["expires"]
            assert 590 <= connected["ttl"] <= 600
            await module.pongee.publish("#ada", {"for": "you"})
            assert (await ada.push("pub"))["pub"]["data"] == {"for": "you"}
            reply = await ada.ask(rpc={"method": "add", "data": {"numbers": [1, 2]}})
            assert reply["rpc"] == {"data": 3}
            reply = await ada.ask(subscribe={"channel": "$deal:9"})
            assert reply["error"]["code"] == 103
            reply = await ada.ask(subscribe={"channel": "$deal:9", "token": deal})
            assert reply["subscribe"]["expires"]
        async with talk(server) as anonymous:
            connected = (await anonymous.push("connected"))["connected"]
            assert connected["data"]["you"] is None
            assert set(connected["subs"]) == {"news"}
            reply = await anonymous.ask(subscribe={"channel": "#ada"})
            assert reply["error"]["code"] == 103
        await eventually(lambda: not module.pongee.connections())
    assert "ended:" in capsys.readouterr().out


async def test_control(load: Any) -> None:
    """Publish in every way, look, and act on who is connected."""
    module = load("channels_control")
    async with (
        serve(module.app) as server,
        httpx.AsyncClient(trust_env=False, base_url=server.http("")) as http,
        talk(server, "ada") as ada,
    ):
        await ada.ask(subscribe={"channel": "orders:north"})
        first = (await http.post("/orders/north/17")).json()
        assert (await http.post("/orders/north/17")).json() == first
        pub = (await ada.push("pub"))["pub"]
        assert pub["data"] == {"order": "17"}
        assert pub["tags"] == {"kind": "order"}
        assert pub["offset"] == first[0] == 1
        assert [place[0] for place in (await http.post("/closing-time")).json()] == [2, 1]
        assert (await http.post("/orders/north/18/sync")).json()[0] == 3
        assert (await ada.push("pub"))["pub"]["offset"] == 2
        look = (await http.get("/orders/north")).json()
        assert look["there"] == ["ada"]
        assert look["users"] == 1
        assert look["offset"] == 3
        assert json.loads(look["newest"][0]) == {"order": "18"}
        assert (await http.post("/staff/ada/assign?shop=south")).json() == 1
        assert (await ada.push("subscribe"))["channel"] == "orders:south"
        assert (await http.post("/staff/ada/remove")).json() == 1
        assert (await ada.push("unsubscribe"))["unsubscribe"]["code"] == 2000
        assert (await http.post("/staff/ada/extend")).json() == 1
        assert (await http.post("/staff/ada/fire")).json() == 1
        assert await ada.client.wait_closed() == CloseFrame(3503, "force disconnect")


async def test_sessions_and_channels_meet(load: Any) -> None:
    """A device's reading reaches an SDK client, and both are present."""
    module = load("channels_meet")
    async with (
        serve(module.app) as server,
        connect(server.ws("/ws/device/4")) as device,
        talk(server) as browser,
    ):
        await browser.ask(subscribe={"channel": "sensor:4"})
        await device.send_json({"celsius": 21.5})
        assert (await browser.push("pub"))["pub"]["data"] == {"celsius": 21.5}
        assert await device.receive_json() == {"celsius": 21.5}
        assert (await module.pongee.presence_stats("sensor:4")).clients == 2


async def test_cache(load: Any) -> None:
    """Whoever comes gets the newest value, and only that."""
    async with (
        serve(load("channels_cache").app) as server,
        httpx.AsyncClient(trust_env=False, base_url=server.http("")) as http,
        talk(server) as one,
    ):
        early = (await one.ask(subscribe={"channel": "score:cup"}))["subscribe"]
        assert early["was_recovering"]
        assert "recovered" not in early
        for home in (1, 2):
            assert (await http.post("/games/cup", json={"home": home, "away": 0})).is_success
        async with talk(server) as late:
            reply = (await late.ask(subscribe={"channel": "score:cup"}))["subscribe"]
            assert [pub["data"]["home"] for pub in reply["publications"]] == [2]
            assert reply["recovered"]
        await one.ask(subscribe={"channel": "ticker"})
        assert (await http.post("/prices/ACME?price=9.5")).is_success
        while (push := await one.push("pub"))["channel"] != "ticker":
            pass
        assert push["pub"]["data"] == {"ACME": 9.5}
