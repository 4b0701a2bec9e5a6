"""The peer that speaks bytes."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from pongee.testing import RawPeer
from tests.testing.echo import listening

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("final", [True, False])
async def test_frame_is_what_a_websocket_parser_reads_back(size: int, final: bool) -> None:
    """One masked frame for each of the three forms of the length (RFC 6455 section 5.2)."""
    payload = b"x" * size
    async with listening() as port, RawPeer(port, "/ws", receive_buffer=1 << 20) as peer:
        await peer.send_frame(0x2, payload, final=final)
        received = b""
        while len(received) < size + 6:
            received += await peer.read()

    source = StreamReader()
    source.feed_data(received)
    parsing = Frame.parse(source.read_exact, mask=True)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    frame = parsed.value.value
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.BINARY, payload, final)


async def test_handshake_sends_an_upgrade_and_returns_the_head_only() -> None:
    """Frames right behind the head stay unread."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x01a")
        await reader.read()

    async with listening(answer) as port, RawPeer(port, "/ws?a=b") as peer:
        head = await peer.handshake(origin="https://a.example", X_Api_Key="k")

        assert head == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        assert await peer.read(3) == b"\x81\x01a"

    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /ws?a=b HTTP/1.1"
    assert "origin: https://a.example" in lines
    assert "X-Api-Key: k" in lines
    assert "Sec-WebSocket-Version: 13" in lines


async def test_handshake_with_a_server_that_hangs_up_returns_what_came() -> None:
    """An end of the stream is no endless wait."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with listening(hang_up) as port, RawPeer(port, "/ws") as peer:
        assert await peer.handshake() == b"HTTP/1.1 400"


async def test_reads_have_a_time_limit() -> None:
    """A test fails with a TimeoutError instead of hanging."""
    async with listening() as port, RawPeer(port, "/ws") as peer:
        with pytest.raises(TimeoutError):
            await peer.read(timeout=0.01)
        with pytest.raises(TimeoutError):
            await peer.read_to_end(timeout=0.01)


async def test_read_to_end_returns_all_up_to_the_end_or_a_reset() -> None:
    """However the server ends the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1)
        writer.write(b"abc" * 10_000)
        await writer.drain()
        if data == b"c":
            writer.close()
            await writer.wait_closed()

    async with listening(talk) as port, RawPeer(port, "/ws") as peer:
        await peer.send(b"c")
        assert await peer.read_to_end() == b"abc" * 10_000


async def test_peer_that_does_not_read_stalls_the_server() -> None:
    """That is what the small receive buffer is for."""
    stalled = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(0.2):
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
        except TimeoutError:
            stalled.set()

    async with listening(flood) as port, RawPeer(port, "/ws"):
        async with asyncio.timeout(5):
            await stalled.wait()


async def test_reset_reaches_the_server_as_a_reset() -> None:
    """Not as an end of the stream."""
    errors: list[BaseException] = []
    done = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError as error:
            errors.append(error)
        finally:
            done.set()

    async with listening(listen) as port, RawPeer(port, "/ws") as peer:
        await peer.send(b"x")
        peer.reset()
        async with asyncio.timeout(5):
            await done.wait()

    assert len(errors) == 1


async def test_failed_connection_leaves_no_socket_behind() -> None:
    """A refused peer in a test must not fail the next test with a ResourceWarning."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        peer = RawPeer(unused.getsockname()[1], "/ws")
        with pytest.raises(ConnectionRefusedError):
            await peer.__aenter__()
        closed = peer._socket.fileno() == -1
        peer._socket.close()
    gc.collect()
    assert closed
