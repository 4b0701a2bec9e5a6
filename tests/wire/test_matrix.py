"""The protocol in every setting it is deployed in.

First event loop x TLS x HTTP parser, in this process. Then uvicorn's command line with a reloader
and with two workers: processes of their own, ended by their ids, with deadlines.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pongee.testing import Client, Server, connect, eventually
from tests.servers.expectations import SERVERS
from tests.servers.process import ServerProcess
from tests.wire.harness import Accepting, all_gone, echo, wire

pytestmark = pytest.mark.anyio

WITHIN = 20.0
"""Seconds a process may take to start or end; on a busy machine Python alone takes some."""


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every test in this process runs on both event loops."""
    if request.param:
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param}


@dataclass(frozen=True)
class Setting:
    """How to serve, and how to reach what is served."""

    http: str
    tls: tuple[Path, Path] | None

    @asynccontextmanager
    async def serve(self, app: Any) -> AsyncIterator[Server]:
        """Serve `app` on the protocol."""
        options: dict[str, Any] = {}
        if self.tls is not None:
            options = {"ssl_keyfile": str(self.tls[0]), "ssl_certfile": str(self.tls[1])}
        async with wire(app, http=self.http, **options) as server:
            yield server

    @asynccontextmanager
    async def connect(self, server: Server) -> AsyncIterator[Client]:
        """Open a connection."""
        scheme = "ws"
        options: dict[str, Any] = {}
        if self.tls is not None:
            scheme = "wss"
            options["ssl"] = ssl.create_default_context(cafile=str(self.tls[1]))
        async with connect(f"{scheme}://127.0.0.1:{server.port}/", **options) as client:
            yield client


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> tuple[Path, Path] | None:
    """Key and certificate, or none."""
    return certificate if request.param else None


@pytest.fixture(params=["h11", "httptools"])
def setting(request: pytest.FixtureRequest, tls: tuple[Path, Path] | None) -> Setting:
    """One of four ways to serve, on each loop."""
    return Setting(request.param, tls)


async def test_messages(setting: Setting) -> None:
    """Small, large and fragmented messages come back whole, text as text and bytes as bytes."""
    async with setting.serve(echo) as server, setting.connect(server) as client:
        for data in ("", b"", "é😀", b"\x00\xff", "a" * 65_536, bytes(1 << 20)):
            await client.send(data)
            assert await client.receive() == data
        await client.connection.send(["é", "", "😀" * 1000, "z"])
        assert await client.receive() == "é" + "😀" * 1000 + "z"
        await client.connection.send([b"\x00" * 40_000] * 5)
        assert await client.receive() == bytes(200_000)
        many = [str(number) for number in range(300)]
        sending = asyncio.create_task(send_all(client, many))
        assert [await client.receive() for _ in many] == many
        await sending


async def send_all(client: Client, texts: list[str]) -> None:
    for text in texts:
        await client.send(text)


async def test_pings_both_ways(setting: Setting) -> None:
    """A client's ping is answered with its payload, amid messages."""
    async with setting.serve(echo) as server, setting.connect(server) as client:
        for payload in (b"", b"p" * 125):
            pong = await client.connection.ping(payload)
            await client.send("between")
            async with asyncio.timeout(5):
                await pong
            assert await client.receive() == "between"


async def test_close_by_the_client(setting: Setting) -> None:
    """Code and reason reach the application; the code comes back, and nothing is left."""
    app = Accepting()
    async with setting.serve(app) as server, setting.connect(server) as client:
        await client.close(4321, "enough é")
        assert client.connection.close_code == 4321
        await all_gone(server)
    assert app.events == [{"type": "websocket.disconnect", "code": 4321, "reason": "enough é"}]


async def test_close_by_the_application(setting: Setting) -> None:
    """Code and reason reach the client after all that was sent before them."""

    async def script(receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": bytes(500_000)})
        await send({"type": "websocket.close", "code": 4002, "reason": "done"})

    async with setting.serve(Accepting(script)) as server, setting.connect(server) as client:
        assert await client.receive() == bytes(500_000)
        end = await client.wait_closed()
        assert (end.code, end.reason) == (4002, "done")
        await all_gone(server)


async def test_client_that_vanishes(setting: Setting) -> None:
    """A reset is 1006 to the application, and nothing is left."""
    app = Accepting()
    async with setting.serve(app) as server:
        async with setting.connect(server) as client:
            client.cut()
        await all_gone(server)
    assert app.events == [{"type": "websocket.disconnect", "code": 1006}]


async def test_shutdown_with_an_open_connection(setting: Setting) -> None:
    """A server that leaves says 1012 to both ends."""
    app = Accepting()
    async with setting.serve(app) as server, setting.connect(server) as client:
        server.uvicorn.should_exit = True
        assert (await client.wait_closed()).code == 1012
        await all_gone(server)
    assert app.events == [{"type": "websocket.disconnect", "code": 1012}]


# Processes

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (event := await receive())["type"] == "websocket.receive":
        await send(event | {"type": "websocket.send"})
"""

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``uvicorn app:app`` on the protocol, with more arguments; ended with the test."""
    (tmp_path / "app.py").write_text(APP)
    started: list[ServerProcess] = []

    def begin(*arguments: str) -> ServerProcess:
        def command(port: int, settings: str) -> list[str]:
            return [
                *("-m", "uvicorn", "app:app", "--app-dir", str(tmp_path)),
                *("--port", str(port), "--ws", "pongee.wire:WireProtocol"),
                *("--timeout-graceful-shutdown", "5", *arguments),
            ]

        server = ServerProcess(replace(SERVERS[0], command=command), tmp_path)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.kill()


async def greeting(client: Client) -> int:
    """Return the id of the process that serves this connection."""
    pid = int(await client.receive())
    await client.send("hello")
    assert await client.receive() == "hello"
    return pid


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server's loop is its own
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_reload(start: Start, tmp_path: Path, loop: str) -> None:
    """A changed file closes a connection with 1012, and the server comes back anew."""
    server = start(
        *("--loop", loop, "--reload", "--reload-dir", str(tmp_path), "--reload-delay", "0.1")
    )
    async with server.connect("/", timeout=WITHIN) as client:
        old = await greeting(client)
        closed = asyncio.create_task(client.wait_closed())
        file = tmp_path / "app.py"
        touched = file.stat().st_mtime
        # The reloader looks for a time later than the one it saw first, whenever that was.
        async with asyncio.timeout(WITHIN):
            while "Reloading" not in server.output():
                touched += 10
                os.utime(file, (touched, touched))
                await asyncio.sleep(0.2)
        assert (await closed).code == 1012

    async with server.connect("/", timeout=WITHIN) as client:
        assert await greeting(client) != old
        server.terminate()
        assert (await client.wait_closed()).code == 1012
    await server.exit_status(WITHIN)
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_two_workers(start: Start, loop: str) -> None:
    """Both workers serve; SIGTERM closes the connections of both with 1012 and ends all."""
    server = start("--loop", loop, "--workers", "2")
    await eventually(
        lambda: server.output().count("Application startup complete") == 2,
        within=WITHIN,
        what="both have started",
    )

    async with AsyncExitStack() as stack:
        clients: dict[int, Client] = {}
        for _ in range(300):  # which of the two accepts is the kernel's choice
            opened = server.connect("/", timeout=WITHIN)
            client = await stack.enter_async_context(opened)
            clients[await greeting(client)] = client
            if len(clients) == 2:
                break
        assert len(clients) == 2
        server.terminate()
        for client in clients.values():
            assert (await client.wait_closed()).code == 1012
        await server.exit_status(WITHIN)
    for pid in clients:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert "Traceback" not in server.output()
