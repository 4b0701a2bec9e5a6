"""The suite itself: it fits brokers that tell later and have workers, and it finds faults."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from pongee.brokers.base import UP, Broker, Counts, Health, Page, Sink, Stream
from pongee.brokers.memory import MemoryBroker
from pongee.channels.publication import ClientInfo, Position, Publication
from pongee.testing import ManualClock
from pongee.testing.broker_contract import BrokerContract

pytestmark = pytest.mark.anyio


class Core:
    """What the workers share: one broker, and a line to each of them."""

    def __init__(self, clock: ManualClock) -> None:
        self.broker = MemoryBroker(clock)
        self.workers: list[Remote] = []

    def on_publication(self, channel: str, publication: Publication) -> None:
        self._send("on_publication", channel, publication)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._send("on_join", channel, info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._send("on_leave", channel, info)

    def on_control(self, data: bytes) -> None:
        raise AssertionError("workers send to each other directly")

    def on_link(self, up: bool) -> None:
        raise AssertionError("memory has no link")

    def _send(self, how: str, channel: str, what: Any) -> None:
        for worker in self.workers:
            asyncio.get_running_loop().call_soon(worker.take, how, channel, what)


class Remote:
    """A worker's broker: each step and each message takes a turn of the event loop, or more."""

    reliable: ClassVar[bool] = True

    def __init__(self, core: Core) -> None:
        self.core = core
        self.node = ""
        self.sink: Sink | None = None
        self.subscribed: set[str] = set()

    def take(self, how: str, channel: str, what: Any) -> None:
        if self.sink is not None and channel in self.subscribed:
            getattr(self.sink, how)(channel, what)

    @property
    def health(self) -> Health:
        return UP

    async def start(self, sink: Sink, node: str) -> None:
        self.node = node
        await self.core.broker.start(self.core, "core")
        self.core.workers.append(self)
        for worker in self.core.workers:
            for channel in worker.subscribed:
                await self.core.broker.subscribe(channel)
        self.sink = sink

    async def stop(self) -> None:
        self.sink = None
        self.subscribed.clear()

    async def subscribe(self, channel: str) -> None:
        await asyncio.sleep(0)
        self.subscribed.add(channel)
        await self.core.broker.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await asyncio.sleep(0)
        self.subscribed.discard(channel)

    async def control(self, data: bytes, node: str | None = None) -> None:
        for worker in self.core.workers:
            if worker.sink is not None and node in (None, worker.node):
                worker.sink.on_control(data)

    async def put(self, name: str, data: bytes) -> None:
        await self.core.broker.put(name, data)

    async def get(self, name: str) -> bytes | None:
        return await self.core.broker.get(name)

    async def publish(
        self, channel: str, publication: Publication, stream: Stream | None, **options: Any
    ) -> Position:
        await asyncio.sleep(0)
        position = await self.core.broker.publish(channel, publication, stream, **options)
        await asyncio.sleep(0)
        return position

    async def history(self, channel: str, stream: Stream, **options: Any) -> Page:
        await asyncio.sleep(0)
        page = await self.core.broker.history(channel, stream, **options)
        await asyncio.sleep(0)
        return page

    async def remove_history(self, channel: str) -> None:
        await self.core.broker.remove_history(channel)

    async def join(self, channel: str, info: ClientInfo) -> None:
        await self.core.broker.join(channel, info)

    async def leave(self, channel: str, info: ClientInfo) -> None:
        await self.core.broker.leave(channel, info)

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        await self.core.broker.add_presence(channel, info, ttl)

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        await self.core.broker.remove_presence(channel, client, user)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        return await self.core.broker.presence(channel)

    async def presence_counts(self, channel: str) -> Counts:
        return await self.core.broker.presence_counts(channel)


class TestManyWorkers(BrokerContract):
    """Workers that share, and learn of everything a little later."""

    shared = True

    def setup_method(self) -> None:
        self.clock = ManualClock()
        self.core = Core(self.clock)

    async def make_broker(self) -> Broker:
        return Remote(self.core)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class SharedPublication(MemoryBroker):
    """Writes into the caller's own publication."""

    async def publish(
        self, channel: str, publication: Publication, stream: Stream | None, **options: Any
    ) -> Position:
        position = await super().publish(channel, publication, stream, **options)
        publication.offset, publication.epoch = position
        return position


class TwoKinds(MemoryBroker):
    """Confuses the keys of different channels."""

    async def publish(
        self,
        channel: str,
        publication: Publication,
        stream: Stream | None,
        *,
        idempotency_key: str | None = None,
        idempotency_window: float = 300.0,
    ) -> Position:
        known = self._keys.get(("", idempotency_key or ""))
        if known is not None:
            return known[1]
        position = await super().publish(channel, publication, stream)
        if idempotency_key is not None:
            self._remember(("", idempotency_key), 0.0, position)
        return position


class Forgetful(MemoryBroker):
    """Begins a new epoch with its history."""

    async def remove_history(self, channel: str) -> None:
        self._logs.pop(channel, None)


class Inclusive(MemoryBroker):
    """Reads from `since` on, with it."""

    async def history(
        self, channel: str, stream: Stream, *, since: Position | None = None, **options: Any
    ) -> Page:
        moved = since and since._replace(offset=since.offset - 1)
        return await super().history(channel, stream, since=moved, **options)


class Eternal(MemoryBroker):
    """Leases never end."""

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        await super().add_presence(channel, info, 1e9)


class Talkative(MemoryBroker):
    """Hands over what nobody subscribed to."""

    async def unsubscribe(self, channel: str) -> None:
        await super().subscribe(channel)


class Twice(MemoryBroker):
    """Hands everything over twice."""

    def _tell_one(self, kind: str, channel: str, what: Publication | ClientInfo | bytes) -> None:
        for _ in range(2):
            super()._tell_one(kind, channel, what)


class Racing(MemoryBroker):
    """Tells the sink a while after the history was written, each when it likes."""

    def _tell_one(self, kind: str, channel: str, what: Publication | ClientInfo | bytes) -> None:
        loop = asyncio.get_running_loop()
        turns = len(what.data) if isinstance(what, Publication) else 0
        tell = super()._tell_one

        def wait(left: int) -> None:
            if left:
                loop.call_soon(wait, left - 1)
            else:
                tell(kind, channel, what)

        wait(0 if turns % 2 else 3)


class Lossy(MemoryBroker):
    """Keeps every publication and hands over nine of ten."""

    def _tell_one(self, kind: str, channel: str, what: Publication | ClientInfo | bytes) -> None:
        if not (isinstance(what, Publication) and what.offset % 10 == 5):
            super()._tell_one(kind, channel, what)


class Indiscreet(MemoryBroker):
    """Tells every node what is meant for one."""

    async def control(self, data: bytes, node: str | None = None) -> None:
        await super().control(data)


class Deaf(MemoryBroker):
    """Goes on telling a sink that it should have forgotten."""

    async def stop(self) -> None:
        return


FAULTS = [
    (SharedPublication, "everything_of_a_publication_arrives"),
    (TwoKinds, "same_key_is_published_once"),
    (TwoKinds, "key_is_forgotten_after_its_window"),
    (Forgetful, "history_can_be_removed"),
    (Inclusive, "reads"),
    (Inclusive, "epoch_of_since_is_not_looked_at"),
    (Eternal, "presence_is_a_lease"),
    (Talkative, "subscribing_and_unsubscribing_are_idempotent"),
    (Twice, "offsets_count_from_one_in_one_epoch"),
    (Twice, "same_key_at_once_is_published_once"),
    (Twice, "joins_and_leaves_keep_their_order"),
    (Racing, "many_publish_at_once"),
    (Lossy, "history_and_what_follows_have_no_gap"),
    (Indiscreet, "control_reaches_one_node_or_all"),
    (Deaf, "sink_is_told_nothing_after_stop"),
]


@pytest.mark.parametrize(("kind", "test"), FAULTS)
async def test_fault_is_found(kind: type[MemoryBroker], test: str) -> None:
    """A broker with one promise broken fails the test of that promise, and a whole one does not."""
    clock = ManualClock()
    kinds: list[type[MemoryBroker]] = []

    class Contract(BrokerContract):
        async def make_broker(self) -> Broker:
            return kinds[0](clock)

        async def pass_time(self, seconds: float) -> None:
            clock.advance(seconds)

    kinds[:] = [MemoryBroker]
    await getattr(Contract(), f"test_{test}")()
    kinds[:] = [kind]
    with pytest.raises(AssertionError):
        await getattr(Contract(), f"test_{test}")()
