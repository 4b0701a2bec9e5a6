"""A Starlette application with one route for each documented way to write a WebSocket endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketClose, WebSocketState

disconnects: list[tuple[str, int]] = []


class Recording(WebSocketEndpoint):
    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        disconnects.append((type(self).__name__, close_code))


class Texts(Recording):
    encoding = "text"

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_text(f"text {data}")


class Bytes(Recording):
    encoding = "bytes"

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_bytes(b"bytes " + data)


class Json(Recording):
    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="json")

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json({"json": data})


class Anything(Recording):
    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json(type(data).__name__)


async def iter_text(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


async def iter_bytes(websocket: WebSocket) -> None:
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data[::-1])


async def iter_json(websocket: WebSocket) -> None:
    await websocket.accept()
    async for data in websocket.iter_json():
        await websocket.send_json([data], mode="binary")


async def two_tasks(websocket: WebSocket) -> None:
    """Read and write in tasks of their own, with a stream between."""
    await websocket.accept()
    to_writer, from_reader = anyio.create_memory_object_stream[str](4)

    async def read() -> None:
        async with to_writer:
            async for text in websocket.iter_text():
                if text == "enough":
                    return
                await to_writer.send(text)

    async with anyio.create_task_group() as group, from_reader:
        group.start_soon(read)
        async for text in from_reader:
            await websocket.send_text(text)
    await websocket.close(4000, "enough")


async def seen(websocket: WebSocket) -> None:
    """Send back what the handshake told."""
    await websocket.accept(headers=[(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"X-One", b"2")])
    await websocket.send_json(
        {
            "url": str(websocket.url).replace(str(websocket.url.port), "PORT"),
            "path": websocket.scope["path"],
            "root_path": websocket.scope["root_path"],
            "route": websocket.scope.get("path_params"),
            "query": websocket.query_params.multi_items(),
            "cookies": websocket.cookies,
            "header": websocket.headers.getlist("x-twice"),
        }
    )
    await websocket.close()


async def states(websocket: WebSocket) -> None:
    """Follow Starlette's two state machines to the end."""
    found = [websocket.client_state]
    await websocket.accept()
    found.append(websocket.client_state)
    message = await websocket.receive()
    found.append(websocket.client_state)
    assert message["type"] == "websocket.disconnect"
    assert found == [
        WebSocketState.CONNECTING,
        WebSocketState.CONNECTED,
        WebSocketState.DISCONNECTED,
    ]
    disconnects.append(("states", message["code"]))


async def denied(websocket: WebSocket) -> None:
    kind = websocket.path_params["kind"]

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            yield part

    responses: dict[str, Response] = {
        "plain": PlainTextResponse("no entry", 401, headers={"WWW-Authenticate": "Bearer"}),
        "empty": Response(status_code=404),
        "streamed": StreamingResponse(parts(), 429, headers={"Retry-After": "3"}),
        "elsewhere": RedirectResponse("/else", 307),
    }
    response = responses[kind]
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    await websocket.send_denial_response(response)


async def http_middleware(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-middleware"] = "http alone"
    return response


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


inner = Starlette(routes=[WebSocketRoute("/seen/{name}", seen), WebSocketRoute("/texts", Texts)])

app = Starlette(
    routes=[
        Route("/page", page),
        WebSocketRoute("/texts", Texts),
        WebSocketRoute("/bytes", Bytes),
        WebSocketRoute("/json", Json),
        WebSocketRoute("/anything", Anything),
        WebSocketRoute("/iter/text", iter_text),
        WebSocketRoute("/iter/bytes", iter_bytes),
        WebSocketRoute("/iter/json", iter_json),
        WebSocketRoute("/two-tasks", two_tasks),
        WebSocketRoute("/states", states),
        WebSocketRoute("/seen", seen),
        WebSocketRoute("/denied/{kind}", denied),
        WebSocketRoute("/closed", WebSocketClose(1001, "away")),
        Mount("/inner", app=inner),
    ],
    middleware=[
        Middleware(BaseHTTPMiddleware, dispatch=http_middleware),
        Middleware(CORSMiddleware, allow_origins=["http://allowed.test"]),
    ],
)
