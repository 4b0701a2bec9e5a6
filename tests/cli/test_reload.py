"""``--reload``: the code changes, and the next connection meets the new one soon."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from pongee.testing import Client, connect
from tests.cli.process import Served

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

WORDS = """
from fastapi import FastAPI
from pongee import Pongee, Session, public

app = FastAPI()
pongee = Pongee()


@pongee.endpoint("/ws", auth=public)
async def word(session: Session[str, str]) -> None:
    await session.send("{word}")
    async for _ in session:
        pass


pongee.install(app)
"""

UVICORN = (
    *("uvicorn", "words:app", "--reload", "--port", "0"),
    *("--ws", "pongee.wire:WireProtocol", "--http", "pongee.wire.http:HeadProtocol"),
)
"""As somebody starts it who does not use our command. No ``--timeout-graceful-shutdown``."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "pongee": ("pongee", "serve", "words:app", "--port", "0", "--reload"),
    "uvicorn": UVICORN,
}


def _write(directory: Path, word: str) -> None:
    (directory / "words.py").write_text(WORDS.replace("{word}", word))


@pytest.mark.parametrize("name", COMMANDS)
async def test_open_sockets_do_not_hold_it_up(tmp_path: Path, name: str) -> None:
    """100 of them, each told; the old process is gone in a moment, the new one speaks."""
    _write(tmp_path, "old")
    async with (
        Served(command=COMMANDS[name], cwd=tmp_path) as served,
        contextlib.AsyncExitStack() as stack,
    ):
        clients: list[Client] = [
            await stack.enter_async_context(connect(served.ws("/ws"), timeout=60))
            for _ in range(100)
        ]
        assert {await client.receive() for client in clients} == {"old"}
        closing = [asyncio.create_task(client.wait_closed()) for client in clients]
        _write(tmp_path, "newer")
        await served.printed("Reloading...")
        begun = time.monotonic()
        await served.printed("Finished server process")
        left = time.monotonic() - begun
        await served.printed("Application startup complete", times=2)
        assert left < 5
        assert {(await one).code for one in closing} == {1012}
        async with connect(served.ws("/ws"), timeout=30) as client:
            assert await client.receive() == "newer"
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert "Traceback" not in served.output()


async def test_client_that_comes_meanwhile_waits(tmp_path: Path) -> None:
    """The port stays open while the process is started again."""
    _write(tmp_path, "old")
    async with Served(command=COMMANDS["pongee"], cwd=tmp_path) as served:
        _write(tmp_path, "newer")
        await served.printed("Finished server process")
        async with connect(served.ws("/ws"), timeout=60) as client:
            assert await client.receive() == "newer"


async def test_mistake_is_told_and_mended(tmp_path: Path) -> None:
    """The code that cannot be imported ends the process, not the watching."""
    _write(tmp_path, "old")
    async with Served(command=COMMANDS["pongee"], cwd=tmp_path) as served:
        (tmp_path / "words.py").write_text("app = None\n")
        await served.printed("is no FastAPI application")
        _write(tmp_path, "newer")
        await served.printed("Application startup complete", times=2)
        async with connect(served.ws("/ws"), timeout=60) as client:
            assert await client.receive() == "newer"


async def test_window_that_was_asked_for_holds(tmp_path: Path) -> None:
    """Closes are spread over it, although somebody waits."""
    _write(tmp_path, "old")
    command = (*COMMANDS["pongee"], "--drain-window", "2")
    async with (
        Served(command=command, cwd=tmp_path) as served,
        connect(served.ws("/ws"), timeout=60) as first,
        connect(served.ws("/ws"), timeout=60) as second,
    ):
        assert {await first.receive(), await second.receive()} == {"old"}
        _write(tmp_path, "newer")
        assert (await first.wait_closed()).code == 1012
        begun = time.monotonic()
        assert (await second.wait_closed()).code == 1012
        assert time.monotonic() - begun > 0.5
