"""The broker on a cluster of Redis servers, and on one that sentinels watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from pongee.brokers.base import Broker, Stream
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import Publication
from pongee.errors import ConfigurationError
from pongee.testing import eventually
from pongee.testing.broker_contract import BrokerContract
from pongee.testing.broker_world import RecordingSink, fresh_name
from tests.brokers.redis_server import WITHIN, RedisServer, redis_6, redis_7

pytestmark = pytest.mark.anyio

SLOTS = 16384

STREAM = Stream(100, 60, 600)


def ask(server: RedisServer, *command: Any) -> Any:
    with Redis(port=server.port or 0, password=server.password) as client:
        return client.execute_command(*command)


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Cluster:
    """Three masters on this machine, without replicas."""

    def __init__(self, dir: Path, binary: str, stack: ExitStack) -> None:  # noqa: A002
        self.servers = [
            stack.enter_context(RedisServer(dir / str(number), binary, cluster=True))
            for number in range(3)
        ]
        share = SLOTS // 3
        for number, server in enumerate(self.servers):
            last = SLOTS if number == 2 else (number + 1) * share
            ask(server, "CLUSTER", "ADDSLOTS", *range(number * share, last))
            ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask(server, "CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        for server in self.servers:
            until(lambda server=server: self._is_whole(server), "the cluster")

    @property
    def address(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers)

    @staticmethod
    def _is_whole(server: RedisServer) -> bool:
        state = ask(server, "CLUSTER", "INFO")
        return b"cluster_state:ok" in state and len(ask(server, "CLUSTER", "SLOTS")) == 3

    def owner(self, slot: int) -> int:
        """Return the number of the server that has `slot`."""
        ports = [server.port for server in self.servers]
        for first, last, master in ask(self.servers[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return ports.index(master[1])
        raise AssertionError(slot)


@pytest.fixture(scope="module")
def cluster_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster7"), redis_7(), stack)


@pytest.fixture(scope="module")
def cluster_6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster6"), redis_6(), stack)


class TestContractOnCluster(BrokerContract):
    """With messages that stay within their shard."""

    ttl = 1.0
    shared = True

    @pytest.fixture(autouse=True)
    def _use(self, cluster_7: Cluster) -> None:
        self.address = cluster_7.address

    async def make_broker(self) -> Broker:
        return RedisBroker(self.address)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("which", ["cluster_6", "cluster_7"])
async def test_channels_of_all_shards(which: str, request: pytest.FixtureRequest) -> None:
    """Whatever node is asked first, and with every kind of step."""
    cluster: Cluster = request.getfixturevalue(which)
    one, two = RedisBroker(cluster.address), RedisBroker(cluster.address.partition(",")[0])
    sinks = RecordingSink(), RecordingSink()
    names = [fresh_name() for _ in range(30)]
    await one.start(sinks[0], "one")
    await two.start(sinks[1], "two")
    assert one.health.up, one.health
    await asyncio.gather(*(one.subscribe(name) for name in names))
    for name in names:
        await two.publish(name, Publication(b"1"), STREAM, idempotency_key="k")
        await two.publish(name, Publication(b"2"), None)
        await two.put(name, b"note")
        assert await one.get(name) == b"note"
    for name in names:
        await eventually(lambda name=name: len(sinks[0].publications(name)) == 2, what=name)  # type: ignore[misc]
        assert (await one.history(name, STREAM)).top.offset == 1
    await two.control(b"hello", "one")
    await eventually(lambda: sinks[0].control == [b"hello"])
    # Messages do not go where nobody asked for them: only subscriptions of one node are there.
    verb = "SHARDCHANNELS" if which == "cluster_7" else "CHANNELS"
    counts = [len(ask(server, "PUBSUB", verb, "*:channel:*")) for server in cluster.servers]
    assert sum(counts) == len(names)
    assert all(counts)
    await one.stop()
    await two.stop()


async def test_slot_that_moved_is_found(cluster_7: Cluster) -> None:
    """Whoever asks is told where it is; who is subscribed there subscribes anew."""
    broker, sink = RedisBroker(cluster_7.address), RecordingSink()
    await broker.start(sink, "n")
    ids = [ask(server, "CLUSTER", "MYID") for server in cluster_7.servers]
    for is_subscribed in (False, True):
        name = fresh_name()
        slot = key_slot(f"{{c.{name}}}".encode())
        if is_subscribed:
            await broker.subscribe(name)
        number = cluster_7.owner(slot)
        target = (number + 1) % 3
        for order in (target, number, 3 - number - target):
            await asyncio.to_thread(
                ask, cluster_7.servers[order], "CLUSTER", "SETSLOT", slot, "NODE", ids[target]
            )
        if is_subscribed:
            await eventually(lambda: sink.links == [True, False, True], within=20, what="return")
        assert (await broker.publish(name, Publication(b"1"), STREAM)).offset == 1
        if is_subscribed:
            await eventually(lambda name=name: sink.publications(name), what="publication")  # type: ignore[misc]
        else:
            assert sink.links == [True]
    await broker.stop()


async def test_node_of_cluster_starts_anew(tmp_path: Path) -> None:
    """Its channels are away for as long, and subscribed again then."""
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, redis_6(), stack)
        broker, sink = RedisBroker(cluster.address), RecordingSink()
        await broker.start(sink, "n")
        names = [fresh_name() for _ in range(9)]
        for name in names:
            await broker.subscribe(name)
        cluster.servers[1].kill()
        await eventually(lambda: not broker.health.up, what="the break")
        cluster.servers[1].start()
        await eventually(lambda: broker.health.up, within=20, what="the link")
        for name in names:
            await broker.publish(name, Publication(b"1"), STREAM)
            await eventually(lambda name=name: sink.publications(name), what=name)  # type: ignore[misc]
        await broker.stop()


async def test_address_of_another_kind(cluster_7: Cluster, tmp_path: Path) -> None:
    """The cure is told at the start."""
    node = cluster_7.servers[0]
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        await RedisBroker(node.url).start(RecordingSink(), "n")
    with RedisServer(tmp_path, redis_7()) as server:
        address = f"redis+cluster://127.0.0.1:{server.port}"
        with pytest.raises(ConfigurationError, match="is no cluster; write redis://"):
            await RedisBroker(address).start(RecordingSink(), "n")


async def test_sentinel_tells_of_the_master(tmp_path: Path) -> None:
    """At the start, and again when it is another; a sentinel that is away is passed over."""
    with (
        RedisServer(tmp_path / "one", redis_7(), password="s3cret") as one,
        RedisServer(tmp_path / "two", redis_7(), password="s3cret") as two,
        RedisServer(tmp_path / "sentinel", redis_7(), sentinel=True) as sentinel,
        RedisServer(tmp_path / "away", redis_7(), sentinel=True) as away,
    ):
        away.stop()

        def watch(server: RedisServer) -> None:
            ask(sentinel, "SENTINEL", "MONITOR", "main", "127.0.0.1", server.port, 1)
            ask(sentinel, "SENTINEL", "SET", "main", "auth-pass", "s3cret")

        hosts = f"127.0.0.1:{away.port},127.0.0.1:{sentinel.port}"
        broker = RedisBroker(f"redis+sentinel://:s3cret@{hosts}/main/2")
        sink = RecordingSink()
        await broker.start(sink, "n")
        assert "no sentinel knows main" in broker.health.reason
        await asyncio.to_thread(watch, one)
        await eventually(lambda: broker.health.up, within=20, what="the first master")
        await broker.subscribe("a")
        first = await broker.publish("a", Publication(b"1"), STREAM)
        await eventually(lambda: sink.publications("a"), what="the first publication")
        one.kill()
        await asyncio.to_thread(ask, sentinel, "SENTINEL", "REMOVE", "main")
        await asyncio.to_thread(watch, two)
        await eventually(lambda: not broker.health.up, what="the break")
        await eventually(lambda: broker.health.up, within=20, what="the second master")
        second = await broker.publish("a", Publication(b"2"), STREAM)
        assert second.epoch != first.epoch
        await eventually(lambda: len(sink.publications("a")) == 2, what="publications")
        assert "s3cret" not in f"{broker!r}{broker.health}"
        await broker.stop()
