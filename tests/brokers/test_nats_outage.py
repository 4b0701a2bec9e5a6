"""What the broker on NATS does when the server is not there, hangs, is full, or says no."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pongee.brokers.base import Stream
from pongee.brokers.nats import NatsBroker
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT, NATS_UNWRITTEN
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import NatsServer

pytestmark = pytest.mark.anyio

STREAM = Stream(100, 60.0, 600.0)
ONE = Publication(b"1")
ANN = ClientInfo("ann", "c1")
WITHIN = 20.0
SOON = 1.0
"""Seconds that what happens at once may take on a loaded machine; a lost answer takes two."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a server that hangs sooner."""
    monkeypatch.setattr("pongee.brokers.link.BROKER_PROBE", 0.3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of the test's own."""
    with NatsServer(tmp_path / "nats") as started:
        yield started


@asynccontextmanager
async def running(
    server: NatsServer, *, links: list[bool] | None = None
) -> AsyncIterator[tuple[NatsBroker, RecordingSink]]:
    """A broker that has been started."""
    broker, sink = NatsBroker(server.url), RecordingSink()
    await broker.start(sink, "n")
    try:
        assert sink.links == ([True] if links is None else links)
        yield broker, sink
    finally:
        await broker.stop()


async def told(sink: RecordingSink, *links: bool) -> None:
    """Wait until the sink was told so, and nothing else."""
    await eventually(
        lambda: len(sink.links) >= len(links), within=WITHIN, what=f"{links} of {sink.links}"
    )
    assert sink.links == list(links)


async def arrives(broker: NatsBroker, sink: RecordingSink, channel: str) -> Position:
    """Publish, and see that the subscription works."""
    before = len(sink.publications(channel))
    position = await broker.publish(channel, ONE, STREAM)
    await eventually(lambda: len(sink.publications(channel)) > before, within=WITHIN)
    assert sink.publications(channel)[-1].position == position
    return position


Step = Callable[[NatsBroker], Awaitable[object]]

STEPS: dict[str, Step] = {
    "publish": lambda broker: broker.publish("a", ONE, STREAM),
    "publish with a key": lambda broker: broker.publish("a", ONE, STREAM, idempotency_key="k"),
    "publish without stream": lambda broker: broker.publish("b", ONE, None),
    "publish once without stream": lambda broker: broker.publish(
        "b", ONE, None, idempotency_key="k"
    ),
    "history": lambda broker: broker.history("a", STREAM),
    "remove_history": lambda broker: broker.remove_history("a"),
    "subscribe": lambda broker: broker.subscribe("c"),
    "add_presence": lambda broker: broker.add_presence("a", ANN, 60.0),
    "remove_presence": lambda broker: broker.remove_presence("a", "c1", "ann"),
    "presence": lambda broker: broker.presence("a"),
    "presence_counts": lambda broker: broker.presence_counts("a"),
    "put": lambda broker: broker.put("a", b"1"),
    "get": lambda broker: broker.get("a"),
}
TOLD: dict[str, Step] = {
    "join": lambda broker: broker.join("a", ANN),
    "leave": lambda broker: broker.leave("a", ANN),
    "control": lambda broker: broker.control(b"1"),
}
"""Steps that await no answer."""


async def fails(step: Awaitable[object], within: float) -> str:
    """See that `step` fails as it should; returns why."""
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        await step
    assert time.monotonic() - begun < within
    return str(caught.value)


async def test_server_that_starts_again_with_its_data(server: NatsServer) -> None:
    """Epochs go on, keys and presence are remembered, subscriptions are there again."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        first = await arrives(broker, sink, "a")
        keyed = await broker.publish("a", ONE, STREAM, idempotency_key="k")
        await broker.add_presence("a", ANN, 60.0)
        server.stop()
        await told(sink, True, False)
        assert not broker.health.up
        assert broker.health.reason
        server.start()
        await told(sink, True, False, True)
        assert await broker.publish("a", ONE, STREAM, idempotency_key="k") == keyed
        assert await arrives(broker, sink, "a") == Position(3, first.epoch)
        assert await broker.presence("a") == {"c1": ANN}
        page = await broker.history("a", STREAM)
        assert [one.offset for one in page.publications] == [1, 2, 3]


async def test_server_that_starts_again_without_its_data(server: NatsServer) -> None:
    """New epochs begin, although processes remember where the old ones stood."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        before = [await arrives(broker, sink, name) for name in "aaa"]
        server.kill()
        server.wipe()
        await told(sink, True, False)
        server.start()
        await told(sink, True, False, True)
        again = await arrives(broker, sink, "a")
        assert again.offset == 1
        assert again.epoch != before[0].epoch
        assert (await broker.history("a", STREAM)).top == again


async def test_everything_fails_at_once_while_the_server_is_away(server: NatsServer) -> None:
    """And naming it; unsubscribing is no error."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        server.kill()
        await told(sink, True, False)
        for step in (STEPS | TOLD).values():
            assert server.url in await fails(step(broker), SOON)
        await broker.unsubscribe("a")
        server.start()
        await told(sink, True, False, True)
        await arrives_not(broker, sink, "a")


async def arrives_not(broker: NatsBroker, sink: RecordingSink, channel: str) -> None:
    """Publish, and see that nobody is subscribed."""
    await broker.publish(channel, ONE, STREAM)
    await broker.subscribe("settled")
    await broker.publish("settled", ONE, STREAM)
    await eventually(lambda: sink.publications("settled"), within=WITHIN)
    assert sink.publications(channel) == []


async def test_server_that_hangs(server: NatsServer) -> None:
    """Whatever was asked fails in time, the link is told to be down, and comes up again."""
    async with running(server) as (broker, sink):
        await broker.subscribe("a")
        first = await arrives(broker, sink, "a")
        server.freeze()
        try:
            steps = [step(broker) for step in STEPS.values()]
            steps += [broker.publish("a", ONE, STREAM) for _ in range(50)]
            steps += [broker.publish(f"a{n}", ONE, STREAM) for n in range(50)]
            await asyncio.gather(*(fails(step, BROKER_TIMEOUT + SOON) for step in steps))
            await told(sink, True, False)
            await fails(broker.publish("a", ONE, STREAM), SOON)
        finally:
            server.thaw()
        await told(sink, True, False, True)
        after = await arrives(broker, sink, "a")
        # What failed may or may not have been accepted, and nothing is in between.
        page = await broker.history("a", STREAM)
        assert page.top == after
        assert after.epoch == first.epoch
        assert [one.offset for one in page.publications] == [*range(1, after.offset + 1)]


async def test_server_that_hangs_takes_no_memory(server: NatsServer) -> None:
    """Who publishes a lot meanwhile is told that it failed."""
    async with running(server) as (broker, sink):
        large = Publication(b"x" * 900_000)
        for number in range(40):
            await broker.publish(f"a{number}", ONE, STREAM)
        server.freeze()
        try:
            steps = [broker.publish(f"a{n}", large, STREAM) for n in range(40)]
            await asyncio.gather(*(fails(step, BROKER_TIMEOUT + SOON) for step in steps))
            wire = broker._server.wire
            assert wire is not None
            assert wire.pending_data_size < NATS_UNWRITTEN + 1_000_000
            await told(sink, True, False)
        finally:
            server.thaw()
        await told(sink, True, False, True)


async def test_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """Is no error: the broker begins when it comes."""
    with NatsServer(tmp_path / "nats") as server:
        server.stop()
        async with running(server, links=[]) as (broker, sink):
            assert not broker.health.up
            await fails(broker.subscribe("a"), SOON)
            server.start()
            await told(sink, True)
            await broker.subscribe("a")
            await arrives(broker, sink, "a")


async def test_store_that_is_full(tmp_path: Path) -> None:
    """Nothing is accepted that is not kept; what is not to be kept goes on."""
    with NatsServer(tmp_path / "nats", max_store=3_000_000) as server:
        async with running(server) as (broker, sink):
            await broker.subscribe("a")
            await broker.subscribe("b")
            large = Publication(b"x" * 400_000)
            accepted: list[Position] = []

            async def fill() -> None:
                while len(accepted) < 20:
                    accepted.append(await broker.publish("a", large, STREAM))

            why = await fails(fill(), WITHIN)
            assert server.url in why
            assert "insufficient resources" in why
            assert accepted
            assert await broker.publish("b", ONE, None) == NOWHERE
            await eventually(lambda: sink.publications("b"), within=WITHIN)
            page = await broker.history("a", STREAM)
            assert page.top == accepted[-1]
            assert [one.position for one in page.publications] == accepted
            assert [one.position for one in sink.publications("a")] == accepted
            await broker.remove_history("a")
            following = await broker.publish("a", large, STREAM)
            assert following == Position(accepted[-1].offset + 1, accepted[-1].epoch)
            assert sink.links == [True]


async def test_log_that_somebody_deleted(server: NatsServer) -> None:
    """It is made anew, with new epochs; who did not publish gets to know as well."""
    async with running(server) as (broker, sink), running(server) as (_, other):
        await broker.subscribe("a")
        before = await arrives(broker, sink, "a")
        await broker._server.api("STREAM.DELETE.pongee")
        await fails(broker.publish("a", ONE, STREAM), BROKER_TIMEOUT + SOON)
        await told(sink, True, False, True)
        await told(other, True, False, True)
        after = await arrives(broker, sink, "a")
        assert after.offset == 1
        assert after.epoch != before.epoch


async def test_wrong_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stops the start with the cure, and is told to nobody."""
    with NatsServer(tmp_path / "nats", token="right-secret") as server:
        broker = NatsBroker(server.url.replace("right", "wrong"))
        with pytest.raises(ConfigurationError, match="refuses the user, password or token"):
            await broker.start(RecordingSink(), "n")
        async with running(server) as (right, sink):
            await arrives_not(right, sink, "a")
            server.stop()
            await told(sink, True, False)
            said = [broker.health.reason, right.health.reason, repr(broker), repr(right)]
            said.append(caplog.text)
            assert not any("secret" in text for text in said)


async def test_password_that_was_changed_meanwhile(tmp_path: Path) -> None:
    """Is tried again and again: it may be changed back."""
    with NatsServer(tmp_path / "nats", token="old-secret") as server:
        async with running(server) as (broker, sink):
            server.stop()
            server.token = "new-secret"
            server.start()
            await eventually(lambda: "refuses" in broker.health.reason, within=WITHIN)
            server.stop()
            server.token = "old-secret"
            server.start()
            await told(sink, True, False, True)
            await broker.publish("a", ONE, STREAM)


async def test_server_without_jetstream(tmp_path: Path) -> None:
    """Stops the start with the cure."""
    with NatsServer(tmp_path / "nats", jetstream=False) as server:
        broker = NatsBroker(server.url)
        with pytest.raises(ConfigurationError, match="nats-server -js"):
            await broker.start(RecordingSink(), "n")


async def test_server_that_is_too_old() -> None:
    """Stops the start with the cure."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.10.9","max_payload":1048576,"headers":true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as old:
        port = old.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"is NATS 2\.10; Pongee needs 2\.11"):
            await NatsBroker(f"nats://127.0.0.1:{port}").start(RecordingSink(), "n")


async def test_streams_of_somebody_else(server: NatsServer) -> None:
    """Stop the start with the cure."""
    async with running(server) as (broker, _):
        config = {"name": "other", "subjects": ["other.s.>"], "storage": "memory"}
        await broker._server.api("STREAM.CREATE.other", config)
    with pytest.raises(ConfigurationError, match=r"stream other .* choose another broker_prefix"):
        await NatsBroker(server.url, prefix="other").start(RecordingSink(), "n")


async def test_second_of_two_addresses_will_do(server: NatsServer) -> None:
    """Whichever is tried first."""
    broker, sink = NatsBroker(f"nats://127.0.0.1:1,127.0.0.1:{server.port}"), RecordingSink()
    await broker.start(sink, "n")
    try:
        await eventually(lambda: broker.health.up, within=WITHIN)
        await broker.publish("a", ONE, STREAM)
    finally:
        await broker.stop()
