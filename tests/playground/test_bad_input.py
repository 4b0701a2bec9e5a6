"""Bad messages and frames, one row after the other, at one running application.

The fixture checks after each row that a well-behaved neighbour is still served, that nobody else is
left in the registry, and that the log has neither an error nor a traceback.
"""

from __future__ import annotations

import asyncio
import struct

import pytest

from pongee.testing import CloseFrame, RawPeer, connect
from tests.playground.conftest import STATIC_TOKEN, Scene

pytestmark = pytest.mark.anyio

NOT_JSON = "ERROR: 仅支持JSON格式"
KIB = 1024
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
SECURE = f"/ws/secure/1?token={STATIC_TOKEN}"


async def _close_code(peer: RawPeer) -> int:
    """Read up to the end; returns the code of the close frame, 1006 if none came."""
    data = await peer.read_to_end()
    while len(data) >= 2:
        size = data[1]
        if data[0] & 15 == CLOSE:
            return int.from_bytes(data[2:4])
        data = data[2 + size :]
    return 1006


# Content


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "{",
        b"\x00\xff\xfe\x80" * 100,
        "[" * 30_000 + "]" * 30_000,
        '{"a":' * 9_000 + "1" + "}" * 9_000,
        '{"n":' + "7" * 20_000 + "}",
        '{"n":-' + "7" * 20_000 + ".5}",
        '{"text":"\\ud800"}',
        '{"\\udfff":1}',
    ],
    ids=["text", "cut", "binary", "brackets", "nested", "digits", "negative", "surrogate", "key"],
)
async def test_realtime_says_not_json(scene: Scene, message: str | bytes) -> None:
    """Not JSON, or JSON that nobody can hold: one exact answer, and the connection lives on."""
    async with connect(scene.ws("/ws/realtime")) as client:
        await client.send(message)
        assert await client.receive() == NOT_JSON
        await client.send("{}")
        assert (await client.receive_json())["type"] == "ack"


@pytest.mark.parametrize("message", ["[]", '"x"', "NaN", "1e999", '{"type": {}}', b'{"type": []}'])
async def test_realtime_says_what_is_wrong_with_a_shape(scene: Scene, message: str | bytes) -> None:
    """Another kind of error as JSON, and the connection lives on."""
    async with connect(scene.ws("/ws/realtime")) as client:
        await client.send(message)
        assert (await client.receive_json())["code"] == "invalid_message"
        await client.send("{}")
        assert (await client.receive_json())["type"] == "ack"


@pytest.mark.parametrize(
    "message",
    [
        '{"n":1e999}',
        '{"a":1,"a":2}',
        '{"self":1,"model_dump":2,"__class__":3,"model_config":4,"_x":5,"":6}',
        '{"a":' * 190 + "1" + "}" * 190,
        '{"text":"\\u0000"}',
    ],
)
async def test_realtime_takes_odd_json(scene: Scene, message: str) -> None:
    """Odd is not wrong; names that mean something to Python mean nothing here."""
    async with connect(scene.ws("/ws/realtime")) as client:
        await client.send(message)
        assert (await client.receive_json())["type"] == "ack"


async def test_too_many_errors_end_the_connection(scene: Scene) -> None:
    """Whoever sends nothing but rubbish is answered thirty times, then closed with 1008."""
    async with connect(scene.ws("/ws/realtime")) as client:
        for _ in range(100):
            await client.send("rubbish")
        assert await client.wait_closed() == CloseFrame(1008, "too many errors")


@pytest.mark.parametrize("path", ["/ws/chat/1", SECURE, "/ws/status"])
async def test_binary_where_text_is_expected(scene: Scene, path: str) -> None:
    """An error that says so, and the connection lives on."""
    async with connect(scene.ws(path)) as client:
        await client.send(b"\x00\xff")
        while (answer := await client.receive_json())["type"] == "status":
            pass
        assert (answer["type"], answer["code"]) == ("error", "text_expected")


async def test_messages_at_and_over_the_limit(scene: Scene) -> None:
    """64 KiB are echoed; one byte more is 1009."""
    async with connect(scene.ws(SECURE)) as client:
        await client.send("x" * 64 * KIB)
        assert len(await client.receive()) == 64 * KIB
        await client.send("x" * (64 * KIB + 1))
        assert (await client.wait_closed()).code == 1009


async def test_message_over_the_limit_in_fragments(scene: Scene) -> None:
    """The sum counts, not the parts."""
    async with scene.raw(SECURE) as peer:
        await peer.handshake()
        await peer.send_frame(TEXT, b"x" * 40 * KIB, final=False)
        await peer.send_frame(0, b"x" * 40 * KIB)
        assert await _close_code(peer) == 1009


async def test_megabyte_is_refused_from_its_header(scene: Scene) -> None:
    """Nobody waits for, or keeps, what is too big."""
    async with scene.raw("/ws/chat/1") as peer:
        await peer.handshake()
        await peer.send(struct.pack("!BBQ", 0x81, 0x80 | 127, 1024 * KIB) + bytes(4))
        assert await _close_code(peer) == 1009


async def test_megabyte_that_is_sent_anyway(scene: Scene) -> None:
    """1009 may be lost in the reset that answers unread data; the connection ends either way."""
    async with connect(scene.ws("/ws/chat/1")) as client:
        await client.send("x" * 1024 * KIB)
        assert (await client.wait_closed()).code in (1009, 1006)


# Bursts


async def test_burst_of_tiny_messages_is_answered_in_order(scene: Scene) -> None:
    """10,000 to a chat room: all come back, in order."""
    async with connect(scene.ws("/ws/chat/1")) as client, asyncio.timeout(30):

        async def send() -> None:
            for number in range(10_000):
                await client.connection.send(str(number))

        sending = asyncio.create_task(send())
        for number in range(10_000):
            assert await client.connection.recv() == f"Room 1: {number}"
        await sending


async def test_burst_written_at_once_is_answered_in_order(scene: Scene) -> None:
    """The same in few TCP segments, read only when all is written."""
    async with scene.raw("/ws/chat/1") as peer, asyncio.timeout(30):
        await peer.handshake()
        frames = b"".join(b"\x81\x81\0\0\0\0" + bytes([48 + n % 10]) for n in range(10_000))
        answers = b"".join(b"\x81\x09Room 1: " + bytes([48 + n % 10]) for n in range(10_000))
        sending = asyncio.create_task(peer.send(frames, 30))
        received = b""
        while len(received) < len(answers):
            received += await peer.read()
        await sending
        assert received == answers


async def test_burst_where_a_rate_is_set_ends_with_1008(scene: Scene) -> None:
    """What is over the limit is not served."""
    async with connect(scene.ws("/ws/limited")) as client:
        for _ in range(100):
            await client.send("x")
            assert await client.receive() == "x"
        for _ in range(100):
            await client.connection.send("x")
        assert await client.wait_closed() == CloseFrame(1008, "too many messages")


async def test_many_pings_do_not_delay_the_others(scene: Scene) -> None:
    """10,000 unread pongs later the neighbour still gets its echo."""
    async with scene.raw("/ws/chat/1") as peer:
        await peer.handshake()
        await peer.send(b"\x89\x80\0\0\0\0" * 10_000)
        await scene.check_neighbour()


# Frames


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\x89\x00", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x80\x81\0\0\0\0x", 1002),
        (b"\x01\x81\0\0\0\0x\x81\x81\0\0\0\0x", 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x88\x81\0\0\0\0x", 1002),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1002),
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x81\x83\0\0\0\0\xed\xa0\x80", 1007),
        (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
        (b"\x81\x81\0\0\0\0\xe4", 1007),
    ],
    ids=[
        "unmasked text",
        "unmasked ping",
        "RSV1",
        "opcode 3",
        "continuation of nothing",
        "text inside a text",
        "long ping",
        "fragmented ping",
        "close of one byte",
        "close 1005",
        "2^64 bytes",
        "not UTF-8",
        "surrogate",
        "bad continuation",
        "cut UTF-8",
    ],
)
async def test_broken_frame_ends_its_connection_alone(
    scene: Scene, frame: bytes, code: int
) -> None:
    """1002 for the protocol, 1007 for the text, 1009 for the size; then the end of TCP."""
    async with scene.raw("/ws/chat/1") as peer:
        await peer.handshake()
        await peer.send(frame)
        assert await _close_code(peer) == code


async def test_character_split_over_fragments_is_valid(scene: Scene) -> None:
    """UTF-8 is judged by the message, not by the frame."""
    async with scene.raw(SECURE) as peer:
        await peer.handshake()
        await peer.send_frame(TEXT, b"\xe4\xbd", final=False)
        await peer.send_frame(PING, b"")
        await peer.send_frame(0, b"\xa0")
        assert await peer.read(2) == b"\x8a\x00"
        assert await peer.read() == b"\x81\x03" + "你".encode()
