"""Bad handshakes and credentials, one row after the other, at one running application.

The fixture checks after each row that a well-behaved neighbour is still served, that nobody else is
left in the registry, and that the log has neither an error nor a traceback.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest

from pongee.playground.page import make_token
from pongee.testing import CloseFrame, HandshakeRefused, RawPeer, connect
from tests.playground.conftest import JWT, SECRET, STATIC_TOKEN, Scene

pytestmark = pytest.mark.anyio

DEADLINE = 5.0
OWN: dict[str, Any] = {"sub": "ada", "exp": time.time() + 3600}


def _sign(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm)


BAD_TOKENS = {
    "expired": make_token(SECRET, "ada", -60),
    "not yet valid": _sign(OWN | {"nbf": time.time() + 3600}),
    "forged": make_token("f" * 32, "ada", 3600),
    "cut": JWT[:-3],
    "one letter changed": JWT[:-10] + ("A" if JWT[-10] != "A" else "B") + JWT[-9:],
    "alg none": jwt.encode(OWN, "", "none"),
    "alg none, with a signature": f"{jwt.encode(OWN, '', 'none')}{JWT.rpartition('.')[2]}",
    "other algorithm": _sign(OWN, SECRET * 2, "HS512"),
    "wrong audience": _sign(OWN | {"aud": "somebody-else"}),
    "no user": _sign({"exp": OWN["exp"]}),
    "user of another type": _sign({"sub": "ada", "exp": "soon"}),
    "not a JWT": "x" * 40,
    "dots": "...",
    "8 KiB": "x" * 8000,
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_bad_jwt_proves_nothing(scene: Scene, token: str) -> None:
    """1008 `Invalid credentials` at /ws/auth, 401 at /tickets, and never why."""
    async with connect(scene.ws("/ws/auth"), token=token) as client:
        assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")
    headers = {"Authorization": f"Bearer {token}"}
    answer = await scene.app.http("POST", "/tickets", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid credentials"})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/chat/abc", 422),
        ("/ws/chat/1.5", 422),
        ("/ws/chat/" + "9" * 5000, 422),
        ("/ws/chat/%00", 422),
        ("/ws/chat/1%ff", 422),
        ("/ws/chat/", 404),
        ("/ws/chat/1/2", 404),
        ("/ws/nowhere", 404),
        ("/", 404),
        (f"/ws/secure/0?token={STATIC_TOKEN}", 422),
        ("/ws/secure/1?token=7letter", 422),
        ("/ws/secure/1?token=%ff%00%zz%ff%ff%ff", 403),
        (f"/ws/secure/1?token={STATIC_TOKEN}x", 403),
        (f"/ws/secure/1?token={STATIC_TOKEN[:-1]}", 403),
    ],
)
async def test_bad_path_or_query_is_refused_by_http(scene: Scene, path: str, status: int) -> None:
    """404 for a route nobody declared, 422 for a bad shape, 403 for a bad token."""
    async with scene.raw(path) as peer:
        head = await peer.handshake()
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        await peer.read_to_end()


@pytest.mark.parametrize("room", [-1, 0, 2**70])
async def test_any_integer_is_a_room(scene: Scene, room: int) -> None:
    """Odd, but valid."""
    async with connect(scene.ws(f"/ws/chat/{room}")) as client:
        await client.send("x")
        assert await client.receive() == f"Room {room}: x"


@pytest.mark.parametrize("path", ["/ws/chat/1", "/ws/auth", "/ws/status"])
async def test_foreign_page_is_refused_whatever_the_browser_sends_along(
    scene: Scene, path: str
) -> None:
    """403 before accept, with cookie and token or without; also where refusals are close frames."""
    for origin in ("http://evil.example", "null", scene.app.origin + ".evil.example"):
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(
                scene.ws(path), origin=origin, token=JWT, headers={"Cookie": f"session={JWT}"}
            ):
                pass
        assert refused.value.status == 403
    async with connect(scene.ws(path), origin=scene.app.origin, token=JWT):
        pass


async def test_client_that_never_says_who_it_is(scene: Scene) -> None:
    """1008 when the time for the first message is over; it never counted as connected."""
    async with connect(scene.ws("/ws/first")) as client:
        await scene.check_neighbour()
        assert len(scene.app.pongee.connections()) == 1
        assert await client.wait_closed() == CloseFrame(1008, "authentication timeout")


# What follows is decided by uvicorn before the application hears of it. It is recorded here with
# deadlines: whatever the answer, nobody else may notice.


async def _answer(peer: RawPeer) -> int | None:
    """Return the status, or `None` if the server said nothing in time or cut."""
    try:
        head = await peer.read(12, timeout=1.0)
    except (TimeoutError, ConnectionResetError):
        return None
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else None


def _request(*lines: str, path: str = "/ws/chat/1") -> bytes:
    upgrade = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join((*upgrade, *lines, "", "")).encode("latin-1")


@pytest.mark.parametrize(
    ("request_bytes", "allowed"),
    [
        (_request(*(f"X-{n}: v" for n in range(100))), {101}),
        (_request(*(f"X-{n}: v" for n in range(2000))), {431}),
        (_request("Cookie: session=" + "x" * 9 * 1024), {101}),
        (_request(path="/ws/chat/" + "1" * 9000), {422}),
        (_request(path="/ws/chat/" + "1" * 20_000), {414}),
        (_request("Host: other.example"), {400}),
        (_request("Sec-WebSocket-Key: second"), {400}),
        (_request("Sec-WebSocket-Protocol: " + ",".join(map(str, range(1000)))), {101, 431}),
        (_request("X-Forwarded-For: \xff, 999.1.1.1, ,,;\"'"), {101}),
        (_request("Cookie: \xff\x80; a=b; \xe4"), {101}),
        (_request("Origin: \xff\xfe"), {400, 403}),
        (_request("Authorization: Bearer \xff\xfe", path="/ws/auth"), {101}),
        (_request().replace(b": 13", b": 12"), {426}),
        (_request().replace(b"GET", b"POST"), {400, 404, 405, None}),
        (_request().replace(b"Sec-WebSocket-Key", b"X-Key"), {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400, None}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 505, None}),
    ],
    ids=[
        "100 headers",
        "2,000 headers",
        "cookie of 9 KiB",
        "long path",
        "path of 20,000 characters",
        "two hosts",
        "two keys",
        "1,000 subprotocols",
        "forwarded nonsense",
        "cookie that is not ASCII",
        "origin that is not ASCII",
        "token that is not ASCII",
        "version 12",
        "POST",
        "no key",
        "TLS hello",
        "HTTP/2",
    ],
)
async def test_odd_request_harms_nobody(
    scene: Scene, request_bytes: bytes, allowed: set[int | None]
) -> None:
    """One of the answers that are known, within the deadline."""
    async with scene.raw("") as peer:
        await peer.send(request_bytes)
        assert await _answer(peer) in allowed
        await scene.check_neighbour()


@pytest.mark.parametrize("moment", ["connect", "head", "request", "answer", "frame", "closing"])
async def test_clients_that_vanish_leave_nothing_behind(scene: Scene, moment: str) -> None:
    """Resets at each moment of the handshake and just after it, 1,000 in all."""
    room = asyncio.Semaphore(50)

    async def vanish(number: int) -> None:
        async with room, asyncio.timeout(20), scene.raw("/ws/chat/1") as peer:
            request = _request()
            if moment == "head":
                await peer.send(request[: len(request) * number // 170])
            elif moment == "request":
                await peer.send(request)
            elif moment != "connect":
                await peer.handshake()
            if moment == "frame":
                frames = b"\x81\x85\0\0\0\0hello" * 3
                await peer.send(frames[: 1 + number % len(frames)])
            elif moment == "closing":
                await peer.send_frame(8, b"\x03\xe8")
            peer.reset()

    await asyncio.gather(*(vanish(number) for number in range(170)))
    await scene.check_neighbour()
