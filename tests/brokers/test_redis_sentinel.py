"""The broker on Redis servers of which sentinels choose the master."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from pongee.brokers.base import Stream
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import Position, Publication
from pongee.errors import BrokerUnavailable
from pongee.limits import BROKER_TIMEOUT
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.redis_server import RedisServer, redis_7

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

STREAM = Stream(10_000, 60, 600)

ELECTED = 40.0
"""Seconds an election may take on a loaded machine, with one that fails before it."""

AT_ONCE = "repl-diskless-sync-delay 0"
"""A replica need not wait for others that might come."""


def ask(server: RedisServer, *command: Any) -> Any:
    with Redis(port=server.port or 0, socket_timeout=5) as client:
        return client.execute_command(*command)


def role(server: RedisServer) -> str:
    return str(ask(server, "ROLE")[0].decode())


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what servers tell; they are asked in a thread, and may be away."""
    deadline = time.monotonic() + ELECTED
    while True:
        with suppress(RedisError):
            if await asyncio.to_thread(condition):
                return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


class Group:
    """A master, a replica and three sentinels that elect another master in about two seconds."""

    def __init__(self, dir: Path, stack: ExitStack) -> None:  # noqa: A002 - what it is
        binary = redis_7()
        first = RedisServer(dir / "0", binary, appendonly=True, config=[AT_ONCE])
        stack.enter_context(first)
        follow = [f"replicaof 127.0.0.1 {first.port}"]
        second = RedisServer(dir / "1", binary, appendonly=True, config=[AT_ONCE, *follow])
        stack.enter_context(second)
        self.servers = [first, second]
        self.sentinels = [
            stack.enter_context(
                RedisServer(
                    dir / f"sentinel{number}",
                    binary,
                    sentinel=True,
                    config=[
                        f"sentinel monitor mymaster 127.0.0.1 {first.port} 2",
                        "sentinel down-after-milliseconds mymaster 1000",
                        "sentinel failover-timeout mymaster 5000",
                    ],
                )
            )
            for number in range(3)
        ]

    @property
    def address(self) -> str:
        return f"redis+sentinel://{hosts(self.sentinels)}/mymaster"

    def is_ready(self) -> bool:
        """Whether every sentinel knows both others and the replica, and that is in step."""
        for sentinel in self.sentinels:
            told = ask(sentinel, "SENTINEL", "MASTER", "mymaster")
            if isinstance(told, list):
                told = dict(zip(told[::2], told[1::2], strict=True))
            known = {_text(key): _text(value) for key, value in told.items()}
            if (known["num-other-sentinels"], known["num-slaves"]) != ("2", "1"):
                return False
        return bool(ask(self.servers[1], "ROLE")[3] == b"connected")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def hosts(servers: list[RedisServer]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@asynccontextmanager
async def started(address: str, node: str = "n") -> AsyncIterator[tuple[RedisBroker, Any]]:
    broker, sink = RedisBroker(address), RecordingSink()
    await broker.start(sink, node)
    try:
        yield broker, sink
    finally:
        await broker.stop()


async def up(broker: RedisBroker, what: str) -> None:
    await eventually(lambda: broker.health.up, within=ELECTED, what=what)


async def keep_publishing(
    broker: RedisBroker, accepted: dict[Position, bytes], refused: list[str], stop: asyncio.Event
) -> None:
    """Publish about a hundred a second until told to stop; whatever fails is not tried again."""
    number = 0
    while not stop.is_set():
        number += 1
        data = b"x%d" % number
        try:
            accepted[await broker.publish("a", Publication(data), STREAM)] = data
        except BrokerUnavailable as error:
            refused.append(str(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.01)


async def test_master_dies(tmp_path: Path, stack: ExitStack) -> None:
    """Everybody ends on the one that is elected, with what was replicated, and stays there.

    Also when the old one is back: as a replica, to which nobody publishes.
    """
    group = await asyncio.to_thread(Group, tmp_path, stack)
    old, new = group.servers
    await until(group.is_ready, "the group")
    async with started(group.address) as (broker, sink), started(group.address, "p") as (other, _):
        await up(broker, "the link of the one")
        await up(other, "the link of the other")
        await broker.subscribe("a")
        kept = [await other.publish("a", Publication(b"%d" % n), STREAM) for n in range(50)]
        assert await asyncio.to_thread(ask, old, "WAIT", 1, 5000) == 1
        await eventually(lambda: len(sink.publications("a")) == 50, what="the first")

        old.kill()
        for one in (broker, other):
            await eventually(
                lambda one=one: not one.health.up,  # type: ignore[misc]
                within=15,
                what="the break",
            )
        accepted: dict[Position, bytes] = {}
        refused: list[str] = []
        stop = asyncio.Event()
        publishing = asyncio.ensure_future(keep_publishing(other, accepted, refused, stop))
        await up(broker, "the new master of the one")
        await up(other, "the new master of the other")
        assert await asyncio.to_thread(role, new) == "master"
        await eventually(lambda: len(accepted) > 20, within=15, what="publications")
        assert refused
        assert "Redis at mymaster (sentinel)" in refused[-1]

        # The old one comes back as the master that it was, until it is told to follow.
        await asyncio.to_thread(old.start)
        await until(lambda: role(old) == "slave", "the return as a replica")
        count = len(accepted)
        await eventually(lambda: len(accepted) > count + 20, within=15, what="publications")
        stop.set()
        await publishing
        last = await other.publish("a", Publication(b"last"), STREAM)
        await eventually(
            lambda: sink.publications("a")[-1].position == last, within=15, what="the last"
        )
        assert sink.links == [True, False, True]

        # What was replicated is there under its offsets, in the same epoch, and all that was
        # accepted since comes after it: nothing is missing, doubled or elsewhere.
        page = await broker.history("a", STREAM)
        history = {one.position: one.data for one in page.publications}
        assert page.top == last
        assert [*history] == [Position(n, kept[0].epoch) for n in range(1, last.offset + 1)]
        assert [history[position] for position in kept] == [b"%d" % n for n in range(50)]
        assert accepted.items() <= history.items()
        assert len({*history.values()}) == len(history)
        told = {one.position: one.data for one in sink.publications("a")}
        assert told.items() <= history.items()
        assert {*kept} <= {*told}


async def test_sentinel_that_was_cut_off(tmp_path: Path, stack: ExitStack) -> None:
    """It names a server that is a replica by now, or gone: the next is asked, whoever is first."""
    one, two = (stack.enter_context(RedisServer(tmp_path / name, redis_7())) for name in "ab")
    stale, fresh = (
        stack.enter_context(RedisServer(tmp_path / f"s{name}", redis_7(), sentinel=True))
        for name in "ab"
    )
    await asyncio.to_thread(ask, stale, "SENTINEL", "MONITOR", "main", "127.0.0.1", one.port, 2)
    await asyncio.to_thread(ask, fresh, "SENTINEL", "MONITOR", "main", "127.0.0.1", two.port, 2)
    one.kill()
    async with started(f"redis+sentinel://{hosts([stale, fresh])}/main") as (broker, sink):
        await up(broker, "the master that the second names")
        await broker.subscribe("a")
        await broker.publish("a", Publication(b"1"), STREAM)
        await eventually(lambda: sink.publications("a"), what="the publication")
        assert sink.links == [True]


@pytest.mark.parametrize("history", [True, False])
async def test_master_becomes_a_replica(tmp_path: Path, stack: ExitStack, history: bool) -> None:
    """Nobody's connection breaks. Its first refusal leads to a new look at the sentinels.

    Where nothing is kept nothing is refused, but publications would reach nobody else: the link
    looks by itself.
    """
    one, two = (
        stack.enter_context(RedisServer(tmp_path / name, redis_7(), config=[AT_ONCE]))
        for name in "ab"
    )
    sentinel = stack.enter_context(RedisServer(tmp_path / "s", redis_7(), sentinel=True))
    monitor = "SENTINEL", "MONITOR", "main", "127.0.0.1"
    await asyncio.to_thread(ask, sentinel, *monitor, one.port, 2)
    async with started(f"redis+sentinel://{hosts([sentinel])}/main") as (broker, sink):
        await up(broker, "the first master")
        await broker.subscribe("a")
        first = await broker.publish("a", Publication(b"1"), STREAM)
        await asyncio.to_thread(ask, two, "REPLICAOF", "127.0.0.1", one.port)
        await until(lambda: ask(two, "ROLE")[3] == b"connected", "the replica")
        await asyncio.to_thread(ask, two, "REPLICAOF", "NO", "ONE")
        await asyncio.to_thread(ask, sentinel, "SENTINEL", "REMOVE", "main")
        await asyncio.to_thread(ask, sentinel, *monitor, two.port, 2)
        await asyncio.to_thread(ask, one, "REPLICAOF", "127.0.0.1", two.port)
        assert broker.health.up
        if history:
            with pytest.raises(BrokerUnavailable, match="READONLY"):
                await broker.publish("a", Publication(b"refused"), STREAM)
        else:
            await eventually(lambda: False in sink.links, within=20, what="the link's own look")
        await up(broker, "the second master")
        second = await broker.publish("a", Publication(b"2"), STREAM)
        assert second == Position(first.offset + 1, first.epoch)
        await eventually(lambda: len(sink.publications("a")) == 2, what="the second publication")
        assert [one.data for one in sink.publications("a")] == [b"1", b"2"]
        assert await asyncio.to_thread(role, two) == "master"


@pytest.mark.parametrize("hang", [False, True])
async def test_sentinels_are_away_at_the_start(
    tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture, hang: bool
) -> None:
    """That is no error; the health and the log tell of it, and they are found when they come."""
    caplog.set_level(logging.WARNING)
    server = stack.enter_context(RedisServer(tmp_path / "a", redis_7()))
    sentinels = [
        stack.enter_context(RedisServer(tmp_path / f"s{number}", redis_7(), sentinel=True))
        for number in range(2)
    ]
    last = sentinels[-1]
    await asyncio.to_thread(ask, last, "SENTINEL", "MONITOR", "main", "127.0.0.1", server.port, 2)
    for sentinel in sentinels:
        (sentinel.freeze if hang else sentinel.kill)()
    before = time.monotonic()
    broker = RedisBroker(f"redis+sentinel://{hosts(sentinels)}/main")
    sink = RecordingSink()
    try:
        await broker.start(sink, "n")
        assert time.monotonic() - before < 4 * BROKER_TIMEOUT
        why = "no answer within" if hang else "no sentinel answers"
        assert "Redis at main (sentinel)" in broker.health.reason
        assert why in broker.health.reason
        assert why in caplog.text
        with pytest.raises(BrokerUnavailable, match="sentinel"):
            await broker.publish("a", Publication(b"1"), STREAM)
        if hang:
            last.thaw()
        else:
            await asyncio.to_thread(last.start)
            monitor = "SENTINEL", "MONITOR", "main", "127.0.0.1", server.port, 2
            await asyncio.to_thread(ask, last, *monitor)
        await up(broker, "the master")
        await broker.publish("a", Publication(b"1"), STREAM)
        assert sink.links == [True]
    finally:
        await broker.stop()
