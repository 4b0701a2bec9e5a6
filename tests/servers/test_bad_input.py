"""Frames that no server should take: who answers them, and with which code."""

from __future__ import annotations

import struct

import pytest

from pongee.testing import CloseFrame, RawPeer
from tests.servers.app import MESSAGE_LIMIT
from tests.servers.expectations import Expected
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(15)]


async def test_a_message_over_the_limit_of_the_endpoint(server: ServerProcess, tag: str) -> None:
    async with server.connect("/text", tag=tag) as client:
        await client.send("é" * (MESSAGE_LIMIT // 2 + 1))
        assert await client.wait_closed() == CloseFrame(1009, "message too big")
    end = await server.until_gone(tag)
    assert (end["kind"], end["code"]) == ("bad input", 1009)


async def test_a_message_over_the_limit_of_the_server(
    server: ServerProcess, expected: Expected, tag: str
) -> None:
    size = expected.oversize_frame
    async with RawPeer(server.port, "/large") as peer:
        await peer.handshake(X_Tag=tag)
        await peer.send(struct.pack("!BBQ", 0x82, 0x80 | 127, size) + bytes(4))
        if size < 1024 * 1024:  # else the announcement is enough
            await peer.send(bytes(size))
        assert await close_code(peer) == expected.oversize
        assert await server.is_gone(tag, within=0.5) != expected.oversize_waits
    assert (await server.until_gone(tag))["kind"] == expected.oversize_kind


async def test_text_that_is_not_utf8(server: ServerProcess, expected: Expected, tag: str) -> None:
    async with server.connect("/text", tag=tag) as client:
        await client.connection.send(b"\xff\xfe", text=True)
        assert (await client.wait_closed()).code == expected.invalid_utf8
    assert (await server.until_gone(tag))["kind"] == expected.invalid_utf8_kind


async def test_a_frame_with_an_unknown_opcode(
    server: ServerProcess, expected: Expected, tag: str
) -> None:
    async with RawPeer(server.port, "/text") as peer:
        await peer.handshake(X_Tag=tag)
        await peer.send_frame(3, b"?")
        assert await close_code(peer) == expected.bad_opcode
    await server.until_gone(tag)


async def close_code(peer: RawPeer) -> int:
    """Read up to a close frame and return its code: 1005 if it has none, 1006 without a frame."""
    data = b""
    while True:
        while len(data) >= 2 and len(data) >= 2 + data[1]:
            opcode, payload, data = data[0] & 15, data[2 : 2 + data[1]], data[2 + data[1] :]
            if opcode == 8:
                return int.from_bytes(payload[:2]) if payload else 1005
            assert opcode == 9, "a ping may come first, nothing else"
        try:
            received = await peer.read()
        except ConnectionResetError:
            received = b""
        if not received:
            return 1006
        data += received
