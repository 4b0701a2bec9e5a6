"""The broker on Redis: the contract, and what is special to it."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from pongee.brokers.base import Broker, Counts, Page, Stream
from pongee.brokers.memory import MemoryBroker
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import ClientInfo, Position, Publication
from pongee.errors import ConfigurationError
from pongee.limits import REDIS_UNUSED
from pongee.testing import ManualClock, eventually
from pongee.testing.broker_contract import BrokerContract
from pongee.testing.broker_world import RecordingSink, fresh_name
from tests.brokers.redis_server import RedisServer, redis_6, redis_7, redis_8

pytestmark = pytest.mark.anyio

STREAM = Stream(100, 60, 600)

Step = Callable[[Broker], Awaitable[Any]]


@pytest.fixture(scope="module")
def server_6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis6"), redis_6()) as server:
        yield server


@pytest.fixture(scope="module")
def server_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis7"), redis_7()) as server:
        yield server


@pytest.fixture(scope="module")
def server_8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis8"), redis_8()) as server:
        yield server


class _Contract(BrokerContract):
    ttl = 1.0
    shared = True
    url: str

    async def make_broker(self) -> Broker:
        return RedisBroker(self.url)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TestContractOn6(_Contract):
    """With the oldest server that is supported."""

    @pytest.fixture(autouse=True)
    def _use(self, server_6: RedisServer) -> None:
        self.url = server_6.url


class TestContractOn7(_Contract):
    """With a newer one, in a database of its own."""

    @pytest.fixture(autouse=True)
    def _use(self, server_7: RedisServer) -> None:
        self.url = f"{server_7.url[:-1]}3"


class TestContractOn8(_Contract):
    """With the newest, on its default database."""

    @pytest.fixture(autouse=True)
    def _use(self, server_8: RedisServer) -> None:
        self.url = server_8.url


@asynccontextmanager
async def started(address: str, **options: Any) -> AsyncIterator[tuple[RedisBroker, RecordingSink]]:
    broker, sink = RedisBroker(address, **options), RecordingSink()
    await broker.start(sink, "n")
    try:
        yield broker, sink
    finally:
        await broker.stop()


async def test_unix_socket(tmp_path: Path) -> None:
    """A password that is wrong is told there as well."""
    place = tempfile.mkdtemp()  # a short name: the system allows about 100 characters
    path = f"{place}/s"
    config = [f"unixsocket {path}"]
    with RedisServer(tmp_path, redis_6(), password="s3cret", config=config):
        async with started(f"unix://:s3cret@{path}?db=1") as (broker, _):
            assert (await broker.publish("a", Publication(b"1"), STREAM)).offset == 1
        with pytest.raises(ConfigurationError, match="refuses"):
            await RedisBroker(f"unix://:wr0ng@{path}").start(RecordingSink(), "n")
    shutil.rmtree(place)


@pytest.mark.parametrize("seed", range(4))
async def test_same_as_in_memory(server_6: RedisServer, seed: int) -> None:
    """Whatever is done in whatever order, while nothing gets too old."""
    chance, channel = random.Random(seed), fresh_name()
    model = MemoryBroker(ManualClock())
    streams = [Stream(size, 60, 600) for size in (1, 3, 10, 100)]
    infos = [ClientInfo(user, f"c{number}") for number, user in enumerate(["", "", "a", "a", "b"])]
    infos.append(ClientInfo("b", "c0"))  # another user on the same connection

    def publish(number: int) -> Step:
        key, stream = chance.choice([None, None, "k", "l"]), chance.choice(streams)
        one = Publication(b"%d" % number)
        return lambda broker: broker.publish(channel, one, stream, idempotency_key=key)

    def history(number: int) -> Step:
        since = chance.choice([None, Position(chance.randrange(number + 2), "")])
        limit, reverse = chance.choice([None, None, 0, 1, 5]), chance.random() < 0.5
        # A look at the position only need not let go of anything.
        stream = streams[-1] if limit == 0 else chance.choice(streams)
        return lambda broker: broker.history(
            channel, stream, since=since, limit=limit, reverse=reverse
        )

    def remove(number: int) -> Step:
        info = chance.choice(infos)
        if number % 10 == 0:
            return lambda broker: broker.remove_history(channel)
        return lambda broker: broker.remove_presence(channel, info.client, info.user)

    def enter(_: int) -> Step:
        info = chance.choice(infos)
        return lambda broker: broker.add_presence(channel, info, 60)

    def plain(result: Any) -> Any:
        """Leave the epochs out, which differ."""
        if isinstance(result, Position):
            return result.offset
        if isinstance(result, Page):
            return result.top.offset, [(one.offset, one.data) for one in result.publications]
        return result

    async with started(server_6.url) as (broker, _):
        for number in range(400):
            step = chance.choice([publish, publish, history, history, remove, enter])(number)
            assert plain(await step(broker)) == plain(await step(model))
            assert await broker.presence(channel) == await model.presence(channel)
            assert await broker.presence_counts(channel) == await model.presence_counts(channel)


async def test_names_with_braces_and_colons(server_7: RedisServer) -> None:
    """No channel is taken for another, and no key."""
    names = ["a", "a}", "{a}", "{", "}", "", "a}:k", "c.a", "{a", ":", "\u00e9", "a b", "a\r\n"]
    async with started(server_7.url, prefix=fresh_name()) as (broker, sink):
        for number, name in enumerate(names):
            await broker.subscribe(name)
            for key in ("k", "k}:k", ":k"):
                one = Publication(b"%d" % number)
                await broker.publish(name, one, STREAM, idempotency_key=key)
            await broker.add_presence(name, ClientInfo(name, f"c{number}"), 60)
        for number, name in enumerate(names):
            await eventually(lambda name=name: len(sink.publications(name)) == 3, what=name)  # type: ignore[misc]
            page = await broker.history(name, STREAM)
            assert [one.data for one in page.publications] == [b"%d" % number] * 3
            assert {*await broker.presence(name)} == {f"c{number}"}


async def test_prefixes_and_databases_are_apart(server_7: RedisServer) -> None:
    """Applications that share a server do not hear of each other."""
    base, prefix = server_7.url[:-1], fresh_name()
    async with (
        started(f"{base}1", prefix=prefix) as (one, sink),
        started(f"{base}2", prefix=prefix) as (two, _),
        started(f"{base}1", prefix=f"{prefix}2") as (three, _),
    ):
        await one.subscribe("a")
        for other in (two, three):
            await other.publish("a", Publication(b"0"), STREAM)
            await other.control(b"0")
            await other.control(b"0", "n")
            await other.put("note", b"0")
        assert (await one.history("a", STREAM)).top.offset == 0
        assert await one.get("note") is None
        await one.publish("a", Publication(b"1"), STREAM)
        await one.control(b"1")
        await eventually(lambda: sink.control and sink.publications("a"), what="the own ones")
        assert [publication.data for publication in sink.publications("a")] == [b"1"]
        assert sink.control == [b"1"]


async def test_nothing_is_kept_for_ever(server_6: RedisServer) -> None:
    """Neither what was published nor who was there, nor what was only looked at."""
    stream, prefix = Stream(10, 0.2, 0.4), fresh_name()
    async with started(server_6.url, prefix=prefix) as (broker, _):
        await broker.publish("a", Publication(b"1"), stream, idempotency_key="k")
        await broker.publish("b", Publication(b"1"), None, idempotency_key="k")
        await broker.history("c", Stream(10, 60, 10**9))
        for client, seconds in (("c1", 0.1), ("c2", 0.3)):
            await broker.add_presence("a", ClientInfo("ann", client), seconds)
        with Redis(port=server_6.port or 0) as client:
            left = {key: client.pttl(key) for key in client.scan_iter(f"{prefix}:*")}
        assert len(left) == 8  # stream and meta, two keys, a look, three of presence
        for key, milliseconds in left.items():
            longest = 400
            if b":once:" in key:
                longest = 300_000
            elif key.endswith(b"c.c}"):
                longest = int(REDIS_UNUSED * 1000)
            assert 0 < milliseconds <= longest, key


async def test_old_publications_go_while_others_come(server_6: RedisServer) -> None:
    """The stream holds no more than is young enough; a shorter time holds at once."""
    stream, channel = Stream(1000, 0.3, 60), fresh_name()
    async with started(server_6.url) as (broker, _):
        with Redis(port=server_6.port or 0) as client:
            for number in range(120):
                await broker.publish(channel, Publication(b"%d" % number), stream)
            await asyncio.sleep(0.4)
            await broker.publish(channel, Publication(b"120"), stream)
            assert client.xlen(f"pongee:stream:{{c.{channel}}}") == 1
            await broker.publish(channel, Publication(b"121"), Stream(1000, 60, 60))
            await asyncio.sleep(0.4)
            await broker.publish(channel, Publication(b"122"), stream)
            page = await broker.history(channel, stream)
            assert [one.data for one in page.publications] == [b"122"]
            assert page.top.offset == 123


async def test_user_counts_until_the_last_lease_ends(server_6: RedisServer) -> None:
    """However many connections the user had."""
    channel = fresh_name()
    async with started(server_6.url) as (broker, _):
        for client, user, seconds in [
            ("c1", "ann", 0.3),
            ("c2", "ann", 60),
            ("c3", "ben", 0.3),
            ("c4", "", 60),
            ("c5", "", 0.3),
        ]:
            await broker.add_presence(channel, ClientInfo(user, client), seconds)
        assert await broker.presence_counts(channel) == Counts(5, 3)
        await asyncio.sleep(0.4)
        assert await broker.presence_counts(channel) == Counts(2, 2)
        assert {*await broker.presence(channel)} == {"c2", "c4"}


async def test_keys_that_the_server_threw_away(server_6: RedisServer) -> None:
    """Without the publications the count goes on; without the count there is a new epoch."""
    channel = fresh_name()
    async with started(server_6.url) as (broker, _):
        with Redis(port=server_6.port or 0) as client:
            first = await broker.publish(channel, Publication(b"1"), STREAM)
            client.delete(f"pongee:stream:{{c.{channel}}}")
            second = await broker.publish(channel, Publication(b"2"), STREAM)
            assert second == Position(2, first.epoch)
            for publish in (True, False):
                client.delete(f"pongee:meta:{{c.{channel}}}")
                if publish:
                    third = await broker.publish(channel, Publication(b"3"), STREAM)
                    assert third.offset == 1
                page = await broker.history(channel, STREAM)
                assert [one.data for one in page.publications] == [b"3"] * publish
                assert page.top.offset == int(publish)
                assert page.top.epoch != first.epoch


async def test_large_offsets(server_6: RedisServer) -> None:
    """They are exact up to 2^53."""
    channel = fresh_name()
    async with started(server_6.url) as (broker, sink):
        await broker.subscribe(channel)
        await broker.publish(channel, Publication(b"1"), STREAM)
        with Redis(port=server_6.port or 0) as client:
            client.hset(f"pongee:meta:{{c.{channel}}}", "top", 2**53 - 4)
        for number in range(3):
            position = await broker.publish(channel, Publication(b"2"), STREAM)
            assert position.offset == 2**53 - 3 + number
            page = await broker.history(channel, STREAM, since=Position(position.offset - 1, ""))
            assert [one.position for one in page.publications] == [position]
        page = await broker.history(
            channel, STREAM, since=Position(2**53 - 1, ""), limit=1, reverse=True
        )
        assert [one.offset for one in page.publications] == [2**53 - 2]
        await eventually(lambda: len(sink.publications(channel)) == 4)
        assert sink.publications(channel)[-1].offset == 2**53 - 1
