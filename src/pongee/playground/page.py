"""What the page needs beside the endpoints: its files, tokens in development, health, a probe."""

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import jwt
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints

from pongee import Pongee

__all__ = ["add_page", "make_token"]

STATIC = Path(__file__).parent / "static"
DEV_TOKEN_LIFETIME = 3600
PROBE_TIMEOUT = 5.0
"""Seconds a probe may take; a probed endpoint that only answers after accept ends it at once."""

PROBED_HEADERS = (b"host", b"origin", b"x-forwarded-for", b"x-forwarded-proto")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class DevUser(BaseModel):
    """Who wants a development token."""

    user: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Probe(BaseModel):
    """Which handshake the page asks about."""

    path: Annotated[str, StringConstraints(pattern=r"^/ws/", max_length=2048)]
    token: Annotated[str, StringConstraints(max_length=8192)] | None = None


def make_token(secret: str, user: str, lifetime: float) -> str:
    """Sign a JWT for `user`, good for `lifetime` seconds."""
    now = int(time.time())
    return jwt.encode({"sub": user, "iat": now, "exp": now + int(lifetime)}, secret, "HS256")


def add_page(app: FastAPI, pongee: Pongee, *, development_secret: str | None) -> None:
    """Add the page at ``/`` and its helpers to `app`."""
    app.mount("/static", _Static(directory=STATIC), name="static")
    app.add_exception_handler(RequestValidationError, _invalid_body)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=SECURITY_HEADERS)

    @app.get("/playground/config", include_in_schema=False)
    async def config() -> dict[str, Any]:
        return {
            "dev_token": development_secret is not None,
            "heartbeat_interval": pongee.settings.heartbeat_interval,
        }

    @app.post("/playground/probe", include_in_schema=False)
    async def probe(request: Request, wanted: Probe) -> dict[str, Any]:
        """Tell how a handshake would be refused, which a browser's script cannot see."""
        return await _probe(app, request, wanted)

    app.include_router(pongee.health)
    app.include_router(pongee.metrics)

    if development_secret is not None:
        secret = development_secret

        @app.post("/dev/token")
        async def dev_token(wanted: DevUser) -> dict[str, Any]:
            """Give anybody a token for any name; only while the secret is a generated one."""
            token = make_token(secret, wanted.user, DEV_TOKEN_LIFETIME)
            return {"token": token, "expires_in": DEV_TOKEN_LIFETIME}


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(SECURITY_HEADERS)
        return response


async def _invalid_body(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong without repeating the input, which may be no Unicode at all."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    told = [{name: detail[name] for name in ("type", "loc", "msg")} for detail in error.errors()]
    return JSONResponse({"detail": told}, 422)


async def _probe(app: FastAPI, request: Request, wanted: Probe) -> dict[str, Any]:
    """Make the handshake inside the process: no network, no address to be tricked into."""
    url = urlsplit(wanted.path)
    headers = [(name, value) for name, value in request.scope["headers"] if name in PROBED_HEADERS]
    if wanted.token is not None:
        headers.append((b"authorization", b"Bearer " + wanted.token.encode("latin-1", "replace")))
    scope = {
        **{key: request.scope[key] for key in ("asgi", "http_version", "server", "client")},
        "type": "websocket",
        "scheme": "wss" if request.url.scheme == "https" else "ws",
        "path": unquote(url.path),
        "raw_path": url.path.encode("ascii", "replace"),
        "root_path": "",
        "query_string": url.query.encode("ascii", "replace"),
        "headers": headers,
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }
    answer: dict[str, Any] = {"status": 500, "body": None}
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})

    async def send(message: Any) -> None:
        match message["type"]:
            case "websocket.accept":
                answer["status"] = 101
                events.put_nowait({"type": "websocket.disconnect", "code": 1000, "reason": ""})
            case "websocket.close" if answer["status"] == 500:
                answer["status"] = 403
            case "websocket.http.response.start":
                answer["status"] = message["status"]
            case "websocket.http.response.body":
                answer["body"] = _readable(message.get("body", b""))

    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await app(scope, events.get, send)
    except TimeoutError:
        raise HTTPException(504, "the endpoint did not answer") from None
    return answer


def _readable(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
