"""What a handler raised, as the error its client gets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.exceptions import HTTPException
from pydantic import TypeAdapter, ValidationError

from pongee.errors import BrokerUnavailable, ClientError, InvalidToken, Refused
from pongee.handlers.event import InvalidParameters
from pongee.limits import MAX_ERROR_TEXT, MAX_ERRORS_TOLD

__all__ = ["INTERNAL", "client_error", "explain", "read_json"]

logger = logging.getLogger("pongee.channels")

INTERNAL = ClientError(100, "internal server error", temporary=True)

# An HTTP status that a handler or a dependency shared with HTTP routes raises, as the protocol's.
_BY_STATUS = {
    400: (107, "bad request", False),
    401: (101, "unauthorized", False),
    403: (103, "permission denied", False),
    404: (102, "unknown channel", False),
    409: (107, "bad request", False),
    422: (107, "bad request", False),
    429: (111, "too many requests", True),
}


def client_error(error: BaseException, where: str) -> ClientError:
    """Say what the client is told; what nobody raised on purpose is logged and told as 100.

    Args:
        error: what came out of a handler, a dependency or the broker.
        where: for the log.
    """
    match error:
        case ClientError():
            return error
        case Refused():
            return _by_status(error.status, error.reason)
        case HTTPException():
            return _by_status(error.status_code, str(error.detail))
        case InvalidToken():
            return ClientError(109, "token expired") if error.expired else _by_status(403, "")
        case InvalidParameters():
            return ClientError(107, explain(error.errors))
        case BrokerUnavailable():
            logger.warning("%s: %s", where, error)
            return INTERNAL
    logger.error("%s raised", where, exc_info=error)
    return INTERNAL


def read_json(adapter: TypeAdapter[Any], data: bytes) -> Any:
    """Read what a client sent.

    Raises:
        ClientError: 107, with what is wrong; a `ValidationError` of a handler's own is no such.
    """
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise ClientError(107, explain(details)) from None


def _by_status(status: int, reason: str) -> ClientError:
    if status >= 500:
        return INTERNAL
    # Another refusal is final too: an SDK must not ask again and again.
    code, message, temporary = _BY_STATUS.get(status, (107, "bad request", False))
    return ClientError(code, reason or message, temporary=temporary)


def explain(errors: Iterable[Mapping[str, Any]]) -> str:
    """Write validation errors on one line, without what came."""
    lines = []
    for detail in list(errors)[:MAX_ERRORS_TOLD]:
        place = ".".join(str(part) for part in detail.get("loc", ()))[:MAX_ERROR_TEXT]
        lines.append(f"{place}: {detail.get('msg', '')}" if place else str(detail.get("msg", "")))
    return "bad request: " + "; ".join(lines)
