"""The official JavaScript SDK in a real browser, in both encodings."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from playwright.async_api import Page, async_playwright

from pongee import Client, ClientLimits, JWTBearer, Pongee, Settings, public
from pongee.testing import Relay, serve
from tests.browser.conftest import FLAGS
from tests.conftest import require_tool

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

SDK = Path(__file__).parent / "javascript" / "node_modules" / "centrifuge" / "dist"
SECRET = "a secret that is long enough for HS256"
BUILDS = {"json": "centrifuge.js", "protobuf": "centrifuge.protobuf.js"}

PAGE = """<!doctype html><title>SDK</title><script src="/sdk/{build}"></script><script>
const events = [];
const binary = '{build}'.includes('protobuf');  // where payloads are bytes, for the page to read
const pack = (value) => binary ? new TextEncoder().encode(JSON.stringify(value)) : value;
const unpack = (data) =>
  data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data) || 'null') : data;
const note = (kind) => (context) =>
  events.push({{...JSON.parse(JSON.stringify({{...context, data: null}})),
               kind, data: unpack(context.data)}});
let client, room;
function start(options) {{
  client = new Centrifuge(`ws://${{location.host}}/connection/websocket`, {{
    minReconnectDelay: 50, maxReconnectDelay: 200, ...options,
    getToken: async () => (await (await fetch('/token')).json()).token,
  }});
  for (const kind of ['connecting', 'connected', 'disconnected', 'message'])
    client.on(kind, note(kind));
  room = client.newSubscription('chat:7', {{joinLeave: true}});
  for (const kind of ['subscribed', 'unsubscribed', 'publication', 'join', 'leave'])
    room.on(kind, note(kind));
  room.subscribe();
  client.connect();
}}
async function refused(promise) {{
  try {{ await promise; return null; }} catch (error) {{ return error.code; }}
}}
</script>"""


class World:
    """An application, the page that uses it, and the line between them."""

    def __init__(self, build: str) -> None:
        self.pongee = Pongee(Settings())
        self.app = FastAPI()
        self.tokens = 0
        self.lifetime = 60.0
        connection = self.pongee.connection(
            auth=JWTBearer(SECRET, leeway=0),
            ping_interval=1.0,
            pong_timeout=0.5,
            limits=ClientLimits(expiry_grace=2),
        )
        self.room = self.pongee.channel(
            "chat:{room_id:int}",
            dict[str, Any],
            history=100,
            presence=True,
            join_leave=True,
            may_subscribe=public,
            may_publish="subscribers",
            may_see_presence="subscribers",
            may_read_history="subscribers",
        )

        @connection.on_connect
        async def greet(client: Client) -> dict[str, str | None]:
            return {"you": client.user}

        @self.pongee.rpc("add")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        @self.app.get("/token")
        async def token() -> dict[str, str]:
            self.tokens += 1
            claims = {"sub": "ann", "exp": time.time() + self.lifetime}
            return {"token": jwt.encode(claims, SECRET)}

        @self.app.get("/")
        async def page() -> HTMLResponse:
            return HTMLResponse(PAGE.format(build=BUILDS[build]))

        self.app.mount("/sdk", StaticFiles(directory=SDK))
        self.pongee.install(self.app)

    server: ClassVar[dict[str, Any]] = {}

    @asynccontextmanager
    async def open(self, chromium: str) -> AsyncIterator[tuple[Page, Relay]]:
        """Serve, and open the page behind a relay."""
        async with (
            serve(self.app, **self.server) as server,
            Relay(server.port) as relay,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            try:
                page = await browser.new_page()
                page.set_default_timeout(10_000)
                await page.goto(f"http://127.0.0.1:{relay.port}/")
                yield page, relay
            finally:
                await browser.close()


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> str:
    """Which encoding the SDK speaks; its files come with `make tools`."""
    path = SDK / BUILDS[request.param]
    require_tool(str(path) if path.exists() else None, "the JavaScript SDK", "make tools")
    return str(request.param)


@pytest.fixture
def chromium() -> str:
    """Where Chromium is."""
    return require_tool(shutil.which("chromium"), "Debian's chromium", "apt-get install chromium")


async def seen(page: Page, condition: str) -> Any:
    """Wait until `condition` over ``events`` holds in the page; returns its value."""
    return await (await page.wait_for_function(condition)).json_value()


async def test_connect_publish_ask_and_call(build: str, chromium: str) -> None:
    """Everything a room needs, and the answers to what is wrong."""
    world = World(build)
    async with world.open(chromium) as (page, _):
        await page.evaluate("start({})")
        assert await seen(page, "events.find(e => e.kind === 'connected')?.data.you") == "ann"
        await seen(page, "events.find(e => e.kind === 'subscribed')")
        await seen(page, "events.find(e => e.kind === 'join' && e.info.user === 'ann')")

        await page.evaluate("room.publish(pack({text: 'grüß dich 😀'}))")
        assert (
            await seen(page, "events.find(e => e.kind === 'publication')?.data.text")
            == "grüß dich 😀"
        )
        assert (
            await page.evaluate("client.rpc('add', pack([1, 2, 3])).then(r => unpack(r.data))") == 6
        )
        assert await page.evaluate("room.presenceStats().then(s => s.numUsers)") == 1
        assert (
            await page.evaluate("room.history({limit: 10}).then(h => h.publications.length)") == 1
        )
        assert await page.evaluate("refused(client.rpc('nothing', pack(null)))") == 104
        assert await page.evaluate("refused(room.publish(pack('no mapping')))") == 107
        assert await page.evaluate("refused(client.publish('chat:8', pack({})))") == 103
        assert await page.evaluate("refused(client.publish('nowhere', pack({})))") == 102


async def test_line_is_cut_and_nothing_is_missing(build: str, chromium: str) -> None:
    """The SDK comes back by itself and gets what was published meanwhile, in order."""
    world = World(build)
    async with world.open(chromium) as (page, relay):
        await page.evaluate("start({})")
        await seen(page, "events.find(e => e.kind === 'subscribed')")
        await world.room.publish({"n": 0}, room_id=7)
        await seen(page, "events.some(e => e.kind === 'publication')")
        relay.cut()
        for number in range(1, 51):
            await world.room.publish({"n": number}, room_id=7)
        await seen(page, "events.filter(e => e.kind === 'publication').length === 51")
        numbers = "events.filter(e => e.kind === 'publication').map(e => e.data.n)"
        assert await page.evaluate(numbers) == list(range(51))
        assert await page.evaluate("events.findLast(e => e.kind === 'subscribed').recovered")


async def test_tokens_are_refreshed_and_pings_answered(build: str, chromium: str) -> None:
    """A connection outlives its first token, and its first pings."""
    world = World(build)
    world.lifetime = 2.0
    async with world.open(chromium) as (page, _):
        await page.evaluate("start({})")
        await seen(page, "events.find(e => e.kind === 'connected')")
        (first,) = world.pongee.connections_of("ann")
        async with asyncio.timeout(20):
            while world.tokens < 4:
                await page.evaluate("new Promise(done => setTimeout(done, 50))")
        (now,) = world.pongee.connections_of("ann")
        assert now.id == first.id
        assert await page.evaluate("events.filter(e => e.kind === 'connected').length") == 1


async def test_server_ends_subscription_and_connection(build: str, chromium: str) -> None:
    """With and without coming back."""
    world = World(build)
    async with world.open(chromium) as (page, _):
        await page.evaluate("start({})")
        await seen(page, "events.find(e => e.kind === 'subscribed')")
        await world.pongee.unsubscribe("chat:7", user="ann", code=2500)
        await seen(page, "events.filter(e => e.kind === 'subscribed').length === 2")
        await world.pongee.unsubscribe("chat:7", user="ann")
        assert await seen(page, "events.find(e => e.kind === 'unsubscribed')?.code") == 2000
        await world.pongee.disconnect(user="ann", code=3011)
        await seen(page, "events.filter(e => e.kind === 'connected').length === 2")
        await world.pongee.disconnect(user="ann")
        assert await seen(page, "events.find(e => e.kind === 'disconnected')?.code") == 3503
        assert await page.evaluate("client.state") == "disconnected"


async def test_bad_token_is_final(build: str, chromium: str) -> None:
    """3500, and the SDK does not try again."""
    world = World(build)
    async with world.open(chromium) as (page, _):
        await page.evaluate("start({token: 'no.token.atall'})")
        assert await seen(page, "events.find(e => e.kind === 'disconnected')?.code") == 3500
