"""The broker on a cluster of three NATS servers, of which one dies."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pongee.brokers.base import Stream
from pongee.brokers.nats import NatsBroker
from pongee.brokers.nats_jetstream import ServerError
from pongee.channels.publication import NOWHERE, Position, Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import NatsServer, free_ports

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

STREAM = Stream(10_000, 600.0, 600.0)
ONE = Publication(b"1")
WITHIN = 40.0
"""Seconds. Servers take four to nine to notice that a leader is gone."""
ENOUGH = 30

Running = tuple[NatsBroker, RecordingSink]


class Cluster:
    """Three servers on this machine."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        ports = free_ports(3)
        self.servers = [
            NatsServer(directory / str(number), routes=ports[number:] + ports[:number])
            for number in range(3)
        ]
        for server in self.servers:
            stack.enter_context(server)

    @property
    def address(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers)

    def of(self, broker: NatsBroker) -> NatsServer:
        """Return the one that `broker` is connected to."""
        url = broker._server.connection().connected_url
        assert url is not None
        return next(one for one in self.servers if one.port == url.port)

    def named(self, name: str) -> NatsServer:
        """Return the one that the others call so."""
        return next(one for one in self.servers if one.name == name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests here; they leave it whole."""
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack)


@asynccontextmanager
async def running(address: str, prefix: str) -> AsyncIterator[Running]:
    """A broker whose link is up, also if the cluster had to come first."""
    broker, sink = NatsBroker(address, prefix=prefix), RecordingSink()
    await broker.start(sink, secrets.token_hex(4))
    try:
        await eventually(lambda: broker.health.up, within=WITHIN, what=str(broker.health))
        yield broker, sink
    finally:
        await broker.stop()


async def info(broker: NatsBroker, stream: str) -> dict[str, Any]:
    """What the leader tells of a stream, once there is one and the others have caught up."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                found = await broker._server.api(f"STREAM.INFO.{stream}")
                others = found["cluster"].get("replicas", [])
                if found["cluster"].get("leader") and all(one["current"] for one in others):
                    return found
            except (ServerError, BrokerUnavailable):
                pass
            await asyncio.sleep(0.02)


async def leader(broker: NatsBroker) -> str:
    """The name of the server that stores publications first."""
    names = broker._server.names
    await info(broker, names.state)
    return str((await info(broker, names.log))["cluster"]["leader"])


class Writer:
    """Publishes to a channel until it was accepted often enough after somebody died.

    Args:
        broker: that takes it.
        name: begins all that is published.
        keyed: whatever failed is tried again, with its idempotency key.
    """

    def __init__(self, broker: NatsBroker, name: str, *, keyed: bool) -> None:
        self.accepted: dict[bytes, Position] = {}
        self.unsure: set[bytes] = set()
        self._broker = broker
        self._name = name
        self._keyed = keyed
        self._left: int | None = None

    def somebody_died(self) -> None:
        """Go on for a while, and then end."""
        self._left = ENOUGH

    async def write(self) -> None:
        """Do it."""
        number = 0
        while self._left is None or self._left > 0:
            data = f"{self._name}{number}".encode()
            key = data.decode() if self._keyed else None
            try:
                self.accepted[data] = await self._broker.publish(
                    "a", Publication(data), STREAM, idempotency_key=key
                )
            except BrokerUnavailable:
                self.unsure.add(data)
                await eventually(lambda: self._broker.health.up, within=WITHIN)
                if self._keyed:
                    continue
            else:
                self._left = None if self._left is None else self._left - 1
            number += 1


@pytest.mark.parametrize("victim", ["leader", "connected", "both"])
async def test_server_that_is_killed(cluster: Cluster, victim: str) -> None:
    """The broker goes on at another, in the same epoch, and nothing is lost or doubled."""
    prefix = secrets.token_hex(6)
    address = cluster.address + "?replicas=3"
    async with running(address, prefix) as (one, sink), running(address, prefix) as (two, _):
        leading = cluster.named(await leader(one))
        if victim == "connected" and cluster.of(one) is leading:
            await one._server.api(f"STREAM.LEADER.STEPDOWN.{prefix}")
        elif victim == "both" and cluster.of(one) is not leading:
            placement = {"placement": {"preferred": cluster.of(one).name}}
            await one._server.api(f"STREAM.LEADER.STEPDOWN.{prefix}", placement)
        leading = cluster.named(await leader(one))
        dying = leading if victim == "leader" else cluster.of(one)
        assert (dying is leading) == (victim != "connected")

        await one.subscribe("a")
        writers = [Writer(one, "plain", keyed=False), Writer(two, "keyed", keyed=True)]
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.write())
            await eventually(
                lambda: all(len(one.accepted) >= ENOUGH for one in writers), within=WITHIN
            )
            dying.kill()
            for writer in writers:
                writer.somebody_died()
        try:
            await check(one, sink, writers)
        finally:
            dying.start()


async def check(broker: NatsBroker, sink: RecordingSink, writers: list[Writer]) -> None:
    """See that the history is what was accepted, once each, and the subscription works again."""
    plain, keyed = writers
    last = await broker.publish("a", ONE, STREAM)
    await eventually(
        lambda: sink.publications("a")[-1].position == last, within=WITHIN, what="delivery"
    )
    page = await broker.history("a", STREAM)
    assert page.top == last
    assert [one.offset for one in page.publications] == [*range(1, last.offset + 1)]
    kept = {one.data: one.position for one in page.publications}
    assert len(kept) == len(page.publications)
    accepted = plain.accepted | keyed.accepted | {ONE.data: last}
    assert {data: kept.get(data) for data in accepted} == accepted
    assert kept.keys() - accepted.keys() <= plain.unsure
    assert {one.epoch for one in accepted.values()} == {last.epoch}
    delivered = [one.position for one in sink.publications("a")]
    assert delivered == sorted(set(delivered))
    assert set(delivered) <= set(kept.values())


async def test_reads_miss_nothing_whichever_server_is_asked(cluster: Cluster) -> None:
    """What was accepted is there for every process at once; used keys are used."""
    prefix = secrets.token_hex(6)
    async with AsyncExitStack() as stack:
        async with running(cluster.address + "?replicas=3", prefix) as (broker, _):
            first = cluster.named(await leader(broker))
        # At the leader answers come soonest, when others have not got what was accepted.
        servers = sorted(cluster.servers, key=lambda one: one is not first)
        brokers = [
            (await stack.enter_async_context(running(one.url, prefix)))[0] for one in servers
        ]
        for number in range(400):
            position = await brokers[0].publish("a", ONE, STREAM)
            since = Position(max(0, number - 3), position.epoch)
            offsets = [*range(since.offset + 1, number + 2)]
            for page in await asyncio.gather(
                *(one.history("a", STREAM, since=since) for one in brokers)
            ):
                assert page.top == position
                assert [one.offset for one in page.publications] == offsets
        for key in map(str, range(60)):
            position = await brokers[0].publish("b", ONE, STREAM, idempotency_key=key)
            again = [one.publish("b", ONE, STREAM, idempotency_key=key) for one in brokers[1:]]
            assert await asyncio.gather(*again) == [position] * 2
            await brokers[0].put("note", key.encode())
            assert await brokers[1].get("note") == key.encode()


async def test_leader_tells_what_another_server_has_not_got(cluster: Cluster) -> None:
    """One message after the other, and the same as what is told at once."""
    async with running(cluster.address + "?replicas=3", secrets.token_hex(6)) as (broker, _):
        server = broker._server
        subject = server.names.publications("a")
        for number in range(10):
            await broker.publish("a", Publication(b"%d" % number), STREAM)
        whole, more = await server.some(server.names.log, subject, 1, 100, 1 << 20)
        assert (len(whole), more) == (10, False)
        for known, count, expected in (
            *((0, 100, False), (7, 100, False), (10, 100, False)),
            *((4, 8, True), (0, 10, True)),
        ):
            stored = whole[:known]
            more = await server._complete(stored, server.names.log, subject, 1, count)
            assert more == expected
            pairs = [(one.sequence, one.at, one.data) for one in whole[:count]]
            assert [(one.sequence, one.at, one.data) for one in stored] == pairs
        assert await server.last(server.names.log, "nothing.there") is None


async def test_streams_have_the_replicas_of_the_address(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Where they are made; those that are there stay, and it is said how to change them."""
    prefix = secrets.token_hex(6)
    for query, replicas in (("", 1), ("?replicas=3", 3)):
        async with running(cluster.address + query, f"{prefix}{replicas}") as (broker, _):
            for stream in (broker._server.names.log, broker._server.names.state):
                found = await info(broker, stream)
                assert found["config"]["num_replicas"] == replicas
    with caplog.at_level(logging.WARNING, logger="pongee.brokers"):
        async with running(cluster.address + "?replicas=3", f"{prefix}1") as (broker, _):
            assert await broker.publish("a", ONE, None) == NOWHERE
            assert (await broker.publish("a", ONE, STREAM)).offset == 1
    warned = [one.getMessage() for one in caplog.records if "has 1 replicas" in one.getMessage()]
    assert len(warned) == 2
    assert f"nats stream edit {prefix}1 --replicas 3" in warned[0]


async def test_replicas_need_a_cluster(tmp_path: Path) -> None:
    """One server stops the start with the cure."""
    with NatsServer(tmp_path / "nats") as server:
        broker = NatsBroker(server.url + "?replicas=3")
        with pytest.raises(ConfigurationError, match=r"no cluster.*leave \?replicas="):
            await broker.start(RecordingSink(), "n")
