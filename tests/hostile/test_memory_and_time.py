"""Peers that want memory or time: large, many, empty, compressed, unread.

Sizes and counts are bounded, and so is the time of each attack. The bounds on the server's memory
and on everybody else's delay are checked by `Target.attack` for all of them. "RFC" without more is
RFC 6455.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator

import pytest

from pongee.testing import eventually
from tests.hostile.harness import MIB, Target, Targets
from tests.hostile.peer import Peer, close, frame

pytestmark = pytest.mark.anyio

KIB = 1024
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = 4
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
TOO_BIG = {"close 1009"}
CUT = {"close 1008", "close 1009", "cut"}
"""A reset may overtake the close frame of a server that is told far more than it reads."""

FLOOD = 3.0
"""Seconds that a flood may last."""


async def _flood(peer: Peer, chunk: bytes, size: int, seconds: float = FLOOD) -> int:
    """Send `chunk` again and again, reading nothing; returns the bytes that were taken."""
    taken, deadline = 0, time.monotonic() + seconds
    while taken < size and time.monotonic() < deadline:
        if not await peer.send(chunk, within=max(0.1, deadline - time.monotonic())):
            break
        taken += len(chunk)
    return taken


def _fragments(payload: bytes, size: int) -> list[bytes]:
    parts = [payload[start : start + size] for start in range(0, len(payload), size)]
    last = len(parts) - 1
    return [
        frame(CONTINUATION if number else BINARY, part, final=number == last)
        for number, part in enumerate(parts)
    ]


# Size


@pytest.mark.parametrize("fragment", [None, 1000], ids=["whole", "fragments"])
async def test_message_of_exactly_the_limit_is_echoed(target: Target, fragment: int | None) -> None:
    """The limit itself is allowed, however it is cut."""
    payload = b"x" * target.limit
    async with target.attack("the limit exactly", {"echo"}) as attack, target.upgraded() as peer:
        frames = _fragments(payload, fragment or target.limit)
        data = b"".join(frames).replace(b"\x82", b"\x81", 1).replace(b"\x02", b"\x01", 1)
        await peer.exchange(data, lambda: bool(peer.texts()))
        attack.came("echo" if peer.texts() == [payload] else peer.told())


@pytest.mark.parametrize("fragment", [None, 1000], ids=["whole", "fragments"])
async def test_message_over_the_limit_is_1009(target: Target, fragment: int | None) -> None:
    """One byte more is too big, however it is cut (sections 7.4.1 and 10.4)."""
    payload = b"x" * (target.limit + 1)
    async with target.attack("the limit and one", TOO_BIG) as attack, target.upgraded() as peer:
        await peer.exchange(b"".join(_fragments(payload, fragment or len(payload))))
        attack.came(peer.told())


async def test_message_without_an_end_is_1009_at_the_limit(target: Target) -> None:
    """No more than the limit is kept of 64 MiB in fragments."""
    async with (
        target.attack("64 MiB of fragments", TOO_BIG | CUT) as attack,
        target.upgraded() as peer,
    ):
        await peer.send(frame(BINARY, b"x", final=False))
        reading = asyncio.create_task(peer.read(within=10))
        await _flood(peer, frame(CONTINUATION, bytes(16 * KIB), final=False) * 16, 64 * MIB)
        await reading
        attack.came(peer.told())


# Fragments


async def test_endless_fragments_of_one_byte_are_ended(target: Target) -> None:
    """1008 or 1009 within some thousands of 200,000 (CVE-2026-48779)."""
    async with (
        target.attack("200,000 fragments of a byte", CUT) as attack,
        target.upgraded() as peer,
    ):
        data = frame(TEXT, b"x", final=False) + frame(CONTINUATION, b"x", final=False) * 200_000
        await peer.exchange(data)
        attack.came(peer.told())


async def test_endless_empty_fragments_keep_nothing(target: Target) -> None:
    """Ended, or nothing kept of 400,000 and nobody delayed."""
    async with (
        target.attack("400,000 empty fragments", CUT | {"open"}) as attack,
        target.upgraded() as peer,
    ):
        data = frame(TEXT, b"x", final=False) + frame(CONTINUATION, final=False) * 400_000
        await peer.exchange(data, within=8)
        attack.came(peer.told())


async def test_message_in_60_000_fragments_is_linear_work(target: Target) -> None:
    """Echoed or ended within five seconds (CVE-2026-65623)."""
    data = b"".join(_fragments(b"x" * 60_000, 1)).replace(b"\x02", b"\x01", 1)
    async with (
        target.attack("60,000 fragments", {"1 messages, open", *CUT}) as attack,
        target.upgraded() as peer,
    ):
        await peer.exchange(data, lambda: bool(peer.texts()), within=5)
        attack.came(peer.told())


# Compression


def _deflated(data: Iterator[bytes]) -> bytes:
    squeezer = zlib.compressobj(wbits=-15)
    done = b"".join(squeezer.compress(part) for part in data)
    return (done + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = _deflated(bytes(MIB) for _ in range(512))
"""512 MiB of zeros in half a MiB."""


def _bomb(fragment: int | None = None) -> bytes:
    frames = _fragments(BOMB, fragment or len(BOMB))
    return b"".join([bytes([frames[0][0] | RSV1 << 4]) + frames[0][1:], *frames[1:]])


async def _agree(target: Target, peer: Peer, path: str) -> None:
    head = await peer.upgrade(path, DEFLATE)
    assert "permessage-deflate" in head.headers.get("sec-websocket-extensions", ""), target.name


@pytest.mark.parametrize("fragment", [None, 1000], ids=["one frame", "fragments"])
async def test_decompression_bomb_is_1009(plain: Target, fragment: int | None) -> None:
    """At most the limit is inflated (CVE-2018-1000518)."""
    async with plain.attack("bomb", TOO_BIG) as attack, plain.peer() as peer:
        await _agree(plain, peer, plain.echo)
        await peer.exchange(_bomb(fragment))
        attack.came(peer.told())


async def test_eight_decompression_bombs_at_once_are_1009(plain: Target) -> None:
    """Each is judged by itself, within the memory of one message each."""

    async def throw() -> str:
        async with plain.peer() as peer:
            await _agree(plain, peer, plain.echo)
            await peer.exchange(_bomb(4096))
            return peer.told()

    async with plain.attack("eight bombs at once", {"close 1009 " * 8}) as attack:
        came = await asyncio.gather(*(throw() for _ in range(8)))
        attack.came("".join(f"{told} " for told in came))


async def test_decompression_bomb_before_authentication_is_1009(guarded: Target) -> None:
    """Whoever has not said who it is gets no more than anybody else."""
    async with (
        guarded.attack("bomb before authentication", TOO_BIG) as attack,
        guarded.peer() as peer,
    ):
        await _agree(guarded, peer, "/first")
        await peer.exchange(_bomb())
        attack.came(peer.told())


NOISE = bytes((n * n * 31 + n * 7) % 251 | 6 for n in range(64 * KIB))  # 11 is no kind of block
EMPTY_BLOCKS = b"\x00\x00\x00\xff\xff" * 13_000
UNREADABLE = {"close 1002", "close 1007"}
READ = {"1 messages, open"}


@pytest.mark.parametrize(
    ("name", "payload", "right"),
    [
        ("noise", NOISE, UNREADABLE),
        # Valid by RFC 7692 section 7.2: an empty message, told at length.
        ("empty blocks", EMPTY_BLOCKS, UNREADABLE | READ),
        ("a stream that is over", zlib.compress(b"x")[2:-4] + b"more", UNREADABLE | READ),
    ],
    ids=["noise", "empty blocks", "stream that is over"],
)
async def test_compressed_rubbish_is_refused_at_once(
    plain: Target, name: str, payload: bytes, right: set[str]
) -> None:
    """1007 or 1002 for what cannot be inflated; never a stall."""
    async with plain.attack(f"deflate of {name}", right) as attack, plain.peer() as peer:
        await _agree(plain, peer, plain.echo)
        await peer.exchange(
            frame(TEXT, payload, reserved=RSV1), lambda: bool(peer.texts()), within=3
        )
        attack.came(peer.told())


async def test_endless_empty_blocks_keep_nothing(plain: Target) -> None:
    """Fragments that inflate to nothing, without an end: ended, or nothing kept."""
    async with plain.attack("endless empty blocks", {*CUT, "open"}) as attack, plain.peer() as peer:
        await _agree(plain, peer, plain.echo)
        start = frame(BINARY, EMPTY_BLOCKS, final=False, reserved=RSV1)
        await peer.exchange(start + frame(CONTINUATION, EMPTY_BLOCKS, final=False) * 200, within=3)
        attack.came(peer.told())


# Unread


async def test_pings_whose_pongs_are_never_read(target: Target) -> None:
    """32 MiB of them: no more than the write limit is kept (section 5.5.3)."""
    async with (
        target.attack("32 MiB of pings unread") as attack,
        target.upgraded(receive_buffer=4096) as peer,
    ):
        taken = await _flood(peer, frame(PING, bytes(125)) * 500, 32 * MIB)
        attack.came(f"{taken / MIB:.1f} MiB taken")


async def test_messages_whose_echoes_are_never_read(target: Target) -> None:
    """The server stops reading that client, or ends it: it does not take 128 MiB."""
    async with target.attack("echoes unread") as attack:
        async with target.upgraded(receive_buffer=4096) as peer:
            taken = await _flood(peer, frame(TEXT, b"x" * 16 * KIB) * 8, 128 * MIB)
            attack.came(f"{taken / MIB:.1f} MiB taken")
        assert taken < 64 * MIB


# Floods that are read


async def _served(peer: Peer, data: bytes, opcode: int, count: int) -> str:
    """Send `data` and count the answers, for some seconds at most."""

    def answers() -> int:
        return sum(first & 0x0F == opcode for first, _ in peer.frames)

    await peer.exchange(data, lambda: len(peer.frames) >= count, within=FLOOD)
    return f"{answers()} answers, {peer._end()}"


async def test_100_000_pings_delay_nobody(target: Target) -> None:
    """Answered, slowed down or ended."""
    async with target.attack("100,000 pings") as attack, target.upgraded() as peer:
        attack.came(await _served(peer, frame(PING) * 100_000, PONG, 100_000))


async def test_200_000_messages_of_a_byte_delay_nobody(target: Target) -> None:
    """Echoed, slowed down or ended (OWASP, rate limits)."""
    async with target.attack("200,000 messages of a byte") as attack, target.upgraded() as peer:
        attack.came(await _served(peer, frame(TEXT, b"x") * 200_000, TEXT, 200_000))


async def test_empty_messages_from_ten_connections_delay_nobody(target: Target) -> None:
    """The same from ten at once."""

    async def send() -> str:
        async with target.upgraded() as peer:
            return await _served(peer, frame(TEXT) * 20_000, TEXT, 20_000)

    async with target.attack("empty messages from ten") as attack:
        attack.came("; ".join(await asyncio.gather(*(send() for _ in range(10))))[:60])


async def test_full_size_messages_from_ten_connections_delay_nobody(target: Target) -> None:
    """Memory for ten messages, not for all that is sent (OWASP, backpressure)."""
    whole = frame(TEXT, b"x" * target.limit)
    count = 8 * MIB // target.limit

    async def send() -> int:
        async with target.upgraded() as peer:
            await peer.exchange(whole * count, lambda: len(peer.frames) >= count, within=FLOOD)
            return len(peer.texts())

    async with target.attack("full-size messages from ten") as attack:
        attack.came(f"{sum(await asyncio.gather(*(send() for _ in range(10))))} echoes")


# Many


async def test_300_silent_connections_keep_nobody_out(target: Target) -> None:
    """New clients get in meanwhile, and all is given back."""
    async with target.attack("300 silent connections"):
        before = target.descriptors()
        peers = [target.peer() for _ in range(300)]
        await asyncio.gather(*(peer.__aenter__() for peer in peers))
        await eventually(lambda: target.descriptors() >= before + 300 - 2, what="all are accepted")
        async with target.upgraded() as peer:
            await peer.send(frame(TEXT, b"in"))
            await peer.messages(1)
            await peer.send(close(1000))
            assert await peer.outcome() == "1 messages, close 1000"
        await asyncio.gather(*(peer.__aexit__() for peer in peers))


@pytest.mark.parametrize("how", ["reset at once", "connect and drop"])
async def test_hundreds_that_come_and_go_leave_nothing(target: Target, how: str) -> None:
    """Descriptors are back at the baseline."""
    together = asyncio.Event()

    async def come_and_go() -> None:
        async with target.peer() as peer:
            if how == "reset at once":
                await peer.upgrade(target.echo)
                await together.wait()
                peer.reset()

    async with target.attack(f"hundreds {how}"):
        count = 300 if how == "reset at once" else 500
        before = target.descriptors()
        leaving = asyncio.gather(*(come_and_go() for _ in range(count)))
        if how == "reset at once":
            await eventually(
                lambda: target.descriptors() >= before + count - 2, within=20, what="all are in"
            )
        together.set()
        await leaving


async def test_tasks_and_handlers_are_back_at_the_baseline(plain: Target) -> None:
    """Two hundred who leave in four ways leave no task and no running endpoint behind."""

    async def leave(number: int) -> None:
        async with plain.upgraded("/echo?tag=leaving") as peer:
            await peer.send(frame(TEXT, b"x" * number))
            if number % 4 == 0:
                peer.reset()
            elif number % 4 == 1:
                await peer.send(close(1000))
            elif number % 4 == 2:
                peer.half_close()

    before = await plain.census()
    async with plain.attack("200 leave in four ways"):
        await asyncio.gather(*(leave(number) for number in range(200)))
        async with asyncio.timeout(5):
            while "leaving" in (now := await plain.census())["open"]:
                pass
        assert now["tasks"] <= before["tasks"] + 6


@pytest.mark.parametrize(("name", "size"), [("plain", MIB), ("guarded", 64 * KIB)])
async def test_amplified_messages_from_ten_connections_delay_nobody(
    targets: Targets, name: str, size: int
) -> None:
    """Some bytes that inflate to the limit, 200 times in a write: no turn inflates them all."""
    target = targets.get(name)
    data = frame(TEXT, _deflated(iter([b"x" * size])), reserved=RSV1) * 200

    async def send(number: int) -> int:
        async with target.peer(source=f"127.0.3.{number + 1}") as peer:
            await _agree(target, peer, "/echo")
            await peer.exchange(data, lambda: len(peer.frames) >= 200, within=FLOOD)
            return len(peer.texts())

    async with target.attack("amplified messages from ten") as attack:
        echoes = sum(await asyncio.gather(*(send(number) for number in range(10))))
        attack.came(f"{echoes} echoes")
