"""Behind nginx, with exactly the configuration that the documentation shows."""

from __future__ import annotations

from typing import Any

import pytest

from pongee.testing import CloseFrame, HandshakeRefused, RawPeer, connect, eventually
from tests.proxy.conftest import JWT, STATIC_TOKEN, NginxFactory, proxied

pytestmark = [pytest.mark.anyio, pytest.mark.nginx]

STRANGER: dict[str, Any] = {"local_addr": ("127.0.0.2", 0)}
"""A client whose address is not the proxy's, although both are this machine."""

SPOOFED = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}


async def _refused(url: str, **options: Any) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(url, **options):
            pass
    return refused.value


async def test_page_api_and_websocket_work_through_it(nginx: NginxFactory) -> None:
    """HTTP, a ticket, messages up to the limit in both directions, a close code each way."""
    async with proxied(nginx) as site:
        assert (await site.nginx.http("GET", "/")).status_code == 200
        assert (await site.nginx.http("GET", "/static/app.js")).status_code == 200
        headers = {"Authorization": f"Bearer {JWT}"}
        ticket = (await site.nginx.http("POST", "/tickets", headers=headers)).json()["ticket"]
        async with connect(site.nginx.ws(f"/ws/secure/1?token={ticket}")) as client:
            for size in (0, 1, 64 * 1024):
                await client.send("x" * size)
                assert await client.receive() == "x" * size
            await client.close(4000)
        await eventually(lambda: site.pongee.connections() == [])
        async with connect(site.nginx.ws("/ws/auth"), subprotocols=["bearer", JWT]) as client:
            assert client.subprotocol == "bearer"
            await client.send("x" * (64 * 1024 + 1))
            assert (await client.wait_closed()).code == 1009


@pytest.mark.parametrize("claimed", [{}, SPOOFED, {"X-Forwarded-For": "6.6.6.6, 7.7.7.7"}])
async def test_address_is_the_one_that_nginx_saw(
    nginx: NginxFactory, claimed: dict[str, str]
) -> None:
    """What the client claims does not win."""
    async with (
        proxied(nginx) as site,
        connect(site.nginx.ws("/ws/status"), headers=claimed, **STRANGER) as client,
    ):
        assert (await client.receive_json())["you"]["address"] == "127.0.0.2"
        assert [c.address for c in site.pongee.connections()] == ["127.0.0.2"]


async def test_address_is_the_proxys_where_no_proxy_is_trusted(nginx: NginxFactory) -> None:
    """Without the setting nobody's word is taken."""
    async with (
        proxied(nginx, trusted_proxies="") as site,
        connect(site.nginx.ws("/ws/status"), headers=SPOOFED, **STRANGER) as client,
    ):
        assert (await client.receive_json())["you"]["address"] == "127.0.0.1"


async def test_client_that_goes_round_the_proxy_is_not_believed(nginx: NginxFactory) -> None:
    """Only the proxy's word counts, not that of whoever reaches the port."""
    async with (
        proxied(nginx) as site,
        connect(site.server.ws("/ws/status"), headers=SPOOFED, **STRANGER) as client,
    ):
        assert (await client.receive_json())["you"]["address"] == "127.0.0.2"


async def test_own_origin_is_the_one_the_browser_sees(nginx: NginxFactory) -> None:
    """The proxy's host and port, with the scheme that nginx tells."""
    async with proxied(nginx) as site:
        async with connect(site.nginx.ws("/ws/chat/1"), origin=site.nginx.origin):
            pass
        secure = site.nginx.origin.replace("http:", "https:")
        for origin in (site.server.http(""), "http://evil.example", secure):
            refused = await _refused(
                site.nginx.ws("/ws/chat/1"), origin=origin, headers={"X-Forwarded-Proto": "https"}
            )
            assert refused.status == 403


async def test_own_origin_behind_tls_is_https(nginx: NginxFactory) -> None:
    """As where nginx itself was reached by https."""
    tls = ("X-Forwarded-Proto $scheme", "X-Forwarded-Proto https")
    async with proxied(nginx, tls) as site:
        secure = site.nginx.origin.replace("http:", "https:")
        async with connect(site.nginx.ws("/ws/chat/1"), origin=secure):
            pass
        refused = await _refused(site.nginx.ws("/ws/chat/1"), origin=site.nginx.origin)
        assert refused.status == 403


async def test_refusals_pass_through_as_they_are(nginx: NginxFactory) -> None:
    """Status, body and headers before accept; code and reason after it."""
    async with proxied(nginx, max_connections=1) as site:
        refused = await _refused(site.nginx.ws("/ws/secure/1?token=wrong-token"))
        assert (refused.status, refused.json()) == (403, {"detail": "Invalid token"})
        refused = await _refused(site.nginx.ws("/ws/chat/abc"))
        assert refused.status == 422
        assert refused.json()["detail"][0]["loc"] == ["path", "room_id"]
        refused = await _refused(site.nginx.ws("/ws/nowhere"))
        assert (refused.status, refused.json()) == (404, {"detail": "Not Found"})
        async with connect(site.nginx.ws("/ws/auth"), token="forged") as client:
            assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")
        await eventually(lambda: site.pongee._node.capacity.connections == 0)
        async with connect(site.nginx.ws("/ws/status")) as client:
            await client.receive()
            refused = await _refused(site.nginx.ws("/ws/chat/1"))
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0


async def test_leaving_server_is_told_through_it(nginx: NginxFactory) -> None:
    """1012 reaches the client; then new ones are told to come back."""
    async with proxied(nginx) as site, connect(site.nginx.ws("/ws/chat/1")) as client:
        await eventually(lambda: len(site.pongee.connections()) == 1)
        await site.pongee.drain(0)
        assert (await client.wait_closed()).code == 1012
        assert (await _refused(site.nginx.ws("/ws/chat/1"))).status == 503


async def test_client_that_vanished_before_it_is_gone_behind_it(nginx: NginxFactory) -> None:
    """A reset on one side becomes the end of the session on the other."""
    async with proxied(nginx) as site, RawPeer(site.nginx.port, "/ws/chat/1") as peer:
        await peer.handshake()
        await eventually(lambda: len(site.pongee.connections()) == 1)
        peer.reset()
        await eventually(lambda: site.pongee.connections() == [])


async def test_proxy_without_upgrade_headers_fails_clearly(nginx: NginxFactory) -> None:
    """An HTTP answer at once, not a hang."""
    forgotten = (
        ("        proxy_set_header Upgrade $http_upgrade;\n", ""),
        ("        proxy_set_header Connection $pongee_connection;\n", ""),
    )
    async with proxied(nginx, *forgotten) as site:
        refused = await _refused(site.nginx.ws("/ws/chat/1"), timeout=2)
        assert refused.status in (404, 426)
        assert (await site.nginx.http("GET", "/")).status_code == 200


async def test_pings_keep_a_quiet_connection_through_its_read_timeout(nginx: NginxFactory) -> None:
    """Which is why the ping interval has to be shorter."""
    short = ("proxy_read_timeout 60s", "proxy_read_timeout 1s")
    async with (
        proxied(nginx, short, ping_interval=0.2) as site,
        connect(site.nginx.ws("/ws/chat/1")) as client,
    ):
        with pytest.raises(TimeoutError):
            await client.receive(timeout=1.5)
        await client.send("x")
        assert await client.receive() == "Room 1: x"
    async with proxied(nginx, short) as site, connect(site.nginx.ws("/ws/chat/1")) as client:
        assert await client.wait_closed() == CloseFrame(1006, "")
        await eventually(lambda: site.pongee.connections() == [])


async def test_its_log_shows_no_token(nginx: NginxFactory) -> None:
    """Nginx's own format would write the query string down."""
    async with proxied(nginx) as site:
        async with connect(site.nginx.ws(f"/ws/secure/1?token={STATIC_TOKEN}")):
            pass
        await eventually(lambda: "/ws/secure/1" in site.nginx.log.read_text())
        assert STATIC_TOKEN not in site.nginx.log.read_text()
