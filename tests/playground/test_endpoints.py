"""The five endpoints of the playground, each as it is documented."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pongee.playground.page import make_token
from pongee.testing import Client, CloseFrame, HandshakeRefused, RawPeer, connect, eventually
from tests.playground.conftest import JWT, SECRET, STATIC_TOKEN, playground

pytestmark = pytest.mark.anyio

NOT_JSON = "ERROR: 仅支持JSON格式"
EXPIRED = make_token(SECRET, "ada", -60)
FORGED = make_token("f" * 32, "ada", 3600)


async def _until_active(client: Client, expected: int) -> dict[str, Any]:
    """Read status messages until the number is `expected`; states between may be skipped."""
    async with asyncio.timeout(5):
        while True:
            message = dict(await client.receive_json())
            if message["active"] == expected:
                return message


# /ws/chat


async def test_chat_tells_everybody_in_the_room_the_sender_included() -> None:
    """`Room {room_id}: {text}`, to all of the room."""
    async with (
        playground() as app,
        connect(app.ws("/ws/chat/7")) as ada,
        connect(app.ws("/ws/chat/7")) as bob,
    ):
        await eventually(lambda: app.pongee.local_channels() == {"room:7": 2})
        await ada.send("hello")
        await bob.send("你好")
        for client in (ada, bob):
            heard = {await client.receive(), await client.receive()}
            assert heard == {"Room 7: hello", "Room 7: 你好"}


async def test_chat_stays_in_its_room() -> None:
    """Other rooms hear nothing, and each room its own number."""
    async with (
        playground() as app,
        connect(app.ws("/ws/chat/7")) as seven,
        connect(app.ws("/ws/chat/8")) as eight,
    ):
        await eventually(lambda: len(app.pongee.local_channels()) == 2)
        await seven.send("for seven")
        assert await seven.receive() == "Room 7: for seven"
        await eight.send("for eight")
        assert await eight.receive() == "Room 8: for eight"  # and nothing before it


async def test_chat_room_is_forgotten_with_its_last_member() -> None:
    """Nothing of an empty room is kept."""
    async with playground() as app:
        async with connect(app.ws("/ws/chat/7")) as ada:
            await ada.send("x")
            await ada.receive()
        await eventually(lambda: app.pongee.local_channels() == {} and not app.pongee.connections())


# /ws/secure


async def test_secure_takes_a_ticket_once() -> None:
    """A ticket from `POST /tickets` opens one connection, not two."""
    async with playground() as app:
        path = f"/ws/secure/1?token={await app.ticket()}"
        async with connect(app.ws(path)) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            assert [c.user for c in app.pongee.connections()] == ["ada"]
        assert await app.status(path) == 403


async def test_secure_takes_a_static_token_again_and_again() -> None:
    """The tokens of the settings are not used up."""
    async with playground() as app:
        for client_id in (1, 1, 2**40):
            assert await app.status(f"/ws/secure/{client_id}?token={STATIC_TOKEN}") == 101


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/secure/1?token=not-a-token", 403),
        (f"/ws/secure/1?token={JWT}", 403),
        ("/ws/secure/1?token=1234567", 422),
        ("/ws/secure/1?token=", 422),
        ("/ws/secure/1", 422),
        (f"/ws/secure/0?token={STATIC_TOKEN}", 422),
        (f"/ws/secure/-5?token={STATIC_TOKEN}", 422),
        (f"/ws/secure/abc?token={STATIC_TOKEN}", 422),
    ],
)
async def test_secure_refuses_before_accept_and_closes_tcp(path: str, status: int) -> None:
    """An HTTP status with a JSON body, then the end of the stream; nothing of a session existed."""
    async with playground() as app:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(app.ws(path)):
                pass
        assert refused.value.status == status
        assert refused.value.json()["detail"]
        assert app.pongee.connections() == []
        async with RawPeer(app.server.port, path) as peer:
            head = await peer.handshake()
            assert head.startswith(f"HTTP/1.1 {status} ".encode())
            await peer.read_to_end()


async def test_secure_keeps_a_ticket_that_came_with_a_bad_path() -> None:
    """Bad shape is found before the ticket is used up."""
    async with playground() as app:
        ticket = await app.ticket()
        assert await app.status(f"/ws/secure/0?token={ticket}") == 422
        assert await app.status(f"/ws/secure/1?token={ticket}") == 101


async def test_tickets_are_for_holders_of_a_valid_jwt() -> None:
    """`POST /tickets` answers 401 with a challenge to everybody else."""
    async with playground() as app:
        answer = await app.http("POST", "/tickets", headers={"Authorization": f"Bearer {JWT}"})
        assert set(answer.json()) == {"ticket", "expires_in"}
        assert answer.json()["expires_in"] > 0
        for headers in ({}, {"Authorization": f"Bearer {FORGED}"}, {"Authorization": "Basic x"}):
            answer = await app.http("POST", "/tickets", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


# /ws/auth


async def test_auth_takes_a_jwt_from_header_or_subprotocol() -> None:
    """The header for programs, the subprotocol for a browser's script."""
    async with playground() as app:
        ways: list[tuple[dict[str, Any], str | None]] = [
            ({"token": JWT}, None),
            ({"subprotocols": ["bearer", JWT]}, "bearer"),
        ]
        for options, subprotocol in ways:
            async with connect(app.ws("/ws/auth"), **options) as client:
                await client.send("hello")
                assert await client.receive() == "hello"
                assert client.subprotocol == subprotocol
                assert [c.user for c in app.pongee.connections()] == ["ada"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token": FORGED},
        {"token": EXPIRED},
        {"token": "nonsense"},
        {"subprotocols": ["bearer", FORGED]},
        {"subprotocols": ["bearer"]},
        {"headers": {"Authorization": "Basic YTpi"}},
    ],
)
async def test_auth_refuses_after_accept_so_that_a_browser_can_read_it(
    options: dict[str, Any],
) -> None:
    """1008 `Invalid credentials`, whatever was wrong; no session existed."""
    async with playground() as app, connect(app.ws("/ws/auth"), **options) as client:
        assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")
        assert app.pongee.connections() == []


async def test_auth_token_in_the_query_is_none() -> None:
    """A URL is written into logs on the way; `/ws/auth` does not look there."""
    async with playground() as app, connect(app.ws(f"/ws/auth?token={JWT}")) as client:
        assert (await client.wait_closed()).code == 1008


# /ws/status


async def test_status_is_told_on_connect_and_on_change() -> None:
    """The number, and one's own entry; text from the client gets no answer of its own."""
    async with playground() as app, connect(app.ws("/ws/status")) as first:
        told = await _until_active(first, 1)
        assert set(told) == {"type", "active", "you"}
        assert told["type"] == "status"
        assert told["you"]["address"] == "127.0.0.1"
        assert abs(told["you"]["since"] - time.time()) < 60
        assert told["you"]["id"] == app.pongee.connections()[0].id
        await first.send("still here")
        async with connect(app.ws("/ws/status")) as second:
            yours = await _until_active(second, 2)
            assert yours["you"]["id"] != told["you"]["id"]
            assert (await _until_active(first, 2))["you"] == told["you"]
        assert (await _until_active(first, 1))["you"] == told["you"]


@pytest.mark.parametrize("way", ["close", "close 4000", "cut", "half a frame, then reset"])
async def test_status_counts_right_however_the_others_leave(way: str) -> None:
    """Registered on accept, gone on disconnect whatever way it happens."""
    async with playground() as app, connect(app.ws("/ws/status")) as watcher:
        await _until_active(watcher, 1)
        if way.startswith("half"):
            async with RawPeer(app.server.port, "/ws/status") as peer:
                await peer.handshake()
                await _until_active(watcher, 2)
                await peer.send(b"\x81\xfe\x01")
                peer.reset()
        else:
            async with connect(app.ws("/ws/status")) as other:
                await _until_active(watcher, 2)
                if way == "cut":
                    other.cut()
                else:
                    await other.close(4000 if "4000" in way else 1000)
        await _until_active(watcher, 1)
        assert len(app.pongee.connections()) == 1


async def test_status_never_tells_other_peoples_addresses() -> None:
    """Everybody sees the number and their own entry only."""
    async with playground(trusted_proxies="127.0.0.1") as app:
        ada, bob = ({"X-Forwarded-For": ip} for ip in ("203.0.113.1", "198.51.100.2"))
        async with (
            connect(app.ws("/ws/status"), headers=ada) as first,
            connect(app.ws("/ws/status"), headers=bob) as second,
        ):
            assert (await _until_active(first, 2))["you"]["address"] == "203.0.113.1"
            assert (await _until_active(second, 2))["you"]["address"] == "198.51.100.2"


# /ws/realtime


async def test_realtime_sends_heartbeats_every_interval() -> None:
    """`{"type": "heartbeat", "timestamp": <unix seconds>}`, while nothing is said."""
    async with (
        playground(heartbeat_interval=0.05) as app,
        connect(app.ws("/ws/realtime")) as client,
    ):
        beats = [await client.receive_json() for _ in range(3)]
        assert all(set(beat) == {"type", "timestamp"} for beat in beats)
        assert {beat["type"] for beat in beats} == {"heartbeat"}
        times = [beat["timestamp"] for beat in beats]
        assert times == sorted(times)
        assert times[2] - times[0] > 0.05
        assert abs(times[0] - time.time()) < 60


async def test_realtime_acknowledges_json() -> None:
    """Any JSON object, in text and in binary frames; what came is told back."""
    async with playground() as app, connect(app.ws("/ws/realtime")) as client:
        for sent in ('{"type":"move","x":[1,{"y":null}]}', b'{"text":"\xe4\xbd\xa0"}'):
            await client.send(sent)
            answer = await client.receive_json()
            assert answer["type"] == "ack"
        assert answer["received"] == {"type": "message", "text": "你"}


@pytest.mark.parametrize(
    "bad", ["hello", "", "{", '{"a":1}{', "{'a': 1}", "\ufeff{}", b"\xff\xfe", b""]
)
async def test_realtime_answers_what_is_not_json_with_one_exact_text(bad: str | bytes) -> None:
    """And the connection lives on."""
    async with playground() as app, connect(app.ws("/ws/realtime")) as client:
        await client.send(bad)
        assert await client.receive() == NOT_JSON
        await client.send("{}")
        assert (await client.receive_json())["type"] == "ack"


@pytest.mark.parametrize("bad", ["[]", "1", "null", '"text"', '{"type": 1}', '{"type": null}'])
async def test_realtime_answers_a_wrong_shape_with_an_error_as_json(bad: str) -> None:
    """It says what is wrong and where, and the connection lives on."""
    async with playground() as app, connect(app.ws("/ws/realtime")) as client:
        await client.send(bad)
        answer = await client.receive_json()
        assert answer["type"] == "error"
        assert answer["code"] == "invalid_message"
        assert all({"type", "loc", "msg"} <= set(error) for error in answer["errors"])
        await client.send("{}")
        assert (await client.receive_json())["type"] == "ack"
