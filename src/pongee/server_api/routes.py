"""The server API's routes: the key, the body, the batch.

HTTP says whether the request could be read: 401, 400 or 413. What became of a request that could is
in the reply, with 200: a ``result`` or an ``error``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from pongee.centrifuge.codes import ErrorCode
from pongee.centrifuge.errors import error
from pongee.errors import ClientError
from pongee.handlers.faults import client_error
from pongee.limits import API_BODY_SIZE, API_PARALLEL, API_STEPS
from pongee.node import Node
from pongee.server_api.methods import METHODS, Api, told
from pongee.server_api.requests import BatchRequest

__all__ = ["make_router"]

Answer = Callable[[bytes], Awaitable[dict[str, Any]]]


def make_router(node: Node, key: SecretStr) -> APIRouter:
    """Make the routes under ``/api``.

    Args:
        node: the process they act on.
        key: what every request has to show.
    """
    api = Api(node)
    router = APIRouter()

    def add(name: str, answer: Answer) -> None:
        # A plain route: the application's own dependencies are for its own users.
        path = f"/api/{name}"
        router.add_route(path, _guarded(key, answer), methods=["POST"], include_in_schema=False)

    async def batch(body: bytes) -> dict[str, Any]:
        return await _batch(api, body)

    for name in METHODS:
        add(name, _single(api, name))
    add("batch", batch)
    return router


def _guarded(key: SecretStr, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if not _shows(key, request.headers):
            refusal = _reply({"detail": "unauthorized"}, 401)
            refusal.headers["WWW-Authenticate"] = "apikey"
            return refusal
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        if body is None:
            return _reply({"detail": f"more than {API_BODY_SIZE} bytes"}, 413)
        if not _is_json(body):
            return _reply({"detail": "the body is not JSON"}, 400)
        return _reply(await answer(body))

    return endpoint


def _reply(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _shows(key: SecretStr, headers: Headers) -> bool:
    """Compare in constant time with ``X-API-Key``, or ``Authorization: apikey``."""
    shown = headers.get("x-api-key")
    if shown is None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "apikey":
            return False
    # Starlette reads headers as Latin-1.
    return secrets.compare_digest(
        shown.strip().encode("latin-1"), key.get_secret_value().encode("latin-1")
    )


async def _read(request: Request) -> bytes | None:
    """Read the body; `None` is too much, of which no more is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > API_BODY_SIZE:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > API_BODY_SIZE:
            return None
    return bytes(body)


def _is_json(body: bytes) -> bool:
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _single(api: Api, name: str) -> Answer:
    async def answer(body: bytes) -> dict[str, Any]:
        try:
            return {"result": await _carry_out(api, name, body)}
        except ClientError as problem:
            return {"error": told(problem)}

    return answer


async def _carry_out(api: Api, name: str, body: bytes | msgspec.Raw) -> msgspec.Raw:
    """Run one method; returns the result, written.

    Raises:
        ClientError: whatever went wrong; a fault of our own is logged, and is 100 here.
    """
    method = METHODS[name]
    try:
        result = await method.run(api, _decoded(body, method.request))
        return msgspec.Raw(msgspec.json.encode(result))
    except Exception as problem:
        raise client_error(problem, f"server API, {name}") from None


def _decoded(body: bytes | msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as problem:
        raise error(ErrorCode.BAD_REQUEST, str(problem)) from None


async def _batch(api: Api, body: bytes) -> dict[str, Any]:
    try:
        request = _decoded(body, BatchRequest)
        if len(request.commands) > API_STEPS:
            raise error(ErrorCode.BAD_REQUEST, f"more than {API_STEPS} commands")
    except ClientError as problem:
        return {"error": told(problem)}
    replies: list[dict[str, Any]] = [{} for _ in request.commands]
    waiting = iter(enumerate(request.commands))

    async def work() -> None:
        for number, command in waiting:
            replies[number] = await _command(api, command)
            await asyncio.sleep(0)  # others have their turn

    async with asyncio.TaskGroup() as workers:
        for _ in range(API_PARALLEL if request.parallel else 1):
            workers.create_task(work())
    return {"replies": replies}


async def _command(api: Api, command: dict[str, msgspec.Raw]) -> dict[str, Any]:
    names = [name for name in command if name in METHODS and bytes(command[name]) != b"null"]
    try:
        if not names:
            raise error(ErrorCode.METHOD_NOT_FOUND)
        if len(names) > 1:
            raise error(ErrorCode.BAD_REQUEST, "one method in a command")
        return {names[0]: await _carry_out(api, names[0], command[names[0]])}
    except ClientError as problem:
        return {"error": told(problem)}
