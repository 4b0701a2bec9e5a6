"""Where a token comes from: header, cookie, subprotocol, query, or the first message.

A browser's WebSocket cannot set headers, so each place is a compromise, named in its class. A
`TokenPolicy` asks its sources in the order given, once per handshake.

Promises: `extract` never raises and never changes the connection; a token given twice in one place
is no token, because two readers could take it for two different users (a proxy sees one, we see the
other); no source keeps, logs or echoes a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pydantic_core import from_json
from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError
from pongee.limits import FIRST_MESSAGE_SIZE

__all__ = [
    "CookieToken",
    "FirstMessage",
    "HeaderToken",
    "QueryToken",
    "SubprotocolToken",
    "TokenSource",
]

_HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class TokenSource(Protocol):
    """A place a token may be in."""

    needs_origin_check: ClassVar[bool]
    """Whether a browser sends the token by itself, so that any website could use it."""

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token, or `None` if it is not there, empty, or there more than once."""


@dataclass(frozen=True, slots=True)
class HeaderToken:
    """``Authorization: Bearer <token>``. For devices, scripts and servers; browsers cannot.

    Args:
        name: the header.
        scheme: the word before the token, in any case (RFC 9110 section 11.1); `None` takes the
            whole value, as for ``X-API-Key``.
    """

    name: str = "authorization"
    scheme: str | None = "Bearer"

    needs_origin_check: ClassVar[bool] = False

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token, or `None`."""
        value = _only(connection.headers.getlist(self.name))
        if value is None or self.scheme is None:
            return value
        scheme, _, token = value.partition(" ")
        return (token.strip() or None) if scheme.lower() == self.scheme.lower() else None


@dataclass(frozen=True, slots=True)
class CookieToken:
    """A cookie, which a browser sends whatever page opened the WebSocket.

    That is why the endpoint must check the Origin header, and why a connection without one has no
    token here: the origin check can only judge what was sent. Clients that are no browser have
    other places to put a token.

    Args:
        name: the cookie.
    """

    name: str

    needs_origin_check: ClassVar[bool] = True

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token, or `None`."""
        if "origin" not in connection.headers:
            return None
        return connection.cookies.get(self.name) or None


@dataclass(frozen=True, slots=True)
class SubprotocolToken:
    """``new WebSocket(url, ["bearer", token])``: the one header a browser lets a script write.

    The token must consist of the characters of an HTTP token (RFC 6455 section 4.1): a JWT and a
    ticket do. The server must choose `name`, never the token, or the token would be in its answer.

    Args:
        name: the subprotocol that comes right before the token.

    Raises:
        ConfigurationError: `name` cannot be a subprotocol.
    """

    name: str = "bearer"

    needs_origin_check: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not _HTTP_TOKEN.fullmatch(self.name):
            raise ConfigurationError(
                f"SubprotocolToken(name={self.name!r}): allowed are letters, digits and "
                "!#$%&'*+-.^_`|~"
            )

    @property
    def subprotocol(self) -> str:
        """What to choose as the subprotocol if the token came from here."""
        return self.name

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token, or `None`."""
        offered = list(connection.scope.get("subprotocols", ()))
        if offered.count(self.name) != 1:
            return None
        return next(iter(offered[offered.index(self.name) + 1 :]), None) or None


@dataclass(frozen=True, slots=True)
class QueryToken:
    """``?token=…``: works everywhere, and is written into logs and histories on the way.

    Pongee hides it in its own logs, but a proxy does not. Best for a one-time ticket.

    Args:
        name: the query parameter.
    """

    name: str = "token"

    needs_origin_check: ClassVar[bool] = False

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token, or `None`."""
        return _only(connection.query_params.getlist(self.name))


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """The first message after accept: the token itself, or JSON ``{"token": "…"}``.

    Nothing shows up in any log, at the price of accepting a connection before it has proved
    anything; the deadline bounds how long it may stay so.

    Args:
        timeout: seconds from accept until the message must be there.

    Raises:
        ConfigurationError: `timeout` is not greater than 0.
    """

    timeout: float = 10.0

    needs_origin_check: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ConfigurationError(
                f"FirstMessage(timeout={self.timeout!r}): must be greater than 0"
            )

    def extract(self, connection: HTTPConnection) -> None:
        """Return `None`: before accept there is no message."""
        return

    def parse(self, data: str | bytes) -> str | None:
        """Return the token in the first message, or `None` if there is none. Never raises.

        Args:
            data: the message; above 16 KiB it holds no token.
        """
        if len(data) > FIRST_MESSAGE_SIZE:
            return None
        try:
            text = (data if isinstance(data, str) else data.decode()).strip()
            if not text.startswith("{"):
                # No kind of token holds a space (RFC 6750 section 2.1); "hello there" is a message.
                return text if text and not any(map(str.isspace, text)) else None
            token = from_json(text, cache_strings="none").get("token")
        except ValueError:  # not UTF-8, not JSON, nested too deep, or a number too long
            return None
        return token if isinstance(token, str) and token else None


def _only(values: list[str]) -> str | None:
    return (values[0].strip() or None) if len(values) == 1 else None
