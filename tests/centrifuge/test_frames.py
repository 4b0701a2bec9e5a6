"""Whole conversations in frames: what is answered, what ends the connection, and on time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import jwt
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from pongee import (
    CauseKind,
    Client,
    ClientError,
    ClientLimits,
    CloseCause,
    JWTBearer,
    Pongee,
    Session,
    public,
)
from pongee.testing import Client as Peer
from pongee.testing import ManualClock, RawPeer, Server, connect, eventually, serve
from tests.centrifuge.paced import PacedBroker

pytestmark = pytest.mark.anyio

SECRET = "a secret that is long enough for HS256"
NOW = 1_700_000_000
BAD, LARGE, FINAL = 3501, 1009, 3500


class Message(BaseModel):
    """What is said."""

    text: str


async def database(request: Request) -> AsyncIterator[AsyncConnection]:
    """Open a connection of the application's pool."""
    async with request.app.state.engine.connect() as opened:
        yield opened


Database = Annotated[AsyncConnection, Depends(database)]


class World:
    """An application with a bit of everything; tests add to it before it is served."""

    server: ClassVar[dict[str, Any]] = {}

    def __init__(self, ping_interval: float = 25.0, **limits: Any) -> None:
        self.clock = ManualClock(NOW)
        self.pongee = Pongee(clock=self.clock, broker=PacedBroker)
        assert isinstance(self.pongee._node.board.broker, PacedBroker)
        self.broker = self.pongee._node.board.broker
        self.broker.slow = False
        self.app = FastAPI()
        self.connection = self.pongee.connection(
            auth=JWTBearer(SECRET, require_exp=False, now=self.clock.time, leeway=0),
            anonymous=True,
            ping_interval=ping_interval,
            limits=ClientLimits(**limits),
        )
        self.room = self.pongee.channel(
            "chat:{room_id:int}",
            Message,
            history=10,
            presence=True,
            join_leave=True,
            may_subscribe=public,
            may_publish="subscribers",
            may_see_presence="subscribers",
            may_read_history="subscribers",
        )
        self.closed = self.pongee.channel("closed", Message)
        self.plain = self.pongee.channel("plain", Message, may_subscribe=public, may_publish=public)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Server]:
        """Serve it."""
        self.pongee.install(self.app)
        async with serve(self.app, **self.server) as server:
            yield server

    @asynccontextmanager
    async def peer(self, server: Server, token: str = "", **more: Any) -> AsyncIterator[Peer]:
        """Connect a client that speaks JSON."""
        async with connect(server.ws("/connection/websocket")) as peer:
            wanted = {"token": token, **more} if token else more
            await peer.send_json({"id": 1, "connect": wanted})
            yield peer


async def ask(peer: Peer, number: int, **request: Any) -> dict[str, Any]:
    """Send one command; returns its reply, past what is pushed meanwhile."""
    await peer.send_json({"id": number, **request})
    return await reply_to(peer, number)


async def reply_to(peer: Peer, number: int) -> dict[str, Any]:
    while True:
        reply: dict[str, Any] = await peer.receive_json()
        if reply.get("id") == number:
            return reply


async def push_of(peer: Peer, kind: str) -> dict[str, Any]:
    while True:
        push: dict[str, Any] = (await peer.receive_json()).get("push", {})
        if kind in push:
            return push


def token(**claims: Any) -> str:
    """Sign a token."""
    return jwt.encode({"sub": "ann", **claims}, SECRET)


FIRST_FRAMES: list[tuple[str | bytes, int]] = [
    ("{", BAD),
    ("", BAD),
    ("\n", BAD),
    ("[]", BAD),
    ("{}", BAD),
    ('{"id":1}', BAD),
    ('{"id":1,"nothing":{}}', BAD),
    ('{"id":0,"connect":{}}', BAD),
    ('{"connect":{}}', BAD),
    ('{"id":-1,"connect":{}}', BAD),
    ('{"id":"1","connect":{}}', BAD),
    ('{"id":1,"connect":[]}', BAD),
    ('{"id":1,"subscribe":{"channel":"chat:1"}}', BAD),
    ('{"id":1,"publish":{"channel":"plain","data":{"text":"x"}}}', BAD),
    ('{"send":{"data":1}}', BAD),
    ('{"id":1,"connect":{"data":' + "[" * 5000 + "]" * 5000 + "}}", BAD),
    ('{"id":1,"connect":{"token":"nothing"}}', FINAL),
    ('{"id":1,"connect":{"token":"' + "x" * 9000 + '"}}', FINAL),
    (b"\xff\xfe", BAD),
    ("x" * (65 * 1024), LARGE),
]


@pytest.mark.parametrize(("frame", "code"), FIRST_FRAMES)
async def test_first_frame_that_is_wrong_ends_the_connection(frame: str | bytes, code: int) -> None:
    """With the code that tells the SDK not to come back."""
    world = World()
    async with world.open() as server, connect(server.ws("/connection/websocket")) as peer:
        await peer.send(frame)
        assert (await peer.wait_closed()).code == code
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="it is forgotten")


LATER_FRAMES: list[tuple[str, int]] = [
    ('{"id":2,"connect":{}}', BAD),
    ('{"id":2,"subscribe":{}}', BAD),
    ('{"id":2,"unsubscribe":{}}', BAD),
    ('{"id":2,"publish":{"data":{}}}', BAD),
    ('{"id":2,"presence":{}}', BAD),
    ('{"id":2,"history":{}}', BAD),
    ('{"id":2,"subscribe":{"channel":"chat:1","delta":"other"}}', BAD),
    ('{"id":2,"subscribe":{"channel":"chat:1","offset":-1}}', BAD),
    ('{"id":2,"subscribe":{"channel":"chat:1","offset":"1"}}', BAD),
    ('{"id":2,"refresh":{}}', BAD),
    ('{"id":2,"refresh":{"token":"nothing"}}', FINAL),
    ('{"send":{"data":{}}}', 3508),
    ('{"id":2}', BAD),
]


@pytest.mark.parametrize(("frame", "code"), LATER_FRAMES)
async def test_illegal_command_ends_the_connection(frame: str, code: int) -> None:
    """It is a bug of the client's, and final."""
    world = World()
    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        await peer.send(frame)
        assert (await peer.wait_closed()).code == code


async def test_commands_that_may_not_or_cannot_be_carried_out_are_answered() -> None:
    """With the documented error, and the connection is usable after."""
    world = World()
    chat, other = {"channel": "chat:1"}, {"channel": "chat:2"}
    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        assert "subscribe" in await ask(peer, 2, subscribe=chat)
        cases: list[tuple[dict[str, Any], int]] = [
            ({"subscribe": chat}, 105),
            ({"subscribe": {"channel": "closed"}}, 103),
            ({"subscribe": {"channel": "nowhere"}}, 102),
            ({"subscribe": {"channel": "chat:abc"}}, 102),
            ({"subscribe": {"channel": "chat:" + "1" * 300}}, 107),
            ({"subscribe": {"channel": "chat:\u0000"}}, 107),
            ({"subscribe": {**other, "type": 1}}, 108),
            ({"subscribe": {**other, "tf": {}}}, 107),
            ({"subscribe": {**other, "token": "nothing"}}, 103),
            ({"subscribe": {**other, "recover": True, "epoch": "old", "flag": 2}}, 112),
            ({"publish": {**other, "data": {"text": "x"}}}, 103),
            ({"publish": {**chat, "data": {"text": 1}}}, 107),
            ({"publish": chat}, 107),
            ({"publish": {**chat, "data": {"text": "x"}, "type": 1}}, 108),
            ({"publish": {"channel": "nowhere", "data": {}}}, 102),
            ({"presence": {"channel": "plain"}}, 108),
            ({"presence": other}, 103),
            ({"presence_stats": other}, 103),
            ({"history": {"channel": "plain"}}, 108),
            ({"history": other}, 103),
            ({"history": {**chat, "reverse": True, "since": {"epoch": "x"}}}, 107),
            ({"history": {**chat, "since": {"epoch": "x", "offset": 1}}}, 112),
            ({"rpc": {"method": "nothing"}}, 108),
            ({"ping": {}}, 108),
            ({"sub_refresh": {**other, "token": token(channel="chat:2")}}, 103),
            ({"sub_refresh": chat}, 107),
        ]
        for number, (request, code) in enumerate(cases, 3):
            reply = await ask(peer, number, **request)
            assert reply.get("error", {}).get("code") == code, (request, reply)
            assert reply["error"]["message"]
        assert await ask(peer, 90, unsubscribe={"channel": "never"}) == {
            "id": 90,
            "unsubscribe": {},
        }
        assert "publish" in await ask(peer, 91, publish={**chat, "data": {"text": "x"}})


async def test_ten_thousand_subscriptions_meet_the_limit() -> None:
    """Each beyond it is error 106, and the connection is usable after."""
    world = World(max_subscriptions=128)
    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        got: list[int] = []
        for first in range(0, 10_000, 200):
            names = range(first, first + 200)
            frame = [{"id": n + 2, "subscribe": {"channel": f"chat:{n}"}} for n in names]
            await peer.send("\n".join(map(json.dumps, frame)))
            while len(got) < first + 200:
                reply = await peer.receive_json()
                if "id" in reply:
                    got.append(reply.get("error", {}).get("code", 0))
        assert got == [0] * 128 + [106] * 9872
        assert "unsubscribe" in await ask(peer, 20_000, unsubscribe={"channel": "chat:1"})


async def test_too_many_commands_at_once_are_too_many() -> None:
    """3013, whatever they are."""
    world = World(waiting_commands=100)
    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        await peer.send("\n".join("{}" for _ in range(101)))
        assert (await peer.wait_closed()).code == 3013


async def test_commands_wait_until_connect_is_done() -> None:
    """Those in the same frame too, and connect is answered before everything else."""
    world = World()
    gate, entered = asyncio.Event(), asyncio.Event()

    @world.connection.on_connect
    async def wait(client: Client) -> dict[str, str]:
        entered.set()
        await gate.wait()
        return {"you": client.user or "anonymous"}

    async with world.open() as server, connect(server.ws("/connection/websocket")) as peer:
        await peer.send(
            '{"id":1,"connect":{"token":"' + token() + '"}}\n'
            '{"id":2,"subscribe":{"channel":"chat:1"}}\n{"id":2,"rpc":{}}\n'
        )
        await asyncio.wait_for(entered.wait(), 5)
        gate.set()
        replies = [await peer.receive_json() for _ in range(3)]
        assert [reply["id"] for reply in replies] == [1, 2, 2]
        assert replies[0]["connect"]["data"] == {"you": "ann"}
        assert "subscribe" in replies[1]
        assert replies[2]["error"]["code"] == 107  # its id is in use


async def test_unsubscribe_waits_for_the_subscribe_before_it() -> None:
    """And undoes it: nobody is left in the channel."""
    world = World()
    gate = asyncio.Event()

    @world.room.on_subscribe
    async def wait(room_id: int) -> None:
        await gate.wait()

    async with world.open() as server, world.peer(server) as peer:
        await peer.send('{"id":2,"subscribe":{"channel":"chat:1"}}')
        await peer.send('{"id":3,"unsubscribe":{"channel":"chat:1"}}')
        gate.set()
        assert "subscribe" in await reply_to(peer, 2)
        assert "unsubscribe" in await reply_to(peer, 3)
        assert world.pongee.local_channels() == {}


async def test_refused_connect_is_answered_and_nothing_follows() -> None:
    """The client is to close; after five seconds it is closed."""
    world = World()

    @world.connection.on_connect
    async def refuse(client: Client) -> None:
        raise ClientError(450, "closed on Sundays")

    async with world.open() as server, world.peer(server) as peer:
        reply = await reply_to(peer, 1)
        assert reply == {"id": 1, "error": {"code": 450, "message": "closed on Sundays"}}
        await peer.send('{"id":2,"subscribe":{"channel":"chat:1"}}')
        with pytest.raises(TimeoutError):
            await peer.receive(timeout=0.1)
        world.clock.advance(6)
        assert (await peer.wait_closed()).code == 1000


async def test_client_that_never_connects_is_closed() -> None:
    """3502 after ten seconds."""
    world = World()
    async with world.open() as server, connect(server.ws("/connection/websocket")) as peer:
        await eventually(lambda: world.pongee._node.runtime.unfinished, what="it is open")
        world.clock.advance(9)
        assert world.pongee._node.runtime.unfinished
        world.clock.advance(2)
        assert (await peer.wait_closed()).code == 3502


async def test_pings_are_sent_and_a_missing_pong_ends_the_connection() -> None:
    """Every interval, whatever else flows; 3012 when nobody answers."""
    world = World()
    async with world.open() as server, world.peer(server) as peer:
        reply = await reply_to(peer, 1)
        assert (reply["connect"]["ping"], reply["connect"]["pong"]) == (25, True)
        (client,) = world.pongee._node.registry
        waited = []
        for _ in range(3):  # the first comes early, so that many clients' pings spread out
            seconds = 0.0
            while not client._pinged:  # type: ignore[attr-defined]
                world.clock.advance(0.5)
                seconds += 0.5
            waited.append(seconds)
            assert await peer.receive() == "{}"
            await peer.send("{}")
            await eventually(lambda: not client._pinged, what="the pong")  # type: ignore[attr-defined]
        assert 12 <= waited[0] <= 25.5
        assert waited[1:] == pytest.approx([25, 25], abs=1)
        world.clock.advance(26)
        assert await peer.receive() == "{}"
        ended: list[Any] = []
        world.pongee.listen(ended.append)
        world.clock.advance(8.5)
        assert (await peer.wait_closed()).code == 3012
        await eventually(lambda: ended, what="the end is told")
        assert ended[-1].cause.kind is CauseKind.CONNECTION_LOST


async def test_connection_expires_unless_it_is_refreshed() -> None:
    """After the grace 3005; a new token in time moves the end."""
    world = World()
    async with world.open() as server:
        async with world.peer(server, token(exp=NOW + 20)) as peer:
            reply = await reply_to(peer, 1)
            assert (reply["connect"]["expires"], reply["connect"]["ttl"]) == (True, 20)
            world.clock.advance(10)
            reply = await ask(peer, 2, refresh={"token": token(exp=NOW + 60)})
            assert (reply["refresh"]["expires"], reply["refresh"]["ttl"]) == (True, 50)
            other = await ask(peer, 3, rpc={})
            assert other["error"]["code"] == 108
            await peer.send_json({"id": 4, "refresh": {"token": token(sub="bob")}})
            assert (await peer.wait_closed()).code == FINAL
        async with world.peer(server, token(exp=NOW + 20)) as peer:
            await reply_to(peer, 1)
            world.clock.advance(36)  # and the grace of 25 s
            assert (await peer.wait_closed()).code in (3005, 3012)
        async with world.peer(server, token(exp=NOW + 20)) as peer:
            assert (await reply_to(peer, 1))["error"]["code"] == 109


async def test_server_refreshes_by_itself_where_it_is_declared() -> None:
    """The client is asked for nothing, and ends when the handler says no more."""
    world = World(ping_interval=3600)
    until: list[float | None] = [NOW + 40.0, None]

    @world.connection.on_refresh
    async def refresh(client: Client) -> float | None:
        return until.pop(0)

    async with world.open() as server, world.peer(server, token(exp=NOW + 5)) as peer:
        assert "expires" not in (await reply_to(peer, 1))["connect"]
        world.clock.advance(6)
        await eventually(lambda: len(until) == 1, what="the first refresh")
        world.clock.advance(33)
        assert (await ask(peer, 2, rpc={}))["error"]["code"] == 108  # it is still there
        world.clock.advance(2)
        assert (await peer.wait_closed()).code == 3005


async def test_subscription_token_and_its_end() -> None:
    """For this channel and this user only; 2501 when it is not refreshed."""
    world = World(ping_interval=3600)
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        expired = token(channel="closed", exp=NOW - 5)
        wanted = {"channel": "closed", "token": expired}
        assert (await ask(peer, 2, subscribe=wanted))["error"]["code"] == 109
        wanted["token"] = token(channel="closed", exp=NOW + 3, info={"is": "vip"})
        reply = await ask(peer, 3, subscribe=wanted)
        assert (reply["subscribe"]["expires"], reply["subscribe"]["ttl"]) == (True, 3)
        wanted["token"] = token(channel="closed", exp=NOW + 5)
        reply = await ask(peer, 4, sub_refresh=wanted)
        assert (reply["sub_refresh"]["expires"], reply["sub_refresh"]["ttl"]) == (True, 5)
        wanted["token"] = expired
        assert (await ask(peer, 5, sub_refresh=wanted))["error"]["code"] == 110
        world.clock.advance(29)
        assert world.pongee.local_channels() == {"closed": 1}
        world.clock.advance(2)
        push = await push_of(peer, "unsubscribe")
        assert push["unsubscribe"] == {"code": 2501, "reason": "subscription expired"}
        for claims in ({"channel": "plain"}, {"channel": "closed", "sub": "bob"}):
            async with world.peer(server, token()) as other:
                await reply_to(other, 1)
                wrong = {"channel": "closed", "token": token(**claims)}
                await other.send_json({"id": 2, "subscribe": wrong})
                assert (await other.wait_closed()).code == FINAL


async def test_handler_that_raises_is_error_100_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection lives on."""
    world = World()

    @world.pongee.rpc("crash")
    async def crash() -> None:
        raise KeyError("inside")

    @world.pongee.rpc("typed")
    async def typed(message: Message) -> Message:
        return "no message"  # type: ignore[return-value]

    async with world.open() as server, world.peer(server) as peer:
        for number, method in enumerate(("crash", "typed"), 2):
            reply = await ask(peer, number, rpc={"method": method, "data": {"text": "x"}})
            assert reply["error"] == {
                "code": 100,
                "message": "internal server error",
                "temporary": True,
            }
        reply = await ask(peer, 9, rpc={"method": "typed", "data": {"text": 5}})
        assert reply["error"]["code"] == 107
        assert "text" in reply["error"]["message"]
    assert "KeyError" in caplog.text


async def test_each_departure_is_told_once() -> None:
    """on_unsubscribe and on_disconnect, whatever way it ends."""
    world = World()
    told: list[str] = []

    @world.room.on_unsubscribe
    async def left(room_id: int, client: Client) -> None:
        told.append(f"left {room_id}")

    @world.connection.on_disconnect
    async def gone(client: Client, cause: CloseCause) -> None:
        told.append(f"gone {cause.by}")

    async with world.open() as server:
        for end in ("close", "cut", "kick", "drain"):
            told.clear()
            async with world.peer(server, token()) as peer:
                await ask(peer, 2, subscribe={"channel": "chat:7"})
                if end == "close":
                    await peer.close()
                elif end == "cut":
                    peer.cut()
                elif end == "kick":
                    await world.pongee.disconnect(user="ann")
                    assert (await peer.wait_closed()).code == 3503
                else:
                    (client,) = world.pongee._node.runtime.unfinished
                    client.leave()  # type: ignore[attr-defined]
                    assert (await peer.wait_closed()).code == 3001
                await eventually(lambda: len(told) == 2, what=f"both, after {end}")
            assert told[0] == "left 7"
            assert told[1].startswith("gone ")
        assert world.pongee.local_channels() == {}
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="nobody is left")


async def test_idle_clients_hold_no_database_connection(tmp_path: Any) -> None:
    """Five hundred of them, a pool of five, and a dependency at every event."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/app.db", pool_size=5, max_overflow=0, pool_timeout=5
    )
    world = World()
    world.app.state.engine = engine

    @world.connection.on_connect
    async def greet(client: Client, database: Database) -> int:
        return int((await database.execute(text("SELECT 1"))).scalar_one())

    @world.room.on_subscribe
    async def enter(room_id: int, database: Database) -> None:
        await database.execute(text("SELECT 1"))

    peers: list[Any] = []
    async with world.open() as server:
        try:
            for _ in range(500):
                context = world.peer(server)
                peer = await context.__aenter__()
                peers.append(context)
                assert (await reply_to(peer, 1))["connect"]["data"] == 1
                assert "subscribe" in await ask(peer, 2, subscribe={"channel": "chat:1"})
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert world.pongee.local_channels() == {"chat:1": 500}
        finally:
            for context in peers:
                await context.__aexit__(None, None, None)
    await engine.dispose()


async def test_slow_reader_is_told_and_recovers_what_it_missed() -> None:
    """It is closed with 3008, nobody else waits for it, and nothing is lost to it."""
    world = World(outbox_messages=40, outbox_bytes=256 * 1024, close_timeout=30)
    big = "x" * 20_000
    async with world.open() as server, world.peer(server) as other:
        await ask(other, 2, subscribe={"channel": "chat:1"})
        async with RawPeer(server.port, "/connection/websocket") as slow:
            await slow.handshake()
            frame = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"chat:1"}}'
            await slow.send_frame(1, frame)
            await eventually(
                lambda: world.pongee.local_channels() == {"chat:1": 2}, what="the slow one is in"
            )
            positions = []
            while world.pongee.local_channels() == {"chat:1": 2}:
                positions.append(await world.room.publish(Message(text=big), room_id=1))
                push = await push_of(other, "pub")
                assert push["pub"]["offset"] == positions[-1].offset
                assert len(positions) < 2000
        asked = {"channel": "chat:1", "recover": True, "epoch": positions[0].epoch}
        asked["offset"] = positions[-1].offset - 5
        async with world.peer(server) as again:
            reply = await ask(again, 2, subscribe=asked)
            assert reply["subscribe"]["recovered"]
            found = [pub["offset"] for pub in reply["subscribe"]["publications"]]
            assert found == [position.offset for position in positions[-5:]]


async def test_sessions_and_clients_meet_in_a_channel() -> None:
    """Each in its own format; presence counts both."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def session(session: Session[str, str]) -> None:
        await session.subscribe("chat:1")
        await session.send("in")
        async for said in session:
            await world.room.publish(Message(text=said), room_id=1)

    async with (
        world.open() as server,
        world.peer(server, token()) as peer,
        connect(server.ws("/ws")) as plain,
    ):
        await ask(peer, 2, subscribe={"channel": "chat:1", "join_leave": True})
        assert await plain.receive() == "in"
        assert (await world.pongee.presence_stats("chat:1")).clients == 2
        await plain.send("hello")
        assert (await push_of(peer, "pub"))["pub"]["data"] == {"text": "hello"}
        assert await plain.receive_json() == {"text": "hello"}
        await ask(peer, 3, publish={"channel": "chat:1", "data": {"text": "hi"}})
        assert await plain.receive_json() == {"text": "hi"}
        await plain.close()
        push = await push_of(peer, "leave")
        assert push["leave"]["info"]["user"] == ""


async def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """No token, good or bad, is written anywhere."""
    caplog.set_level(logging.DEBUG)
    good, bad = token(exp=NOW + 100), token(exp=NOW + 100)[:-4] + "AAAA"
    world = World()
    async with world.open() as server:
        for each in (good, bad):
            async with world.peer(server, each) as peer:
                await peer.receive_json() if each == good else await peer.wait_closed()
    assert good not in caplog.text
    assert bad not in caplog.text
