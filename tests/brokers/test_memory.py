"""The broker in memory: the contract, and what is special to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from pongee.brokers.base import Broker, Counts, Stream
from pongee.brokers.memory import MemoryBroker
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.clock import TimerWheel
from pongee.limits import IDEMPOTENCY_KEYS, SWEEP_INTERVAL, SWEEP_REST, SWEEP_STEP
from pongee.testing import ManualClock
from pongee.testing.broker_contract import BrokerContract, RecordingSink

T = TypeVar("T")

STREAM = Stream(100, 60, 600)


class _Contract(BrokerContract):
    def setup_method(self) -> None:
        self.clock = ManualClock()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.anyio
class TestContractOnWheel(_Contract):
    """With the wheel of a process, which wakes within the time that passes."""

    async def make_broker(self) -> Broker:
        return MemoryBroker(self.clock, TimerWheel(self.clock))


@pytest.mark.anyio
class TestContractOnClock(_Contract):
    """Without a wheel, and with times so short that no sweep falls into a test."""

    ttl = 1.0

    async def make_broker(self) -> Broker:
        return MemoryBroker(self.clock)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise AssertionError(f"{coroutine!r} suspended")


class Process:
    """A broker, its time, and what its sink was told."""

    def __init__(self, sink: RecordingSink | None = None) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock)
        self.sink = sink or RecordingSink()
        run(self.broker.start(self.sink, "n"))

    def publish(self, channel: str, data: bytes = b"1", **options: Any) -> Position:
        options.setdefault("stream", STREAM)
        return run(self.broker.publish(channel, Publication(data), **options))

    @property
    def tables(self) -> list[int]:
        """How much is in everything that grows."""
        broker = self.broker
        return [len(broker._logs), len(broker._rooms), len(broker._keys), len(broker._untold)]


def test_no_method_suspends() -> None:
    """So that a caller pays no turn of the event loop, and needs none."""
    process = Process()
    broker, info = process.broker, ClientInfo("ann", "c1")
    run(broker.subscribe("a"))
    assert process.publish("a", idempotency_key="k") == process.publish("a", idempotency_key="k")
    run(broker.join("a", info))
    run(broker.add_presence("a", info, 60))
    assert run(broker.presence("a")) == {"c1": info}
    assert run(broker.presence_counts("a")) == Counts(1, 1)
    run(broker.remove_presence("a", "c1", "ann"))
    run(broker.leave("a", info))
    assert len(run(broker.history("a", STREAM)).publications) == 1
    run(broker.remove_history("a"))
    assert broker.subscribed == {"a"}
    run(broker.unsubscribe("a"))
    run(broker.stop())
    assert [kind for kind, _, _ in process.sink.events] == ["publication", "join", "leave"]


def test_sink_is_told_before_publish_returns() -> None:
    """Also of what has no history."""
    process = Process()
    run(process.broker.subscribe("a"))
    position = process.publish("a", b"x")
    assert [one.position for one in process.sink.publications("a")] == [position]
    assert process.publish("a", b"y", stream=None) == NOWHERE
    assert [one.data for one in process.sink.publications("a")] == [b"x", b"y"]


@pytest.mark.anyio
async def test_offsets_are_unique_when_10_000_race() -> None:
    """And the sink is told each once, in their order."""
    process = Process()
    await process.broker.subscribe("a")
    stream = Stream(10_000, 60, 600)

    async def publish(number: int) -> Position:
        await asyncio.sleep(0)
        return await process.broker.publish("a", Publication(b"%d" % number), stream)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(publish(number)) for number in range(10_000)]
    assert sorted(task.result().offset for task in tasks) == list(range(1, 10_001))
    assert [one.offset for one in process.sink.publications("a")] == list(range(1, 10_001))
    page = await process.broker.history("a", stream)
    assert list(page.publications) == process.sink.publications("a")
    await process.broker.stop()


class Reentrant(RecordingSink):
    """A sink that publishes, comes and goes while it is being told something."""

    def __init__(self) -> None:
        super().__init__()
        self.process: Process | None = None
        self.inside = False

    def on_publication(self, channel: str, publication: Publication) -> None:
        assert not self.inside, "told while it is being told"
        self.inside = True
        super().on_publication(channel, publication)
        assert self.process is not None
        if len(publication.data) < 4:
            for part in (b"a", b"b"):
                self.process.publish(channel, publication.data + part)
            run(self.process.broker.join(channel, ClientInfo("ann", publication.data.decode())))
        self.inside = False


def test_order_holds_when_a_sink_publishes() -> None:
    """What is published inside is told after what is being told, not in the midst of it."""
    sink = Reentrant()
    process = sink.process = Process(sink)
    run(process.broker.subscribe("a"))
    assert process.publish("a", b"x").offset == 1

    told = sink.publications("a")
    assert [one.offset for one in told] == list(range(1, 16))
    assert [one.data for one in told][:4] == [b"x", b"xa", b"xb", b"xaa"]
    assert list(run(process.broker.history("a", STREAM)).publications) == told
    assert len(sink.comings("a")) == 7
    assert process.tables[3] == 0


def test_channel_left_inside_is_told_no_more() -> None:
    """Not even what had been published before."""

    class Leaving(RecordingSink):
        def on_publication(self, channel: str, publication: Publication) -> None:
            super().on_publication(channel, publication)
            if publication.data == b"1":
                process.publish(channel, b"2")
                run(process.broker.unsubscribe(channel))

    sink = Leaving()
    process = Process(sink)
    run(process.broker.subscribe("a"))
    process.publish("a")
    assert [one.data for one in sink.publications("a")] == [b"1"]
    assert run(process.broker.history("a", STREAM)).top.offset == 2


def test_broker_stopped_inside_tells_no_more() -> None:
    """Whatever waits is dropped with the sink."""

    class Stopping(RecordingSink):
        def on_publication(self, channel: str, publication: Publication) -> None:
            super().on_publication(channel, publication)
            process.publish(channel, b"2")
            run(process.broker.stop())

    sink = Stopping()
    process = Process(sink)
    run(process.broker.subscribe("a"))
    process.publish("a")
    assert len(sink.publications("a")) == 1
    assert process.tables[3] == 0


def test_sink_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the publisher gets its position, and the next is told."""

    class Raising(RecordingSink):
        def on_publication(self, channel: str, publication: Publication) -> None:
            super().on_publication(channel, publication)
            if publication.offset == 1:
                raise ZeroDivisionError

    sink = Raising()
    process = Process(sink)
    run(process.broker.subscribe("a"))
    with caplog.at_level(logging.ERROR, logger="pongee.brokers"):
        assert [process.publish("a").offset for _ in range(2)] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["a sink raised at a publication"]
    assert len(sink.publications("a")) == 2


def test_nothing_is_left_of_abandoned_channels() -> None:
    """What nobody asks for goes by itself, each at its time."""
    process = Process()
    for number in range(3 * SWEEP_STEP):
        channel = f"c{number}"
        process.publish(channel, idempotency_key="k", idempotency_window=300)
        run(process.broker.add_presence(channel, ClientInfo("ann", "c1"), 60))
    count = 3 * SWEEP_STEP
    assert process.tables == [count, count, count, 0]
    logs = list(process.broker._logs.values())

    process.clock.advance(59)
    assert process.tables == [count, count, count, 0]
    assert sum(map(len, logs)) == count
    # A round takes nine steps here: three for each of the three tables.
    late = SWEEP_INTERVAL + 10 * SWEEP_REST
    process.clock.advance(1 + late)
    assert process.tables == [count, 0, count, 0]
    assert sum(map(len, logs)) == 0
    process.clock.advance(240)
    assert process.tables == [count, 0, 0, 0]
    process.clock.advance(300)
    assert process.tables == [0, 0, 0, 0]


def test_sweep_goes_in_steps() -> None:
    """A million channels must not hold the event loop."""
    process = Process()
    for number in range(3 * SWEEP_STEP):
        run(process.broker.add_presence(f"c{number}", ClientInfo("ann", "c1"), 1))
    left = []
    process.clock.advance(SWEEP_INTERVAL)
    for _ in range(3):
        left.append(process.tables[1])
        process.clock.advance(SWEEP_REST)
    assert left == [2 * SWEEP_STEP, SWEEP_STEP, 0]


def test_sweep_leaves_what_is_used() -> None:
    """A stream that is read keeps its epoch for ever, a lease that is renewed stays."""
    process = Process()
    position = process.publish("a")
    for _ in range(50):
        run(process.broker.add_presence("a", ClientInfo("ann", "c1"), 60))
        process.clock.advance(50)
        assert run(process.broker.history("a", STREAM, limit=0)).top == position
    assert run(process.broker.presence_counts("a")) == Counts(1, 1)


def test_timer_is_set_only_while_something_is_kept() -> None:
    """By a broker that runs; a restart finds what was kept, and nobody subscribed."""
    clock = ManualClock()
    wheel = TimerWheel(clock)
    broker, sink = MemoryBroker(clock, wheel), RecordingSink()
    run(broker.start(sink, "n"))
    run(broker.subscribe("a"))
    assert len(wheel) == 0
    position = run(broker.publish("a", Publication(b"1"), STREAM))
    assert len(wheel) == 1
    for _ in range(2):
        run(broker.stop())
    assert len(wheel) == 0
    for _ in range(2):
        run(broker.start(sink, "n"))
    assert len(wheel) == 1

    assert broker.subscribed == frozenset()
    again = run(broker.publish("a", Publication(b"2"), STREAM))
    assert again == (2, position.epoch)
    assert len(sink.publications("a")) == 1
    clock.advance(STREAM.meta_ttl + 2 * SWEEP_INTERVAL)
    assert len(wheel) == 0
    run(broker.add_presence("a", ClientInfo("ann", "c1"), 60))
    assert len(wheel) == 1
    run(broker.remove_presence("a", "c1", "ann"))
    run(broker.publish("a", Publication(b"2"), None, idempotency_key="k"))
    clock.advance(300 + 2 * SWEEP_INTERVAL)
    assert len(wheel) == 0


def test_time_passes_for_a_broker_that_is_stopped() -> None:
    """Nothing sweeps, and still nothing old is handed out."""
    process = Process()
    position = process.publish("a", idempotency_key="k")
    run(process.broker.add_presence("a", ClientInfo("ann", "c1"), 60))
    run(process.broker.stop())
    process.clock.advance(601)
    assert run(process.broker.presence("a")) == {}
    again = process.publish("a", idempotency_key="k")
    assert again.offset == 1
    assert again.epoch != position.epoch


def test_keys_are_bounded_in_number() -> None:
    """The oldest is forgotten first; one that came again counts as new."""
    process = Process()
    process.publish("a", stream=None, idempotency_key="short", idempotency_window=1)
    first = process.publish("a", idempotency_key="first")
    process.clock.advance(2)
    process.publish("a", stream=None, idempotency_key="short", idempotency_window=300)
    for number in range(IDEMPOTENCY_KEYS - 1):
        process.publish("b", stream=None, idempotency_key=str(number))
    assert process.tables[2] == IDEMPOTENCY_KEYS
    assert ("a", "first") not in process.broker._keys
    assert ("a", "short") in process.broker._keys
    assert process.publish("a", idempotency_key="first").offset == first.offset + 1


def test_lease_that_is_shorter_than_others_ends_at_its_time() -> None:
    """Whoever asks sees it, before any sweep; also after a renewal that shortens."""
    process = Process()
    broker = process.broker
    run(broker.add_presence("a", ClientInfo("ann", "c1"), 9))
    run(broker.add_presence("a", ClientInfo("ben", "c2"), 3))
    run(broker.add_presence("a", ClientInfo("ann", "c1"), 5))
    seen = []
    for _ in range(6):
        seen.append((run(broker.presence_counts("a")).clients, sorted(run(broker.presence("a")))))
        process.clock.advance(1)
    assert seen == [(2, ["c1", "c2"])] * 3 + [(1, ["c1"])] * 2 + [(0, [])]


def test_connection_that_changes_its_user_counts_once() -> None:
    """The one it was is struck out."""
    process = Process()
    for user in ("ann", "ben", "ben"):
        run(process.broker.add_presence("a", ClientInfo(user, "c1"), 60))
        assert run(process.broker.presence_counts("a")) == Counts(1, 1)
    run(process.broker.remove_presence("a", "c1", "ann"))
    assert run(process.broker.presence_counts("a")) == Counts(0, 0)
    assert process.tables[1] == 0


@pytest.mark.anyio
async def test_channels_that_were_only_looked_at_are_forgotten() -> None:
    """Clients choose names, and must not fill the memory; one with members keeps its epoch."""
    clock, sink = ManualClock(), RecordingSink()
    broker = MemoryBroker(clock)
    await broker.start(sink, "n")
    stream = Stream(10, 60.0, 30 * 86400.0)
    await broker.subscribe("kept")
    kept = (await broker.history("kept", stream)).top
    said = await broker.publish("said", Publication(b"1"), stream)
    for number in range(2000):
        await broker.history(f"room:{number}", stream, limit=0)
    for _ in range(30):
        clock.advance(30.0)
    assert set(broker._logs) == {"kept", "said"}
    assert (await broker.history("kept", stream)).top == kept
    assert (await broker.history("said", stream)).top == said
    await broker.stop()
