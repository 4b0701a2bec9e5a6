"""The broker on NATS: the contract, and what is special to it."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.brokers.base import Broker, Counts, Stream
from pongee.brokers.memory import MemoryBroker
from pongee.brokers.nats import NatsBroker
from pongee.brokers.nats_history import Last, kept_for
from pongee.brokers.nats_messages import conditions, pack
from pongee.brokers.nats_names import parse_address, token
from pongee.brokers.nats_publisher import Publisher
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import NATS_UNUSED
from pongee.testing import ManualClock, eventually
from pongee.testing.broker_contract import BrokerContract
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import NatsServer

STREAM = Stream(100, 60.0, 600.0)
ONE = Publication(b"1")
WITHIN = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests here."""
    directory: Path = tmp_path_factory.mktemp("nats")
    with NatsServer(directory) as started:
        yield started


@pytest.mark.anyio
class TestContract(BrokerContract):
    """Every promise, with two workers and real time."""

    ttl = 1.5
    shared = True

    @pytest.fixture(autouse=True)
    def _use(self, server: NatsServer) -> None:
        self.url = server.url

    async def make_broker(self) -> Broker:
        return NatsBroker(self.url)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@asynccontextmanager
async def running(
    server: NatsServer, *, prefix: str | None = None
) -> AsyncIterator[tuple[NatsBroker, RecordingSink]]:
    """A broker that has been started, with a prefix of the test's own."""
    broker = NatsBroker(server.url, prefix=prefix or secrets.token_hex(6))
    sink = RecordingSink()
    await broker.start(sink, secrets.token_hex(4))
    try:
        yield broker, sink
    finally:
        await broker.stop()


async def in_the_log(broker: NatsBroker, channel: str) -> list[bytes]:
    """The kinds of all messages that are kept of a channel's stream."""
    names = broker._server.names
    found, more = await broker._server.some(names.log, names.publications(channel), 1, 900, 1 << 24)
    assert not more
    return [one.data[:1] for one in found]


async def until_in_the_log(broker: NatsBroker, channel: str, most: int) -> None:
    """Wait until no more than so many are kept."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while len(await in_the_log(broker, channel)) > most:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


# Names and addresses.


@given(st.text(max_size=255), st.text(max_size=255))
def test_no_two_names_share_a_token(one: str, two: str) -> None:
    """And each is one legal token of bounded length."""
    for name in (one, two):
        assert re.fullmatch(r"[A-Za-z0-9=_-]{1,180}", token(name))
    assert (token(one) == token(two)) == (one == two)


def test_tokens_can_be_read_by_people() -> None:
    """As far as NATS allows."""
    assert token("room-1_b") == "room-1_b"
    assert token("room:1.*") == "room=3A1=2E=2A"
    assert token("=3A") == "=3D3A"
    assert token("x" * 180) == "x" * 180
    assert token("x" * 181).startswith("=h")
    assert token("") == "=e"


def test_addresses() -> None:
    """With one login for all servers; special characters are escaped."""
    plain = parse_address("nats://localhost")
    assert (plain.servers, plain.user, plain.token) == (["nats://localhost:4222"], None, None)
    many = parse_address("tls://us%40er:p%3Aw@a.b:1,[::1]:2,c/")
    assert many.servers == ["tls://a.b:1", "tls://[::1]:2", "tls://c:4222"]
    assert (many.user, many.password, many.token) == ("us@er", "p:w", None)
    assert parse_address("nats://s3cret@host").token == "s3cret"
    assert "p:w" not in repr(many)
    assert "p%3Aw" not in repr(many)


@pytest.mark.parametrize(
    "address", ["nats://", "nats://s3cret@", "nats://s3cret@a:0", "nats://a:b:c", "nats://a,,b"]
)
def test_bad_addresses_are_told_with_the_cure(address: str) -> None:
    """And without the secret."""
    with pytest.raises(ConfigurationError, match="allowed: nats://host:4222") as caught:
        NatsBroker(address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.anyio
async def test_channels_of_any_name_are_apart(server: NatsServer) -> None:
    """Also those that mean something to NATS."""
    names = ["a.b", "a b", "a", "*", ">", "a.*", "é", "=2E", "a=2Eb", "x" * 255, "é" * 255, "漢"]
    async with running(server, prefix="any.prefix *>") as (broker, sink):
        for name in names:
            await broker.subscribe(name)
        for number, name in enumerate(names):
            await broker.publish(name, Publication(b"%d" % number), STREAM)
            await broker.add_presence(name, ClientInfo(name, name), 60.0)
        await eventually(lambda: len(sink.events) == len(names), within=WITHIN)
        for number, name in enumerate(names):
            assert [one.data for one in sink.publications(name)] == [b"%d" % number]
            assert await broker.presence(name) == {name: ClientInfo(name, name)}


# What is kept.


@pytest.mark.anyio
async def test_reads_like_the_reference(server: NatsServer) -> None:
    """From anywhere in a long history, amid other channels, marks and keys."""
    stream = Stream(150, 60.0, 600.0)
    reference = MemoryBroker(ManualClock())
    async with running(server) as (broker, _):
        for number in range(400):
            one = Publication(b"%d" % number)
            await reference.publish("a", one, stream)
            top = await broker.publish(
                "a", one, stream, idempotency_key=str(number) if number % 7 == 0 else None
            )
            if number % 3 == 0:
                await asyncio.gather(*(broker.publish(f"b{n}", ONE, STREAM) for n in range(9)))
        for since in (None, 0, 249, 250, 251, 252, 300, 340, 379, 380, 398, 399, 400, 401, 402):
            for limit in (None, 0, 1, 3, 200):
                for reverse in (False, True):
                    place = None if since is None else Position(since, top.epoch)
                    pages = [
                        await one.history("a", stream, since=place, limit=limit, reverse=reverse)
                        for one in (reference, broker)
                    ]
                    mine, theirs = (
                        [(one.offset, one.data) for one in page.publications] for page in pages
                    )
                    assert mine == theirs, (since, limit, reverse)
                    assert pages[1].top == top


@pytest.mark.anyio
async def test_large_histories_are_read_in_pages(server: NatsServer) -> None:
    """And come whole."""
    async with running(server) as (broker, _):
        for number in range(30):
            await broker.publish("a", Publication(b"%d" % number + b"x" * 200_000), STREAM)
        page = await broker.history("a", STREAM)
        assert [one.offset for one in page.publications] == [*range(1, 31)]


@pytest.mark.anyio
async def test_what_is_too_much_is_removed(server: NatsServer) -> None:
    """Not only hidden: the server's disk is not for ever."""
    stream = Stream(10, 60.0, 600.0)
    async with running(server) as (broker, _):
        for _ in range(300):
            await broker.publish("a", ONE, stream)
        await until_in_the_log(broker, "a", 10 + 32 + 64)


@pytest.mark.anyio
async def test_what_is_too_old_is_removed(server: NatsServer) -> None:
    """When something else is published there."""
    stream = Stream(100, 0.2, 600.0)
    async with running(server) as (broker, _):
        for _ in range(20):
            await broker.publish("a", ONE, stream)
        await asyncio.sleep(0.25)
        await broker.publish("a", ONE, stream)
        await asyncio.sleep(0.25)
        last = await broker.publish("a", ONE, stream)
        await until_in_the_log(broker, "a", 2)
        assert (await broker.history("a", stream)).top == last


@pytest.mark.anyio
async def test_nothing_is_left_of_channels_that_fell_silent(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here; there, only the position, in the last publication."""
    monkeypatch.setattr("pongee.brokers.nats_publisher.SWEEP_INTERVAL", 0.05)
    stream = Stream(100, 0.2, 600.0)
    async with running(server) as (broker, _):
        for number in range(20):
            await broker.publish("a", ONE, stream)
            await broker.publish(f"b{number}", ONE, stream)
        lanes = broker._publisher._lanes
        assert len(lanes) == 21
        await eventually(lambda: not lanes, within=WITHIN)
        await until_in_the_log(broker, "a", 1)
        assert (await broker.history("a", stream, limit=0)).top.offset == 20


@pytest.mark.anyio
async def test_remembered_positions_are_bounded(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were forgotten are asked for."""
    monkeypatch.setattr("pongee.brokers.nats_publisher.NATS_LANES", 10)
    async with running(server) as (broker, _):
        for offset in (1, 2):
            for number in range(30):
                assert (await broker.publish(f"a{number}", ONE, STREAM)).offset == offset
        assert len(broker._publisher._lanes) == 10


def test_channels_that_were_only_looked_at_are_kept_shortly() -> None:
    """Clients choose names."""
    month = Stream(100, 60.0, 30 * 86400.0)
    assert kept_for(month, 0) == NATS_UNUSED
    assert kept_for(month, 1) == month.meta_ttl
    assert kept_for(Stream(1, 1.0, 2.0), 0) == 2.0
    assert not Last(1, 1, "e", 0.0).is_over(month, month.meta_ttl)
    assert Last(1, 0, "e", 0.0).is_over(month, month.meta_ttl)
    assert Last(0, 0, "", 0.0).is_over(month, 0.0)


# Publishing.


@pytest.mark.anyio
@pytest.mark.parametrize("several", [True, False])
async def test_many_at_once_keep_their_order(server: NatsServer, several: bool) -> None:
    """Stored in steps of several, or one by one where the server cannot."""
    async with running(server) as (broker, sink):
        assert broker._server.stores_several
        broker._server.stores_several = several
        await broker.subscribe("a")
        positions = await asyncio.gather(
            *(
                broker.publish(
                    "a",
                    Publication(b"%d" % number),
                    STREAM,
                    idempotency_key=str(number // 2) if number % 10 < 2 else None,
                )
                for number in range(300)
            )
        )
        count = 300 - 30
        assert sorted({one.offset for one in positions}) == [*range(1, count + 1)]
        await eventually(lambda: len(sink.publications("a")) == count, within=WITHIN)
        assert [one.offset for one in sink.publications("a")] == [*range(1, count + 1)]
        for one in sink.publications("a"):
            assert positions[int(one.data)] == one.position


@pytest.mark.anyio
async def test_processes_let_each_other_pass(server: NatsServer) -> None:
    """Whoever is subscribed knows more, and wins no more than others."""
    prefix = secrets.token_hex(6)
    async with running(server, prefix=prefix) as (one, sink), running(server, prefix=prefix) as two:
        await one.subscribe("a")

        async def publish(broker: NatsBroker) -> None:
            for _ in range(60):
                await broker.publish("a", ONE, STREAM)

        await asyncio.gather(*(publish(broker) for broker in (one, two[0]) for _ in range(4)))
        await eventually(lambda: len(sink.publications("a")) == 480, within=WITHIN)
        assert [each.offset for each in sink.publications("a")] == [*range(1, 481)]


@pytest.mark.anyio
async def test_cancelled_publishers_leave_nothing_undone(server: NatsServer) -> None:
    """Theirs may or may not be there; those of others are."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        tasks = []
        for number in range(200):
            data = Publication(b"%d" % number)
            tasks.append(asyncio.ensure_future(broker.publish("a", data, STREAM)))
            if number % 20 == 0:
                await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.wait(tasks)
        top = await broker.publish("a", ONE, STREAM)
        await eventually(lambda: len(sink.publications("a")) == top.offset, within=WITHIN)
        came = {int(one.data) for one in sink.publications("a")}
        assert {number for number, task in enumerate(tasks) if not task.cancelled()} <= came


@pytest.mark.anyio
async def test_too_large_a_publication_is_refused(server: NatsServer) -> None:
    """With the cure, and the connection stays."""
    async with running(server) as (broker, sink):
        for stream in (STREAM, None):
            with pytest.raises(BrokerUnavailable, match="max_payload"):
                await broker.publish("a", Publication(b"x" * 1_100_000), stream)
        assert (await broker.publish("a", ONE, STREAM)).offset == 1
        assert sink.links == [True]


@pytest.mark.anyio
async def test_key_of_a_publisher_that_died(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its publication, or after it and before anybody was told."""
    prefix = secrets.token_hex(6)
    async with running(server, prefix=prefix) as (one, _), running(server, prefix=prefix) as two:
        names = one._server.names
        headers = conditions(expected=0, ttl=60.0, more=b"Pongee-Until: 1e12\r\n")
        post = names.key("a", "first", alone=False)
        await one._server.store(post, pack(b"K"), headers)
        with monkeypatch.context() as patch:
            patch.setattr(Publisher, "_write_on_post", lambda *_: None)
            await one.publish("a", ONE, STREAM)
            second = await one.publish("a", ONE, STREAM, idempotency_key="second")
            await one.publish("a", ONE, STREAM)
        for broker in (two[0], one):
            again = await broker.publish("a", ONE, STREAM, idempotency_key="second")
            assert again == second
            first = await broker.publish("a", ONE, STREAM, idempotency_key="first")
            assert first == Position(4, second.epoch)


@pytest.mark.anyio
async def test_key_outlives_the_publication(server: NatsServer) -> None:
    """Its position is told when it has been removed."""
    async with running(server) as (broker, _):
        first = await broker.publish("a", ONE, STREAM, idempotency_key="k")
        await broker.remove_history("a")
        assert await broker.publish("a", ONE, STREAM, idempotency_key="k") == first


# The rest.


@pytest.mark.anyio
async def test_what_cannot_be_read_is_told_once_and_ignored(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program may use the same names."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        names, wire = broker._server.names, broker._server.connection()
        before = await broker.publish("a", ONE, STREAM)
        with caplog.at_level(logging.WARNING, logger="pongee.brokers"):
            for junk in (b"", b"junk", pack(b"P", 1, "e" * 8, b"\xc1"), pack(b"J", body=b"\xc1")):
                wire.pub(names.delivery("a"), junk)
            await broker._server.store(names.publications("a"), b"junk", conditions())
            after = await broker.publish("a", ONE, STREAM)
            await eventually(lambda: len(sink.publications("a")) == 2, within=WITHIN)
        assert len(caplog.records) == 1
        assert "cannot be read" in caplog.text
        # Nobody knows how many there have been.
        assert after.offset == 1
        assert after.epoch != before.epoch
        page = await broker.history("a", STREAM)
        assert [one.position for one in page.publications] == [after]


@pytest.mark.anyio
async def test_sink_that_raises_hurts_nobody(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next is told."""

    class Raising(RecordingSink):
        def on_publication(self, channel: str, publication: Publication) -> None:
            super().on_publication(channel, publication)
            if publication.offset == 1:
                raise ZeroDivisionError

    broker, sink = NatsBroker(server.url, prefix=secrets.token_hex(6)), Raising()
    await broker.start(sink, "n")
    try:
        await broker.subscribe("a")
        for _ in range(2):
            await broker.publish("a", ONE, STREAM)
        await eventually(lambda: len(sink.publications("a")) == 2, within=WITHIN)
    finally:
        await broker.stop()
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
        "a sink raised at a message from the broker"
    ]


@pytest.mark.anyio
async def test_presence_of_many_is_read_in_pages(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counted whole."""
    monkeypatch.setattr("pongee.brokers.nats_state.NATS_PAGE", 100)
    async with running(server) as (broker, _):
        await asyncio.gather(
            *(
                broker.add_presence("a", ClientInfo(f"u{number % 7}", f"c{number}"), 60.0)
                for number in range(250)
            )
        )
        assert len(await broker.presence("a")) == 250
        assert await broker.presence_counts("a") == Counts(250, 7)


@pytest.mark.anyio
async def test_subscribing_at_once_costs_one_proof(server: NatsServer) -> None:
    """And only what is subscribed to comes over the line."""
    async with running(server) as (broker, sink):
        wire = broker._server.connection()
        before = next(wire._tokens), len(broker._proofs)
        await asyncio.gather(*(broker.subscribe(f"a{number}") for number in range(100)))
        assert (next(wire._tokens) - 1, len(broker._proofs)) == before
        for number in range(100):
            await broker.publish(f"a{number}", ONE, None)
            await broker.unsubscribe(f"a{number}")
            assert await broker.publish(f"a{number}", ONE, None) == NOWHERE
        assert len(sink.events) == 100
        assert len(broker._by_sid) == 2


@pytest.mark.anyio
async def test_broker_starts_again_after_stop(server: NatsServer) -> None:
    """With another sink, and nothing subscribed; stopping what never started does no harm."""
    broker = NatsBroker(server.url, prefix=secrets.token_hex(6))
    await broker.stop()
    with pytest.raises(BrokerUnavailable):
        await broker.publish("a", ONE, STREAM)
    for offset in (1, 2):
        sink = RecordingSink()
        await broker.start(sink, "n")
        assert (await broker.publish("a", ONE, STREAM)).offset == offset
        assert sink.events == []
        await broker.subscribe("a")
        await broker.stop()
    assert sink.links == [True]
