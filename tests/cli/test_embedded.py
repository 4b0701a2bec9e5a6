"""``--broker nats://embedded``: a broker for one machine, started and ended with the server."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from pongee.testing import Client, connect, eventually
from tests.cli.process import PATIENCE, Served

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ROOMS = "tests.cli.rooms:app"


def _servers(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "nats-server" in child.name()]


async def _one_on_each(served: Served, number: int, stack: AsyncExitStack) -> dict[str, Client]:
    """Connect until a client is with each process."""
    found: dict[str, Client] = {}
    for _ in range(200):
        client = await stack.enter_async_context(connect(served.ws("/ws/room"), timeout=PATIENCE))
        found.setdefault(str(await client.receive()), client)
        if len(found) == number:
            return found
    raise AssertionError(f"all with {list(found)}")


async def test_workers_are_one_application(tmp_path: Path) -> None:
    """What is said on one is heard on the other; nothing is left, and no password was shown."""
    options = ("--workers", "2", "--broker", "nats://embedded")
    async with (
        Served(ROOMS, *options, env={"TMPDIR": str(tmp_path)}) as served,
        AsyncExitStack() as stack,
    ):
        await served.pids(2)
        clients = await _one_on_each(served, 2, stack)
        for said in clients:
            await clients[said].send(f"from {said}")
            assert {await client.receive() for client in clients.values()} == {f"from {said}"}
        (nats,) = _servers(served.pid)
        everybody = psutil.Process(served.pid).children(recursive=True)
        assert not any("nats://" in word for one in everybody for word in one.cmdline())
        served.signal(signal.SIGTERM)
        for client in clients.values():
            assert (await client.wait_closed()).code == 1012
        assert await served.ended() == 0
        await eventually(lambda: not nats.is_running(), what="the NATS server is gone")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("pongee-nats-")]
    assert "nats://pongee:" not in served.output()
    assert "Traceback" not in served.output()


async def test_one_process_can_have_it_too() -> None:
    """Nobody has to count processes to use it."""
    async with (
        Served(ROOMS, env={"PONGEE_BROKER": "nats://embedded"}) as served,
        connect(served.ws("/ws/room"), timeout=PATIENCE) as client,
    ):
        assert await client.receive() == str(served.pid)
        await client.send("x")
        assert await client.receive() == "x"
        (nats,) = _servers(served.pid)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        await eventually(lambda: not nats.is_running(), what="the NATS server is gone")
    assert "Traceback" not in served.output()


async def test_playground_has_it_with_one_secret_for_all() -> None:
    """The secret of this run is made once: a token of one worker opens the other."""
    command = ("pongee", "serve", "--port", "0", "--workers", "2")
    async with Served("--broker", "nats://embedded", command=command) as served:
        await served.printed("Application startup complete", times=2)
        assert served.output().count("export PONGEE_JWT_SECRET=") == 1
        secret = served.output().partition("PONGEE_JWT_SECRET=")[2].split()[0]
        everybody = psutil.Process(served.pid).children(recursive=True)
        assert not any(secret in word for one in everybody for word in one.cmdline())
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            answer = await client.post(served.http("/dev/token"), json={"user": "ada"})
            for _ in range(16):
                url = served.ws("/ws/auth")
                one = await stack.enter_async_context(connect(url, token=answer.json()["token"]))
                await one.send("x")
                assert await one.receive() == "x"
        served.signal(signal.SIGINT)
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_broker_ends_with_a_parent_that_was_killed() -> None:
    """Workers leave, and the server is not left behind."""
    async with Served(ROOMS, "--workers", "2", env={"PONGEE_BROKER": "nats://embedded"}) as served:
        await served.pids(2)
        (nats,) = _servers(served.pid)
        os.kill(served.pid, signal.SIGKILL)
        await eventually(lambda: not nats.is_running(), within=PATIENCE)
        await served.printed("Finished server process", times=2)
