"""The broker in memory: the contract, and what is its own."""

from __future__ import annotations

import asyncio

import pytest

from pongee.brokers.base import Broker, Stream
from pongee.brokers.memory import MemoryBroker
from pongee.channels.publication import NOWHERE, ClientInfo, Publication
from pongee.clock import TimerWheel
from pongee.testing import ManualClock
from pongee.testing.broker_contract import BrokerContract, RecordingSink

pytestmark = pytest.mark.anyio
STREAM = Stream(10, 60.0, 240.0)


class TestContract(BrokerContract):
    """Every promise, with time moved by hand."""

    def setup_method(self) -> None:
        self.clock = ManualClock()

    async def make_broker(self) -> Broker:
        return MemoryBroker(self.clock, TimerWheel(self.clock))

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def started() -> tuple[MemoryBroker, RecordingSink, ManualClock]:
    """A broker that runs, what it tells, and its clock."""
    clock, sink = ManualClock(), RecordingSink()
    broker = MemoryBroker(clock)
    await broker.start(sink)
    return broker, sink, clock


async def test_nothing_is_left_of_what_has_expired() -> None:
    """Abandoned channels, keys and leases cost nothing for ever, and no timer is left either."""
    broker, _, clock = await started()
    for number in range(3000):
        channel = f"room:{number}"
        await broker.publish(channel, Publication(b"1"), STREAM, idempotency_key="k")
        await broker.add_presence(channel, ClientInfo("ann", str(number)), 60.0)
    for _ in range(40):
        clock.advance(30.0)
    assert not broker._logs
    assert not broker._rooms
    assert not broker._keys
    assert broker._timer is None


async def test_a_sink_that_publishes_keeps_the_order() -> None:
    """What it publishes while it is told something is told next, not in between."""
    broker, sink, _ = await started()
    await broker.subscribe("a")
    told: list[int] = []

    def tell(channel: str, publication: Publication) -> None:
        told.append(publication.offset)
        if publication.offset < 5:
            again = broker.publish("a", Publication(b"1"), STREAM)
            with pytest.raises(StopIteration):
                again.send(None)
        told.append(publication.offset)

    sink.on_publication = tell  # type: ignore[method-assign]
    await broker.publish("a", Publication(b"1"), STREAM)
    assert told == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


async def test_ten_thousand_publications_at_once_have_offsets_of_their_own() -> None:
    """From many tasks, in one channel."""
    broker, sink, _ = await started()
    await broker.subscribe("a")

    async def publish() -> None:
        for _ in range(100):
            await broker.publish("a", Publication(b"1"), STREAM)

    await asyncio.gather(*(publish() for _ in range(100)))
    assert [one.offset for one in sink.publications("a")] == list(range(1, 10_001))


async def test_a_sink_that_raises_hurts_no_publisher(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the publication is in the history."""
    broker, sink, _ = await started()
    await broker.subscribe("a")

    def crash(channel: str, publication: Publication) -> None:
        raise ValueError("sink")

    sink.on_publication = crash  # type: ignore[method-assign]
    position = await broker.publish("a", Publication(b"1"), STREAM)
    assert position.offset == 1
    assert "a sink raised" in caplog.text
    assert (await broker.history("a", STREAM)).top == position


async def test_history_survives_a_restart_of_the_layer() -> None:
    """A lifespan that ends and begins again finds the streams of this process."""
    broker, _, _ = await started()
    position = await broker.publish("a", Publication(b"1"), STREAM)
    await broker.stop()
    await broker.start(RecordingSink())
    assert (await broker.history("a", STREAM)).top == position
    assert await broker.publish("b", Publication(b"1"), None) == NOWHERE
