"""Heartbeats, idle timeout, expiry: one timer wheel, moved by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pongee import Heartbeat, Identity, InvalidToken, JWTBearer, Session, UsageError, public
from pongee.playground.page import make_token
from pongee.testing import CloseFrame, ManualClock, Relay, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio

SECRET = "s" * 32


def _idle(world: World, **options: Any) -> None:
    @world.pongee.endpoint("/ws", **({"auth": public} | options))
    async def handler(session: Session[str, Any]) -> None:
        async for _ in session:
            await session.send("heard")


async def test_heartbeat_comes_every_interval_with_the_time() -> None:
    """The default message, at the interval of the endpoint."""
    clock = ManualClock()
    world = World(clock=clock)
    _idle(world, heartbeat=Heartbeat(interval=30))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: world.opened)
        for beat in range(1, 4):
            clock.advance(30.1)
            answer = await client.receive_json()
            assert answer["type"] == "heartbeat"
            assert abs(answer["timestamp"] - (1_700_000_000 + beat * 30)) < 1
        clock.advance(29)
        with pytest.raises(TimeoutError):
            await client.receive(0.1)


async def test_heartbeat_message_is_the_endpoints_own() -> None:
    """A function of the time makes it."""
    clock = ManualClock()
    world = World(clock=clock)
    _idle(world, heartbeat=Heartbeat(interval=1, message=lambda now: f"tick {now:.0f}"))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: world.opened)
        clock.advance(1.1)
        assert await client.receive() == '"tick 1700000001"'


@pytest.mark.parametrize(
    ("interval", "options", "beats"),
    [
        (None, {}, True),
        (None, {"heartbeat": None}, False),
        (20.0, {}, False),
    ],
)
async def test_server_without_pings_of_its_own_gets_heartbeats_instead(
    interval: float | None, options: dict[str, Any], beats: bool
) -> None:
    """Protocol pings where the server looks after them, else messages; `None` is none."""
    clock = ManualClock()
    world = World(clock=clock, ping_interval=5)
    _idle(world, **options)
    async with (
        world.running(ws_ping_interval=interval) as server,
        connect(server.ws("/ws")) as client,
    ):
        await eventually(lambda: world.opened)
        clock.advance(5.1)
        await client.send("x")
        first = await client.receive_json()
        assert (first != "heard") is beats


async def test_silence_for_the_idle_timeout_ends_the_session() -> None:
    """Messages keep it alive; nothing for the timeout is 4408."""
    clock = ManualClock()
    world = World(clock=clock)
    _idle(world, heartbeat=Heartbeat(interval=None, idle_timeout=60))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: world.opened)
        for _ in range(3):
            clock.advance(50)
            await client.send("alive")
            await client.receive()
        clock.advance(59)
        await client.send("still")
        await client.receive()
        clock.advance(61)
        assert await client.wait_closed() == CloseFrame(4408, "idle timeout")
    assert world.causes == ["idle timeout"]


async def test_peer_that_vanished_is_gone_within_interval_and_timeout() -> None:
    """No FIN, no reset: the server's protocol pings find it."""
    world = World()
    _idle(world)
    config: dict[str, Any] = {"ws_ping_interval": 0.3, "ws_ping_timeout": 0.3}
    async with (
        world.running(**config) as server,
        Relay(server.port) as relay,
        connect(relay.ws("/ws")),
    ):
        await eventually(lambda: world.opened)
        relay.freeze()
        await eventually(lambda: world.causes == ["connection lost"], within=1.5)
        assert world.pongee.connections() == []


async def test_a_thousand_sessions_share_one_appointment_of_the_clock() -> None:
    """One timer for all connections, none for each."""
    clock = ManualClock()
    world = World(clock=clock)
    _idle(world, heartbeat=Heartbeat(interval=20, idle_timeout=60))
    async with world.running() as server, asyncio.TaskGroup() as group:
        leave = asyncio.Event()

        async def stay() -> None:
            async with connect(server.ws("/ws")):
                await leave.wait()

        for _ in range(50):
            group.create_task(stay())
        await eventually(lambda: len(world.pongee.connections()) == 50)
        live = [entry for entry in clock._appointments if not entry[2].cancelled]
        assert len(live) == 1
        leave.set()
    assert len(world.pongee._node.runtime.wheel) == 0


def _jwt_world(clock: ManualClock) -> World:
    world = World(clock=clock)
    policy = JWTBearer(SECRET, now=clock.time)

    @world.pongee.endpoint("/ws", auth=policy, expiry_warning=30)
    async def handler(session: Session[str, str]) -> None:
        async for token in session:
            try:
                identity = await session.refresh(token)
                await session.send(f"until {identity.expires_at:.0f}")
            except InvalidToken as error:
                await session.send(f"no: {error.why}")

    return world


def _token(user: str, now: float, lifetime: int) -> str:
    import jwt

    return jwt.encode({"sub": user, "exp": int(now) + lifetime}, SECRET, "HS256")


async def test_expiring_token_is_warned_of_and_then_ends_the_session() -> None:
    """A warning, then 4401, by the clock."""
    clock = ManualClock()
    world = _jwt_world(clock)
    token = _token("ada", clock.time(), 100)
    async with world.running() as server, connect(server.ws("/ws"), token=token) as client:
        await eventually(lambda: world.opened)
        clock.advance(69)
        clock.advance(1.1)
        warning = await client.receive_json()
        assert warning["type"] == "token_expiring"
        assert 28 <= warning["expires_in"] <= 30
        clock.advance(28)
        with pytest.raises(TimeoutError):
            await client.receive(0.05)
        clock.advance(3)
        assert await client.wait_closed() == CloseFrame(4401, "token expired")
    assert world.causes == ["token expired"]


async def test_refresh_extends_the_session_but_never_changes_the_user() -> None:
    """A new token of the same user re-arms the timer; another user's is refused."""
    clock = ManualClock()
    world = _jwt_world(clock)
    start = clock.time()
    token = _token("ada", start, 100)
    async with world.running() as server, connect(server.ws("/ws"), token=token) as client:
        await client.send(_token("bob", start, 1000))
        assert await client.receive() == "no: another user"
        await client.send("nonsense")
        assert str(await client.receive()).startswith("no: ")
        await client.send(_token("ada", start, 1000))
        assert await client.receive() == f"until {start + 1000:.0f}"
        clock.advance(500)
        await client.send("nonsense")
        assert str(await client.receive()).startswith("no: ")
        clock.advance(502)
        assert (await client.receive_json())["type"] == "token_expiring"
        assert (await client.wait_closed()).code == 4401


async def test_refresh_without_a_token_policy_is_a_usage_error() -> None:
    """A public endpoint has nothing to refresh, and says so."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        with pytest.raises(UsageError, match="nothing to refresh"):
            await session.refresh("token")
        await session.send("told")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "told"


async def test_wall_clock_that_jumps_disconnects_nobody_early() -> None:
    """Timers run on the monotonic clock; an expiry is judged again when its timer fires."""
    clock = ManualClock()
    world = World(clock=clock)

    async def policy() -> Identity:
        return Identity(user="ada", expires_at=clock.time() + 100)

    _idle(world, auth=policy, heartbeat=Heartbeat(interval=10, idle_timeout=50))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: world.opened)
        clock.jump(-3600)
        clock.advance(30)
        await client.send("x")
        assert world.causes == []
        assert [await client.receive_json() for _ in range(3)]


def test_development_token_is_a_valid_jwt() -> None:
    """What `pongee token` prints is what the verifier takes."""
    policy = JWTBearer(SECRET)
    identity = asyncio.run(policy.verify(make_token(SECRET, "ada", 60)))
    assert identity.user == "ada"
