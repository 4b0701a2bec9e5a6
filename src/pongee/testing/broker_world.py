"""What the tests of a broker stand on: workers that remember what they were told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, NamedTuple

import msgspec

from pongee.brokers.base import Broker, Stream
from pongee.channels.publication import ClientInfo, Position, Publication
from pongee.testing.wait import eventually

__all__ = [
    "BrokerWorld",
    "RecordingSink",
    "Worker",
    "fresh_name",
    "holds",
    "same",
    "without_position",
]


class RecordingSink:
    """A `Sink` that remembers.

    Attributes:
        events: ``publication``, ``join`` or ``leave``, the channel, and what was told.
        control: what nodes have sent.
        links: what was told of the link.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.control: list[bytes] = []
        self.links: list[bool] = []

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Remember it."""
        self.events.append(("publication", channel, publication))

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Remember it."""
        self.events.append(("join", channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Remember it."""
        self.events.append(("leave", channel, info))

    def on_control(self, data: bytes) -> None:
        """Remember it."""
        self.control.append(data)

    def on_link(self, up: bool) -> None:
        """Remember it."""
        self.links.append(up)

    def publications(self, channel: str) -> list[Publication]:
        """List those of `channel`, as they came."""
        return [
            what for kind, name, what in self.events if (kind, name) == ("publication", channel)
        ]

    def comings(self, channel: str) -> list[tuple[str, str]]:
        """List the joins and leaves of `channel`: which, and whose."""
        return [
            (kind, what.client)
            for kind, name, what in self.events
            if name == channel and kind != "publication"
        ]


class Worker(NamedTuple):
    """One process, as far as its broker knows."""

    broker: Broker
    sink: RecordingSink
    node: str


class BrokerWorld:
    """Brokers of one application, and time. Inherit and override `make_broker` and `pass_time`.

    Attributes:
        ttl: seconds that the tests let publications, keys and presence live. With real time, short
            enough to wait for, and long enough that a test's steps take a small part of it.
        shared: brokers of one test are workers of one application. Otherwise there is one worker,
            and the tests for several use it several times.
        within: seconds in which what was told must have arrived.
    """

    ttl: ClassVar[float] = 60.0
    shared: ClassVar[bool] = False
    within: ClassVar[float] = 5.0

    async def make_broker(self) -> Broker:
        """Make a broker that has not been started."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass for every broker made."""
        raise NotImplementedError

    @property
    def _stream(self) -> Stream:
        return Stream(100, self.ttl, 4 * self.ttl)

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[tuple[Worker, Worker]]:
        """Start two workers, or one and name it twice."""
        async with AsyncExitStack() as stack:
            workers: list[Worker] = []
            for _ in range(2 if self.shared else 1):
                node = secrets.token_hex(8)
                worker = Worker(await self.make_broker(), RecordingSink(), node)
                await worker.broker.start(worker.sink, node)
                stack.push_async_callback(worker.broker.stop)
                workers.append(worker)
            yield workers[0], workers[-1]

    @asynccontextmanager
    async def _worker(self, *subscribed: str) -> AsyncIterator[Worker]:
        async with self._workers() as (worker, _):
            for channel in subscribed:
                await worker.broker.subscribe(channel)
            yield worker

    async def _arrived(self, worker: Worker, channel: str, count: int) -> list[Publication]:
        """Wait for `count` publications, and see that there are no more of them."""

        def enough() -> bool:
            return len(worker.sink.publications(channel)) >= count

        await eventually(enough, within=self.within, what=f"{count} publications in {channel}")
        came = worker.sink.publications(channel)
        same(len(came), count, f"publications handed over in {channel}")
        return came

    async def _settled(self, worker: Worker, channel: str, stream: Stream | None) -> list[bytes]:
        """Wait until the sink has been told everything of `channel` so far; returns payloads.

        What is published last arrives last, so that nobody need wait for what must not come.
        """
        marker = secrets.token_bytes(8)
        await worker.broker.publish(channel, Publication(marker, binary=True), stream)

        def arrived() -> bool:
            return any(one.data == marker for one in worker.sink.publications(channel))

        await eventually(arrived, within=self.within, what=f"the last publication of {channel}")
        return [one.data for one in worker.sink.publications(channel) if not one.binary]

    async def _publish(
        self, worker: Worker, channel: str, count: int, stream: Stream | None = None
    ) -> list[Position]:
        """Publish with turns for others in between; payloads count from 0."""
        positions = []
        for number in range(count):
            positions.append(
                await self._publish_one(worker, channel, number, stream or self._stream)
            )
            await asyncio.sleep(0)
        return positions

    async def _publish_one(
        self,
        worker: Worker,
        channel: str,
        number: int,
        stream: Stream | None,
        *,
        key: str | None = None,
    ) -> Position:
        """Publish `number`, remembered for one `ttl` if it has a key."""
        return await worker.broker.publish(
            channel,
            Publication(b"%d" % number),
            stream,
            idempotency_key=key,
            idempotency_window=self.ttl,
        )


def fresh_name() -> str:
    """Name a channel that no other test has."""
    return f"contract:{secrets.token_hex(6)}"


def without_position(publication: Publication) -> Publication:
    """Copy `publication` without its position."""
    return msgspec.structs.replace(publication, offset=0, epoch="")


def same(got: object, wanted: object, what: str) -> None:
    """Fail unless `got` equals `wanted`."""
    # Sentences of our own: pytest explains plain assertions only in the tests of its user.
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")


def holds(fact: bool, otherwise: str) -> None:
    """Fail with `otherwise` unless `fact`."""
    if not fact:
        raise AssertionError(otherwise)
