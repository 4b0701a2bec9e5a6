"""Errors, unsubscribe codes and disconnect codes of the Centrifuge protocol, one table each. ◇

The numbers are the protocol's: errors below 400, unsubscribe codes from 2000, disconnect codes from
3000. A client's SDK acts on the range a code is in: after an unsubscribe code of 2500 or more it
subscribes again; after a disconnect code of 3000 to 3499 or 4000 to 4499 it connects again, after
3500 to 3999 and 4500 to 4999 it does not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "DISCONNECTS",
    "ERRORS",
    "UNSUBSCRIBES",
    "Disconnect",
    "ErrorCode",
    "UnsubscribeCode",
    "comes_back",
    "is_disconnect_code",
    "is_unsubscribe_code",
]


class ErrorCode(IntEnum):
    """Errors in replies."""

    INTERNAL = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    METHOD_NOT_FOUND = 104
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_AVAILABLE = 108
    TOKEN_EXPIRED = 109
    EXPIRED = 110
    TOO_MANY_REQUESTS = 111
    UNRECOVERABLE_POSITION = 112


class ErrorInfo(NamedTuple):
    """One row of the table of errors; a client may try again after a `temporary` one."""

    message: str
    temporary: bool = False


ERRORS: dict[ErrorCode, ErrorInfo] = {
    ErrorCode.INTERNAL: ErrorInfo("internal server error", temporary=True),
    ErrorCode.UNAUTHORIZED: ErrorInfo("unauthorized"),
    ErrorCode.UNKNOWN_CHANNEL: ErrorInfo("unknown channel"),
    ErrorCode.PERMISSION_DENIED: ErrorInfo("permission denied"),
    ErrorCode.METHOD_NOT_FOUND: ErrorInfo("method not found"),
    ErrorCode.ALREADY_SUBSCRIBED: ErrorInfo("already subscribed"),
    ErrorCode.LIMIT_EXCEEDED: ErrorInfo("limit exceeded"),
    ErrorCode.BAD_REQUEST: ErrorInfo("bad request"),
    ErrorCode.NOT_AVAILABLE: ErrorInfo("not available"),
    ErrorCode.TOKEN_EXPIRED: ErrorInfo("token expired"),
    ErrorCode.EXPIRED: ErrorInfo("expired"),
    ErrorCode.TOO_MANY_REQUESTS: ErrorInfo("too many requests", temporary=True),
    ErrorCode.UNRECOVERABLE_POSITION: ErrorInfo("unrecoverable position"),
}


class UnsubscribeCode(IntEnum):
    """Why the server ended a subscription."""

    SERVER = 2000
    INSUFFICIENT_STATE = 2500
    EXPIRED = 2501
    STATE_INVALIDATED = 2502


UNSUBSCRIBES: dict[UnsubscribeCode, str] = {
    UnsubscribeCode.SERVER: "server unsubscribe",
    UnsubscribeCode.INSUFFICIENT_STATE: "insufficient state",
    UnsubscribeCode.EXPIRED: "subscription expired",
    UnsubscribeCode.STATE_INVALIDATED: "state invalidated",
}


class Disconnect(IntEnum):
    """Why the server ended a connection."""

    CONNECTION_CLOSED = 3000
    SHUTDOWN = 3001
    INTERNAL_ERROR = 3004
    CONNECTION_EXPIRED = 3005
    SUBSCRIPTION_EXPIRED = 3006
    SLOW = 3008
    WRITE_ERROR = 3009
    INSUFFICIENT_STATE = 3010
    FORCE_RECONNECT = 3011
    NO_PONG = 3012
    TOO_MANY_REQUESTS = 3013
    STATE_INVALIDATED = 3014
    INVALID_TOKEN = 3500
    BAD_REQUEST = 3501
    STALE = 3502
    FORCE_DISCONNECT = 3503
    CONNECTION_LIMIT = 3504
    CHANNEL_LIMIT = 3505
    INAPPROPRIATE_PROTOCOL = 3506
    PERMISSION_DENIED = 3507
    NOT_AVAILABLE = 3508
    TOO_MANY_ERRORS = 3509


# No reason may be JSON: the JavaScript SDK tries to parse it as an older form of advice.
DISCONNECTS: dict[Disconnect, str] = {
    Disconnect.CONNECTION_CLOSED: "connection closed",
    Disconnect.SHUTDOWN: "shutdown",
    Disconnect.INTERNAL_ERROR: "internal server error",
    Disconnect.CONNECTION_EXPIRED: "connection expired",
    Disconnect.SUBSCRIPTION_EXPIRED: "subscription expired",
    Disconnect.SLOW: "slow",
    Disconnect.WRITE_ERROR: "write error",
    Disconnect.INSUFFICIENT_STATE: "insufficient state",
    Disconnect.FORCE_RECONNECT: "force reconnect",
    Disconnect.NO_PONG: "no pong",
    Disconnect.TOO_MANY_REQUESTS: "too many requests",
    Disconnect.STATE_INVALIDATED: "state invalidated",
    Disconnect.INVALID_TOKEN: "invalid token",
    Disconnect.BAD_REQUEST: "bad request",
    Disconnect.STALE: "stale",
    Disconnect.FORCE_DISCONNECT: "force disconnect",
    Disconnect.CONNECTION_LIMIT: "connection limit",
    Disconnect.CHANNEL_LIMIT: "channel limit",
    Disconnect.INAPPROPRIATE_PROTOCOL: "inappropriate protocol",
    Disconnect.PERMISSION_DENIED: "permission denied",
    Disconnect.NOT_AVAILABLE: "not available",
    Disconnect.TOO_MANY_ERRORS: "too many errors",
}


def comes_back(code: int) -> bool:
    """Whether an SDK connects again after a close with `code`."""
    return not (3500 <= code <= 3999 or 4500 <= code <= 4999)


def is_disconnect_code(code: int) -> bool:
    """Whether `code` may end a connection: the protocol's own range or the application's."""
    return 3000 <= code <= 4999


def is_unsubscribe_code(code: int) -> bool:
    """Whether `code` may end a subscription."""
    return 2000 <= code <= 2999
