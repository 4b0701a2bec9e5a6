"""Peers that must not come in: foreign pages, bad credentials, forged addresses, too many.

They are refused before the application has run, and those who are in notice nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import jwt
import pytest

from pongee.playground.page import make_token
from tests.hostile.apps import PER_ADDRESS, PER_USER, SECRET
from tests.hostile.harness import ORIGIN, TOKEN, Target, Targets
from tests.hostile.peer import Peer, close, frame, request

pytestmark = pytest.mark.anyio

GOOD = make_token(SECRET, "ada", 3600)
CLAIMS = {"sub": "ada", "exp": int(time.time()) + 3600}


@asynccontextmanager
async def _watcher(target: Target) -> AsyncIterator[Peer]:
    """Watch how many watch: the status endpoint tells each change."""
    async with target.upgraded("/ws/status") as peer:
        await peer.messages(1)
        yield peer


def _active(watcher: Peer) -> list[int]:
    return [json.loads(text)["active"] for text in watcher.texts()]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"{ORIGIN}.evil.example",
        "https://evil-good.example",
        ORIGIN.replace("https", "http"),
        f"{ORIGIN}:444",
        f"{ORIGIN}@evil.example",
        f"{ORIGIN}, https://evil.example",
    ],
)
async def test_foreign_origin_is_refused_before_the_application_runs(
    serve: Target, origin: str
) -> None:
    """403, and the endpoint's handler never ran (section 10.2, CWE-1385, CVE-2022-42975)."""
    right = {"http 403"}
    async with serve.attack(f"origin {origin}", right) as attack, _watcher(serve) as watcher:
        async with serve.peer() as peer:
            await peer.send(request("/ws/status", f"Origin: {origin}"))
            attack.came(await peer.outcome())
        async with serve.upgraded("/ws/status", f"Origin: {ORIGIN}"):
            await watcher.read(lambda: 2 in _active(watcher))
        await watcher.read(lambda: _active(watcher)[-1] == 1)
        assert _active(watcher) == [1, 2, 1], "the refused one was counted"


CREDENTIALS = {
    "no credentials": [],
    "a token that is none": ["Authorization: Bearer nonsense"],
    "a forged token": ["Authorization: Bearer " + make_token("f" * 32, "ada", 3600)],
    "an expired token": ["Authorization: Bearer " + make_token(SECRET, "ada", -60)],
    "a token for another audience": [
        "Authorization: Bearer " + jwt.encode(CLAIMS | {"aud": "other"}, SECRET, "HS256")
    ],
    "a token of algorithm none": ["Authorization: Bearer " + jwt.encode(CLAIMS, "", "none")],
    "two tokens": [f"Authorization: Bearer {GOOD}"] * 2,
    "a token of 8 KiB": ["Authorization: Bearer " + "x" * 8000],
}


@pytest.mark.parametrize("name", CREDENTIALS)
async def test_bad_credentials_open_nothing(serve: Target, guarded: Target, name: str) -> None:
    """A close 1008 before any message where refusals are close frames; 401 or 403 elsewhere."""
    lines = CREDENTIALS[name]
    async with serve.attack(name, {"close 1008"}) as attack, serve.peer() as peer:
        await peer.send(request("/ws/auth", *lines) + frame(1, b"too early"))
        attack.came(await peer.outcome(answer=True))
    async with guarded.attack(name, {"http 401", "http 403"}) as attack, guarded.peer() as peer:
        await peer.send(request("/user", *lines))
        attack.came(await peer.outcome())


@pytest.mark.parametrize("token", ["wrong-token-0123", TOKEN + "x", TOKEN[:-1], "x" * 4000])
async def test_wrong_static_token_is_refused(serve: Target, token: str) -> None:
    """403 before accept."""
    async with serve.attack("wrong static token", {"http 403"}) as attack, serve.peer() as peer:
        await peer.send(request(f"/ws/secure/1?token={token}"))
        attack.came(await peer.outcome())


async def test_ticket_opens_once_even_to_two_at_the_same_time(serve: Target) -> None:
    """A ticket that is shown a second time, or twice at once, is worth nothing."""
    async with serve.attack("a ticket shown ten times at once"):
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(
                f"http://127.0.0.1:{serve.port}/tickets",
                headers={"Authorization": f"Bearer {GOOD}"},
            )
        path = f"/ws/secure/1?token={answer.json()['ticket']}"

        async def show() -> int:
            async with serve.peer() as peer:
                await peer.exchange(request(path), lambda: bool(peer.heads))
                return peer.heads[0].status

        assert sorted(await asyncio.gather(*(show() for _ in range(10)))) == [101] + [403] * 9


@pytest.mark.parametrize(
    "opening", [b"nonsense", b"{" * 9000, b'{"token": 1}', b"x" * 20_000, None]
)
async def test_bad_first_message_opens_nothing(guarded: Target, opening: bytes | None) -> None:
    """1008 for a message that is no token, and for none in time; never an echo (OWASP)."""
    name = f"first message {opening[:20]!r}" if opening else "no first message"
    async with guarded.attack(name, {"close 1008"}) as attack, guarded.upgraded("/first") as peer:
        if opening is not None:
            await peer.send(frame(1, opening) + frame(1, b"echo me"))
        attack.came(await peer.outcome(answer=True))


FORGED = ["9.9.9.9", "999.1.1.1, ,,;\"'", "\xff\xfe", "unknown", "::1, 127.0.0.1", "1," * 2000]


@pytest.mark.parametrize("value", FORGED, ids=["one", "nonsense", "bytes", "word", "two", "many"])
async def test_forwarding_header_of_a_stranger_is_not_believed(serve: Target, value: str) -> None:
    """The socket's address counts, and nonsense is no error of ours."""
    async with serve.attack(f"X-Forwarded-For {value[:20]!r}", {"101 from 127.0.0.1"}) as attack:
        more = f"X-Forwarded-For: {value}", f"X-Real-IP: {value}", "Forwarded: for=9.9.9.9"
        async with serve.upgraded("/ws/status", *more) as peer:
            (status,) = await peer.messages(1)
            attack.came(f"101 from {json.loads(status)['you']['address']}")


async def _crowd(
    target: Target, stack: AsyncExitStack, size: int, path: str, *lines: str, source: str
) -> list[Peer]:
    """Open `size` connections, one after the other; returns them with their answers read."""
    peers = []
    for number in range(size):
        peer = await stack.enter_async_context(target.peer(source=source))
        more = (*lines, f"X-Forwarded-For: 10.0.0.{number}")
        await peer.exchange(request(path, *more), lambda peer=peer: bool(peer.heads))  # type: ignore[misc]
        peers.append(peer)
    return peers


def _statuses(peers: list[Peer]) -> list[int]:
    return [peer.heads[0].status for peer in peers]


async def test_more_connections_of_one_address_than_its_cap(guarded: Target) -> None:
    """429 with Retry-After before accept, whatever address each claims; those inside stay."""
    async with guarded.attack("20 connections of one address"), AsyncExitStack() as stack:
        peers = await _crowd(guarded, stack, 20, "/echo", source="127.0.0.7")
        assert _statuses(peers) == [101] * PER_ADDRESS + [429] * (20 - PER_ADDRESS)
        assert float(peers[-1].heads[0].headers["retry-after"]) > 0
        await peers[0].send(frame(1, b"still here"))
        assert await peers[0].messages(1) == [b"still here"]


async def test_more_connections_of_one_user_than_the_cap(guarded: Target) -> None:
    """The same for a user who comes from many addresses."""
    async with guarded.attack("6 connections of one user"), AsyncExitStack() as stack:
        peers = []
        for number in range(6):
            peers += await _crowd(
                guarded,
                stack,
                1,
                "/user",
                f"Authorization: Bearer {GOOD}",
                source=f"127.0.1.{number}",
            )
        assert _statuses(peers) == [101] * PER_USER + [429] * (6 - PER_USER)
        assert float(peers[-1].heads[0].headers["retry-after"]) > 0


async def test_more_connections_than_the_process_takes(targets: Targets) -> None:
    """503 with Retry-After before accept; a place that is left can be had again."""
    small = targets.get("serve, small")
    async with small.attack("60 connections where 20 are allowed"), AsyncExitStack() as stack:
        peers = await _crowd(small, stack, 60, "/ws/chat/1", source="127.0.0.1")
        assert _statuses(peers) == [101] * 19 + [503] * 41  # the neighbour has the twentieth
        assert float(peers[-1].heads[0].headers["retry-after"]) > 0
        await peers[0].exchange(close(1000))
        assert peers[0].told() == "close 1000"
        async with asyncio.timeout(5):  # the place is free once the session is over
            while _statuses(await _crowd(small, stack, 1, "/ws/chat/1", source="127.0.0.1")) != [
                101
            ]:
                pass


async def test_refused_and_left_sessions_are_forgotten(guarded: Target) -> None:
    """The registry and the event loop's tasks are at the baseline after 300 resets at once."""
    before = await guarded.census()

    async def come_and_go(number: int) -> None:
        async with guarded.peer(source=f"127.0.2.{1 + number % 200}") as peer:
            await peer.exchange(request("/echo"), lambda: bool(peer.heads))
            peer.reset()

    async with guarded.attack("300 WebSockets reset at once"):
        await asyncio.gather(*(come_and_go(number) for number in range(300)))
        async with asyncio.timeout(5):
            # The neighbour comes and goes all the time, so one or two more or less are its own.
            while (now := await guarded.census())["sessions"] > before["sessions"] + 1:
                pass
        assert now["tasks"] <= before["tasks"] + 6
