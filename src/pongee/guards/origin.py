"""Which web pages may open a connection: the check of the Origin header. ◇

A browser lets any page open a WebSocket to any server, sends that server's cookies along, and
does not apply CORS to it; the Origin header is the only defence (RFC 6455 section 10.2). The
endpoint calls `OriginPolicy.check` before anything of the application runs.

Promises: an Origin is compared as parsed scheme, host and port, never as text, so that no prefix,
suffix, user name or path can imitate an allowed one; what cannot be parsed is refused; nothing but
`Refused` is raised, whatever the headers hold. What it cannot do: stop a client that is no browser,
which may send any Origin it likes. Credentials stop those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

from pongee.errors import ConfigurationError, Refused
from pongee.limits import ORIGIN_SIZE

__all__ = ["OriginPolicy"]

_HOST = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(?::(?P<port>[0-9]{1,5}))?"
_AUTHORITY = re.compile(_HOST, re.IGNORECASE | re.ASCII)
# RFC 6454 section 6.2: scheme, host, port and nothing else. Browsers send other hosts in punycode.
_ORIGIN = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<wildcard>\*\.)?{_HOST}", re.IGNORECASE | re.ASCII
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_ALLOWED = (
    "allowed are 'https://app.example.com', with ':port' if it is not the default one; "
    "'https://*.example.com' for its sub-domains; or '*' alone for any page"
)


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int | None


class OriginPolicy:
    """Says from which pages a connection may be opened.

    Args:
        allowed: patterns. ``https://app.example.com`` is that origin; ``https://*.example.com`` is
            every sub-domain at any depth, but not ``example.com`` itself; ``*`` alone switches the
            check off. The scheme may be another one, such as ``capacitor://localhost``. There is no
            pattern for ``null``: every sandboxed frame on the web has that origin.
        same_origin: whether a page from the server's own scheme, host and port is allowed.
        allow_missing: whether a client without an Origin header is allowed; browsers always send
            one, so this lets in scripts and devices.

    Raises:
        ConfigurationError: a pattern that cannot be used, or ``*`` beside something it contradicts.

    Attributes:
        checks: `False` if every origin is let in.
    """

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        same_origin: bool = True,
        allow_missing: bool = True,
    ) -> None:
        patterns = (allowed,) if isinstance(allowed, str) else tuple(allowed)
        if "*" in patterns and (len(patterns) > 1 or not allow_missing):
            raise ConfigurationError(
                "allowed origin '*' means any page or client: give it alone and leave "
                f"allow_missing on, or name the origins; {_ALLOWED}"
            )
        self.checks = "*" not in patterns
        self.allowed = patterns
        self.same_origin = same_origin
        self.allow_missing = allow_missing
        self._exact: set[_Origin] = set()
        self._parents: list[_Origin] = []
        for pattern in patterns if self.checks else ():
            self._add(pattern)

    @classmethod
    def any(cls) -> OriginPolicy:
        """Let every origin in. With cookies as credentials this opens them to every website."""
        return cls(("*",))

    def check(self, origins: Sequence[str], *, scheme: str, host: str | None) -> None:
        """Let the connection pass, or refuse it.

        Args:
            origins: the values of all Origin headers: none, one or more.
            scheme: ``http``, ``https``, ``ws`` or ``wss``, as the client used it (before proxies).
            host: the Host header.

        Raises:
            Refused: 403, the origin is not allowed.
        """
        if not self._admits(origins, scheme, host):
            raise Refused(403, "Origin not allowed")

    def explain(self, origins: Sequence[str], scheme: str, host: str | None) -> str:
        """Say, for the log, what came, what is allowed, and how to allow it.

        Args:
            origins: as for `check`.
            scheme: as for `check`.
            host: as for `check`.
        """
        came = ", ".join(repr(origin[:200]) for origin in origins[:3]) or "no Origin header"
        allowed = [repr(pattern) for pattern in self.allowed]
        if self.same_origin:
            allowed.append(f"the server's own ({_WEB_SCHEMES.get(scheme, scheme)}://{host})")
        return (
            f"origin not allowed: came {came}; allowed: {', '.join(allowed) or 'none'}. "
            + self._cure(origins, scheme, host)
        )

    def _admits(self, origins: Sequence[str], scheme: str, host: str | None) -> bool:
        if not self.checks:
            return True
        if not origins:
            return self.allow_missing
        if len(origins) > 1:  # RFC 6454 section 7.3: at most one
            return False
        if len(origins[0]) > ORIGIN_SIZE or len(host or "") > ORIGIN_SIZE:
            return False
        origin = _parse_origin(origins[0])
        return origin is not None and (
            origin in self._exact
            or any(_is_below(origin, parent) for parent in self._parents)
            or (self.same_origin and origin == _server_origin(scheme, host))
        )

    def _cure(self, origins: Sequence[str], scheme: str, host: str | None) -> str:
        if not origins:
            return "Set allow_missing if clients other than browsers may connect"
        if len(origins) > 1:
            return "A client may send one Origin header only"
        if origins[0] == "null":
            return (
                "'null' is a sandboxed or local page; serve it from an origin that can be allowed"
            )
        other = "ws" if _WEB_SCHEMES.get(scheme) == "https" else "wss"
        if self.same_origin and _parse_origin(origins[0]) == _server_origin(other, host):
            return (
                "Only the scheme differs: if a proxy ends TLS in front of the server, name it in "
                "the trusted proxies and let it send X-Forwarded-Proto"
            )
        return (
            "If the page is yours, add its origin to the allowed origins; if it is the server's "
            "own, let the proxy pass the Host header on"
        )

    def _add(self, pattern: str) -> None:
        match = _ORIGIN.fullmatch(pattern)
        origin = _from_match(match) if match else None
        if match is None or origin is None or origin.scheme in ("ws", "wss"):
            raise ConfigurationError(
                f"allowed origin {pattern!r}: not an origin; {_ALLOWED} "
                "(no path, no closing slash, no 'null'; pages are http or https, not ws)"
            )
        if match["wildcard"]:
            self._parents.append(origin)
        else:
            self._exact.add(origin)


@lru_cache(maxsize=512)
def _parse_origin(text: str) -> _Origin | None:
    match = _ORIGIN.fullmatch(text)
    return None if match is None or match["wildcard"] else _from_match(match)


def _from_match(match: re.Match[str]) -> _Origin | None:
    return _normalise(match["scheme"].lower(), match)


@lru_cache(maxsize=512)
def _server_origin(scheme: str, host: str | None) -> _Origin | None:
    match = _AUTHORITY.fullmatch(host or "")
    web_scheme = _WEB_SCHEMES.get(scheme)
    return _normalise(web_scheme, match) if match and web_scheme else None


def _normalise(scheme: str, match: re.Match[str]) -> _Origin | None:
    """Give each origin one spelling: lower case, no closing dot, short IPv6, port filled in."""
    host = match["host"].lower().removesuffix(".")
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    port = _DEFAULT_PORTS.get(scheme) if match["port"] is None else int(match["port"])
    return None if port is not None and port > 65535 else _Origin(scheme, host, port)


def _is_below(origin: _Origin, parent: _Origin) -> bool:
    # The dot is what keeps "evilexample.com" out of "*.example.com".
    return origin.host.endswith(f".{parent.host}") and (
        (origin.scheme, origin.port) == (parent.scheme, parent.port)
    )
