"""Refusals raised while FastAPI resolves a handshake, as responses. Registered by `install`."""

from __future__ import annotations

import contextlib
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from pongee.errors import Refused
from pongee.sessions.handshake import admission_of, refusal_response

__all__ = ["answer_invalid_handshake", "answer_refused"]


async def answer_refused(connection: Any, refused: Any) -> Any:
    """Answer `Refused`, raised by a policy or a dependency of a WebSocket or an HTTP route."""
    assert isinstance(refused, Refused)  # noqa: S101 - registered for this class
    admission = admission_of(connection)
    if admission is not None:
        admission.refusal = refused
    response = refusal_response(refused)
    if isinstance(connection, WebSocket):
        await _deny(connection, response)
        return None
    return response


async def answer_invalid_handshake(connection: Any, error: Any) -> None:
    """Answer a failed validation of path, query, header or cookie parameters with 422."""
    assert isinstance(error, WebSocketRequestValidationError)  # noqa: S101
    details: list[dict[str, Any]] = []
    for detail in error.errors():
        told = {name: detail[name] for name in ("type", "loc", "msg") if name in detail}
        if told not in details:  # a policy and a handler may name the same parameter
            details.append(told)
    await _deny(connection, JSONResponse({"detail": jsonable_encoder(details)}, 422))


async def _deny(websocket: WebSocket, response: Response) -> None:
    with contextlib.suppress(OSError):  # the client did not wait for its refusal
        await websocket.send_denial_response(response)
