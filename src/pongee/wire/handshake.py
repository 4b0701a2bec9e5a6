"""The opening handshake: bytes to a request, a request to an ASGI scope, a verdict to bytes.

The rules of RFC 6455 section 4.2 are applied by the ``websockets`` package's own code.
"""

from __future__ import annotations

import email.utils
import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

__all__ = ["Handshake", "refusal"]

# The package would log whole requests, tokens included, at DEBUG.
_silent = logging.getLogger("pongee.wire.handshake")
_silent.setLevel(logging.CRITICAL)

_STATUS_OF: dict[type[Exception], HTTPStatus] = {
    RequestLineTooLong: HTTPStatus.REQUEST_URI_TOO_LONG,
    HeaderLineTooLong: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    TooManyHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}

REQUEST_LIMIT = 64 * 1024
"""Bytes of a request's head. More: the connection ends. The HTTP server in front acts first."""


class Handshake:
    """One opening handshake.

    Attributes:
        request: once it is complete.
        response: what ``websockets`` would answer; status 101 if all is well.
    """

    def __init__(self) -> None:
        self._protocol = ServerProtocol(logger=_silent)
        self._received = 0
        self.request: Request | None = None
        self.response: Response | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes of the request."""
        self._received += len(data)
        if self._received > REQUEST_LIMIT:
            self.response = self._protocol.reject(HTTPStatus(431), "Request head too large\n")
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self.request = event
                self.response = self._protocol.accept(event)
                self._name_our_version(event)
                return
        problem = self._protocol.handshake_exc
        if problem is not None:
            status = _STATUS_OF.get(type(problem), HTTPStatus.BAD_REQUEST)
            self.response = self._protocol.reject(status, status.phrase + "\n")

    def _name_our_version(self, request: Request) -> None:
        # The package answers a version it does not speak with a mere 400 (see section 4.4).
        wanted = request.headers.get_all("Sec-WebSocket-Version")
        if self.response is not None and self.response.status_code == 400 and wanted != ["13"]:
            self.response = self._protocol.reject(HTTPStatus(426), "Speak version 13\n")
            self.response.headers["Sec-WebSocket-Version"] = "13"

    def scope(self) -> dict[str, Any]:
        """Write the parts of the ASGI scope that the request tells."""
        request = self.request
        if request is None:
            raise RuntimeError("the request is not complete")
        raw_path, _, query = request.path.partition("?")
        headers = [
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in request.headers.raw_items()
        ]
        offered = [
            name.strip()
            for line in request.headers.get_all("Sec-WebSocket-Protocol")
            for name in line.split(",")
        ]
        return {
            "http_version": "1.1",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": headers,
            "subprotocols": offered,
        }

    def accepted(self, headers: list[tuple[bytes, bytes]], subprotocol: str | None) -> bytes:
        """Write the answer that opens the connection."""
        answer = Headers() if self.response is None else self.response.headers.copy()
        answer.pop("Date", None)  # the server's own headers hold one, unless it was told not to
        for name, value in headers:
            answer[name.decode("latin-1")] = value.decode("latin-1")
        if subprotocol:
            answer["Sec-WebSocket-Protocol"] = subprotocol
        return Response(101, "Switching Protocols", answer).serialize()


def refusal(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Write an HTTP answer that refuses, and ends the connection."""
    answer = Headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers])
    answer.setdefault("Date", email.utils.formatdate(usegmt=True))
    answer.setdefault("Connection", "close")
    answer.setdefault("Content-Length", str(len(body)))
    answer.setdefault("Content-Type", "text/plain; charset=utf-8")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return Response(status, phrase, answer, body).serialize()
