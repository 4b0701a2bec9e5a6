"""Publishing from processes that are not the application."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fastapi import FastAPI

from pongee import (
    BrokerUnavailable,
    ConfigurationError,
    Pongee,
    Position,
    Publisher,
    Settings,
    UsageError,
)
from pongee.fleet.layout import LAYOUT
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer
from tests.fleet.world import processes

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
CHAT = "chat:1"


def publisher_of(settings: Settings) -> Publisher:
    """Make one that has the application's broker."""
    return Publisher(settings.broker.get_secret_value(), prefix=settings.broker_prefix)


def environment(settings: Settings) -> dict[str, str]:
    """Tell a program of the application's broker, as an operator would."""
    return os.environ | {
        "PONGEE_BROKER": settings.broker.get_secret_value(),
        "PONGEE_BROKER_PREFIX": settings.broker_prefix,
    }


async def test_members_get_what_is_published_elsewhere(settings: Settings) -> None:
    """With a position where the application declared a history, and without one elsewhere."""
    async with processes(settings) as (one, two), one.sdk("ann", CHAT) as ann:
        async with publisher_of(settings) as publisher, two.sdk("ben", CHAT) as ben:
            position = await publisher.publish(CHAT, {"n": 1}, tags={"a": "b"})
            again = [await publisher.publish(CHAT, {"n": 2}, idempotency_key="k") for _ in range(2)]
            assert again == [Position(2, position.epoch)] * 2
            assert (await publisher.publish("plain", b"\x00")).offset == 0
            for sdk in (ann, ben):
                first = await sdk.pushed("pub")
                assert (first["data"], first["offset"], first["tags"]) == ({"n": 1}, 1, {"a": "b"})
                assert (await sdk.pushed("pub"))["offset"] == 2
        assert (await one.pongee.history(CHAT)).top.offset == 2


async def test_plain_script(settings: Settings) -> None:
    """The example, as a program of its own."""
    async with processes(settings, 1) as (one,), one.sdk("ann", CHAT) as ann:
        script = await asyncio.create_subprocess_exec(
            sys.executable,
            "examples/publish_from_script.py",
            CHAT,
            "sold out",
            cwd=ROOT,
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(script.communicate(), 30)
        assert (out.decode(), err.decode()) == ("published at offset 1\n", "")
        assert (await ann.pushed("pub"))["data"] == {"text": "sold out"}


FORKING = """
import os, sys
from pongee import Publisher

publisher = Publisher()
publisher.publish_sync("chat:1", {"by": "parent"})
child = os.fork()
if not child:
    for number in range(3):
        publisher.publish_sync("chat:1", {"by": "child"})
    os._exit(0)
status = os.waitpid(child, 0)[1]
publisher.publish_sync("chat:1", {"by": "parent"})
publisher.close()
sys.exit(status)
"""


async def test_worker_that_forks(settings: Settings) -> None:
    """As task queues do: each process has its own connection."""
    async with processes(settings, 1) as (one,), one.sdk("ann", CHAT) as ann:
        script = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", FORKING, env=environment(settings)
        )
        assert await asyncio.wait_for(script.wait(), 30) == 0
        said = [(await ann.pushed("pub"))["data"]["by"] for _ in range(5)]
        assert said == ["parent", "child", "child", "child", "parent"]


async def test_threads_share_one(settings: Settings) -> None:
    """Each caller gets its own position, and none is lost."""
    async with processes(settings, 1) as (one,):
        positions: list[int] = []

        def work(publisher: Publisher) -> None:
            positions.extend(publisher.publish_sync(CHAT, {"n": n}).offset for n in range(20))

        def run() -> None:
            with publisher_of(settings) as publisher:
                threads = [threading.Thread(target=work, args=(publisher,)) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

        await asyncio.to_thread(run)
        assert sorted(positions) == list(range(1, 81))
        assert (await one.pongee.history(CHAT, limit=0)).top.offset == 80


async def test_bad_use(settings: Settings) -> None:
    """Clear errors, with what came and the cure."""
    with pytest.raises(ConfigurationError, match="of one process"):
        Publisher("memory://")
    with pytest.raises(ConfigurationError, match="no broker"):
        Publisher("amqp://here")
    async with publisher_of(settings) as early:
        with pytest.raises(ConfigurationError, match="no application has been started"):
            await early.publish(CHAT, {})
    async with processes(settings, 1) as (one,), publisher_of(settings) as publisher:
        with pytest.raises(UsageError, match="carries JSON"):
            await publisher.publish(CHAT, b"bytes")
        with pytest.raises(UsageError):
            await publisher.publish("", {})
        with pytest.raises(UsageError):
            await publisher.publish(CHAT, object())
        await one.pongee._node.board.broker.put(LAYOUT, b"nonsense")
        async with publisher_of(settings) as other:
            with pytest.raises(ConfigurationError, match="cannot be read"):
                await other.publish(CHAT, {})


async def test_one_event_loop_each(settings: Settings) -> None:
    """Another one is told so; one that has ended is no hindrance."""
    async with processes(settings, 1), publisher_of(settings) as publisher:
        await publisher.publish(CHAT, {})

        def elsewhere() -> None:
            with pytest.raises(UsageError, match="one event loop"):
                asyncio.run(publisher.publish(CHAT, {}))

        await asyncio.to_thread(elsewhere)


async def test_layout_is_of_all_who_share_a_prefix(settings: Settings) -> None:
    """Another application's channels are not forgotten, nor is what was known lost."""
    async with processes(settings, 1), publisher_of(settings) as publisher:
        other = Pongee(settings)
        other.channel("other:{n}", dict[str, int], history=10)
        app = FastAPI()
        other.install(app)
        async with other.lifespan(app):
            assert (await publisher.publish("other:1", {"n": 1})).offset == 1
            assert (await publisher.publish(CHAT, {})).offset == 1


async def test_server_hangs(settings: Settings, broker_server: RedisServer | NatsServer) -> None:
    """That is told within seconds."""
    async with processes(settings, 1), publisher_of(settings) as publisher:
        await publisher.publish(CHAT, {})
        broker_server.freeze()
        try:
            async with asyncio.timeout(8):
                with pytest.raises(BrokerUnavailable):
                    await _publish_for_ever(publisher)
        finally:
            broker_server.thaw()


async def _publish_for_ever(publisher: Publisher) -> None:
    """What is on its way as a server stops may still be answered."""
    while True:
        await publisher.publish(CHAT, {})
