"""What a request's head may be: its limits, and the rules that HTTP parsers leave open. ◇

Called by `pongee.wire.http` with what an HTTP parser has made of the bytes: `judge_part` while the
head still arrives, `judge_size` and `judge_head` once it is complete, `judge_text` on the bytes
themselves where the parser is more lenient than we are. Each returns `None`, or the refusal to
answer with.

The rules are those of RFC 9112 sections 2 and 3, and of RFC 6455 section 4.1 for a head that asks
for a WebSocket. `pongee.wire.handshake` judges the rest of such a one.
"""

from __future__ import annotations

import re
from itertools import chain

from pongee.wire.handshake import Headers, Refusal

__all__ = [
    "HEADERS",
    "HEAD_SIZE",
    "TARGET_SIZE",
    "judge_head",
    "judge_part",
    "judge_size",
    "judge_text",
    "origin_form",
    "upgrade_of",
]

TARGET_SIZE = 16 * 1024
"""Bytes of a request's target. More: 414."""

HEAD_SIZE = 64 * 1024
"""Bytes of a request's head, and of the trailer behind a chunked body. More: 431."""

HEADERS = 200
"""Header fields of a request. More: 431."""

_AROUND_TARGET = len(b"GET  HTTP/1.1\r\n\r\n")
_AROUND_FIELD = len(b": \r\n")

# Origin form, asterisk form or absolute form (RFC 9112 section 3.2), of visible ASCII.
_TARGET = re.compile(rb"/[\x21-\x7e]*|\*|[A-Za-z][A-Za-z0-9+.-]*://[\x21-\x7e]*")
# What a name, an address or a port can be made of (RFC 3986 section 3.2.2).
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*[ \t]*")
_FOLD = re.compile(rb"\n[ \t]")
_END = re.compile(rb"\n\r?\n")

_LONG_TARGET = Refusal(414, f"The request target has more than {TARGET_SIZE} bytes")
_LONG_HEAD = Refusal(431, f"The request head has more than {HEAD_SIZE} bytes")
_MANY_HEADERS = Refusal(431, f"The request has more than {HEADERS} header fields")
_VERSION = Refusal(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
_BAD_TARGET = Refusal(400, "The request target is malformed")
_NO_HOST = Refusal(400, "Host is needed exactly once")
_BAD_HOST = Refusal(400, "Host is malformed")
_FOLDED = Refusal(400, "A header field must not be folded")
_NOT_GET = Refusal(405, "A WebSocket handshake is a GET request", [(b"allow", b"GET")])
_OLD = Refusal(505, "A WebSocket handshake needs HTTP/1.1")
_BODY = Refusal(400, "A WebSocket handshake has no body")
_FRAGMENT = Refusal(400, "A WebSocket's address has no fragment")


def judge_part(target: bytes, headers: Headers, size: int) -> Refusal | None:
    """Apply the limits to a head that is not complete, of which `size` bytes have come."""
    if len(target) > TARGET_SIZE:
        return _LONG_TARGET
    if size > HEAD_SIZE:
        return _LONG_HEAD
    return _MANY_HEADERS if len(headers) > HEADERS else None


def judge_size(target: bytes, headers: Headers) -> Refusal | None:
    """Apply the limits to a complete head."""
    # Joined to be measured: three times faster than a sum over the pairs.
    fields = len(b"".join(chain.from_iterable(headers))) + len(headers) * _AROUND_FIELD
    return judge_part(target, headers, fields + len(target) + _AROUND_TARGET)


def judge_head(
    method: bytes, target: bytes, version: str, headers: Headers, *, websocket: bool
) -> Refusal | None:
    """Apply the rules to a complete head, of which the size is in order. ▲

    Args:
        method: as sent.
        target: as sent.
        version: of HTTP, such as ``1.1``.
        headers: names in lower case, in the order sent.
        websocket: whether a WebSocket is asked for and would be opened.
    """
    if len(headers) > HEADERS:
        return _MANY_HEADERS
    if version not in ("1.1", "1.0"):
        return _VERSION
    if _TARGET.fullmatch(target) is None:
        return _BAD_TARGET
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):
        return _NO_HOST
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        return _BAD_HOST
    return _judge_upgrade(method, target, version, headers) if websocket else None


def _judge_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> Refusal | None:
    if method != b"GET":
        return _NOT_GET
    if version != "1.1":
        return _OLD
    if b"#" in target:
        return _FRAGMENT
    for name, value in headers:
        # Such a body could not be told from the frames that follow.
        if name == b"transfer-encoding":
            return _BODY
        if name == b"content-length" and value.strip().strip(b"0"):
            return _BODY
    return None


def judge_text(text: bytes) -> Refusal | None:
    """Apply the limits, and the rule against folding, to the bytes from a head's first on.

    Args:
        text: a head or its beginning; what follows a complete head is left out of account.
    """
    end = _END.search(text)
    head = text[: end.end()] if end is not None else text
    first = head[: TARGET_SIZE * 2].partition(b"\n")[0]
    if max(map(len, first.split(b" "))) > TARGET_SIZE:
        return _LONG_TARGET
    if len(head) > HEAD_SIZE:
        return _LONG_HEAD
    # Complete lines, but for the request line and the empty one at the end.
    if head.count(b"\n") - (2 if end is not None else 1) > HEADERS:
        return _MANY_HEADERS
    return _FOLDED if _FOLD.search(head) is not None else None


def upgrade_of(headers: Headers) -> bytes | None:
    """Return ``websocket`` if an upgrade to that is asked for, else the last other, else `None`.

    Both fields are lists and may come several times (RFC 9110 sections 7.6.1 and 7.8).
    """
    if b"upgrade" not in _tokens(headers, b"connection"):
        return None
    upgrades = _tokens(headers, b"upgrade")
    if b"websocket" in upgrades:
        return b"websocket"
    return upgrades[-1] if upgrades else None


def _tokens(headers: Headers, wanted: bytes) -> list[bytes]:
    lists = [value for name, value in headers if name == wanted]
    return [token.strip().lower() for value in lists for token in value.split(b",")]


def origin_form(target: bytes) -> bytes:
    """Drop scheme and authority of a target in absolute form (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    _, _, rest = target.partition(b"://")
    at = min((found for found in (rest.find(b"/"), rest.find(b"?")) if found >= 0), default=-1)
    if at < 0:
        return b"/"
    return rest[at:] if rest.startswith(b"/", at) else b"/" + rest[at:]
