"""Keeps tokens out of servers' logs, whichever server runs us. See `install_redaction`."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Redaction", "install_redaction"]

SERVER_LOGGERS = (
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "hypercorn.error",
    "hypercorn.access",
    "_granian",
    "granian.access",
    "websockets",
    "websockets.server",
)

# A request target holds no white space (RFC 9112 section 3.2), but anything else a peer likes.
_QUERY = re.compile(r"\?\S+?(?=\"?(?:\s|$))")
_SECRET_HEADER = re.compile(
    r"(?i)\b(authorization|proxy-authorization|cookie|set-cookie|sec-websocket-protocol|x-api-key)"
    r"(\W+).*"
)
_FRAME_LINE = re.compile(
    r"(?P<start>[<>] (?:TEXT|BINARY|CONT|PING|PONG)\b).*?(?P<size>\[[^\]]*bytes[^\]]*\])?$",
    re.DOTALL,
)
_WIRE_LINE = re.compile(r"^[<>=%!] ")


class Redaction(logging.Filter):
    """A logging filter that takes secrets out of the lines servers write.

    Query strings become ``?[redacted]``; values of credential headers become ``[redacted]``; lines
    that show whole frames (the ``websockets`` package at DEBUG) keep only their size. Two of
    uvicorn's lines that blame the application for what a peer did become INFO, without a traceback;
    its false alarm after each refused handshake is dropped.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place; false drops it."""
        message = record.msg if isinstance(record.msg, str) else str(record.msg)
        if message.startswith("ASGI callable returned without completing handshake"):
            return False
        if message.startswith(("Invalid UTF-8 sequence", "opening handshake failed")):
            record.exc_info = None
            record.exc_text = None
            record.levelno, record.levelname = logging.INFO, "INFO"
        if _WIRE_LINE.match(message) and record.args:
            record.msg = _redact_wire(message, record.args)
            record.args = ()
            return True
        if isinstance(record.args, tuple):
            record.args = tuple(_redact(arg) for arg in record.args)
        elif isinstance(record.args, Mapping):
            record.args = _redact_mapping(record.args)
        if record.args and "?%" in message:
            # A query put together from parts: only the finished line shows it whole.
            record.msg, record.args = _redact(record.getMessage()), ()
        elif not record.args:
            record.msg = _redact(record.msg)
        return True


def install_redaction() -> None:
    """Put the filter on the loggers of the servers we know. Idempotent."""
    for name in SERVER_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(existing, Redaction) for existing in logger.filters):
            logger.addFilter(Redaction())


def _redact(value: Any) -> Any:
    if isinstance(value, dict) and "query_string" in value:
        return {**value, "query_string": b"[redacted]", "headers": "[redacted]"}  # uvicorn's trace
    return _QUERY.sub("?[redacted]", value) if isinstance(value, str) else value


def _redact_mapping(args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Redact an access log's fields; hypercorn and granian keep the bare query under these names.

    A copy of the same class: hypercorn's answers "-" for what it does not know.
    """
    redacted: Any = copy.copy(args) if isinstance(args, dict) else dict(args)
    for name, value in args.items():
        bare_query = name in ("q", "query_string") and value
        secret = bare_query or _SECRET_HEADER.match(f"{str(name).strip('{')}: ")
        redacted[name] = "[redacted]" if secret else _redact(value)
    return redacted  # type: ignore[no-any-return]


def _redact_wire(message: str, args: Any) -> str:
    try:
        line = str(message % args)
    except (TypeError, ValueError):
        return message
    frame = _FRAME_LINE.match(line)
    if frame:
        return f"{frame['start']} [redacted] {frame['size'] or ''}".rstrip()
    line = _SECRET_HEADER.sub(r"\1\2[redacted]", line)
    return str(_redact(line))
