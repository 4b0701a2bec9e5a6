"""Who may connect, with what, for how long; and what a connection begins with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

import jwt
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import JsonValue

from pongee import (
    Caps,
    Client,
    ClientError,
    ClientLimits,
    Identity,
    Pongee,
    Refused,
    public,
)
from pongee.testing import Server, connect, eventually, serve
from tests.centrifuge.test_frames import NOW, SECRET, Message, ask, push_of, reply_to, token
from tests.centrifuge.test_frames import World as Furnished

pytestmark = pytest.mark.anyio

ROUTE = "/connection/websocket"


class World(Furnished):
    """The same application, served on each face."""

    server: ClassVar[dict[str, Any]] = {}


@asynccontextmanager
async def guarded(auth: Any, caps: Caps | None = None, **more: Any) -> AsyncIterator[Server]:
    """Serve an application whose connections `auth` decides about."""
    pongee, app = Pongee(caps=caps), FastAPI()
    pongee.connection(auth=auth, **more)

    @pongee.rpc("who")
    async def who(client: Client) -> str | None:
        return client.user

    pongee.install(app)
    async with serve(app, **World.server) as server:
        yield server


async def outcome(server: Server, **wanted: Any) -> Any:
    """Connect; returns who that is, the error, or the code of the close."""
    async with connect(server.ws(ROUTE)) as peer:
        await peer.send_json({"id": 1, "connect": wanted})
        first = asyncio.create_task(peer.receive_json())
        await asyncio.wait([first])
        if first.exception() is not None:
            return (await peer.wait_closed()).code
        reply = first.result()
        if "error" in reply:
            return reply["error"]
        return (await ask(peer, 2, rpc={"method": "who"}))["rpc"].get("data")


async def _identity() -> Identity:
    return Identity("ann", None, {})


async def _nobody() -> None:
    return None


async def _refused() -> str:
    raise Refused(401, "who are you?")


async def _unauthorized() -> str:
    raise HTTPException(401, "who are you?")


async def _busy() -> str:
    raise Refused(503, "later")


async def _hurried() -> str:
    raise HTTPException(429, "slowly")


async def _broken() -> str:
    raise KeyError("no such thing")


INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}


@pytest.mark.parametrize(
    ("auth", "anonymous", "expected"),
    [
        (public, False, None),
        (_identity, False, "ann"),
        (lambda: "bob", False, "bob"),
        (_nobody, True, None),
        (_nobody, False, 3501),
        (_refused, True, 3507),
        (_unauthorized, False, {"code": 101, "message": "who are you?"}),
        (_busy, False, INTERNAL),
        (_broken, False, INTERNAL),
    ],
)
async def test_policy_that_is_a_dependency(auth: Any, anonymous: bool, expected: Any) -> None:
    """It names somebody, or nobody, or refuses; a fault of its own is temporary."""
    async with guarded(auth, anonymous=anonymous) as server:
        assert await outcome(server) == expected


async def test_token_where_nothing_verifies_one_is_invalid() -> None:
    """3500, as for a forged one."""
    async with guarded(public) as server:
        assert await outcome(server, token="a.b.c") == 3500


WRONG_TOKENS: list[dict[str, Any]] = [
    {"channel": "chat:1"},  # of a subscription
    {"sub": ["ann"]},
    {"sub": True},
    {"info": "\ud800"},
    {"b64info": "%%"},
    {"channels": "chat:1"},
    {"channels": [1]},
    {"subs": {"chat:1": 5}},
    {"subs": ["chat:1"]},
    {"exp": "soon"},
    {"expire_at": "soon"},
    {"expire_at": float("inf")},
]


@pytest.mark.parametrize("claims", WRONG_TOKENS)
async def test_token_of_a_wrong_shape_is_invalid(
    claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """3500: nobody may connect with it, and it is no fault of ours."""
    world = World()
    text = json.dumps({"sub": "ann", **claims}).encode()
    written = jwt.api_jws.PyJWS().encode(text, SECRET, algorithm="HS256")
    async with world.open() as server, world.peer(server, written) as peer:
        assert (await peer.wait_closed()).code == 3500
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_headers_that_a_browser_cannot_send() -> None:
    """Those that are allowed reach dependencies; others do not."""
    seen: list[tuple[str | None, str | None]] = []

    async def policy(
        x_tenant: Annotated[str | None, Header()] = None,
        x_admin: Annotated[str | None, Header()] = None,
    ) -> str:
        seen.append((x_tenant, x_admin))
        return "ann"

    async with guarded(policy, emulated_headers=["X-Tenant"]) as server:
        sent = {"x-TENANT": "blue", "X-Admin": "yes", "x-tenant-2": "é\n"}
        assert await outcome(server, headers=sent) == "ann"
    assert seen == [("blue", None)]


async def test_user_with_too_many_connections() -> None:
    """3504 for the next one; a place is free again when one leaves."""
    async with guarded(lambda: "ann", caps=Caps(max_connections_per_user=1)) as server:
        async with connect(server.ws(ROUTE)) as peer:
            await peer.send_json({"id": 1, "connect": {}})
            assert "connect" in await peer.receive_json()
            assert await outcome(server) == 3504
        for _ in range(500):
            found = await outcome(server)
            if found == "ann":
                break
            assert found == 3504
        assert found == "ann"


# What it begins with


async def test_channels_of_the_token_the_user_and_the_handler() -> None:
    """All are in the reply, with what was missed; publications follow it."""
    world = World()
    world.connection.spec.personal = "user:{user}"
    personal = world.pongee.channel("user:{name}", Message, presence=True)

    @world.connection.on_connect
    async def greet(client: Client, data: JsonValue) -> JsonValue:
        await client.subscribe("plain")
        return {"got": data}

    claims = {"channels": ["chat:1"], "subs": {"chat:2": {"info": {"seat": 1}}}}
    async with world.open() as server:
        async with world.peer(server, token(**claims), data=[1, 2]) as peer:
            result = (await reply_to(peer, 1))["connect"]
            assert result["data"] == {"got": [1, 2]}
            assert sorted(result["subs"]) == ["chat:1", "chat:2", "plain", "user:ann"]
            assert result["subs"]["plain"] == {}
            epoch = result["subs"]["chat:1"]["epoch"]
            await personal.publish(Message(text="psst"), name="ann")
            assert (await push_of(peer, "pub"))["channel"] == "user:ann"
            (info,) = (await world.pongee.presence("chat:2")).values()
            assert info.chan_info == b'{"seat":1}'
        await world.room.publish(Message(text="missed"), room_id=1)
        subs = {
            "chat:1": {"recover": True, "epoch": epoch, "offset": 0},
            "chat:2": {"recover": True, "epoch": "old", "offset": 7},
            "chat:9": {"recover": True},  # it is not the client who decides
        }
        async with world.peer(server, token(**claims), subs=subs) as peer:
            found = (await reply_to(peer, 1))["connect"]["subs"]
            assert sorted(found) == ["chat:1", "chat:2", "plain", "user:ann"]
            assert found["chat:1"]["recovered"]
            assert found["chat:1"]["publications"][0]["data"] == {"text": "missed"}
            assert not found["chat:2"].get("recovered", False)
            assert found["chat:2"]["was_recovering"]


@pytest.mark.parametrize(
    ("channels", "expected"), [(["nowhere"], 102), ([f"chat:{n}" for n in range(5)], 3505)]
)
async def test_channels_that_cannot_be_given(channels: list[str], expected: int) -> None:
    """One that is not declared is an error; too many end the connection. Nothing is left."""
    world = World(max_subscriptions=4)
    told: list[str] = []

    @world.connection.on_disconnect
    async def gone(client: Client) -> None:
        told.append("gone")

    async with world.open() as server:
        async with world.peer(server, token(channels=["chat:7", *channels][-5:])) as peer:
            if expected == 102:
                assert (await reply_to(peer, 1))["error"]["code"] == expected
                assert world.pongee.local_channels() == {}
                await peer.close()
            assert (await peer.wait_closed()).code in (expected, 1000)
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="it is forgotten")
        assert world.pongee.local_channels() == {}
        assert await world.pongee.presence("chat:7") == {}
        assert told == []  # it never was connected


@pytest.mark.parametrize("fails", ["the channel", "the answer", "the client"])
async def test_who_was_greeted_is_told_goodbye(fails: str) -> None:
    """Though something fails between on_connect and the reply: what it began can be ended."""
    world = World()
    broker = world.broker
    broker.slow = True
    told: list[str] = []

    @world.connection.on_connect
    async def greet(client: Client) -> Any:
        told.append("hello")
        await client.subscribe("chat:1")
        broker.paced = fails == "the client"
        broker.failing = fails == "the channel"
        return object() if fails == "the answer" else None

    @world.connection.on_disconnect
    async def gone(client: Client) -> None:
        told.append("goodbye")

    async with world.open() as server, world.peer(server, token()) as peer:
        if fails == "the client":
            await eventually(lambda: broker.waiting, what="the broker is asked")
            broker.paced = False
            peer.cut()
        else:
            assert (await reply_to(peer, 1))["error"] == INTERNAL
            broker.failing = False
            assert world.pongee.local_channels() == {}
            await peer.close()
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="it is forgotten")
        assert told == ["hello", "goodbye"]
        while broker.waiting:
            broker.go_on()
        await world.pongee._node.board._errands.finish()
        assert world.pongee.local_channels() == {}
        assert broker.subscribed == frozenset()


async def test_refusal_in_the_handler_is_the_clients_answer() -> None:
    """Whatever a shared dependency raises; nobody says goodbye to whom nobody greeted."""
    world = World()
    told: list[str] = []

    @world.connection.on_connect
    async def greet(client: Client, _: Annotated[str, Depends(_hurried)]) -> None:
        raise ClientError(500, "never")

    @world.connection.on_disconnect
    async def gone(client: Client) -> None:
        told.append("goodbye")

    async with world.open() as server:
        async with world.peer(server, token()) as peer:
            error = (await reply_to(peer, 1))["error"]
            assert error == {"code": 111, "message": "slowly", "temporary": True}
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="it is forgotten")
    assert told == []


async def test_handler_may_end_the_connection() -> None:
    """With a code of the application's."""
    world = World()

    @world.connection.on_connect
    async def greet(client: Client) -> None:
        client.disconnect(4501, "not you")

    async with world.open() as server, world.peer(server, token()) as peer:
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (4501, "not you")


async def test_expiry_that_is_moved_by_the_application() -> None:
    """Without a word to the client: SDKs ignore one."""
    world = World(ping_interval=3600)
    async with world.open() as server, world.peer(server, token(exp=NOW + 20)) as peer:
        await reply_to(peer, 1)
        assert await world.pongee.refresh(NOW + 600, user="ann") == 1
        world.clock.advance(100)
        assert (await ask(peer, 2, rpc={}))["error"]["code"] == 108
        assert await world.pongee.refresh(None, user="ann") == 1
        world.clock.advance(1000)
        assert (await ask(peer, 3, rpc={}))["error"]["code"] == 108


async def test_refusal_is_final_when_the_client_stays() -> None:
    """It is closed after the time it may stay, and heard no more in it."""
    limits = ClientLimits(refused_timeout=0.2)
    async with guarded(_busy, limits=limits) as server, connect(server.ws(ROUTE)) as peer:
        await peer.send('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"who"}}')
        assert (await peer.receive_json())["error"] == INTERNAL
        await peer.send("nonsense")
        assert (await peer.wait_closed()).code == 1000
