"""When a session's ASGI call may end, and that nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from pongee import Caps, Heartbeat, Pongee, Session, Settings, public
from pongee.testing import RawPeer, Server, connect, eventually, serve

pytestmark = pytest.mark.anyio

WIRE: dict[str, Any] = {"ws": "pongee.wire:WireProtocol"}


class Counted:
    """A middleware that counts the WebSockets that are open, as metrics do."""

    def __init__(self, app: ASGIApp, open_now: list[str]) -> None:
        self.app = app
        self.open_now = open_now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        self.open_now.append(scope["path"])
        try:
            await self.app(scope, receive, send)
        finally:
            self.open_now.remove(scope["path"])


def make(app: FastAPI | None = None) -> tuple[Pongee, FastAPI]:
    """One endpoint that echoes."""
    pongee, app = Pongee(Settings()), app or FastAPI()

    @pongee.endpoint("/ws", auth=public)
    async def echo(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    return pongee, app


def calls(server: Server) -> int:
    """ASGI calls under way, as the server counts them."""
    return len(server.uvicorn.server_state.tasks)


async def test_call_of_an_idle_session_has_ended_and_the_session_lives() -> None:
    """Nothing of it is left but its handler, and it ends as any other."""
    pongee, app = make()
    pongee.install(app)
    async with serve(app, **WIRE) as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: calls(server) == 0, what="the call has ended")
        await client.send("hello")
        assert await client.receive() == "hello"
        assert len(pongee.connections()) == 1
        await client.close()
        await eventually(lambda: not pongee.connections(), what="it has left the registry")


async def test_place_in_the_process_is_held_as_long_as_the_session() -> None:
    """The caps count sessions, not ASGI calls."""
    pongee, app = make()
    pongee.install(app)
    async with serve(app, **WIRE) as server:
        async with connect(server.ws("/ws")):
            await eventually(lambda: calls(server) == 0)
            assert pongee._node.capacity.connections == 1
        await eventually(lambda: pongee._node.capacity.connections == 0, what="it is given back")


class Passing(BaseHTTPMiddleware):
    """A middleware that is about HTTP alone."""

    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return await call_next(request)


async def test_middleware_about_http_alone_changes_nothing() -> None:
    """Starlette's own, and those that only ever see a request, do not hold the call."""
    pongee, app = make()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(Passing)
    pongee.install(app)
    async with serve(app, **WIRE) as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: calls(server) == 0, what="the call has ended")
        await client.send("hello")
        assert await client.receive() == "hello"


@pytest.mark.parametrize("where", ["inside", "around", "mounted"])
async def test_middleware_that_sees_websockets_sees_the_whole_session(where: str) -> None:
    """A count of open WebSockets stays right, wherever the middleware stands."""
    open_now: list[str] = []
    pongee, app = make()
    served: Any = app
    path = "/ws"
    if where == "inside":
        app.add_middleware(Counted, open_now=open_now)
    pongee.install(app)
    if where == "around":
        served = Counted(app, open_now)
    elif where == "mounted":
        served = FastAPI()
        served.mount("/api", app)
        served.add_middleware(Counted, open_now=open_now)
        path = "/api/ws"
    async with serve(served, **WIRE) as server:
        async with connect(server.ws(path)) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            assert open_now == [path]
        await eventually(lambda: open_now == [], what="it is counted out")


log: list[str] = []


async def database() -> AsyncIterator[str]:
    """A dependency that notes when it is opened and closed."""
    log.append("open")
    yield "db"
    log.append("closed")


async def test_dependency_with_function_scope_stays_open_as_long_as_the_handler() -> None:
    """It was promised to the handler, so the call that owns it goes on."""
    log.clear()
    pongee, app = make()

    @pongee.endpoint("/db", auth=public)
    async def handler(
        session: Session[str, str], db: Annotated[str, Depends(database, scope="function")]
    ) -> None:
        async for _ in session:
            await session.send(f"{db} {log}")

    pongee.install(app)
    async with serve(app, **WIRE) as server:
        async with connect(server.ws("/db")) as client:
            await client.send("?")
            assert await client.receive() == "db ['open']"
        await eventually(lambda: log == ["open", "closed"], what="it is closed")


async def test_application_may_take_direct_mode_away() -> None:
    """A middleware that must see every message takes the extension out of the scope."""
    seen: list[str] = []

    class Audit:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                scope["extensions"].pop("pongee.direct", None)

            async def telling() -> Any:
                event = await receive()
                seen.append(event["type"])
                return event

            await self.app(scope, telling, send)

    pongee, app = make()
    app.add_middleware(Audit)
    pongee.install(app)
    async with serve(app, **WIRE) as server, connect(server.ws("/ws")) as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        assert seen[-1] == "websocket.receive"


@pytest.mark.parametrize("middleware", [True, False], ids=["attached", "detached"])
async def test_session_that_starts_while_the_process_leaves_ends_and_leaves_nothing(
    middleware: bool,
) -> None:
    """Its handshake began before: it is let in, told 1012, and forgotten, timers and all."""
    gate, asked = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await gate.wait()

    pongee, app = Pongee(Settings()), FastAPI()

    @pongee.endpoint(
        "/ws", auth=public, dependencies=[Depends(slow)], heartbeat=Heartbeat(interval=60)
    )
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    if middleware:
        app.add_middleware(Counted, open_now=[])
    pongee.install(app)
    async with serve(app, **WIRE) as server, RawPeer(server.port, "/ws") as peer:
        shaking = asyncio.create_task(peer.handshake())
        await asked.wait()
        draining = asyncio.create_task(pongee.drain(0))
        await asyncio.sleep(0)
        gate.set()
        await shaking
        assert (await peer.read())[:4] == b"\x88\x13\x03\xf4"
        await peer.send_frame(8, b"\x03\xf4")
        await asyncio.wait_for(draining, 5)
        runtime = pongee._node.runtime
        assert not runtime.unfinished
        assert len(runtime.wheel) == 0
        await eventually(lambda: pongee._node.capacity.connections == 0, what="the place is free")


async def test_place_is_held_until_the_socket_is_closed() -> None:
    """Peers that never answer a close frame do not get around the cap on connections."""
    pongee, app = Pongee(Settings(), caps=Caps(max_connections=1)), FastAPI()

    @pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        return

    pongee.install(app)
    async with serve(app, **WIRE) as server, RawPeer(server.port, "/ws") as peer:
        await peer.handshake()
        await eventually(lambda: not pongee._node.runtime.unfinished, what="the session is over")
        assert pongee._node.capacity.connections == 1
        await peer.send_frame(8, b"\x03\xe8")
        await eventually(lambda: pongee._node.capacity.connections == 0, what="the place is free")


async def test_middleware_put_in_place_by_an_instrumentation_keeps_the_call() -> None:
    """What is looked at is the stack that runs, not what was declared."""
    open_now: list[str] = []
    pongee, app = make()
    pongee.install(app)
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Counted(build(), open_now)  # type: ignore[method-assign]
    async with serve(app, **WIRE) as server:
        async with connect(server.ws("/ws")) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            assert open_now == ["/ws"]
        await eventually(lambda: open_now == [], what="it is counted out")


async def test_handler_that_only_sends_gives_way_to_others() -> None:
    """A client that reads as fast as it is sent to must not keep the process for itself."""
    pongee, app = make()

    @pongee.endpoint("/flood", auth=public)
    async def flood(session: Session[str, str]) -> None:
        while True:
            await session.send("x")

    pongee.install(app)
    async with (
        serve(app, **WIRE) as server,
        connect(server.ws("/flood")) as greedy,
        connect(server.ws("/ws")) as client,
    ):
        assert await greedy.receive() == "x"
        await client.send("hello")
        assert await client.receive() == "hello"
