"""Processes of one application on one broker: what is done at one is done at all."""

from __future__ import annotations

import asyncio
import logging

import httpx
import msgspec
import pytest

from pongee import BrokerUnavailable, Settings, UsageError
from pongee.channels.publication import Position
from pongee.fleet.messages import Answer, Bye, Disconnect, Hello, NodeInfo, Target, encode
from pongee.limits import BROKER_PATIENCE, NODE_TTL
from pongee.testing import ManualClock, connect, eventually, serve
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer
from tests.fleet.world import Process, make, processes

pytestmark = pytest.mark.anyio

CHAT = "chat:1"
GHOST = NodeInfo(
    uid="ghost",
    name="g",
    version="0",
    num_clients=9,
    num_users=9,
    num_subs=9,
    num_channels=9,
    uptime=9,
)


async def test_publication_reaches_every_process(settings: Settings) -> None:
    """Client SDKs and sessions, wherever it was published; positions agree."""
    async with processes(settings) as (one, two), one.sdk("ann", CHAT) as ann:
        async with two.sdk("ben", CHAT) as ben, connect(two.server.ws("/ws")) as session:
            await eventually(lambda: two.pongee.local_channels().get("plain"), what="it is in")
            position = await one.room.publish({"n": 1}, room_id=1)
            for sdk in (ann, ben):
                publication = await sdk.pushed("pub")
                assert (publication["data"], publication["offset"]) == ({"n": 1}, 1)
            assert position.offset == 1
            await one.pongee.publish("plain", "hello")
            assert await session.receive() == "hello"
        page = await two.pongee.history(CHAT)
        assert page.top == position


async def test_client_recovers_at_another_process(settings: Settings) -> None:
    """What it missed, without a hole, and what comes then."""
    async with processes(settings) as (one, two):
        async with one.sdk("ann") as ann:
            joined = (await ann.ask(subscribe={"channel": CHAT}))["subscribe"]
        for number in range(10):
            await one.room.publish({"n": number}, room_id=1)
        async with two.sdk("ann") as ann:
            since = {"epoch": joined["epoch"], "offset": joined.get("offset", 0)}
            back = await ann.ask(subscribe={"channel": CHAT, "recover": True, **since})
            assert back["subscribe"]["recovered"]
            assert [one["data"]["n"] for one in back["subscribe"]["publications"]] == [*range(10)]
            await one.room.publish({"n": 10}, room_id=1)
            assert (await ann.pushed("pub"))["offset"] == 11


async def test_user_is_disconnected_everywhere_at_once(settings: Settings) -> None:
    """Sessions and client SDKs, and nobody else."""
    async with (
        processes(settings, 3) as (one, two, three),
        one.sdk("ann") as first,
        two.sdk("ann") as second,
        three.sdk("ben") as other,
        connect(three.server.ws("/ws?user=ann")) as session,
    ):
        await eventually(lambda: three.pongee.connections_of("ann"), what="it is in")
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await one.pongee.disconnect(user="ann", code=4001, reason="revoked") == 3
        for peer in (first.peer, second.peer, session):
            closed = await peer.wait_closed()
            assert (closed.code, closed.reason) == (4001, "revoked")
        assert loop.time() - start < 1
        assert (await other.ask(ping={})).keys() >= {"id"}
        assert await one.pongee.disconnect(user="ann") == 0


async def test_one_connection_is_found_wherever_it_is(settings: Settings) -> None:
    """By its id."""
    async with processes(settings) as (one, two), two.sdk("ann") as first, two.sdk("ann") as second:
        known = {info.id for info in two.pongee.connections()}
        assert len(known) == 2
        found = two.pongee.connections()[0].id
        assert await one.pongee.disconnect(id=found) == 1
        await eventually(lambda: len(two.pongee.connections()) == 1)
        ends = [asyncio.create_task(sdk.peer.wait_closed()) for sdk in (first, second)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert sum(end.done() for end in ends) == 1
        for end in ends:
            end.cancel()


async def test_subscriptions_are_begun_and_ended_everywhere(settings: Settings) -> None:
    """And told to the client as the server's doing."""
    async with processes(settings) as (one, two), two.sdk("ann") as ann:
        assert await one.pongee.subscribe(CHAT, user="ann") == 1
        assert (await ann.pushed("subscribe"))["recoverable"]
        await one.room.publish({"n": 1}, room_id=1)
        assert (await ann.pushed("pub"))["data"] == {"n": 1}
        assert await one.pongee.unsubscribe(CHAT, user="ann", code=2001, reason="enough") == 1
        assert await ann.pushed("unsubscribe") == {"code": 2001, "reason": "enough"}
        await eventually(lambda: not two.pongee.local_channels(), what="it is out")


async def test_connection_is_refreshed_wherever_it_is(settings: Settings) -> None:
    """A time that is over ends it."""
    async with processes(settings) as (one, two), two.sdk("ann") as ann:
        assert await one.pongee.refresh(None, user="ann") == 1
        assert await one.pongee.refresh(1.0, user="ann") == 1
        assert (await ann.peer.wait_closed()).code == 3005


async def test_what_went_wrong_elsewhere_is_told(settings: Settings) -> None:
    """As if it had happened here."""
    async with processes(settings) as (one, two), two.sdk("ann", "chat:2", "chat:3", "chat:4"):
        with pytest.raises(UsageError, match="as many channels as it may"):
            await one.pongee.subscribe(CHAT, user="ann")
        with pytest.raises(UsageError, match="not declared"):
            await one.pongee.subscribe("elsewhere", user="ann")
        with pytest.raises(UsageError, match="2000 to 2999"):
            await one.pongee.unsubscribe(CHAT, user="ann", code=99)
        with pytest.raises(UsageError, match="give one of the two"):
            await one.pongee.refresh(None)


async def test_channels_and_presence_are_of_all_processes(settings: Settings) -> None:
    """Members are added up; a pattern leaves some out."""
    async with processes(settings) as (one, two), one.sdk("ann", CHAT, "chat:2") as ann:
        async with two.sdk("ben", CHAT), two.sdk("", CHAT):
            assert await one.pongee.channels() == {CHAT: 3, "chat:2": 1}
            assert await two.pongee.channels("*:2") == {"chat:2": 1}
            assert await two.pongee.presence_stats(CHAT) == (3, 3)
            told = (await ann.ask(presence={"channel": CHAT}))["presence"]["presence"]
            assert {info.get("user", "") for info in told.values()} == {"ann", "ben", ""}
        await eventually(lambda: not two.pongee.local_channels(), what="they are out")
        assert await one.pongee.channels() == {CHAT: 1, "chat:2": 1}


async def test_joins_and_leaves_are_told_everywhere(settings: Settings) -> None:
    """To those who asked for them."""
    async with processes(settings) as (one, two), one.sdk("ann", CHAT, join_leave=True) as ann:
        assert (await ann.pushed("join"))["info"]["user"] == "ann"
        async with two.sdk("ben", CHAT):
            assert (await ann.pushed("join"))["info"]["user"] == "ben"
        assert (await ann.pushed("leave"))["info"]["user"] == "ben"


async def test_commands_find_the_client_of_a_stream(settings: Settings) -> None:
    """Whichever process they came to; where nobody knows its process, 404."""
    async with (
        processes(settings) as (one, two),
        httpx.AsyncClient(timeout=10) as web,
        web.stream(
            "POST", one.server.http("/connection/http_stream"), content='{"id":1,"connect":{}}'
        ) as stream,
    ):
        lines = stream.aiter_lines()
        connected = msgspec.json.decode(await anext(lines))["connect"]
        where = {"session": connected["session"], "node": connected["node"]}
        command = '{"id":2,"subscribe":{"channel":"chat:1"}}'
        path = two.server.http("/emulation")
        answer = await web.post(path, json={**where, "data": command})
        assert answer.status_code == 204
        assert "subscribe" in msgspec.json.decode(await anext(lines))
        answer = await web.post(path, json={**where, "node": "nowhere", "data": command})
        assert answer.status_code == 404
        answer = await web.post(path, json={**where, "session": "nobody's", "data": command})
        assert answer.status_code == 204  # the end of its stream tells it


async def test_something_is_done_once_by_all(settings: Settings) -> None:
    """Of many calls on every process one is the first."""
    async with processes(settings) as (one, two):
        calls = [process.pongee.once("job", 60.0) for process in (one, two) * 10]
        assert sorted(await asyncio.gather(*calls)) == [False] * 19 + [True]
        assert await two.pongee.once("another", 60.0)


async def test_processes_come_and_go(settings: Settings) -> None:
    """Each says what it is; one that leaves in order is gone at once."""
    async with processes(settings) as (one, two), two.sdk("ann", CHAT):
        await two.pongee.publish(CHAT, {})
        two.pongee._node.fleet.greet()
        await eventually(
            lambda: [info.num_clients for info in one.pongee._node.fleet.others] == [1],
            what="the other says that it has a client",
        )
        own, other = await one.pongee.info()
        assert (own.num_clients, other.num_clients) == (0, 1)
        assert (other.num_users, other.num_subs, other.num_channels) == (1, 1, 1)
        assert own.uid != other.uid
    assert not one.pongee._node.fleet.others


async def test_process_that_is_not_heard_of_is_gone(settings: Settings) -> None:
    """After its time to live; until then it is waited for, once a question, and named."""
    clock = ManualClock()
    pongee, app, _ = make(settings, clock=clock)
    async with serve(app):
        node = pongee._node
        await node.board.broker.control(encode(Hello(GHOST)))
        await eventually(lambda: node.fleet.others, what="the ghost is seen")
        assert [info.uid for info in await pongee.info()] == [node.board.node, "ghost"]
        for _ in range(int(NODE_TTL) + 2):
            clock.advance(1)
        assert not node.fleet.others
        await node.board.broker.control(encode(Hello(GHOST)))
        await eventually(lambda: node.fleet.others, what="the ghost is seen")
        await node.board.broker.control(encode(Bye("ghost")))
        await eventually(lambda: not node.fleet.others, what="the ghost said goodbye")


async def test_process_that_does_not_answer_is_left_out(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """And named in the log; the others have done it."""
    async with processes(settings) as (one, two), two.sdk("ann") as ann:
        await one.pongee._node.board.broker.control(encode(Hello(GHOST)))
        await eventually(lambda: len(one.pongee._node.fleet.others) == 2, what="the ghost is seen")
        with caplog.at_level(logging.WARNING, "pongee"):
            assert await one.pongee.disconnect(user="ann") == 1
        assert "ghost" in caplog.text
        await ann.peer.wait_closed()


async def test_end_of_a_process_ends_its_questions(settings: Settings) -> None:
    """Nobody waits for answers that nobody will wait for."""
    clock = ManualClock()
    pongee, app, _ = make(settings, clock=clock)
    async with serve(app):
        node = pongee._node
        await node.board.broker.control(encode(Hello(GHOST)))
        await eventually(lambda: node.fleet.others, what="the ghost is seen")
        asking = asyncio.create_task(pongee.disconnect(user="ann"))
        await eventually(lambda: node.fleet._surveys, what="it is asked")
    assert await asyncio.wait_for(asking, 5) == 0


async def test_answers_count_once(settings: Settings) -> None:
    """However often a process gives them."""
    async with processes(settings) as (one, two):
        node = one.pongee._node
        await node.board.broker.control(encode(Hello(GHOST)))
        await eventually(lambda: len(node.fleet.others) == 2, what="the ghost is seen")
        asking = asyncio.create_task(one.pongee.channels())
        await eventually(lambda: node.fleet._surveys, what="it is asked")
        (number,) = node.fleet._surveys
        for _ in range(3):
            answer = Answer("ghost", number, channels={"x": 5})
            await two.pongee._node.board.broker.control(encode(answer))
        assert await asking == {"x": 5}


async def test_control_messages_of_strangers_do_no_harm(settings: Settings) -> None:
    """They are ignored, and a survey's late answer too."""
    async with processes(settings) as (one, two):
        for data in (b"", b"\xff" * 100, b"{}", encode(Bye("nobody"))):
            await one.pongee._node.board.broker.control(data)
        assert await two.pongee.channels() == {}


async def test_broker_that_is_away(
    settings: Settings, broker_server: RedisServer | NatsServer
) -> None:
    """A command has been done here, and says that others were not told; then all is as before."""
    async with (
        processes(settings) as (one, two),
        one.sdk("ann") as here,
        two.sdk("ann", CHAT) as there,
    ):
        await one.room.publish({"n": 1}, room_id=1)
        assert (await there.pushed("pub"))["offset"] == 1
        broker_server.stop()
        try:
            for process in (one, two):
                health = process.pongee._node.board.broker
                await eventually(lambda broker=health: not broker.health.up, what="it is noticed")  # type: ignore[misc]
            with pytest.raises(BrokerUnavailable):
                await one.pongee.disconnect(user="ann")
            assert (await here.peer.wait_closed()).code == 3503
            with pytest.raises(BrokerUnavailable):
                await one.room.publish({"n": 2}, room_id=1)
        finally:
            broker_server.start()
        for process in (one, two):
            health = process.pongee._node.board.broker
            await eventually(lambda broker=health: broker.health.up, within=15, what="it is back")  # type: ignore[misc]
        position = await one.room.publish({"n": 3}, room_id=1)
        assert isinstance(position, Position)
        assert (await there.pushed("pub"))["data"] == {"n": 3}
        await eventually(lambda: len(one.pongee._node.fleet.others) == 1, what="all are back")
        assert await one.pongee.disconnect(user="ann") == 1


@pytest.mark.parametrize("others", [True, False])
async def test_clients_are_sent_where_the_broker_may_be_reached(
    settings: Settings, broker_server: RedisServer | NatsServer, others: bool
) -> None:
    """Those that were promised their position, and only if there is anywhere to go."""
    clock = ManualClock()
    pongee, app, room = make(settings, clock=clock)
    node = pongee._node
    async with serve(app) as server:
        process = Process(pongee, room, server)
        async with process.sdk("ann", CHAT) as ann, process.sdk("ben") as ben:
            if others:
                await node.board.broker.control(encode(Hello(GHOST)))
                await eventually(lambda: node.fleet.others, what="the ghost is seen")
            broker_server.stop()
            try:
                await eventually(lambda: not node.board.broker.health.up, what="it is noticed")
                clock.advance(BROKER_PATIENCE - 1)
                await ann.ask(ping={})
                clock.advance(2)
                if others:
                    assert (await ann.peer.wait_closed()).code == 3010
                else:
                    await ann.ask(ping={})
                await ben.ask(ping={})
            finally:
                broker_server.start()
            await eventually(lambda: node.board.broker.health.up, within=15, what="it is back")
            clock.advance(BROKER_PATIENCE + 1)
            await ben.ask(ping={})


async def test_alone_nobody_is_asked() -> None:
    """On the memory broker everything is done before anything is waited for."""
    pongee, app, _ = make(Settings())
    async with serve(app):
        (answer,) = await pongee._node.command(Disconnect(Target(user="ann")))
        assert answer.count == 0
        assert [info.uid for info in await pongee.info()] == [pongee._node.board.node]
