"""Every documented kind of Starlette endpoint, on our class and on uvicorn's default.

`BaseHTTPMiddleware` and CORS are installed throughout: neither may touch a WebSocket.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pongee.testing import HandshakeRefused, Server, connect, eventually
from tests.stock import starlette_app as examples
from tests.stock.conftest import Stock

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    examples.disconnects.clear()


async def told(name: str, code: int) -> None:
    """Wait until an endpoint was told of its end, once."""
    await eventually(lambda: examples.disconnects, what="the disconnect is told")
    assert examples.disconnects == [(name, code)]


@pytest.mark.parametrize(
    ("path", "sent", "answer", "name"),
    [
        ("/texts", "é", "text é", "Texts"),
        ("/bytes", b"\x00\xff", b"bytes \x00\xff", "Bytes"),
        ("/json", '{"a":1}', '{"json":{"a":1}}', "Json"),
        ("/json", b"[1]", '{"json":[1]}', "Json"),
        ("/anything", "text", '"str"', "Anything"),
        ("/anything", b"bytes", '"bytes"', "Anything"),
        ("/anything", "", '"str"', "Anything"),
        ("/anything", b"", '"bytes"', "Anything"),
    ],
)
async def test_endpoint_classes(
    stock: Stock, path: str, sent: str | bytes, answer: str | bytes, name: str
) -> None:
    """Each encoding takes what it should, and the client's close code reaches `on_disconnect`."""
    async with (
        stock.serve(examples.app) as server,
        connect(server.ws(path), subprotocols=["json"]) as client,
    ):
        await client.send(sent)
        assert await client.receive() == answer
        assert client.subprotocol == ("json" if name == "Json" else None)
        await client.close(4321)
        await told(name, 4321)


@pytest.mark.parametrize(
    ("path", "sent", "name"),
    [("/texts", b"bytes", "Texts"), ("/bytes", "text", "Bytes"), ("/json", "{", "Json")],
)
async def test_endpoint_classes_refuse_what_is_not_theirs(
    stock: Stock, path: str, sent: str | bytes, name: str
) -> None:
    """The wrong kind of data is 1003 to the client and 1011 to `on_disconnect`."""
    async with (
        stock.serve(examples.app) as server,
        connect(server.ws(path), subprotocols=["json"]) as client,
    ):
        await client.send(sent)
        assert (await client.wait_closed()).code == 1003
        await told(name, 1011)


async def test_endpoint_class_without_a_close_frame(stock: Stock) -> None:
    """A client that vanished is told to `on_disconnect` too."""
    async with stock.serve(examples.app) as server, connect(server.ws("/texts")) as client:
        client.cut()
        await told("Texts", stock.lost)


@pytest.mark.parametrize(
    ("path", "sent", "answer"),
    [
        ("/iter/text", "hello", "HELLO"),
        ("/iter/bytes", b"abc", b"cba"),
        ("/iter/json", '{"a":"é"}', '[{"a":"é"}]'.encode()),
    ],
)
async def test_iterators(stock: Stock, path: str, sent: str | bytes, answer: str | bytes) -> None:
    """An iterator gives every message and ends with the connection."""
    async with stock.serve(examples.app) as server:
        async with connect(server.ws(path)) as client:
            for _ in range(100):
                await client.send(sent)
            assert [await client.receive() for _ in range(100)] == [answer] * 100
        state = server.uvicorn.server_state
        await eventually(lambda: not state.tasks, what="the iteration has ended")


async def test_reader_and_writer_tasks(stock: Stock) -> None:
    """One task may receive while another sends; the close comes after what was sent."""
    async with stock.serve(examples.app) as server, connect(server.ws("/two-tasks")) as client:
        texts = [str(number) for number in range(200)]
        for text in [*texts, "enough"]:
            await client.send(text)
        assert [await client.receive() for _ in texts] == texts
        end = await client.wait_closed()
        assert (end.code, end.reason) == (4000, "enough")


async def test_states(stock: Stock) -> None:
    """The client's state goes from connecting to disconnected, and the code is told."""
    async with stock.serve(examples.app) as server:
        async with connect(server.ws("/states")) as client:
            await client.close(4001)
        await told("states", 4001)


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize("path", ["/seen", "/inner/seen/a%20b"])
async def test_what_the_handshake_tells(stock: Stock, root_path: str, path: str) -> None:
    """URL, path, root path, query, cookies and headers, in a mounted application too."""
    async with (
        stock.serve(examples.app, root_path=root_path) as server,
        connect(
            server.ws(f"{path}?a=1&a=%32&b"),
            headers={"Cookie": "c=d; e=f", "X-Twice": "1"},
        ) as client,
    ):
        seen = await client.receive_json()
        assert client.connection.response is not None
        assert client.connection.response.headers.get_all("X-One") == ["1", "2"]
        assert client.connection.response.headers.get_all("Set-Cookie") == ["a=b"]
        assert "x-middleware" not in client.connection.response.headers
        assert (await client.wait_closed()).code == 1000
    mounted = path.startswith("/inner")
    path = root_path + path.replace("%20", " ")
    assert seen == {
        "url": f"ws://127.0.0.1:PORT{path}?a=1&a=%32&b",
        "path": path,
        "root_path": root_path + ("/inner" if mounted else ""),
        "route": {"name": "a b"} if mounted else {},
        "query": [["a", "1"], ["a", "2"], ["b", ""]],
        "cookies": {"c": "d", "e": "f"},
        "header": ["1"],
    }


async def test_endpoint_class_in_a_mounted_application(stock: Stock) -> None:
    """A mounted application's endpoint serves as any other."""
    async with stock.serve(examples.app) as server, connect(server.ws("/inner/texts")) as client:
        await client.send("hello")
        assert await client.receive() == "text hello"


async def refusal(server: Server, path: str) -> HandshakeRefused:
    """Return the answer that refuses the handshake."""
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(server.ws(path)):
            pass
    return refused.value


@pytest.mark.parametrize(
    ("kind", "status", "body", "header"),
    [
        ("plain", 401, "no entry", ("www-authenticate", "Bearer")),
        ("empty", 404, "", ("content-length", "0")),
        ("streamed", 429, "one two three", ("retry-after", "3")),
        ("elsewhere", 307, "", ("location", "/else")),
    ],
)
async def test_denial_responses(
    stock: Stock, kind: str, status: int, body: str, header: tuple[str, str]
) -> None:
    """Any response may deny: plain, empty, streamed or a redirect."""
    async with stock.serve(examples.app) as server, httpx.AsyncClient(trust_env=False) as browser:
        # With a plain client: the one for WebSockets follows redirects.
        answer = await browser.get(
            server.http(f"/denied/{kind}"),
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )
    assert (answer.status_code, answer.text) == (status, body)
    assert answer.headers[header[0]] == header[1]
    cookies: list[Any] = answer.headers.get_list("set-cookie")
    assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", "b=2"]
    assert answer.headers["connection"] == "close"
    assert "x-middleware" not in answer.headers


@pytest.mark.parametrize("path", ["/closed", "/nowhere", "/inner/nowhere", "/page"])
async def test_refusals_are_403(stock: Stock, path: str) -> None:
    """A close before accept, and a path without a WebSocket route, is 403."""
    async with stock.serve(examples.app) as server:
        assert (await refusal(server, path)).status == 403


async def test_middleware_still_serves_http(stock: Stock) -> None:
    """The middleware that leaves WebSockets alone does its work for HTTP."""
    async with (
        stock.serve(examples.app) as server,
        httpx.AsyncClient(trust_env=False) as browser,
        connect(server.ws("/texts"), origin="http://other.test") as client,
    ):
        answer = await browser.get(server.http("/page"), headers={"Origin": "http://allowed.test"})
        assert answer.headers["x-middleware"] == "http alone"
        assert answer.headers["access-control-allow-origin"] == "http://allowed.test"
        await client.send("hello")
        assert await client.receive() == "text hello"
