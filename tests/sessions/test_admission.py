"""Guards on the wire: origins, token sources, caps."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
from fastapi import HTTPException
from websockets.exceptions import ConnectionClosed

from pongee import (
    Caps,
    ConfigurationError,
    CookieToken,
    FirstMessage,
    HeaderToken,
    JWTBearer,
    OriginPolicy,
    QueryToken,
    Session,
    SubprotocolToken,
    Tickets,
    TokenPolicy,
    public,
)
from pongee.guards.verdict import Identity
from pongee.playground.page import make_token
from pongee.testing import (
    CloseFrame,
    HandshakeRefused,
    ManualClock,
    RawPeer,
    connect,
    eventually,
)
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
JWT = make_token(SECRET, "ada", 3600)


def _who(world: World, auth: Any, **options: Any) -> None:
    @world.pongee.endpoint("/ws", auth=auth, **options)
    async def handler(session: Session[str, str]) -> None:
        await session.send(f"{session.user} {session.address}")
        async for text in session:
            await session.send(text)


async def _status(url: str, **options: Any) -> int:
    try:
        async with connect(url, **options):
            return 101
    except HandshakeRefused as refused:
        return refused.status


async def test_origin_is_checked_before_anything_of_the_application_runs() -> None:
    """Same origin by default; foreign, null and look-alike origins are 403."""
    world, ran = World(), []

    async def policy() -> Identity:
        ran.append("policy")
        return Identity()

    _who(world, policy)
    async with world.running() as server:
        own = f"http://127.0.0.1:{server.port}"
        assert await _status(server.ws("/ws"), origin=own) == 101
        assert await _status(server.ws("/ws")) == 101
        ran.clear()
        for foreign in (
            "http://evil.example",
            "null",
            own + ".evil.example",
            f"https://127.0.0.1:{server.port}",
            f"http://127.0.0.1:{server.port + 1}",
        ):
            assert await _status(server.ws("/ws"), origin=foreign) == 403
    assert ran == []


async def test_allowed_origins_and_missing_origin_are_switches_of_the_endpoint() -> None:
    """Exact and sub-domain patterns; a missing Origin may be refused."""
    world = World()
    policy = OriginPolicy(["https://app.example", "https://*.team.example"], allow_missing=False)
    _who(world, public, origins=policy)
    async with world.running() as server:
        assert await _status(server.ws("/ws"), origin="https://app.example") == 101
        assert await _status(server.ws("/ws"), origin="https://a.b.team.example") == 101
        assert await _status(server.ws("/ws"), origin="https://team.example") == 403
        assert await _status(server.ws("/ws")) == 403


@pytest.mark.parametrize(
    ("source", "options", "subprotocol"),
    [
        (HeaderToken(), {"token": JWT}, None),
        (QueryToken("token"), {"query": f"?token={JWT}"}, None),
        (SubprotocolToken(), {"subprotocols": ["bearer", JWT]}, "bearer"),
        (CookieToken("session"), {"headers": {"Cookie": f"session={JWT}"}, "origin": True}, None),
    ],
)
async def test_token_is_taken_from_each_source(
    source: Any, options: dict[str, Any], subprotocol: str | None
) -> None:
    """The sources a browser or a device can use; the token is never echoed."""
    world = World()
    _who(world, JWTBearer(SECRET, sources=[source]))
    async with world.running() as server:
        options = dict(options)
        url = server.ws("/ws") + options.pop("query", "")
        if options.pop("origin", False):
            options["origin"] = f"http://127.0.0.1:{server.port}"
        async with connect(url, **options) as client:
            assert await client.receive() == "ada 127.0.0.1"
            assert client.subprotocol == subprotocol
        assert await _status(server.ws("/ws")) == 401


async def test_cookie_of_a_user_is_no_use_to_a_foreign_page() -> None:
    """The browser sends the cookie whatever page asked; the origin decides."""
    world = World()
    _who(world, JWTBearer(SECRET, sources=[CookieToken("session")]))
    async with world.running() as server:
        cookie = {"Cookie": f"session={JWT}"}
        foreign = await _status(server.ws("/ws"), headers=cookie, origin="http://evil.example")
        assert foreign == 403
        assert await _status(server.ws("/ws"), headers=cookie) == 401


def test_cookie_without_an_origin_check_is_refused_at_the_declaration() -> None:
    """Any site could use your users' cookies."""
    world = World()
    with pytest.raises(ConfigurationError, match="origin check"):
        _who(world, JWTBearer(SECRET, sources=[CookieToken("session")]), origins=["*"])


@pytest.mark.parametrize("message", [JWT, f'{{"token": "{JWT}"}}'])
async def test_first_message_may_bring_the_token(message: str) -> None:
    """Accept first, authenticate, then the handler runs."""
    world = World()
    _who(world, JWTBearer(SECRET, sources=[FirstMessage(timeout=10)]))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send(message)
        assert await client.receive() == "ada 127.0.0.1"


async def test_first_message_that_never_comes_closes_after_the_deadline() -> None:
    """Nobody holds a connection without saying who it is; no session ever existed."""
    clock = ManualClock()
    world = World(clock=clock)
    _who(world, JWTBearer(SECRET, sources=[FirstMessage(timeout=10)]))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        wheel = world.pongee._node.runtime.wheel
        await eventually(lambda: len(wheel) == 1)
        clock.advance(10.1)
        assert await client.wait_closed() == CloseFrame(1008, "authentication timeout")
        assert world.pongee._node.capacity.connections <= 1
    await eventually(lambda: world.pongee._node.capacity.connections == 0)
    assert world.opened == []


@pytest.mark.parametrize("message", ["nonsense", "{}", b"\xff", ""])
async def test_first_message_without_a_valid_token_closes_with_1008(message: str | bytes) -> None:
    """Whatever is wrong with it, the answer is the same."""
    world = World()
    _who(world, JWTBearer(SECRET, sources=[FirstMessage()]))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send(message)
        assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")


async def test_ticket_opens_one_session() -> None:
    """A ticket in a URL is worth nothing to whoever reads the log later."""
    world, tickets = World(), Tickets()
    _who(world, TokenPolicy(tickets, QueryToken("ticket"), status=403))
    async with world.running() as server:
        ticket = tickets.issue(Identity(user="ada"))
        async with connect(server.ws(f"/ws?ticket={ticket}")) as client:
            assert await client.receive() == "ada 127.0.0.1"
        assert await _status(server.ws(f"/ws?ticket={ticket}")) == 403


async def test_caps_per_user_and_per_address_refuse_with_429() -> None:
    """One user, or one address, cannot take all places."""

    async def policy(user: str) -> str:
        return user

    world = World(caps=Caps(max_connections_per_user=1, max_connections_per_address=2))
    _who(world, policy)
    async with world.running() as server, connect(server.ws("/ws?user=ada")) as ada:
        await ada.receive()
        assert await _status(server.ws("/ws?user=ada")) == 429
        async with connect(server.ws("/ws?user=bob")) as bob:
            await bob.receive()
            assert await _status(server.ws("/ws?user=eve")) == 429
        await eventually(lambda: len(world.pongee.connections()) == 1)
        assert await _status(server.ws("/ws?user=eve")) == 101
    await eventually(lambda: world.pongee._node.capacity.connections == 0)


async def test_forwarded_address_is_believed_of_a_trusted_proxy_alone() -> None:
    """A client cannot choose its own address."""
    spoofed = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    for trusted, expected in (("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")):
        world = World(trusted_proxies=trusted)
        _who(world, public)
        async with world.running() as server, connect(server.ws("/ws"), headers=spoofed) as client:
            assert await client.receive() == f"None {expected}"
            assert world.pongee.connections()[0].address == expected


async def test_https_origin_behind_a_trusted_proxy_is_the_same_origin() -> None:
    """The proxy's ``X-Forwarded-Proto`` says how the browser came."""
    world = World(trusted_proxies="127.0.0.1")
    _who(world, public)
    async with world.running() as server:
        origin = f"https://127.0.0.1:{server.port}"
        headers = {"X-Forwarded-Proto": "https"}
        assert await _status(server.ws("/ws"), origin=origin, headers=headers) == 101
        assert await _status(server.ws("/ws"), origin=origin) == 403


async def test_tokens_never_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """At any level, from any source, accepted or refused."""
    caplog.set_level(logging.DEBUG)
    world = World()
    sources: list[Any] = [HeaderToken(), QueryToken("token"), SubprotocolToken(), FirstMessage()]
    _who(world, JWTBearer(SECRET, sources=sources))
    forged = JWT[:-4] + "AAAA"
    async with world.running() as server:
        logging.getLogger("websockets.client").setLevel(logging.WARNING)
        for token in (JWT, forged):
            await _status(server.ws(f"/ws?token={token}"))
            await _status(server.ws("/ws"), token=token)
            await _status(server.ws("/ws"), subprotocols=["bearer", token])
            async with connect(server.ws("/ws")) as client:
                await client.send(token)
                with contextlib.suppress(ConnectionClosed):
                    await client.receive()
        await eventually(lambda: len(world.ended) >= 1)
    lines = "\n".join(record.getMessage() for record in caplog.records)
    assert "/ws?[redacted]" in lines
    for token in (JWT, forged):
        assert token not in lines
        assert token[:40] not in lines


async def test_refusal_by_close_frame_chooses_the_subprotocol_a_browser_needs() -> None:
    """Without one a browser fails the connection, and nobody reads the reason."""
    world = World()
    _who(world, JWTBearer(SECRET, sources=[SubprotocolToken()]), refuse="close")
    async with (
        world.running() as server,
        connect(server.ws("/ws"), subprotocols=["bearer", "forged-token"]) as client,
    ):
        assert client.subprotocol == "bearer"
        assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")


async def test_endpoints_own_subprotocol_comes_before_the_tokens() -> None:
    """One is chosen, and it is one that both sides speak."""
    world = World()
    policy = JWTBearer(SECRET, sources=[SubprotocolToken()])
    _who(world, policy, subprotocols=["chat.v2", "chat.v1"])
    async with world.running() as server:
        for offered, chosen in (
            (["bearer", JWT], "bearer"),
            (["chat.v1", "chat.v2", "bearer", JWT], "chat.v2"),
        ):
            async with connect(server.ws("/ws"), subprotocols=offered) as client:
                assert client.subprotocol == chosen


async def test_verifier_that_crashes_on_the_first_message_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A crash is 1011 and a traceback in the log, before a session exists as well as after."""

    class Broken:
        async def verify(self, token: str) -> Identity:
            raise ZeroDivisionError("verifier")

    world = World()
    _who(world, TokenPolicy(Broken(), FirstMessage()))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send("a-token")
        assert await client.wait_closed() == CloseFrame(1011, "internal error")
    assert "ZeroDivisionError" in caplog.text


async def test_refusal_of_the_first_message_is_told_to_telemetry() -> None:
    """Refusals after accept are counted like those before."""
    world = World()
    events: list[Any] = []
    world.pongee.listen(events.append)
    _who(world, JWTBearer(SECRET, sources=[FirstMessage()]))
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send("nonsense")
        await client.wait_closed()
    assert [(event.status, event.reason) for event in events] == [(401, "Invalid credentials")]


async def test_unusual_status_of_a_refusal_is_sent_as_it_is() -> None:
    """Statuses without a standard phrase are statuses too."""

    async def policy() -> None:
        raise HTTPException(419, "token expired")

    world = World()
    _who(world, policy)
    async with world.running() as server:
        assert await _status(server.ws("/ws")) == 419


async def test_forwarded_header_is_read_where_the_setting_says_so() -> None:
    """RFC 7239, instead of X-Forwarded-For and never beside it."""
    world = World(trusted_proxies="127.0.0.1", forwarding_header="forwarded")
    _who(world, public)
    headers = {"Forwarded": "for=203.0.113.7;proto=https", "X-Forwarded-For": "6.6.6.6"}
    async with world.running() as server, connect(server.ws("/ws"), headers=headers) as client:
        assert await client.receive() == "None 203.0.113.7"


@pytest.mark.parametrize("quote", ['"', "<", ">", "'"])
async def test_query_with_odd_characters_is_redacted_to_its_end(
    quote: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer writes into its query what it likes; the token behind it stays out of the log."""
    caplog.set_level(logging.DEBUG)
    world = World()
    _who(world, public)
    async with (
        world.running() as server,
        RawPeer(server.port, f"/ws?a={quote}x{quote}&t=LEAK") as p,
    ):
        assert b"101" in (await p.handshake())[:20]
        await eventually(lambda: world.opened)
    assert "LEAK" not in "".join(record.getMessage() for record in caplog.records)
