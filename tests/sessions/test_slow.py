"""Slow clients hurt nobody."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import pytest

from pongee import Limits, Session, public
from pongee.testing import Client, RawPeer, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def _memory() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _room(world: World, **options: Any) -> list[Session[str, str]]:
    sessions: list[Session[str, str]] = []

    @world.pongee.endpoint("/ws", auth=public, **options)
    async def handler(session: Session[str, str]) -> None:
        sessions.append(session)
        await session.subscribe("room")
        async for _ in session:
            pass

    return sessions


async def _read_all(client: Client, count: int, delays: list[float]) -> None:
    for _ in range(count):
        sent = float(str(await client.receive(20)).partition(" ")[0])
        delays.append(time.monotonic() - sent)


async def _until(collected: list[float], size: int) -> None:
    await eventually(lambda: len(collected) >= size, within=20)


async def test_one_stalled_member_of_a_hundred_delays_nobody_and_is_cut() -> None:
    """20 MiB are published: the others are served at once, the stalled one is gone in time."""
    world = World()
    limits = Limits(write_deadline=2.0, outbox_bytes=64 * MIB, outbox_messages=100_000)
    _room(world, limits=limits)
    rounds, size, members = 80, 256 * 1024, 99
    before = _memory()
    async with world.running() as server:
        clients = [connect(server.ws("/ws")) for _ in range(members)]
        async with RawPeer(server.port, "/ws") as stalled, asyncio.TaskGroup() as group:
            await stalled.handshake()
            delays: list[float] = []
            opened = [await client.__aenter__() for client in clients]
            for client in opened:
                group.create_task(_read_all(client, rounds, delays))
            await eventually(lambda: world.pongee.local_channels().get("room") == members + 1)
            payload = "x" * size
            started = time.monotonic()
            for number in range(rounds):
                await world.pongee.publish("room", f"{time.monotonic()} {payload}")
                # The next one when everybody has this one: the delay is then the hub's own.
                await _until(delays, (number + 1) * members)
            await eventually(lambda: "too slow" in world.causes, within=10)
            gone_after = time.monotonic() - started
            assert world.pongee.local_channels()["room"] == members
        for client_context in clients:
            await client_context.__aexit__(None, None, None)
    assert rounds * size == 20 * MIB
    assert gone_after < 60
    await eventually(lambda: (gc.collect(), _memory() - before < 64 * MIB)[1], within=5)
    assert len(delays) == rounds * members


async def test_stalled_client_is_gone_within_its_write_deadline() -> None:
    """Even with little waiting: a write that makes no progress ends in an abort."""
    world = World()
    sessions = _room(world, limits=Limits(write_deadline=1.0, outbox_bytes=64 * MIB))
    async with world.running() as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        for _ in range(40):
            await world.pongee.publish("room", "x" * 256 * 1024)
        await eventually(lambda: sessions[0].statistics().waiting_messages > 0)
        await eventually(lambda: world.causes == ["too slow"], within=1.5)
        assert world.pongee.connections() == []
        assert sessions[0].statistics().waiting_bytes == 0
        # The transport was cut, so the server does not keep the socket either.
        await eventually(lambda: not server.uvicorn.server_state.connections, within=2)


async def test_disconnect_policy_cuts_a_client_whose_outbox_is_full() -> None:
    """The default: whoever cannot follow is cut, and it is counted."""
    world = World()
    sessions = _room(world, limits=Limits(outbox_messages=20))
    async with world.running() as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        for _ in range(400):
            await world.pongee.publish("room", "x" * 64 * 1024)
            await asyncio.sleep(0)
            if world.causes:
                break
        await eventually(lambda: world.causes == ["too slow"])
        assert sessions[0].statistics().dropped_messages > 0
        assert str(sessions[0].close_cause) == "too slow (1013 'too slow: outbox full')"


async def _fill(world: World, server: Any, keys: list[str | None]) -> None:
    """Publish until the stalled client's outbox holds something, then `keys` on top."""
    filler = "f" * 256 * 1024
    for _ in range(60):
        await world.pongee.publish("room", filler)
        await asyncio.sleep(0)
    for number, key in enumerate(keys):
        await world.pongee.publish("room", f"{number}", key=key)
    await asyncio.sleep(0)  # what was published is handed over on the next turn


async def test_drop_oldest_keeps_the_newest_and_counts_the_rest() -> None:
    """The client stays; what it missed is in `statistics`."""
    world = World()
    limits = Limits(outbox_messages=10, outbox_bytes=64 * MIB, write_deadline=60)
    sessions = _room(world, limits=limits, overflow="drop_oldest")
    async with world.running() as server, RawPeer(server.port, "/ws") as peer:
        await peer.handshake()
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        await _fill(world, server, [None] * 10)
        numbers = sessions[0].statistics()
        assert numbers.waiting_messages == 10
        assert numbers.dropped_messages > 0
        assert world.causes == []
        received = await _drain(peer, b"\x81\x019")
        assert received.endswith(b"".join(b"\x81\x01%d" % n for n in range(10)))
        assert sessions[0].statistics().waiting_messages == 0


async def test_latest_per_key_keeps_the_newest_of_each_key() -> None:
    """Ten prices of two stocks: only the last of each is worth sending late."""
    world = World()
    limits = Limits(outbox_messages=10, outbox_bytes=64 * MIB, write_deadline=60)
    sessions = _room(world, limits=limits, overflow="latest_per_key")
    async with world.running() as server, RawPeer(server.port, "/ws") as peer:
        await peer.handshake()
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        await _fill(world, server, ["a", "b"] * 4)
        await eventually(lambda: sessions[0].statistics().replaced_messages == 6)
        received = await _drain(peer, b"\x81\x017")
        assert received.endswith(b"\x81\x016\x81\x017")
        assert b"\x81\x015" not in received[-12:]


async def _drain(peer: RawPeer, last: bytes) -> bytes:
    """Read until the bytes end with `last`."""
    collected = b""
    while not collected.endswith(last):
        collected = (collected + await peer.read())[-4096:]
    return collected


async def test_send_waits_for_a_slow_reader_and_goes_on_when_it_reads() -> None:
    """Under ``disconnect`` a handler that streams is slowed to its client's pace."""
    world, sent = World(), []

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(outbox_bytes=MIB))
    async def handler(session: Session[str, bytes]) -> None:
        for number in range(200):
            await session.send(bytes(128 * 1024))
            sent.append(number)

    async with (
        world.running() as server,
        RawPeer(server.port, "/ws", receive_buffer=MIB) as peer,
    ):
        await peer.handshake()
        await eventually(lambda: sent and len(sent) < 200)
        stuck = 0
        while len(sent) != stuck:  # until it makes no more progress
            stuck = len(sent)
            await asyncio.sleep(0.1)
        assert stuck < 200
        await _drain(peer, b"\x88\x02\x03\xe8")  # everything, then the close frame
        assert len(sent) == 200
        await eventually(lambda: world.causes == ["handler returned"])


async def test_stalled_client_does_not_keep_the_server_from_stopping() -> None:
    """Shutdown with an undrained buffer ends in time."""
    world = World()
    _room(world, limits=Limits(close_timeout=0.3, outbox_bytes=64 * MIB))
    async with world.running() as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.pongee.local_channels().get("room") == 1)
        for _ in range(40):
            await world.pongee.publish("room", "x" * 256 * 1024)
        await asyncio.wait_for(world.pongee.drain(0), 3)
        assert world.causes == ["server is leaving"]


async def test_client_that_stalls_and_goes_quiet_is_found_by_the_pings() -> None:
    """No further write comes: the server's own closing would wait for the buffer for ever."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(write_deadline=60))
    async def handler(session: Session[str, bytes]) -> None:
        await session.send(bytes(6 * MIB))
        async for _ in session:
            pass

    config: dict[str, Any] = {"ws_ping_interval": 0.3, "ws_ping_timeout": 0.3}
    async with world.running(**config) as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.causes, within=3)
        assert world.pongee.connections() == []
        await eventually(lambda: not server.uvicorn.server_state.connections, within=2)


async def test_client_that_stalls_after_the_last_write_is_cut_by_the_write_deadline() -> None:
    """The write has returned long ago; its bytes are still here."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(write_deadline=0.5))
    async def handler(session: Session[str, bytes]) -> None:
        await session.send(bytes(6 * MIB))
        async for _ in session:
            pass

    async with world.running() as server, RawPeer(server.port, "/ws") as stalled:
        await stalled.handshake()
        await eventually(lambda: world.causes == ["too slow"], within=3)
