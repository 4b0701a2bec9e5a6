"""A client on a slow line comes back to more than its outbox may hold."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pongee.testing import RawPeer, eventually
from tests.centrifuge.test_frames import Message, World

pytestmark = pytest.mark.anyio

CHANNELS, KEPT, SIZE = 20, 10, 60_000
REPLY = KEPT * SIZE  # bytes, about


async def _frame(peer: RawPeer) -> str:
    """Read a frame of text, short or long."""
    head = await peer.read(2)
    assert head[0] == 0x81
    length = head[1]
    if length > 125:
        length = int.from_bytes(await _exactly(peer, 2 if length == 126 else 8))
    return (await _exactly(peer, length)).decode()


async def _exactly(peer: RawPeer, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await peer.read(size - len(data))
        assert more, "closed in the midst of a frame"
        data += more
    return data


async def _replies(peer: RawPeer, number: int) -> dict[int, dict[str, Any]]:
    """Read until there are so many."""
    found: dict[int, dict[str, Any]] = {}
    async with asyncio.timeout(60):
        while len(found) < number:
            for line in (await _frame(peer)).splitlines():
                reply = json.loads(line)
                found[reply["id"]] = reply
    return found


async def _come_back(world: World, slow: RawPeer) -> None:
    """Publish to all channels, and have a client ask for all but the oldest publication."""
    commands: list[dict[str, Any]] = [{"id": 1, "connect": {}}]
    for room in range(CHANNELS):
        for _ in range(KEPT + 1):
            position = await world.room.publish(Message(text="x" * SIZE), room_id=room)
        asked = {"recover": True, "epoch": position.epoch, "offset": 1}
        commands.append({"id": 2 + room, "subscribe": {"channel": f"chat:{room}"} | asked})
    await slow.handshake()
    await slow.send_frame(1, "\n".join(map(json.dumps, commands)).encode())


def _read(world: World) -> list[str]:
    return [channel for what, channel in world.broker.log if what == "history"]


async def test_it_is_given_one_channel_after_the_other_and_not_cut() -> None:
    """Its outbox takes two replies; no history is read that it cannot be given yet."""
    world = World(outbox_bytes=2 * REPLY, write_deadline=60)
    async with world.open() as server, RawPeer(server.port, "/connection/websocket") as slow:
        await _come_back(world, slow)
        await eventually(lambda: _read(world), what="the first one is read")
        assert len(_read(world)) < CHANNELS
        replies = await _replies(slow, 1 + CHANNELS)
        for room in range(CHANNELS):
            result = replies[2 + room]["subscribe"]
            assert result["recovered"]
            assert len(result["publications"]) == KEPT
        assert sorted(_read(world)) == sorted(f"chat:{room}" for room in range(CHANNELS))


async def test_who_leaves_meanwhile_is_forgotten() -> None:
    """Nothing waits for it any more."""
    world = World(outbox_bytes=2 * REPLY)
    async with world.open() as server:
        async with RawPeer(server.port, "/connection/websocket") as slow:
            await _come_back(world, slow)
            await eventually(lambda: _read(world), what="it is subscribing")
        await eventually(lambda: not world.pongee.local_channels(), what="it is gone")
