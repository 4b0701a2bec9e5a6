"""Faults on the line: silence, cuts, and a far end that is not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pongee.testing import Relay, eventually
from tests.testing.echo import listening

pytestmark = pytest.mark.anyio

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _line(port: int) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _exchange(stream: Stream, data: bytes) -> bytes:
    reader, writer = stream
    writer.write(data)
    async with asyncio.timeout(5):
        return await reader.readexactly(len(data))


async def test_bytes_pass_both_ways_in_order() -> None:
    """A relay nobody touches is a wire."""
    data = bytes(range(256)) * 4096
    async with listening() as port, Relay(port) as relay, _line(relay.port) as line:
        assert await _exchange(line, data) == data
        assert relay.ws("/ws?a=b") == f"ws://127.0.0.1:{relay.port}/ws?a=b"


async def test_frozen_line_holds_back_what_thaw_lets_through() -> None:
    """Silence without a close, and nothing is lost."""
    async with listening() as port, Relay(port) as relay, _line(relay.port) as line:
        await _exchange(line, b"before")
        relay.freeze()
        line[1].write(b"held back")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await line[0].read(1)

        relay.thaw()

        async with asyncio.timeout(5):
            assert await line[0].readexactly(9) == b"held back"


async def test_frozen_line_hides_that_the_other_side_is_gone() -> None:
    """A peer that vanished sends no goodbye: the end of the stream is held back as well."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def until_the_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        began.set()
        await reader.read()
        ended.set()

    async with listening(until_the_end) as port, Relay(port) as relay:
        async with _line(relay.port) as line:
            line[1].write(b"x")
            await began.wait()
            relay.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ended.wait()

        relay.thaw()

        async with asyncio.timeout(5):
            await ended.wait()


async def test_cut_ends_every_connection_and_new_ones_may_come() -> None:
    """Both sides find the line gone; the relay goes on."""
    async with listening() as port, Relay(port) as relay:
        async with _line(relay.port) as first, _line(relay.port) as second:
            await _exchange(first, b"1")
            await _exchange(second, b"2")

            relay.cut()

            for reader, _ in (first, second):
                assert await _end(reader)
        async with _line(relay.port) as third:
            assert await _exchange(third, b"3") == b"3"


async def test_end_of_one_side_reaches_the_other() -> None:
    """A close passes through a relay that is not frozen."""

    async def goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with listening(goodbye) as port, Relay(port) as relay, _line(relay.port) as line:
        async with asyncio.timeout(5):
            assert await line[0].read() == b"bye"


async def test_target_that_is_not_there_ends_the_connection() -> None:
    """A client of a dead server is not left waiting."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with Relay(port) as relay, _line(relay.port) as line:
            assert await _end(line[0], 2)


async def test_leaving_the_relay_ends_what_is_open() -> None:
    """No task and no socket is left behind."""
    before = len(asyncio.all_tasks())
    async with listening() as port:
        async with Relay(port) as relay, _line(relay.port) as line:
            await _exchange(line, b"x")
            relay.freeze()
        assert await _end(line[0])
    await eventually(lambda: len(asyncio.all_tasks()) == before)


async def _end(reader: asyncio.StreamReader, within: float = 5) -> bool:
    """Whether the stream ends in time, in order or by a reset."""
    try:
        async with asyncio.timeout(within):
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False
