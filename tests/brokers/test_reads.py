"""Many histories read at once, as when everybody comes back: publications do not wait for all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pongee.brokers.base import Broker, Stream
from pongee.brokers.nats import NatsBroker
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import Publication
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer, redis_7

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

STREAM = Stream(60, 60.0, 600.0)
CHANNELS, READS = 5, 400


async def _publication_overtakes(broker: Broker) -> None:
    sink = RecordingSink()
    await broker.start(sink, "node")
    try:
        names = [f"chat:{number}" for number in range(CHANNELS)]
        await asyncio.gather(
            *(
                broker.publish(name, Publication(b"x" * 1000), STREAM)
                for name in names
                for _ in range(STREAM.size)
            )
        )
        await broker.subscribe("live")
        reads = [
            asyncio.create_task(broker.history(names[number % CHANNELS], STREAM))
            for number in range(READS)
        ]
        await asyncio.sleep(0)  # all of them have begun
        await broker.publish("live", Publication(b"now"), STREAM)
        await eventually(lambda: sink.publications("live"), what="it has come back")
        assert sum(read.done() for read in reads) < READS // 2
        pages = await asyncio.gather(*reads)
        assert {len(page.publications) for page in pages} == {STREAM.size}
    finally:
        await broker.stop()


async def test_at_redis(tmp_path: Path) -> None:
    """A few reads are under way, the others wait here."""
    with RedisServer(tmp_path, redis_7()) as server:
        await _publication_overtakes(RedisBroker(server.url))


async def test_at_nats(tmp_path: Path) -> None:
    """The same; and none of the others' deadlines has begun."""
    with NatsServer(tmp_path) as server:
        await _publication_overtakes(NatsBroker(server.url))
