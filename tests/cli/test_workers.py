"""``pongee serve --workers``: started together, looked after, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import httpx
import pytest

from pongee.testing import Client, CloseFrame, HandshakeRefused, connect
from tests.cli.process import ROOT, SHOP, Served, run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SOMEWHERE = "nats://127.0.0.1:1"
"""An address that processes could share. Nobody goes there: the application brings its broker."""


def _workers(number: int, **settings: str) -> Served:
    together = {"PONGEE_BROKER": SOMEWHERE, "PONGEE_DRAIN_WINDOW": "0.5"} | settings
    return Served(SHOP, "--workers", str(number), env=together)


def _echo(served: Served) -> AbstractAsyncContextManager[Client]:
    return connect(served.ws("/ws/echo"), timeout=30)


async def test_workers_share_a_port_and_end_together() -> None:
    """One announcement, clients on each, one signal; exit status 0."""
    async with _workers(2) as served:
        pids = await served.pids(2)
        assert served.pid not in pids
        async with connect(served.ws("/ws/echo")) as client:
            await client.send("x")
            assert await client.receive() == "x"
            served.signal(signal.SIGTERM)
            assert await client.wait_closed() == CloseFrame(1012, "server is leaving")
            assert await served.ended() == 0
    assert served.output().count("Ctrl-C stops it") == 1
    assert served.output().count("second hook") == 2
    assert "Traceback" not in served.output()
    assert "ERROR" not in served.output()


async def test_signal_to_everybody_is_not_taken_for_two() -> None:
    """Ctrl-C in a terminal reaches workers as well as the process that passes it on."""
    async with _workers(2, PONGEE_DRAIN_WINDOW="2") as served:
        await served.pids(2)
        async with connect(served.ws("/ws/echo")) as one, connect(served.ws("/ws/echo")) as other:
            for client in (one, other):
                await client.send("x")
                await client.receive()
            os.killpg(served.pid, signal.SIGINT)
            assert {(await client.wait_closed()).code for client in (one, other)} == {1012}
            assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_second_signal_is_passed_on() -> None:
    """Nobody waits for a window of minutes after Ctrl-C was pressed twice."""
    async with _workers(2, PONGEE_DRAIN_WINDOW="600") as served, AsyncExitStack() as stack:
        await served.pids(2)
        opened = [await stack.enter_async_context(_echo(served)) for _ in range(8)]
        served.signal(signal.SIGTERM)
        await served.printed("second hook", times=2)
        served.signal(signal.SIGTERM)
        assert {(await client.wait_closed()).code for client in opened} == {1012}
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_second_press_reaches_a_worker_twice_and_counts_once() -> None:
    """From the terminal and its supervisor: requests are cut, not the application's end."""
    async with _workers(2) as served:
        await served.pids(2)
        asking = asyncio.create_task(served.get("/slow?seconds=600"))
        await served.printed("slow begins")
        os.killpg(served.pid, signal.SIGINT)
        await served.printed("Waiting for connections to close")
        os.killpg(served.pid, signal.SIGINT)
        assert await served.ended() == 0
        with contextlib.suppress(httpx.TransportError):
            assert (await asking).status_code == 500
    assert served.output().count("Application shutdown complete") == 2
    assert "Traceback" not in served.output()


async def test_killed_worker_is_replaced() -> None:
    """The other one serves meanwhile."""
    async with _workers(2) as served:
        one, other = await served.pids(2)
        os.kill(one, signal.SIGKILL)
        await served.printed(f"Child process [{one}] died")
        await served.printed("Application startup complete", times=3)
        now = await served.pids(2)
        assert other in now
        assert one not in now


async def test_worker_that_leaves_by_itself_is_replaced_once_it_has_left() -> None:
    """Whoever drains is not taken for one that hangs."""
    async with _workers(2, PONGEE_DRAIN_WINDOW="3") as served, AsyncExitStack() as stack:
        pids = await served.pids(2)
        opened = [await stack.enter_async_context(_echo(served)) for _ in range(16)]
        for client in opened:
            await client.send("x")
            await client.receive()
        leaving = pids.pop()
        os.kill(leaving, signal.SIGTERM)
        await served.printed(f"Child process [{leaving}] died (0)")
        closed = [client.connection.close_code for client in opened]
        assert set(closed) == {1012, None}  # those of the one, not those of the other
        assert leaving not in await served.pids(2)


async def test_hangup_replaces_one_after_the_other() -> None:
    """Somebody answers all the time; who was connected is sent to come back."""
    async with _workers(2) as served:
        before = await served.pids(2)
        failed: list[str] = []
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                try:
                    await served.get("/pid")
                except httpx.ConnectError as error:
                    failed.append(repr(error))
                except httpx.TransportError:
                    pass  # accepted by nobody yet when the listener closed
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(ask())
        served.signal(signal.SIGHUP)
        await served.printed("Application startup complete", times=4)
        await served.printed("Finished server process", times=2)
        over.set()
        await asking
        assert not failed
        assert not before & await served.pids(2)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_hangup_with_code_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    """The old workers go on; mended, the next one replaces them."""
    code = (ROOT / "tests" / "cli" / "shop.py").read_text()
    module = tmp_path / "copy_of_shop.py"
    module.write_text(code)
    options = ("--workers", "2", "--app-dir", str(tmp_path), "--broker", SOMEWHERE)
    async with Served("copy_of_shop:app", *options) as served:
        before = await served.pids(2)
        module.write_text("app = None")
        served.signal(signal.SIGHUP)
        await served.printed("the old ones stay")
        assert await served.pids(2) == before
        module.write_text(code)
        served.signal(signal.SIGHUP)
        await served.printed("Finished server process", times=2)
        assert not before & await served.pids(2)


async def test_worker_that_is_replaced_leaves_the_port_at_once() -> None:
    """The delay is for balancers, which do not see it go; who ends them all waits for them."""
    async with _workers(2, PONGEE_DRAIN_DELAY="600") as served:
        before = await served.pids(2)
        served.signal(signal.SIGHUP)
        await served.printed("Finished server process", times=2)
        assert not before & await served.pids(2)
        served.signal(signal.SIGTTIN)
        await served.pids(3)
        served.signal(signal.SIGTTOU)
        await served.printed("Finished server process", times=3)
        served.signal(signal.SIGTERM)
        assert await _refusal(served) == 503
        assert served.output().count("Finished server process") == 3
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def _refusal(served: Served) -> int:
    """Wait until a worker that still listens refuses a handshake; returns the status."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with _echo(served):
                    await asyncio.sleep(0.05)
            except HandshakeRefused as refused:
                return refused.status


async def test_number_of_workers_is_changed_by_signals() -> None:
    """One more, one fewer, and never none."""
    async with _workers(2) as served:
        served.signal(signal.SIGTTIN)
        await served.pids(3)
        for times in (1, 2):
            served.signal(signal.SIGTTOU)
            await served.printed("Finished server process", times=times)
        served.signal(signal.SIGTTOU)
        await served.printed("The only child process stays")
        served.signal(signal.SIGTTIN)
        await served.pids(2)


async def test_workers_leave_when_the_process_that_started_them_is_killed() -> None:
    """Nobody is left behind that holds the port and gets no signal."""
    async with _workers(2) as served:
        await served.pids(2)
        async with connect(served.ws("/ws/echo")) as client:
            os.kill(served.pid, signal.SIGKILL)
            assert (await client.wait_closed()).code == 1012
        await served.printed("Finished server process", times=2)


def test_broker_of_one_process_is_refused() -> None:
    """With the cure, before anything is started."""
    ended = run(SHOP, "--workers", "2")
    assert (ended.returncode, ended.stdout) == (2, "")
    for word in ("--workers 2", "memory://", "redis://…", "nats://…", "nats://embedded"):
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_wrong_with_the_application_is_told_once() -> None:
    """By the first worker; there are no others then."""
    ended = run("tests.cli.nowhere:app", "--workers", "4", PONGEE_BROKER=SOMEWHERE)
    assert ended.returncode == 2
    assert ended.stderr.count("there is no module tests.cli.nowhere") == 1
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


async def test_port_of_another_server_is_refused() -> None:
    """Sockets that may share a port do not share it with strangers."""
    async with _workers(2) as served:
        port = ("--port", str(served.port))
        ended = await asyncio.to_thread(run, SHOP, "--workers", "2", *port, PONGEE_BROKER=SOMEWHERE)
        assert ended.returncode == 2
        assert "in use" in ended.stderr
        assert "--port" in ended.stderr
