"""Middleware, routers, dependencies and exception handlers around WebSocket routes."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection

from pongee.testing import HandshakeRefused, Server, connect, eventually
from tests.stock.conftest import Stock

pytestmark = pytest.mark.anyio

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def with_echo() -> FastAPI:
    """Make an application with one route."""
    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


async def echoes(server: Server, **options: Any) -> None:
    """Fail unless the route serves."""
    async with connect(server.ws("/echo"), **options) as client:
        for text in ("hello", "a" * 100_000):
            await client.send(text)
            assert await client.receive() == text


async def test_trusted_hosts(stock: Stock) -> None:
    """A host that is not trusted is refused with the middleware's own answer."""
    app = with_echo()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
    async with stock.serve(app) as server, httpx.AsyncClient(trust_env=False) as browser:
        await echoes(server)
        headers = UPGRADE | {"Host": "evil.test"}
        answer = await browser.get(server.http("/echo"), headers=headers)
        assert (answer.status_code, answer.text) == (400, "Invalid host header")


async def test_redirect_to_tls(stock: Stock) -> None:
    """The middleware that wants TLS redirects the handshake."""
    app = with_echo()
    app.add_middleware(HTTPSRedirectMiddleware)
    async with stock.serve(app) as server, httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(server.http("/echo?a=1"), headers=UPGRADE)
        assert answer.status_code == 307
        assert answer.headers["location"] == f"wss://127.0.0.1:{server.port}/echo?a=1"


async def test_compression_of_http_leaves_websockets_alone(stock: Stock) -> None:
    """Messages pass the middleware that compresses responses as they are."""
    app = with_echo()
    app.add_middleware(GZipMiddleware, minimum_size=1)
    async with stock.serve(app) as server:
        await echoes(server, headers={"Accept-Encoding": "gzip"})


class Basic(AuthenticationBackend):
    async def authenticate(
        self, conn: HTTPConnection[Any]
    ) -> tuple[AuthCredentials, SimpleUser] | None:
        header = conn.headers.get("authorization")
        if header is None:
            return None
        if not header.startswith("Basic "):
            raise AuthenticationError("Basic is wanted")
        name = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")[0]
        return AuthCredentials(["known"]), SimpleUser(name)


async def test_authentication(stock: Stock) -> None:
    """The user is on the WebSocket; bad credentials are refused before the route."""
    app = FastAPI()
    app.add_middleware(AuthenticationMiddleware, backend=Basic())

    @app.websocket("/who")
    async def who(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.user.display_name, websocket.auth.scopes])
        await websocket.close()

    ada = {"Authorization": f"Basic {base64.b64encode(b'ada:x').decode()}"}
    async with stock.serve(app) as server:
        async with connect(server.ws("/who"), headers=ada) as client:
            assert await client.receive_json() == ["ada", ["known"]]
        async with connect(server.ws("/who")) as client:
            assert await client.receive_json() == ["", []]
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/who"), headers={"Authorization": "Bearer x"}):
                pass
        assert refused.value.status == 403


async def test_middleware_of_plain_asgi(stock: Stock) -> None:
    """Middleware that wraps `receive` and `send` sees every event, and may change them."""
    inner = with_echo()
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrapped_receive() -> Any:
            event = await receive()
            seen.append(event["type"])
            if event.get("text"):
                event = event | {"text": event["text"].upper()}
            return event

        async def wrapped_send(event: Any) -> None:
            seen.append(event["type"])
            if event["type"] == "websocket.accept":
                event = event | {"headers": [*event["headers"], (b"x-wrapped", b"1")]}
            await send(event)

        if scope["type"] != "websocket":
            await inner(scope, receive, send)
            return
        await inner(scope, wrapped_receive, wrapped_send)

    async with stock.serve(app) as server:
        async with connect(server.ws("/echo")) as client:
            assert client.connection.response is not None
            assert client.connection.response.headers["x-wrapped"] == "1"
            await client.send("hello")
            assert await client.receive() == "HELLO"
        await eventually(lambda: seen[-1] == "websocket.disconnect", what="the end is seen")
    kinds = ("connect", "accept", "receive", "send", "disconnect")
    assert seen == [f"websocket.{kind}" for kind in kinds]


async def test_router_and_dependency_with_cleanup(stock: Stock) -> None:
    """A dependency with a `yield` is cleaned up when the client has left."""
    steps: list[str] = []

    async def resource(name: str) -> AsyncIterator[str]:
        steps.append(f"open {name}")
        try:
            yield name
        finally:
            steps.append(f"close {name}")

    router = APIRouter(prefix="/v1", dependencies=[Depends(resource)])

    @router.websocket("/{name}/ws")
    async def route(websocket: WebSocket, held: str = Depends(resource)) -> None:
        await websocket.accept()
        await websocket.send_text(held)
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            steps.append("left")
            raise

    app = FastAPI()
    app.include_router(router, prefix="/api")
    async with stock.serve(app) as server:
        async with connect(server.ws("/api/v1/db/ws")) as client:
            assert await client.receive() == "db"
            assert steps == ["open db"]
        await eventually(lambda: len(steps) == 3, what="the cleanup")
    assert steps == ["open db", "left", "close db"]


async def test_exception_handlers(stock: Stock) -> None:
    """Handlers of one's own turn exceptions into close codes and answers."""
    app = FastAPI()

    class OutOfStockError(Exception):
        pass

    @app.exception_handler(OutOfStockError)
    async def sold_out(websocket: WebSocket, error: Exception) -> None:
        await websocket.close(4010, "sold out")

    @app.exception_handler(WebSocketRequestValidationError)
    async def invalid(websocket: WebSocket, error: Exception) -> None:
        await websocket.accept()
        await websocket.close(4022, "invalid")

    @app.websocket("/buy/{count}")
    async def buy(websocket: WebSocket, count: int) -> None:
        await websocket.accept()
        raise OutOfStockError

    async with stock.serve(app) as server:
        for path, end in (("/buy/1", (4010, "sold out")), ("/buy/one", (4022, "invalid"))):
            async with connect(server.ws(path)) as client:
                closed = await client.wait_closed()
                assert (closed.code, closed.reason) == end
