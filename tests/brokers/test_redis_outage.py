"""The broker on Redis when the server is away, hangs, is full, forgets or refuses."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pongee.brokers.base import Stream
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import ClientInfo, Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT, REDIS_CHUNK, REDIS_UNSENT
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.redis_server import RedisServer, redis_6, redis_7

pytestmark = pytest.mark.anyio

STREAM = Stream(1000, 60, 600)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with RedisServer(tmp_path, redis_6()) as server:
        yield server


@asynccontextmanager
async def started(address: str, **options: Any) -> AsyncIterator[tuple[RedisBroker, RecordingSink]]:
    broker, sink = RedisBroker(address, **options), RecordingSink()
    await broker.start(sink, "n")
    try:
        yield broker, sink
    finally:
        await broker.stop()


@asynccontextmanager
async def admin(server: RedisServer) -> AsyncIterator[Any]:
    client = Redis.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


async def up(broker: RedisBroker) -> None:
    await eventually(lambda: broker.health.up, within=15, what="the link")


async def down(broker: RedisBroker) -> None:
    await eventually(lambda: not broker.health.up, within=15, what="the break")


async def arrived(sink: RecordingSink, channel: str, count: int) -> list[Publication]:
    await eventually(lambda: len(sink.publications(channel)) >= count, what="publications")
    return sink.publications(channel)


def one(number: int) -> Publication:
    return Publication(b"%d" % number)


@pytest.mark.parametrize("keeps", [True, False])
async def test_server_starts_anew(tmp_path: Path, keeps: bool) -> None:
    """With what it kept the count goes on; without, a new epoch begins. Nobody subscribes anew."""
    with RedisServer(tmp_path, redis_6(), appendonly=keeps) as server:
        async with started(server.url) as (broker, sink):
            await broker.subscribe("a")
            first = await broker.publish("a", one(1), STREAM)
            await arrived(sink, "a", 1)
            server.kill()
            await down(broker)
            assert "Redis at 127.0.0.1" in broker.health.reason
            before = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                await broker.publish("a", one(2), STREAM)
            with pytest.raises(BrokerUnavailable):
                await broker.subscribe("b")
            assert time.monotonic() - before < 0.1
            server.start()
            await up(broker)
            second = await broker.publish("a", one(2), STREAM)
            came = await arrived(sink, "a", 2)
            assert [publication.position for publication in came] == [first, second]
            assert (second.epoch == first.epoch) == keeps
            assert second.offset == (2 if keeps else 1)
            assert sink.links == [True, False, True]


async def test_server_is_away_at_the_start(server: RedisServer) -> None:
    """That is no error, and it is found when it comes."""
    server.stop()
    async with started(server.url) as (broker, sink):
        assert not broker.health.up
        server.start()
        await up(broker)
        assert (await broker.publish("a", one(1), STREAM)).offset == 1
        assert sink.links == [True]


async def test_server_hangs(server: RedisServer) -> None:
    """Whoever waits fails in time, all at once; whoever comes then, at once; and it recovers."""
    async with started(server.url) as (broker, sink):
        await broker.subscribe("a")
        server.freeze()
        before = time.monotonic()
        size = 1 + REDIS_UNSENT // 50
        calls = [broker.publish("a", Publication(b"x" * size), None) for _ in range(60)]
        calls += [broker.presence("a") for _ in range(500)]  # type: ignore[misc]
        calls.append(broker.subscribe("b"))  # type: ignore[arg-type]
        results = await asyncio.gather(*calls, return_exceptions=True)
        took = time.monotonic() - before
        assert {type(result) for result in results} == {BrokerUnavailable}
        reasons = [str(result).partition(": ")[2] for result in results]
        assert any("no answer" in reason for reason in reasons)
        # More than may wait to be sent.
        assert reasons[59] == "too much waits for its answer"
        assert took < 2 * BROKER_TIMEOUT
        await down(broker)
        before = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await broker.publish("a", one(1), STREAM)
        assert time.monotonic() - before < 0.1
        server.thaw()
        await up(broker)
        await broker.publish("a", one(7), STREAM)
        assert (await arrived(sink, "a", 1))[-1].data == b"7"
        assert sink.links == [True, False, True]
        async with admin(server) as client:
            assert b"b" not in b"".join(await client.pubsub_channels("*channel*"))


async def test_subscriptions_are_lost(server: RedisServer) -> None:
    """The sink is told, and everything is subscribed again, however much it is."""
    names = [f"c{number}" for number in range(2 * REDIS_CHUNK + 100)]
    async with started(server.url) as (broker, sink), admin(server) as client:
        await asyncio.gather(*(broker.subscribe(name) for name in names))
        for _ in range(3):
            links = len(sink.links)
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(
                lambda links=links: sink.links[links:] == [False, True],  # type: ignore[misc]
                within=15,
                what="the break and the return",
            )
            assert len(await client.pubsub_channels("*:channel:*")) == len(names)
        await broker.publish(names[-1], one(1), STREAM)
        await arrived(sink, names[-1], 1)


async def test_left_while_the_link_is_down(server: RedisServer) -> None:
    """It is not subscribed again."""
    async with started(server.url) as (broker, _), admin(server) as client:
        for name in ("a", "b"):
            await broker.subscribe(name)
        server.stop()
        await down(broker)
        await broker.unsubscribe("a")
        server.start()
        await up(broker)
        assert await client.pubsub_channels("*:channel:*") == [b"pongee:channel:{c.b}"]


async def test_only_wanted_channels_are_subscribed(server: RedisServer) -> None:
    """However they come and go, also when nobody waits for the end of it."""
    chance = random.Random(7)
    names = [f"c{number}" for number in range(5)]
    async with started(server.url) as (broker, _), admin(server) as client:

        async def subscribed() -> set[bytes]:
            await broker.subscribe("last")  # then the server has seen all before it
            channels = {*await client.pubsub_channels("*:channel:*")}
            await broker.unsubscribe("last")
            return channels - {b"pongee:channel:{c.last}"}

        for _ in range(30):
            tasks = []
            for _ in range(chance.randrange(1, 8)):
                step = chance.choice([broker.subscribe, broker.unsubscribe])
                tasks.append(asyncio.ensure_future(step(chance.choice(names))))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
            for task in chance.sample(tasks, len(tasks) // 2):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await subscribed() == {*broker._subscriptions._wanted}
        for name in names:
            await broker.unsubscribe(name)
        assert await subscribed() == set()


async def test_scripts_are_forgotten(server: RedisServer) -> None:
    """They are sent again; no publication is missing, doubled or out of order."""
    async with started(server.url) as (broker, sink), admin(server) as client:
        await broker.subscribe("a")
        for number in range(20):
            await asyncio.gather(
                broker.publish("a", one(number), STREAM),
                client.script_flush(),
                return_exceptions=False,
            )
            await broker.presence_counts("a")
        came = await arrived(sink, "a", 20)
        assert [publication.data for publication in came] == [b"%d" % n for n in range(20)]
        assert [publication.offset for publication in came] == list(range(1, 21))


async def test_cancelling_gets_nothing_out_of_step(server: RedisServer) -> None:
    """Everybody else gets the own answer, whoever goes and when."""
    chance = random.Random(3)
    async with started(server.url) as (broker, sink):
        await broker.subscribe("a")

        async def ask(number: int) -> bool:
            await broker.put(f"{number}", b"%d" % number)
            return await broker.get(f"{number}") == b"%d" % number

        kept: list[int] = []
        for turn in range(30):
            tasks: list[asyncio.Task[Any]] = []
            for number in range(20):
                tasks.append(asyncio.ensure_future(ask(turn * 20 + number)))
                tasks.append(asyncio.ensure_future(broker.publish("a", one(number), STREAM)))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 12):
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, bool):
                    assert result
                elif not isinstance(result, BaseException):
                    kept.append(result.offset)
        top = await broker.publish("a", one(0), STREAM)
        came = await arrived(sink, "a", top.offset)
        assert [publication.offset for publication in came] == list(range(1, top.offset + 1))
        assert len(kept) == len({*kept})
        assert {*kept} <= {*range(1, top.offset)}
        assert broker.health.up


@pytest.mark.parametrize("binary", [redis_6, redis_7])
async def test_server_is_full(tmp_path: Path, binary: Callable[[], str]) -> None:
    """Nothing is accepted that is not kept, and it works again when there is room."""
    with RedisServer(tmp_path, binary(), config=["maxmemory-policy noeviction"]) as server:
        async with started(server.url) as (broker, sink), admin(server) as client:
            await broker.subscribe("a")
            await broker.publish("a", one(1), STREAM)
            await client.config_set("maxmemory", 1)
            for _ in range(2):
                with pytest.raises(BrokerUnavailable, match=r"Redis at 127\.0\.0\.1.*OOM"):
                    await broker.publish("a", one(2), STREAM)
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await broker.put("a", b"1")
            assert broker.health.up
            await client.config_set("maxmemory", 0)
            assert (await broker.publish("a", one(3), STREAM)).offset == 2
            came = await arrived(sink, "a", 2)
            assert [publication.data for publication in came] == [b"1", b"3"]


async def test_server_becomes_a_replica(tmp_path: Path) -> None:
    """It takes no writes: that is a break, until it, or another, is the master again."""
    with (
        RedisServer(tmp_path / "one", redis_6()) as server,
        RedisServer(tmp_path / "two", redis_6()) as other,
    ):
        async with started(server.url) as (broker, _), admin(server) as client:
            await client.replicaof("127.0.0.1", other.port)
            with pytest.raises(BrokerUnavailable, match="READONLY"):
                await broker.publish("a", one(1), STREAM)
            assert not broker.health.up
            await eventually(lambda: "is a replica" in broker.health.reason, within=15)
            await client.replicaof("NO", "ONE")
            await up(broker)
            await broker.publish("a", one(1), STREAM)


async def test_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong one is told at the start, but not shown; one that is changed later is waited for."""
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path, redis_7(), password="s3cret") as server:
        for login in (":wr0ng@", "nobody:wr0ng@", ""):
            broker = RedisBroker(f"redis://{login}127.0.0.1:{server.port}")
            with pytest.raises(ConfigurationError, match="refuses") as caught:
                await broker.start(RecordingSink(), "n")
            assert "wr0ng" not in f"{caught.value}{broker!r}{broker.health}"
        async with started(server.url) as (broker, _), admin(server) as client:
            await broker.publish("a", one(1), STREAM)
            await client.config_set("requirepass", "changed")
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: "refuses" in broker.health.reason, within=15)
            await client.config_set("requirepass", "s3cret")
            await up(broker)
            assert "s3cret" not in f"{broker!r}{broker.health}"
    with RedisServer(tmp_path / "open", redis_7()) as server:
        broker = RedisBroker(f"redis://:wr0ng@127.0.0.1:{server.port}")
        with pytest.raises(ConfigurationError, match="refuses"):
            await broker.start(RecordingSink(), "n")
    assert "s3cret" not in caplog.text
    assert "wr0ng" not in caplog.text


async def test_server_is_too_old() -> None:
    """That is told at the start."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    await reader.readexactly(length + 2)
                text = b"redis_version:6.0.16\r\nredis_mode:standalone\r\n"
                writer.write(b"$%d\r\n%s\r\n" % (len(text), text))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"6\.0\.16; 6\.2 or newer"):
            await RedisBroker(f"redis://127.0.0.1:{port}").start(RecordingSink(), "n")


async def test_what_cannot_be_read_is_ignored(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And said once, whoever writes it and where; what can be read arrives."""
    rubbish = [b"", b"x", b"p", b"p1", b"p1:e:", b"px:e:\x80", b"j\xc1", b"l", b"\xff" * 50]
    async with started(server.url) as (broker, sink), admin(server) as client:
        await broker.subscribe("a")
        for message in rubbish:
            await client.publish("pongee:channel:{c.a}", message)
        await client.publish("pongee:node:n", b"rubbish")
        await broker.publish("a", one(1), STREAM)
        await client.xadd("pongee:stream:{c.a}", {"t": 10**15, "p": b"rubbish"}, id="2-0")
        await client.hset("pongee:present:{c.a}", "c9", b"0:rubbish")
        await broker.add_presence("a", ClientInfo("ann", "c1"), 60)
        await arrived(sink, "a", 1)
        page = await broker.history("a", STREAM)
        assert [publication.data for publication in page.publications] == [b"1"]
        assert {*await broker.presence("a")} == {"c1"}
        assert sink.control == [b"rubbish"]
        assert broker.health.up
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


async def test_sink_that_raises_hurts_nobody(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next is told."""

    class Raising(RecordingSink):
        def on_publication(self, channel: str, publication: Publication) -> None:
            super().on_publication(channel, publication)
            if publication.offset == 1:
                raise ZeroDivisionError

    broker, sink = RedisBroker(server.url), Raising()
    await broker.start(sink, "n")
    await broker.subscribe("a")
    for number in range(2):
        await broker.publish("a", one(number), STREAM)
    await arrived(sink, "a", 2)
    await broker.stop()
    assert "a sink raised" in caplog.text


async def test_nothing_is_left_after_stop(server: RedisServer) -> None:
    """No connection and no task, also when it stops while it connects or is down."""
    tasks = asyncio.all_tasks()
    async with admin(server) as client:
        for turn in range(4):
            broker = RedisBroker(server.url)
            starting = asyncio.ensure_future(broker.start(RecordingSink(), "n"))
            for _ in range(turn * 3):
                await asyncio.sleep(0)
            if turn == 3:
                await starting
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await broker.stop()
            with pytest.raises(BrokerUnavailable):
                await broker.publish("a", one(1), STREAM)
        assert asyncio.all_tasks() == tasks

        connections: list[Any] = []

        async def alone() -> bool:
            connections[:] = await client.client_list()
            return len(connections) == 1

        deadline = time.monotonic() + 5
        while not await alone():
            assert time.monotonic() < deadline, connections


async def test_broker_may_start_again(server: RedisServer) -> None:
    """With nothing subscribed."""
    broker = RedisBroker(server.url)
    for _ in range(2):
        sink = RecordingSink()
        await broker.start(sink, "n")
        assert broker.health.up
        await broker.publish("a", one(1), STREAM)
        await broker.subscribe("a")
        await broker.publish("a", one(2), STREAM)
        assert [publication.data for publication in await arrived(sink, "a", 1)] == [b"2"]
        await broker.stop()
