"""The tutorial's application over real sockets, on our class and on uvicorn's default."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pongee.testing import Client, HandshakeRefused, RawPeer, Server, connect, eventually
from tests.stock import tutorial_app as tutorial
from tests.stock.conftest import Stock

pytestmark = pytest.mark.anyio

NOT_JSON = "ERROR: 仅支持JSON格式"


async def refused(server: Server, path: str, **options: str) -> int:
    """Return the status that refuses the handshake."""
    with pytest.raises(HandshakeRefused) as error:
        async with connect(server.ws(path), **options):  # type: ignore[arg-type]
            pass
    return error.value.status


async def until_served(server: Server) -> None:
    """Wait until every application call has ended."""
    state = server.uvicorn.server_state
    await eventually(lambda: not state.tasks, what="every call has ended")


async def printed(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Wait for a line."""
    seen = ""

    def found() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return line in seen.splitlines()

    await eventually(found, what=f"{line!r} is printed")


# Routes and validation


async def test_chat_echoes_with_the_room(stock: Stock, capsys: pytest.CaptureFixture[str]) -> None:
    """The room comes out of the path; messages keep their order; leaving is noticed."""
    async with stock.serve(tutorial.app) as server:
        async with connect(server.ws("/ws/chat/7")) as client:
            texts = ["hello", "", "你好 😀", "a" * 100_000, *map(str, range(50))]
            for text in texts:
                await client.send(text)
            for text in texts:
                assert await client.receive() == f"Room 7: {text}"
        await printed(capsys, "Client disconnected")
        await until_served(server)


async def test_rooms_of_two_clients_are_their_own(stock: Stock) -> None:
    """Two clients of two rooms are answered each for itself."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/chat/1")) as ada,
        connect(server.ws("/ws/chat/2")) as bob,
    ):
        await ada.send("a")
        await bob.send("b")
        assert await bob.receive() == "Room 2: b"
        assert await ada.receive() == "Room 1: a"


async def test_bytes_where_text_is_expected(stock: Stock) -> None:
    """Binary data to a route that receives text is the route's exception."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/chat/7")) as client,
    ):
        await client.send(b"bytes")
        assert (await client.wait_closed()).code == stock.raised


@pytest.mark.parametrize(
    "path",
    [
        "/ws/chat/seven",
        "/ws/secure/0?token=let-me-in",
        "/ws/secure/one?token=let-me-in",
        "/ws/secure/1",
        "/ws/secure/1?token=short",
        "/ws/secure/1?token=wrong-but-long",
        "/ws/nowhere",
    ],
)
async def test_bad_parameters_are_403(stock: Stock, path: str) -> None:
    """What validation, or the check before accept, turns away is a 403 handshake."""
    async with stock.serve(tutorial.app) as server:
        assert await refused(server, path) == 403
        await until_served(server)


async def test_good_parameters_are_served(stock: Stock) -> None:
    """The good token opens, and the route closes normally."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/secure/5?token=let-me-in")) as client,
    ):
        assert await client.receive() == "client 5"
        assert (await client.wait_closed()).code == 1000


# Checks


@pytest.mark.parametrize("token", [None, "bad"])
async def test_check_after_accept_closes_with_a_reason(stock: Stock, token: str | None) -> None:
    """A check after accept ends in a close frame with code and reason."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/auth"), token=token) as client,
    ):
        end = await client.wait_closed()
        assert (end.code, end.reason) == (1008, "Invalid credentials")


async def test_check_after_accept_passes(stock: Stock) -> None:
    """The good header is let in; the route's return ends the connection."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/auth"), token="good") as client,
    ):
        assert await client.receive() == "welcome"
        assert (await client.wait_closed()).code == stock.returned


async def test_check_before_accept(stock: Stock) -> None:
    """A check before accept is 101 or 403, and after a 403 TCP ends."""
    async with stock.serve(tutorial.app) as server:
        async with connect(server.ws("/ws/checked"), token="good") as client:
            assert (await client.wait_closed()).code == 1000
        assert await refused(server, "/ws/checked", token="bad") == 403
        async with RawPeer(server.port, "/ws/checked") as peer:
            assert (await peer.handshake()).startswith(b"HTTP/1.1 403 ")
            await peer.read_to_end()


# Tracking and heartbeat


async def test_tracking_forgets_those_who_left(stock: Stock) -> None:
    """The dictionary holds whoever is connected, however the others left."""
    tutorial.active_connections.clear()
    active = tutorial.active_connections
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/status")) as stays,
        connect(server.ws("/ws/status")) as closes,
        connect(server.ws("/ws/status")) as vanishes,
    ):
        await eventually(lambda: len(active) == 3, what="three are tracked")
        await closes.close(4000, "bye")
        vanishes.cut()
        await eventually(lambda: len(active) == 1, what="one is left")

        host, port = stays.connection.local_address[:2]
        assert list(active) == [f"Address(host={host!r}, port={port})"]
        await next(iter(active.values())).send_text("still here")
        assert await stays.receive() == "still here"


async def kinds_received(client: Client, count: int) -> list[str]:
    """Return the types of the next messages."""
    return [(await client.receive_json())["type"] for _ in range(count)]


async def test_heartbeat_beside_messages(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come by themselves, and messages are answered between them."""
    monkeypatch.setattr(tutorial.heartbeat, "__defaults__", (0.02,))
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/realtime")) as client,
    ):
        assert await kinds_received(client, 3) == ["heartbeat"] * 3
        await client.send_json({"n": 1})
        async with asyncio.timeout(5):
            while (message := await client.receive_json())["type"] == "heartbeat":
                assert message["timestamp"] > 0
        assert message == {"type": "answer", "data": {"n": 1}}
        assert await kinds_received(client, 2) == ["heartbeat"] * 2


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_heartbeat_ends_with_the_client(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A client that leaves takes route and heartbeat with it."""
    monkeypatch.setattr(tutorial.heartbeat, "__defaults__", (0.02,))
    async with stock.serve(tutorial.app) as server:
        before = len(asyncio.all_tasks())
        async with connect(server.ws("/ws/realtime")) as client:
            assert await kinds_received(client, 1) == ["heartbeat"]
            if how == "close":
                await client.close(4000)
            else:
                client.cut()
        await until_served(server)
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="no task is left")


async def test_realtime_closes_on_bad_json(stock: Stock, caplog: pytest.LogCaptureFixture) -> None:
    """The route's `finally` closes normally; its exception is logged, not sent."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/realtime")) as client,
    ):
        await client.send("not json")
        end = await client.wait_closed()
        assert (end.code, end.reason) == (1000, "")
        await until_served(server)
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert "JSONDecodeError" in caplog.text


# Questions and errors


async def test_what_is_not_json_gets_an_answer(stock: Stock) -> None:
    """Text that is not JSON is answered, and the connection goes on."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/json")) as client,
    ):
        for sent, answer in [
            ('{"a":[1,"é"]}', '{"a":[1,"é"]}'),
            ("", NOT_JSON),
            ("{", NOT_JSON),
            ("hello", NOT_JSON),
            ("null", "null"),
        ]:
            await client.send(sent)
            assert await client.receive() == answer


async def test_binary_json_is_not_what_the_route_reads(stock: Stock) -> None:
    """Binary data is no ValueError in `receive_json`: the route fails."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/json")) as client,
    ):
        await client.send(b"{}")
        assert (await client.wait_closed()).code == stock.raised


@pytest.mark.parametrize(
    ("proxy_headers", "expected"), [(False, "127.0.0.1"), (True, "203.0.113.7")]
)
async def test_client_address(stock: Stock, proxy_headers: bool, expected: str) -> None:
    """`websocket.client` is the peer; a forwarded one where the server was told to trust it."""
    async with (
        stock.serve(
            tutorial.app, proxy_headers=proxy_headers, forwarded_allow_ips="127.0.0.1"
        ) as server,
        connect(server.ws("/ws/address"), headers={"X-Forwarded-For": "203.0.113.7"}) as client,
    ):
        assert await client.receive() == expected


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (3000, "é"), (4999, "x" * 123)]
)
async def test_close_codes_are_told(
    stock: Stock, capsys: pytest.CaptureFixture[str], code: int, reason: str
) -> None:
    """The exception carries the client's code and reason."""
    async with stock.serve(tutorial.app) as server:
        async with connect(server.ws("/ws/codes")) as client:
            await client.close(code, reason)
            assert client.connection.close_code == code
        await printed(capsys, f"closed with {code} {reason!r}")


async def test_close_frame_without_a_code(stock: Stock, capsys: pytest.CaptureFixture[str]) -> None:
    """A close frame without a code is 1005."""
    async with stock.serve(tutorial.app) as server, RawPeer(server.port, "/ws/codes") as peer:
        await peer.handshake()
        await peer.send_frame(8, b"")
        await printed(capsys, "closed with 1005 ''")


async def test_abnormal_closure(stock: Stock, capsys: pytest.CaptureFixture[str]) -> None:
    """A client that vanished raises the same exception."""
    async with stock.serve(tutorial.app) as server:
        async with connect(server.ws("/ws/codes")) as client:
            client.cut()
        await printed(capsys, f"closed with {stock.lost} ''")


async def test_shutdown_is_1012(stock: Stock, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that leaves says so to both."""
    async with stock.serve(tutorial.app) as server, connect(server.ws("/ws/codes")) as client:
        server.uvicorn.should_exit = True
        assert (await client.wait_closed()).code == 1012
        await printed(capsys, "closed with 1012 ''")


async def test_kinds_of_data(stock: Stock) -> None:
    """Bytes, text and JSON arrive as what they are."""
    async with (
        stock.serve(tutorial.app) as server,
        connect(server.ws("/ws/kinds")) as client,
    ):
        assert [await client.receive() for _ in range(3)] == [
            b"\x00\xff",
            "message",
            '{"key":"value"}',
        ]
        assert (await client.wait_closed()).code == 1000
