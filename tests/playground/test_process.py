"""``pongee serve`` as a process: what it prints, how it ends, what its settings do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from pongee.testing import Client, CloseFrame, HandshakeRefused, RawPeer, Relay, connect, eventually
from tests.conftest import PongeeProcess, ProcessFactory
from tests.playground.conftest import JWT, SECRET, STATIC_TOKEN

pytestmark = pytest.mark.anyio

SECURE = f"/ws/secure/1?token={STATIC_TOKEN}"
TEXT = 1


async def _status(url: str, **options: Any) -> int:
    try:
        async with connect(url, **options):
            return 101
    except HandshakeRefused as refused:
        return refused.status


OPEN = ("/ws/chat/1", "/ws/status", "/ws/realtime", SECURE)


@contextlib.asynccontextmanager
async def _many(
    process: PongeeProcess, number: int, paths: tuple[str, ...] = OPEN
) -> AsyncIterator[list[Client]]:
    """Connect clients to the endpoints at `paths`, in turn."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(process.ws(paths[n % len(paths)])))
            for n in range(number)
        ]
        yield clients


async def _stall(peer: RawPeer) -> None:
    """Send to an echo and never read, until the server takes no more."""
    await peer.handshake()
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.5):
                await peer.send_frame(TEXT, b"x" * 60_000)


# What it prints


async def test_fresh_machine_needs_no_setting(pongee_process: ProcessFactory) -> None:
    """The address, and the secret that was made for this run and works."""
    process = pongee_process()
    assert f"open http://127.0.0.1:{process.port}/ in a browser" in process.output()
    secret = re.search(r"export PONGEE_JWT_SECRET=(\S+)", process.output())
    assert secret
    assert len(secret[1]) >= 32
    async with httpx.AsyncClient(trust_env=False, base_url=process.url) as client:
        assert (await client.get("/readyz")).status_code == 200
        token = (await client.post("/dev/token", json={"user": "ada"})).json()["token"]
    async with connect(process.ws("/ws/auth"), token=token) as ada:
        await ada.send("x")
        assert await ada.receive() == "x"


async def test_own_secret_is_not_printed_and_ends_development(
    pongee_process: ProcessFactory,
) -> None:
    """Whoever has set a secret hands out tokens himself."""
    process = pongee_process({"PONGEE_JWT_SECRET": SECRET})
    assert SECRET not in process.output()
    assert "secret" not in process.output().lower()
    async with httpx.AsyncClient(trust_env=False, base_url=process.url) as client:
        answer = await client.post("/dev/token", json={"user": "ada"})
        assert answer.status_code == 404


async def test_output_never_shows_a_credential(pongee_process: ProcessFactory) -> None:
    """Header, subprotocol, query and ticket; accepted, used up, refused, or not a WebSocket."""
    process = pongee_process({"PONGEE_JWT_SECRET": SECRET, "PONGEE_STATIC_TOKENS": STATIC_TOKEN})
    secrets = {SECRET, STATIC_TOKEN, JWT, "made-up-token", "secret-cookie", "posted-token"}
    async with httpx.AsyncClient(trust_env=False, base_url=process.url) as client:
        answer = await client.post("/tickets", headers={"Authorization": f"Bearer {JWT}"})
        ticket = answer.json()["ticket"]
        secrets.add(ticket)
        for path in ("/", "/tickets", "/nowhere", "/ws/secure/1"):
            cookie = {"Cookie": "secret-cookie"}
            await client.get(path, params={"token": STATIC_TOKEN}, headers=cookie)
        await client.post("/playground/probe", json={"path": SECURE, "token": "posted-token"})
    for token in (ticket, ticket, STATIC_TOKEN, "made-up-token", JWT):
        await _status(process.ws(f"/ws/secure/1?token={token}"))
        await _status(process.ws(f"/ws/secure/0?token={token}"))
        await _status(process.ws(f"/ws/nowhere?token={token}"))
        await _status(process.ws(f"/ws/secure/1?token={token}"), origin="http://evil.example")
        await _status(process.ws("/ws/auth"), token=token)
        await _status(process.ws("/ws/auth"), subprotocols=["bearer", token])
    async with RawPeer(process.port, f"/ws/secure/1?token={STATIC_TOKEN}") as peer:
        extension = f"a; b={STATIC_TOKEN}"
        await peer.handshake(Sec_WebSocket_Extensions=extension, Cookie="secret-cookie")
        await peer.send(b"\xff" * 100)
        await peer.read_to_end()
    process.stop()
    assert "/ws/secure/1?[redacted]" in process.output()
    for secret in secrets:
        assert secret not in process.output()
        assert secret[:30] not in process.output()


# How it ends


async def _leave(process: PongeeProcess, how: signal.Signals) -> tuple[int, float]:
    """Send a signal; returns the exit status and how long it took."""
    before = time.monotonic()
    status = await asyncio.to_thread(process.stop, how, 12)
    return status, time.monotonic() - before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_it_in_order(pongee_process: ProcessFactory, how: signal.Signals) -> None:
    """20 clients are told 1012; under 3 s, exit status 0, no fault in the output."""
    process = pongee_process({"PONGEE_STATIC_TOKENS": STATIC_TOKEN})
    async with _many(process, 20) as clients:
        closed = [asyncio.create_task(client.wait_closed()) for client in clients]
        status, seconds = await _leave(process, how)
        assert {await one for one in closed} == {CloseFrame(1012, "server is leaving")}
    assert seconds < 3
    assert "Traceback" not in process.output()
    assert "ERROR" not in process.output()
    assert status == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_stalled_reader_does_not_hold_it_up(
    pongee_process: ProcessFactory, how: signal.Signals
) -> None:
    """Its socket is cut when its time is over; the others are told all the same."""
    process = pongee_process({"PONGEE_STATIC_TOKENS": STATIC_TOKEN})
    async with _many(process, 19) as clients, RawPeer(process.port, SECURE) as stalled:
        await _stall(stalled)
        closed = [asyncio.create_task(client.wait_closed()) for client in clients]
        _, seconds = await _leave(process, how)
        assert {await one for one in closed} == {CloseFrame(1012, "server is leaving")}
    assert seconds < 3
    assert "Traceback" not in process.output()
    assert "ERROR" not in process.output()


async def test_no_one_gets_in_while_it_leaves(pongee_process: ProcessFactory) -> None:
    """New connections are refused while the others are told, one after the other."""
    process = pongee_process({"PONGEE_DRAIN_WINDOW": "2"})
    async with _many(process, 4, OPEN[:1]) as clients:
        stopping = asyncio.create_task(asyncio.to_thread(process.stop, signal.SIGTERM, 10))
        assert (await clients[0].wait_closed()).code == 1012
        with pytest.raises((OSError, HandshakeRefused)):
            async with connect(process.ws("/ws/chat/1"), timeout=1):
                pass
        await clients[3].send("last words")
        assert await clients[3].receive() == "Room 1: last words"
        assert (await clients[3].wait_closed()).code == 1012
        await stopping


async def test_second_signal_cuts_it_short(pongee_process: ProcessFactory) -> None:
    """Who presses Ctrl-C twice does not want to wait."""
    process = pongee_process({"PONGEE_DRAIN_WINDOW": "30"})
    async with _many(process, 3, OPEN[:1]) as clients:
        stopping = asyncio.create_task(asyncio.to_thread(process.stop, signal.SIGINT, 10))
        assert (await clients[0].wait_closed()).code == 1012
        os.kill(process.pid, signal.SIGINT)
        await stopping
        assert {(await client.wait_closed()).code for client in clients[1:]} == {1012}
    assert "Traceback" not in process.output()


# What its settings do


async def test_connections_over_the_limit_are_told_to_come_back(
    pongee_process: ProcessFactory,
) -> None:
    """503 with `Retry-After`; those who are in stay in."""
    process = pongee_process({"PONGEE_MAX_CONNECTIONS": "1"})
    async with connect(process.ws("/ws/chat/1")) as client:
        await client.send("x")
        await client.receive()
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(process.ws("/ws/chat/1")):
                pass
        assert refused.value.status == 503
        assert int(refused.value.headers["retry-after"]) > 0
        await client.send("y")
        assert await client.receive() == "Room 1: y"
    for _ in range(50):
        if await _status(process.ws("/ws/chat/1")) == 101:
            return
    pytest.fail("the place was not given back")


async def test_allowed_origins_come_beside_the_own_one(pongee_process: ProcessFactory) -> None:
    """Those of the setting, the server's own, and no other."""
    origins = "https://app.example, https://*.team.example"
    process = pongee_process({"PONGEE_ALLOWED_ORIGINS": origins})
    for origin, status in (
        (process.url, 101),
        ("https://app.example", 101),
        ("https://a.team.example", 101),
        ("http://app.example", 403),
        ("https://team.example.evil.example", 403),
    ):
        assert await _status(process.ws("/ws/chat/1"), origin=origin) == status


async def test_static_tokens_are_those_of_the_setting(pongee_process: ProcessFactory) -> None:
    """Each of them, without the spaces around it, and no other."""
    process = pongee_process({"PONGEE_STATIC_TOKENS": "first-token, second-token ,"})
    for token, status in (("first-token", 101), ("second-token", 101), ("third-token", 403)):
        assert await _status(process.ws(f"/ws/secure/1?token={token}")) == status


async def test_message_size_is_that_of_the_setting(pongee_process: ProcessFactory) -> None:
    """In bytes, not characters; more is 1009."""
    process = pongee_process({"PONGEE_MAX_MESSAGE_SIZE": "10"})
    async with connect(process.ws("/ws/chat/1")) as client:
        await client.send("x" * 10)
        await client.receive()
        await client.send("é" * 6)
        assert (await client.wait_closed()).code == 1009


async def test_peer_that_vanished_is_not_counted_for_long(pongee_process: ProcessFactory) -> None:
    """No pong within the timeout: gone, although nobody closed anything."""
    process = pongee_process({"PONGEE_PING_INTERVAL": "0.3", "PONGEE_PING_TIMEOUT": "0.3"})
    async with (
        Relay(process.port) as relay,
        connect(process.ws("/ws/status")) as watcher,
        connect(relay.ws("/ws/status")) as vanishing,
    ):
        await vanishing.receive()
        seen: list[int] = []

        async def watch() -> None:
            while True:
                seen.append((await watcher.receive_json())["active"])

        watching = asyncio.create_task(watch())
        await eventually(lambda: seen and seen[-1] == 2)
        relay.freeze()
        await eventually(lambda: seen[-1] == 1)
        watching.cancel()
    assert "Traceback" not in process.output()
