"""Peers that fall silent: before the handshake, in it, after it, at the end, and without a trace.

Each deadline is one of seconds, so all peers are silent at the same time and the waiting is done
once: the fixture `silences` lets them loose on both servers, and each test reads what became of
one. A ping is sent after each second here and may take three; the other deadlines are the defaults,
10 s. "RFC" without more is RFC 6455.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from pongee.testing import Relay, eventually
from tests.hostile.harness import Target, Targets
from tests.hostile.peer import Peer, frame, request

CONTINUATION, TEXT, PING, PONG = 0, 1, 9, 10
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLACK = 4.0
"""Seconds a deadline may be late on a busy machine."""

PATIENCE = 10.0 + SLACK


@dataclass(frozen=True)
class Silence:
    """What became of one silent peer."""

    outcome: str
    seconds: float


Attack = Callable[[Target], Awaitable[str]]


def _sends(*chunks: bytes, upgrade: bool = False, pause: float = 1.0) -> Attack:
    """Send the chunks, the last of them again and again, a `pause` apart; read to the end."""

    async def attack(target: Target) -> str:
        async with target.peer() as peer:
            if upgrade:
                await peer.upgrade(target.echo)
            deadline = time.monotonic() + PATIENCE
            for chunk in chunks:
                await peer.send(chunk)
            while not peer.ended and time.monotonic() < deadline:
                await peer.read(within=pause)
                if len(chunks) > 1 and not peer.ended:
                    await peer.send(chunks[-1])
            return peer.told()

    return attack


async def _answers_every_ping(target: Target) -> str:
    """Do what is right, and say nothing else."""
    async with target.upgraded() as peer:
        deadline = time.monotonic() + PATIENCE - 2
        while not peer.ended and time.monotonic() < deadline:
            peer.frames.clear()
            await peer.read(lambda: bool(peer.frames), within=1)
            for first, payload in peer.frames:
                if first & 0x0F == PING:
                    await peer.send(frame(PONG, payload))
        return peer.told()


async def _never_answers_a_close(target: Target) -> str:
    async with target.peer() as peer:
        await peer.send(request("/ws/auth" if "serve" in target.name else "/bye"))
        return await peer.outcome(PATIENCE)


async def _vanishes(target: Target, path: str, *, stalled: bool) -> str:
    """Let every packet be swallowed; returns ``freed`` once the server has closed its socket."""
    async with Relay(target.port) as relay, Peer(relay.port, receive_buffer=4096) as peer:
        await peer.upgrade(path)
        (port,) = (
            writer.get_extra_info("sockname")[1]
            for writer in relay._writers
            if writer.get_extra_info("peername")[1] == target.port
        )
        if stalled:
            while await peer.send(frame(TEXT, b"x" * 16_000) * 8, within=0.5):
                pass
        relay.freeze()
        socket = target.socket_to(port)
        assert target.holds(socket)
        await eventually(lambda: not target.holds(socket), within=PATIENCE, what="freed")
        return "freed"


async def _vanishes_stalled(target: Target) -> str:
    return await _vanishes(target, target.echo, stalled=True)


async def _vanishes_idle(target: Target) -> str:
    """Vanish, and see that the application was told."""
    serve = "serve" in target.name
    said = await _vanishes(target, "/ws/status" if serve else "/echo?tag=vanished", stalled=False)
    async with asyncio.timeout(3):
        while not await (_nobody_watches(target) if serve else _nobody_vanished(target)):
            pass
    return f"{said}, and told"


async def _nobody_watches(target: Target) -> bool:
    """Whether the status endpoint counts nobody but the one who asks."""
    async with target.upgraded("/ws/status") as peer:
        (status,) = await peer.messages(1)
        return bool(json.loads(status)["active"] == 1)


async def _nobody_vanished(target: Target) -> bool:
    return "vanished" not in (await target.census())["open"]


@dataclass(frozen=True)
class Row:
    """One silent peer, its right outcomes, the seconds it may take, and the source."""

    attack: Attack
    right: set[str]
    within: float
    source: str


GONE = {"closed", "http 408"}
UNANSWERED = {"close 1011", "close 1008", "cut"}

ROWS = {
    "sends nothing": Row(_sends(), GONE, 10, "uvicorn, handshake timeout"),
    "half a head": Row(_sends(HALF), GONE, 10, "CVE-2007-6750"),
    "an upgrade without its end": Row(_sends(request()[:-2]), GONE, 10, "CVE-2007-6750"),
    "a header a second": Row(_sends(HALF, b"X-A: b\r\n"), GONE, 10, "CVE-2007-6750"),
    "a byte a second": Row(_sends(b"GET /", b"x"), GONE, 10, "CVE-2007-6750"),
    "never answers a ping": Row(_sends(upgrade=True), UNANSWERED, 4, "RFC 5.5.2"),
    "stuck in half a frame": Row(
        _sends(frame(TEXT, b"hello")[:-2], upgrade=True), UNANSWERED, 4, "RFC 5.5.2"
    ),
    "drips a byte of a frame": Row(
        _sends(frame(TEXT, announced=100), b"x", upgrade=True), UNANSWERED, 4, "RFC 5.5.2"
    ),
    "pongs that answer nothing": Row(
        _sends(b"", frame(PONG, b"wrong"), upgrade=True, pause=0.3), UNANSWERED, 4, "RFC 5.5.3"
    ),
    "never answers a close": Row(
        _never_answers_a_close, {"close 1008", "close 4000"}, 10, "RFC 7.1.1"
    ),
    "vanishes": Row(_vanishes_idle, {"freed, and told"}, 4, "RFC 5.5.2"),
    "stops reading and vanishes": Row(_vanishes_stalled, {"freed"}, 10, "RFC 5.5.2"),
    "answers every ping": Row(_answers_every_ping, {"open"}, PATIENCE, "RFC 5.5.2"),
}
SERVERS = ("serve, quick", "plain, quick")


async def _timed(attack: Attack, target: Target) -> Silence:
    start = time.monotonic()
    try:
        outcome = await attack(target)
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    return Silence(outcome, time.monotonic() - start)


async def _all_at_once(targets: list[Target]) -> dict[tuple[str, str], Silence]:
    async with targets[0].attack("all silences"), targets[1].attack("all silences"):
        names = [(target, name) for target in targets for name in ROWS]
        came = await asyncio.gather(*(_timed(ROWS[name].attack, target) for target, name in names))
    return {
        (target.name, name): silence for (target, name), silence in zip(names, came, strict=True)
    }


@pytest.fixture(scope="module")
def silences(targets: Targets) -> dict[tuple[str, str], Silence]:
    """Let all silent peers loose at once, and wait for all."""
    return asyncio.run(_all_at_once([targets.get(name) for name in SERVERS]))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", ROWS)
def test_silence_ends_in_time(
    silences: dict[tuple[str, str], Silence], server: str, name: str
) -> None:
    """The deadline is absolute: no byte, and no pong that answers nothing, puts it off."""
    silence = silences[server, name]
    assert silence.outcome in ROWS[name].right
    assert silence.seconds < ROWS[name].within + SLACK
