"""A client that leaves is noticed, in whatever way it leaves."""

from __future__ import annotations

import asyncio

import pytest

from pongee import Limits
from pongee.testing import RawPeer, Relay, connect
from tests.servers.app import IDLE_TIMEOUT, WRITE_DEADLINE
from tests.servers.expectations import PING_INTERVAL, PING_TIMEOUT, Expected
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(15)]

READERS_AND_OTHERS = ("/text", "/push", "/wait")


@pytest.mark.parametrize("path", READERS_AND_OTHERS)
async def test_a_client_that_closes_is_gone_at_once(
    server: ServerProcess, expected: Expected, tag: str, path: str
) -> None:
    async with server.connect(path, tag=tag) as client:
        await server.until(tag, lambda report: report["open"] == 1, 1)
        await client.close(4321, "so long")
    end = await server.until_gone(tag)
    assert (end["kind"], end["code"], end["reason"]) == expected.client_close


async def test_a_client_that_said_more_than_anybody_read_is_gone_at_once(
    server: ServerProcess, tag: str
) -> None:
    async with server.connect("/wait", tag=tag) as client:
        for _ in range(2 * Limits().inbox_messages):
            await client.send("is anybody there?")
    await server.until_gone(tag, within=1)


@pytest.mark.parametrize("path", READERS_AND_OTHERS)
async def test_a_client_that_resets_the_connection_is_gone_at_once(
    server: ServerProcess, tag: str, path: str
) -> None:
    async with RawPeer(server.port, path) as peer:
        await peer.handshake(X_Tag=tag)
        await server.until(tag, lambda report: report["open"] == 1, 1)
        peer.reset()
        end = await server.until_gone(tag, within=1)
    assert (end["kind"], end["code"]) == ("connection lost", 1006)


async def test_a_client_that_ends_the_stream_is_gone_at_once(
    server: ServerProcess, tag: str
) -> None:
    async with RawPeer(server.port, "/wait") as peer:
        await peer.handshake(X_Tag=tag)
        await server.until(tag, lambda report: report["open"] == 1, 1)
    end = await server.until_gone(tag, within=1)
    assert (end["kind"], end["code"]) == ("connection lost", 1006)


async def test_a_close_frame_without_a_code(
    server: ServerProcess, expected: Expected, tag: str
) -> None:
    async with RawPeer(server.port, "/wait") as peer:
        await peer.handshake(X_Tag=tag)
        await peer.send_frame(8, b"")
        end = await server.until_gone(tag)
    assert end["kind"] == expected.no_code_close


async def test_what_the_server_can_do_is_found_out(
    server: ServerProcess, expected: Expected
) -> None:
    async with server.connect("/traits") as client:
        assert await client.receive_json() == {
            "name": expected.traits,
            "abort": expected.cuts_stalled,
            "pings": expected.pings,
        }


async def test_a_stalled_reader_is_out_within_its_write_deadline(
    server: ServerProcess, expected: Expected, tag: str
) -> None:
    async with RawPeer(server.port, "/flood") as peer:
        await peer.handshake(X_Tag=tag)
        await server.until(tag, lambda report: report["open"] == 1, 1)
        end = await server.until_gone(tag, within=WRITE_DEADLINE + 1)
        assert (end["kind"], end["code"]) == ("too slow", 1013)
        assert await is_cut(peer, within=1) == expected.cuts_stalled


async def is_cut(peer: RawPeer, within: float) -> bool:
    """Tell whether the server has let go of the connection: then what we send is answered by RST.

    The peer does not read, so that what the server's kernel still holds cannot hide it.
    """
    try:
        async with asyncio.timeout(within):
            while True:
                await peer.send_frame(10, b"")
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    except OSError:
        return True


async def test_a_client_that_vanished_is_found_by_pings_where_there_are_any(
    server: ServerProcess, expected: Expected, tag: str
) -> None:
    deadline = PING_INTERVAL + PING_TIMEOUT + 0.5
    async with Relay(server.port) as relay, connect(relay.ws("/wait"), headers={"x-tag": tag}):
        await server.until(tag, lambda report: report["open"] == 1, 1)
        relay.freeze()
        if expected.pings:
            end = await server.until_gone(tag, within=deadline)
            assert (end["kind"], end["code"]) == ("connection lost", 1006)
        else:
            await asyncio.sleep(deadline)
            assert (await server.report(tag))["open"] == 1
        relay.cut()
    await server.until_gone(tag)


async def test_a_client_that_vanished_is_found_by_the_idle_timeout_everywhere(
    server: ServerProcess, tag: str
) -> None:
    async with Relay(server.port) as relay, connect(relay.ws("/idle"), headers={"x-tag": tag}):
        await server.until(tag, lambda report: report["open"] == 1, 1)
        relay.freeze()
        await server.until(tag, lambda report: not report["open"], IDLE_TIMEOUT + 0.5)
        relay.cut()
    assert (await server.until_gone(tag))["kind"] == "idle timeout"


async def test_sigterm_tells_the_clients_and_runs_the_hooks(
    mortal: ServerProcess, expected: Expected, request: pytest.FixtureRequest
) -> None:
    async with (
        mortal.connect("/text", tag="reads") as reader,
        mortal.connect("/wait", tag="waits") as waiter,
    ):
        for tag in ("reads", "waits"):
            await mortal.until(tag, lambda report: report["open"] == 1, 1)
        mortal.terminate()
        frames = await asyncio.gather(reader.wait_closed(), waiter.wait_closed())
    assert [frame.code for frame in frames] == [expected.shutdown] * 2
    assert await mortal.exit_status(expected.shutdown_within) == expected.exit_status
    for tag in ("reads", "waits"):
        told = [mortal.output().count(f"ended {tag}: {k}") for k in expected.shutdown_kinds]
        assert sum(told) == 1


async def test_a_stalled_reader_does_not_hold_up_sigterm(
    mortal: ServerProcess, expected: Expected
) -> None:
    async with RawPeer(mortal.port, "/flood") as peer:
        await peer.handshake(X_Tag="stalled")
        await mortal.until("stalled", lambda report: report["open"] == 1, 1)
        mortal.terminate()
        assert await mortal.exit_status(expected.shutdown_within) == expected.exit_status
