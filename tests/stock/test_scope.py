"""The scope, key by key, and the answer to odd requests: ours against uvicorn's default class."""

from __future__ import annotations

from typing import Any

import pytest

from pongee.testing import RawPeer, Server
from tests.stock.conftest import DEFAULT, WIRE, Stock

pytestmark = pytest.mark.anyio

KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
HEADERS = [
    b"Host: example.test",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    KEY,
    b"Sec-WebSocket-Version: 13",
]


def request(first: bytes = b"GET / HTTP/1.1", *more: bytes, without: bytes = b"") -> bytes:
    """Write a handshake, changed."""
    kept = [line for line in HEADERS if not without or not line.startswith(without + b":")]
    return b"\r\n".join([first, *kept, *more, b"", b""])


def changed(first: bytes, **lines: bytes) -> bytes:
    """Write a handshake with one header's value changed."""
    ((name, value),) = lines.items()
    header = name.replace("_", "-").encode()
    return request(first, header + b": " + value, without=header)


GET = b"GET / HTTP/1.1"

REQUESTS = {
    # Targets
    "encoded path": request(b"GET /a%20b/caf%C3%A9%2Fx HTTP/1.1"),
    "broken encoding": request(b"GET /%zz/%e9/%00 HTTP/1.1"),
    "dots and slashes": request(b"GET /a/../b//c/. HTTP/1.1"),
    "query with marks": request(b"GET /a??b=?c&d=%20 HTTP/1.1"),
    "empty query": request(b"GET /a? HTTP/1.1"),
    "fragment": request(b"GET /a#b HTTP/1.1"),
    "absolute": request(b"GET http://example.test/a?b HTTP/1.1"),
    "star": request(b"GET * HTTP/1.1"),
    "not ASCII": request("GET /é HTTP/1.1".encode()),
    # Headers
    "names and spaces": request(GET, b"X-UPPER:  a  b  ", b"x-upper: c", b"X-Empty:"),
    "Latin-1": request(GET, b"X-Latin: caf\xe9"),
    "UTF-8": request(GET, "X-Utf: café".encode()),
    "cookies": request(GET, b"Cookie: a=1; b=2", b"Cookie: c=3"),
    "no host": request(without=b"Host"),
    "two hosts": request(GET, b"Host: other.test"),
    "subprotocols": request(GET, b"Sec-WebSocket-Protocol: a, b", b"Sec-WebSocket-Protocol: c,d"),
    "subprotocols with gaps": request(GET, b"Sec-WebSocket-Protocol: a,,b , "),
    "malformed subprotocols": request(GET, b"Sec-WebSocket-Protocol: a b"),
    "no subprotocols": request(GET, b"Sec-WebSocket-Protocol:"),
    # Upgrades
    "any case": changed(GET, Connection=b"keep-alive, UPGRADE"),
    "not asked to upgrade": changed(GET, Connection=b"keep-alive"),
    "no upgrade": request(without=b"Upgrade"),
    "another upgrade": changed(GET, Upgrade=b"h2c"),
    "HTTP/1.0": request(b"GET / HTTP/1.0"),
    "POST": request(b"POST / HTTP/1.1"),
    "no key": request(without=b"Sec-WebSocket-Key"),
    "short key": changed(GET, Sec_WebSocket_Key=b"short"),
    "two keys": request(GET, KEY),
    "no version": request(without=b"Sec-WebSocket-Version"),
    "version 8": changed(GET, Sec_WebSocket_Version=b"8"),
    "two versions": request(GET, b"Sec-WebSocket-Version: 8"),
}

DIFFERS = {"no version", "version 8", "two versions"}
"""Ours names the version it speaks, with 426 (RFC 6455 section 4.4)."""

GAPS = {"subprotocols with gaps"}
"""uvicorn's class offers the application an empty name; ours leaves it out (RFC 9110 5.6.1)."""

LISTS = {"no subprotocols", "malformed subprotocols"}
"""What is no list of tokens: RFC 6455 section 4.2.1 wants it refused."""

STRICT = {"fragment", "absolute", "star", "HTTP/1.0"}
"""Our HTTP classes, which stand in front of either WebSocket class, follow RFC 9112 and RFC 6455
where uvicorn's hand anything on: no fragment, a path without scheme and host, HTTP/1.1 alone."""

HOST = {"no host", "two hosts"}
"""So does h11, and not httptools."""

HTTP: dict[str, tuple[str, set[str]]] = {
    "h11": ("h11", set()),
    "httptools": ("httptools", set()),
    "pongee.wire.http:H11HeadProtocol": ("h11", STRICT),
    "pongee.wire.http:HeadProtocol": ("httptools", STRICT | HOST),
}
"""What reads the request; what does on the reference; requests treated otherwise."""

OURS_ALONE = {"pongee.direct"}
"""Extensions of our own; all others must be uvicorn's."""


Answer = tuple[bytes, dict[str, Any] | None]


class Front:
    """One class with an application that keeps each scope."""

    def __init__(self, stock: Stock, http: str) -> None:
        self._scopes: list[dict[str, Any]] = []
        self.serving = stock.serve(self, lifespan="off", http=http, root_path="/root")

    async def ask(self, server: Server, sent: bytes) -> Answer:
        """Send a request; return the status line of the answer, and the scope if there was one."""
        self._scopes.clear()
        head = b""
        async with RawPeer(server.port, "/") as peer:
            await peer.send(sent)
            while b"\r\n\r\n" not in head and (data := await peer.read()):
                head += data
            peer.reset()
        status = head.split(b"\r\n")[0]
        if not self._scopes:
            return status, None
        (scope,) = self._scopes
        assert scope["server"] == ("127.0.0.1", server.port)
        assert scope["client"][0] == "127.0.0.1"
        scope["server"] = scope["client"] = None
        if scope["type"] == "websocket":
            found = scope["extensions"].items()
            scope["extensions"] = {name: value for name, value in found if name not in OURS_ALONE}
        return status, scope

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scopes.append(dict(scope))
        await receive()
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})


def types(scope: dict[str, Any] | None) -> dict[str, type]:
    """Tell the types of the values."""
    return {key: type(value) for key, value in (scope or {}).items()}


@pytest.mark.parametrize("http", HTTP)
async def test_same_scope_and_same_answer(http: str) -> None:
    """A request gives the very scope uvicorn's class gives, values and types, or its refusal."""
    reference, strict = HTTP[http]
    ours, uvicorns = Front(WIRE, http), Front(DEFAULT, reference)
    scopes: dict[str, tuple[Any, Any]] = {}
    answers: dict[str, tuple[bytes, bytes]] = {}
    async with ours.serving as our_server, uvicorns.serving as uvicorns_server:
        for name in REQUESTS.keys() - strict - GAPS:
            our_answer, our_scope = await ours.ask(our_server, REQUESTS[name])
            uvicorns_answer, uvicorns_scope = await uvicorns.ask(uvicorns_server, REQUESTS[name])
            if our_scope != uvicorns_scope or types(our_scope) != types(uvicorns_scope):
                scopes[name] = (our_scope, uvicorns_scope)
            if our_answer != uvicorns_answer:
                answers[name] = (our_answer, uvicorns_answer)

    assert scopes == {}
    assert set(answers) == DIFFERS, answers


async def test_the_table_reaches_every_kind_of_answer() -> None:
    """The requests above are served, left to HTTP, and refused: none is tested in vain."""
    front = Front(WIRE, "httptools")
    async with front.serving as server:
        served, scope = await front.ask(server, REQUESTS["encoded path"])
        assert served == b"HTTP/1.1 101 Switching Protocols"
        assert scope is not None
        assert scope["path"] == "/root/a b/café/x"
        assert scope["raw_path"] == b"/root/a%20b/caf%C3%A9%2Fx"

        left, scope = await front.ask(server, REQUESTS["no upgrade"])
        assert left == b"HTTP/1.1 404 Not Found"
        assert scope is not None
        assert scope["type"] == "http"

        refused = await front.ask(server, REQUESTS["short key"])
        assert refused == (b"HTTP/1.1 400 Bad Request", None)


async def test_empty_items_of_a_list_are_no_subprotocols() -> None:
    """An empty item says nothing (RFC 9110 section 5.6.1)."""
    front = Front(WIRE, "httptools")
    async with front.serving as server:
        for name in GAPS:
            _, scope = await front.ask(server, REQUESTS[name])
            assert scope is not None
            assert scope["subprotocols"] == ["a", "b"]


@pytest.mark.parametrize("name", sorted(LISTS))
async def test_malformed_subprotocols_are_refused(name: str) -> None:
    """What is no list of tokens is 400, as on uvicorn's class, and no application sees it."""
    for stock in (DEFAULT, WIRE):
        front = Front(stock, "httptools")
        async with front.serving as server:
            assert await front.ask(server, REQUESTS[name]) == (b"HTTP/1.1 400 Bad Request", None)
