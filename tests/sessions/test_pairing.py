"""However 1,000 connections end, nobody is left and every opening hook has its closing one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from pongee import Heartbeat, Limits, Session, public
from pongee.testing import RawPeer, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio

ROUNDS = 77
CONCURRENCY = 50


class Crash(Exception):
    """What the handlers here raise on purpose."""


async def _crash() -> None:
    raise Crash


def _declare(world: World) -> None:
    async def user(name: str) -> str:
        return name

    async def act(session: Session[str, str]) -> None:
        await session.send(session.id)
        await session.subscribe("all")
        async for text in session:
            match text:
                case "return":
                    return
                case "crash":
                    raise Crash
                case "spawn":
                    session.spawn(_crash())
                case "close":
                    await session.close(4001, "enough")
                case "disconnect":
                    await world.pongee.disconnect(id=session.id)
                case "disconnect user":
                    await world.pongee.disconnect(user=session.user or "")

    endpoint = world.pongee.endpoint
    endpoint("/ws", auth=user, limits=Limits(max_message_size=1000, handler_grace=0.05))(act)
    endpoint("/idle", auth=public, heartbeat=Heartbeat(interval=None, idle_timeout=0.05))(act)


WAYS: dict[str, str | int | bytes] = {
    "client closes": 1000,
    "client closes with 4000": 4000,
    "handler returns": "return",
    "handler crashes": "crash",
    "job crashes": "spawn",
    "handler closes": "close",
    "disconnect by id": "disconnect",
    "disconnect by user": "disconnect user",
    "too big": "x" * 1001,
    "idle": "",
}
CAUSES = {
    "client closes": "client closed",
    "client closes with 4000": "client closed",
    "reset": "connection lost",
    "half-close": "connection lost",
    "handler returns": "handler returned",
    "handler crashes": "handler crashed",
    "job crashes": "handler crashed",
    "handler closes": "closed by the handler",
    "disconnect by id": "disconnected by the application",
    "disconnect by user": "disconnected by the application",
    "too big": "bad input",
    "not UTF-8": "bad input",
    "idle": "idle timeout",
}


async def _polite(url: str, what: str | int | bytes) -> str:
    async with connect(url) as client:
        session = str(await client.receive())
        if isinstance(what, int):
            await client.close(what)
        else:
            await client.send(what)
            await client.wait_closed()
    return session


async def _rude(port: int, path: str, way: str) -> str:
    async with RawPeer(port, path) as peer:
        await peer.handshake()
        head = await peer.read(2)
        session = (await peer.read(head[1])).decode()
        if way == "reset":
            peer.reset()
            return session
        if way == "half-close":
            peer.half_close()
        elif way == "not UTF-8":
            await peer.send_frame(1, b"\xff\xfe")
        await peer.read_to_end()
    return session


async def test_a_thousand_connections_that_end_in_thirteen_ways(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Registry, channels, places and jobs are empty; hooks are paired; causes are the true ones."""
    caplog.set_level("CRITICAL")
    world, room = World(), asyncio.Semaphore(CONCURRENCY)
    _declare(world)
    expected: dict[str, str] = {}

    async def one(way: str, port: int, number: int) -> None:
        path = "/idle" if way == "idle" else f"/ws?name={way.replace(' ', '-')}-{number}"
        async with room, asyncio.timeout(20):
            if way in WAYS:
                session = await _polite(f"ws://127.0.0.1:{port}{path}", WAYS[way])
            else:
                session = await _rude(port, path, way)
        expected[session] = CAUSES[way]

    async with world.running() as server:
        ends = [one(way, server.port, number) for number in range(ROUNDS) for way in CAUSES]
        assert len(ends) > 1000
        await asyncio.gather(*ends)
        await eventually(lambda: len(world.ended) == len(ends))
        await _nobody_is_left(world)
        assert dict(world.ended) == expected
        assert Counter(world.opened) == Counter(session for session, _ in world.ended)
        sockets = server.uvicorn.server_state
        await eventually(lambda: not sockets.connections and not sockets.tasks)


async def _nobody_is_left(world: World) -> None:
    node = world.pongee._node
    assert world.pongee.connections() == []
    assert node.registry.users() == {}
    assert world.pongee.local_channels() == {}
    assert node.capacity.connections == 0
    await eventually(lambda: not node.runtime.unfinished)
    assert len(node.runtime.watch) == 0
    await eventually(lambda: len(node.runtime.wheel) == 0, what="the watch has looked once more")


async def test_cancelling_the_servers_tasks_ends_each_session_once() -> None:
    """As servers do at shutdown, whatever the sessions are doing."""
    world = World()
    _declare(world)
    async with world.running() as server, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(server.ws(f"/ws?name=user-{number}")))
            for number in range(50)
        ]
        for client in clients:
            await client.receive()
        for task in tuple(server.uvicorn.server_state.tasks):
            task.cancel()
        closed = [await client.wait_closed() for client in clients]
        assert {frame.code for frame in closed} == {1012}
        await eventually(lambda: len(world.ended) == 50)
        await _nobody_is_left(world)
        assert sorted(world.opened) == sorted(session for session, _ in world.ended)
        assert set(world.causes) == {"server is leaving"}
