"""Declaring channels, and publishing: from routes, from threads, once, to many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from pongee import Client, ConfigurationError, JWTBearer, Pongee, Session, UsageError, public
from pongee.channels.publication import NOWHERE, Position
from pongee.testing import ManualClock, Server, connect, eventually, serve
from tests.centrifuge.test_frames import ask, push_of

pytestmark = pytest.mark.anyio


class Message(BaseModel):
    """What is said."""

    text: str


class World:
    """An application whose channels sessions and SDKs share."""

    server: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pongee = Pongee(clock=self.clock)
        self.app = FastAPI()
        self.connection = self.pongee.connection(auth=public)
        self.room = self.pongee.channel(
            "chat:{room_id}", Message, history=10, may_subscribe=public, may_publish=public
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Server]:
        """Serve it."""
        self.pongee.install(self.app)
        async with serve(self.app, **self.server) as server:
            yield server


# Declaring


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": -1}, "history=-1"),
        ({"history": 1, "history_ttl": 0}, "history_ttl=0"),
        ({"idempotency_window": 0}, "idempotency_window=0"),
        ({"recover": True}, "need history="),
        ({"positioned": True}, "need history="),
        ({"cache": True}, "need history="),
        ({"history_ttl": 5}, "need history="),
        ({"overflow": "explode"}, "overflow='explode'"),
        ({"history": 5, "overflow": "drop_oldest"}, "no client could keep its position"),
        ({"may_subscribe": "everybody"}, "'everybody' is nobody who may subscribe"),
        ({"may_publish": 5}, "5 is nobody who may publish"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """Each is refused where it is declared, in words."""
    with pytest.raises(ConfigurationError, match=message):
        Pongee().channel("chat:{room_id}", Message, **options)


def test_options_that_can() -> None:
    """History makes a channel recoverable, unless it caches, or one says no."""
    pongee = Pongee()
    assert not pongee.channel("a", Message).options.recover
    assert pongee.channel("b", Message, history=5).options.recover
    assert not pongee.channel("c", Message, history=5, cache=True).options.recover
    assert not pongee.channel(
        "d", Message, history=5, recover=False, positioned=False, overflow="drop_oldest"
    ).options.recover


def test_declarations_that_contradict_each_other() -> None:
    """Two patterns of one name, two methods, two connections, two handlers."""
    pongee = Pongee()
    room = pongee.channel("chat:{room_id}", Message)
    with pytest.raises(ConfigurationError, match="overlap"):
        pongee.channel("chat:{other}", Message)
    with pytest.raises(ConfigurationError, match="overlap"):
        pongee.channel("chat:7", Message)

    @pongee.rpc("sum")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(ConfigurationError, match="'sum' is declared twice"):
        pongee.rpc("sum")(add)
    connection = pongee.connection(auth=public)
    with pytest.raises(ConfigurationError, match="was called before"):
        pongee.connection(auth=public)

    async def handler(client: Client) -> None:
        """Do nothing."""

    connection.on_connect(handler)
    with pytest.raises(ConfigurationError, match="on_connect was registered before"):
        connection.on_connect(handler)
    room.on_subscribe(handler)
    with pytest.raises(ConfigurationError, match="on_subscribe was registered before"):
        room.on_subscribe(handler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auth": "secret"}, "no policy"),
        ({"auth": None}, "no policy"),
        ({"auth": public, "pong_timeout": 30}, "pong_timeout=30 must be"),
        ({"auth": public, "pong_timeout": 0}, "pong_timeout=0 must be"),
        ({"auth": public, "origins": "https://a.example"}, "give a list"),
    ],
)
def test_connections_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """Likewise."""
    with pytest.raises(ConfigurationError, match=message):
        Pongee().connection(**options)


async def test_channels_for_clients_need_somebody_who_may_connect() -> None:
    """Told at the start of the application."""
    pongee, app = Pongee(), FastAPI()
    pongee.channel("chat:{room_id}", Message, may_subscribe=public)
    pongee.install(app)
    with pytest.raises(ConfigurationError, match="nobody said who may connect"):
        async with pongee.lifespan(app):
            pass


def test_channels_of_the_server_alone_need_nobody() -> None:
    """Sessions may be all there is."""
    pongee = Pongee()
    pongee.channel("log", Message)
    pongee.connection(auth=JWTBearer("x" * 32))
    pongee._node.declared.check()


# Publishing


async def test_message_is_checked_wherever_it_is_published() -> None:
    """By the channel, by the name, with parameters that make a name."""
    world = World()
    publish, room = world.pongee.publish, world.room
    assert (await publish("chat:1", {"text": "a"})).offset == 1
    assert (await publish("chat:1", Message(text="b"))).offset == 2
    assert (await room.publish(Message(text="c"), room_id=1)).offset == 3
    assert (await room.publish(Message(text="d"), room_id=2)).offset == 1
    assert await publish("elsewhere", "anything") == NOWHERE
    wrong: list[Any] = ["text", {"text": 5}, {}, None, b"\xff"]
    for message in wrong:
        with pytest.raises(UsageError, match="cannot carry"):
            await publish("chat:1", message)
    for parameters in ({}, {"room": 1}, {"room_id": 1, "x": 2}, {"room_id": "a:b"}):
        with pytest.raises(UsageError):
            await room.publish(Message(text="x"), **parameters)
    for name in ("", "x" * 256, "a\nb"):
        with pytest.raises(UsageError, match="a channel's name"):
            await publish(name, {"text": "x"})
    with pytest.raises(UsageError, match="tags are texts"):
        await publish("chat:1", {"text": "x"}, tags={"n": 1})  # type: ignore[dict-item]
    page = await world.pongee.history("chat:1")
    assert [one.data for one in page.publications] == [
        b'{"text":"a"}',
        b'{"text":"b"}',
        b'{"text":"c"}',
    ]


async def test_key_makes_a_publication_happen_once() -> None:
    """In its channel, for its time; also when many race."""
    world = World()
    first = await world.pongee.publish("chat:1", {"text": "a"}, idempotency_key="k")
    again = [world.pongee.publish("chat:1", {"text": "b"}, idempotency_key="k") for _ in range(20)]
    assert set(await asyncio.gather(*again)) == {first}
    other = await world.pongee.publish("chat:2", {"text": "a"}, idempotency_key="k")
    assert other.offset == 1
    world.clock.advance(301)
    later = await world.pongee.publish("chat:1", {"text": "c"}, idempotency_key="k")
    assert later.offset == 2


async def test_broadcast_gives_a_position_for_each() -> None:
    """In order; the first that is wrong ends it, and says which."""
    world = World()
    await world.room.publish(Message(text="x"), room_id=1)
    channels = ["chat:1", "chat:2", "elsewhere"]
    positions = await world.pongee.broadcast(channels, {"text": "all"}, tags={"a": "b"})
    assert [position.offset for position in positions] == [2, 1, 0]
    assert await world.pongee.broadcast([], {"text": "none"}) == []
    with pytest.raises(UsageError, match="chat"):
        await world.pongee.broadcast(["chat:3", "chat:4"], "no message")
    repeated = await world.pongee.broadcast(["chat:5"] * 2, {"text": "x"}, idempotency_key="k")
    assert [position.offset for position in repeated] == [1, 1]


async def test_many_publish_at_once_and_offsets_are_one_after_the_other() -> None:
    """Whoever listens sees the same order."""
    world = World()
    async with world.open() as server, connect(server.ws("/connection/websocket")) as peer:
        await peer.send_json({"id": 1, "connect": {}})
        assert "subscribe" in await ask(peer, 2, subscribe={"channel": "chat:1"})
        loop = asyncio.get_running_loop()

        def work(number: int) -> list[Position]:
            return [
                world.pongee.publish_sync("chat:1", {"text": f"{number}.{count}"})
                for count in range(25)
            ]

        found = await asyncio.gather(*(loop.run_in_executor(None, work, n) for n in range(4)))
        assert sorted(one.offset for group in found for one in group) == list(range(1, 101))
        got = [(await push_of(peer, "pub"))["pub"] for _ in range(100)]
        assert [one["offset"] for one in got] == list(range(1, 101))
        for number, group in enumerate(found):
            texts = [one["data"]["text"] for one in got]
            for count, position in enumerate(group):
                assert texts[position.offset - 1] == f"{number}.{count}"


async def test_publish_from_a_plain_route() -> None:
    """FastAPI runs it in a thread; sessions and SDKs get it."""
    world = World()

    @world.app.post("/say")
    def say(message: Message) -> int:
        return world.pongee.publish_sync("chat:1", message, tags={"by": "route"}).offset

    async with world.open() as server, connect(server.ws("/connection/websocket")) as peer:
        await peer.send_json({"id": 1, "connect": {}})
        await ask(peer, 2, subscribe={"channel": "chat:1"})
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.post(server.http("/say"), json={"text": "sold"})
        assert response.json() == 1
        publication = (await push_of(peer, "pub"))["pub"]
        assert publication == {"data": {"text": "sold"}, "offset": 1, "tags": {"by": "route"}}


async def test_publish_sync_where_it_would_wait_for_itself() -> None:
    """On the loop's own thread it says so; before the start likewise; a wrong message is told."""
    world = World()
    with pytest.raises(UsageError, match="does not run"):
        world.pongee.publish_sync("chat:1", {"text": "x"})
    async with world.open():
        with pytest.raises(UsageError, match="await publish"):
            world.pongee.publish_sync("chat:1", {"text": "x"})
        problems: list[BaseException] = []

        def work() -> None:
            try:
                world.pongee.publish_sync("chat:1", "no message")
            except UsageError as problem:
                problems.append(problem)

        thread = threading.Thread(target=work)
        thread.start()
        await eventually(lambda: problems, what="the thread is told")
        thread.join(5)
        assert "cannot carry" in str(problems[0])


# Sessions and SDKs


@pytest.mark.parametrize("form", [str, bytes, Message])
async def test_sessions_of_each_format_and_clients_meet(form: Any) -> None:
    """What clients publish reaches a session in its format, and the reverse."""
    world = World()

    async def handler(session: Any) -> None:
        await session.subscribe("chat:1")
        async for said in session:
            text = said.text if isinstance(said, Message) else said
            text = text.decode() if isinstance(text, bytes) else text
            await world.room.publish(Message(text=text), room_id=1)

    handler.__annotations__["session"] = Session[form, form]
    world.pongee.endpoint("/ws", auth=public)(handler)
    async with (
        world.open() as server,
        connect(server.ws("/ws")) as plain,
        connect(server.ws("/connection/websocket")) as peer,
    ):
        await peer.send_json({"id": 1, "connect": {}})
        await ask(peer, 2, subscribe={"channel": "chat:1"})
        await eventually(lambda: world.pongee.local_channels() == {"chat:1": 2}, what="both are in")
        await ask(peer, 3, publish={"channel": "chat:1", "data": {"text": "é"}})
        assert await plain.receive() == '{"text":"é"}'  # JSON is text, to binary endpoints too
        said: Any = {str: "ho", bytes: b"ho", Message: '{"text":"ho"}'}[form]
        await plain.send(said)
        await push_of(peer, "pub")
        assert (await push_of(peer, "pub"))["pub"]["data"] == {"text": "ho"}


async def test_history_and_presence_of_channels_that_keep_none() -> None:
    """A question that makes no sense is told so; nobody is nobody."""
    world = World()
    with pytest.raises(UsageError, match="keeps no history"):
        await world.pongee.history("elsewhere")
    assert await world.pongee.presence("elsewhere") == {}
    assert await world.pongee.presence_stats("elsewhere") == (0, 0)
    await world.pongee.publish("chat:1", {"text": "x"})
    await world.pongee.remove_history("chat:1")
    assert (await world.pongee.history("chat:1")).publications == []
    assert (await world.pongee.publish("chat:1", {"text": "y"})).offset == 2
    with pytest.raises(UsageError, match="give one of the two"):
        await world.pongee.subscribe("chat:1")
    with pytest.raises(UsageError, match="give one of the two"):
        await world.pongee.unsubscribe("chat:1", id="1", user="ann")
