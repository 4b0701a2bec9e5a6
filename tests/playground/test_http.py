"""What the playground answers over HTTP: page, files, health, development tokens, the probe."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pongee.testing import connect, eventually
from tests.playground.conftest import JWT, STATIC_TOKEN, Playground, playground

pytestmark = pytest.mark.anyio


def _is_guarded(answer: httpx.Response) -> None:
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_page_comes_with_security_headers_and_nothing_inline() -> None:
    """No script or style in the page itself, or the policy would have to allow any."""
    async with playground() as app:
        answer = await app.http("GET", "/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        _is_guarded(answer)
        assert "<style" not in answer.text
        assert "<script>" not in answer.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [("app.js", "javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")],
)
async def test_static_files_are_served_with_security_headers(name: str, kind: str) -> None:
    """Each with its type, and no guessing at another."""
    async with playground() as app:
        answer = await app.http("GET", f"/static/{name}")
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/x"])
async def test_only_what_is_meant_to_be_served_is_served(path: str) -> None:
    """No source file, no listing."""
    async with playground() as app:
        assert (await app.http("GET", path)).status_code == 404


async def test_development_token_is_for_any_name_and_good_for_auth() -> None:
    """While the secret is a generated one, the page may ask for a token."""
    async with playground(development=True) as app:
        answer = await app.http("POST", "/dev/token", json={"user": "zoë"})
        assert answer.status_code == 200
        assert answer.json()["expires_in"] > 0
        async with connect(app.ws("/ws/auth"), token=answer.json()["token"]) as client:
            await client.send("x")
            await client.receive()
            assert [c.user for c in app.pongee.connections()] == ["zoë"]
        for bad in ({}, {"user": ""}, {"user": "x" * 65}, {"user": 1}):
            assert (await app.http("POST", "/dev/token", json=bad)).status_code == 422


@pytest.mark.parametrize("path", ["/dev/token", "/playground/probe"])
async def test_text_that_is_no_unicode_is_a_bad_body(path: str) -> None:
    """Half a surrogate pair is answered 422, without a traceback."""
    async with playground(development=True) as app:
        body = b'{"user":"\\ud800","path":"/ws/\\ud800"}'
        headers = {"Content-Type": "application/json"}
        answer = await app.http("POST", path, content=body, headers=headers)
        assert answer.status_code == 422


async def test_development_token_does_not_exist_otherwise() -> None:
    """With a secret of one's own nobody hands out tokens."""
    async with playground() as app:
        answer = await app.http("POST", "/dev/token", json={"user": "ada"})
        assert answer.status_code == 404
        assert (await app.http("GET", "/playground/config")).json()["dev_token"] is False


async def test_config_tells_the_page_what_it_needs_and_no_secret() -> None:
    """Whether development tokens exist, and the heartbeat's interval."""
    async with playground(development=True, heartbeat_interval=12) as app:
        answer = await app.http("GET", "/playground/config")
        assert answer.json() == {"dev_token": True, "heartbeat_interval": 12}


async def test_health_stays_and_readiness_goes_while_draining() -> None:
    """A load balancer sends nobody here, and nobody kills what is leaving in order."""
    async with playground() as app:
        assert (await app.http("GET", "/healthz")).json() == {"status": "ok"}
        assert (await app.http("GET", "/readyz")).json() == {"status": "ready", "reasons": []}
        async with connect(app.ws("/ws/chat/1")) as client:
            await eventually(lambda: len(app.pongee.connections()) == 1)
            await app.pongee.drain(0)
            assert (await client.wait_closed()).code == 1012
        answer = await app.http("GET", "/readyz")
        assert (answer.status_code, answer.json()) == (
            503,
            {"status": "draining", "reasons": ["draining"]},
        )
        assert (await app.http("GET", "/healthz")).status_code == 200
        assert await app.status("/ws/chat/1") == 503


async def _probe(app: Playground, path: str, token: str | None = None, **headers: str) -> Any:
    answer = await app.http(
        "POST",
        "/playground/probe",
        json={"path": path, "token": token},
        headers={"Origin": app.origin} | headers,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("path", "token", "status", "detail"),
    [
        ("/ws/chat/7", None, 101, None),
        ("/ws/secure/1?token=wrong-token", None, 403, "Invalid token"),
        (f"/ws/secure/1?token={STATIC_TOKEN}", None, 101, None),
        ("/ws/auth", JWT, 101, None),
        ("/ws/auth", "forged", 101, None),
        ("/ws/nowhere", None, 404, "Not Found"),
        ("/ws/chat/%ff", None, 422, None),
        ("/ws/secure/1?token=%ff%fe%00aaaaaaaa", None, 403, "Invalid token"),
        ("/ws/auth", "\u4f60 \r\n", 101, None),
    ],
)
async def test_probe_tells_how_a_handshake_ends(
    path: str, token: str | None, status: int, detail: str | None
) -> None:
    """Status and body, which a browser hides from its scripts; nothing of it stays behind."""
    async with playground() as app:
        answer = await _probe(app, path, token)
        assert answer["status"] == status
        if detail is not None:
            assert answer["body"] == {"detail": detail}
        assert app.pongee.connections() == []


async def test_probe_of_a_bad_shape_tells_what_is_wrong() -> None:
    """The 422's details."""
    async with playground() as app:
        answer = await _probe(app, "/ws/secure/0?token=short")
        assert answer["status"] == 422
        assert [error["loc"][-1] for error in answer["body"]["detail"]] == ["client_id", "token"]


async def test_probe_is_judged_by_the_origin_it_came_from() -> None:
    """It opens no door that the handshake itself would not."""
    async with playground() as app:
        answer = await _probe(app, "/ws/chat/7", Origin="http://evil.example")
        assert answer["status"] == 403


async def test_probe_behind_a_proxy_that_speaks_tls_knows_its_own_origin() -> None:
    """What the handshake itself would be told: `X-Forwarded-Proto` counts here too."""
    async with playground(trusted_proxies="127.0.0.1") as app:
        origin = app.origin.replace("http:", "https:")
        forwarded = {"X-Forwarded-Proto": "https"}
        assert await app.status("/ws/chat/7", origin=origin, headers=forwarded) == 101
        answer = await _probe(app, "/ws/chat/7", Origin=origin, **forwarded)
        assert answer["status"] == 101


@pytest.mark.parametrize(
    "body",
    [
        {"path": "/metrics"},
        {"path": "http://127.0.0.1:22/ws/"},
        {"path": "/ws/" + "x" * 3000},
        {"path": "/ws/auth", "token": "x" * 9000},
        {},
    ],
)
async def test_probe_takes_websocket_paths_of_this_server_only(body: dict[str, Any]) -> None:
    """It is no way to reach anything else."""
    async with playground() as app:
        assert (await app.http("POST", "/playground/probe", json=body)).status_code == 422


async def test_probe_counts_for_nobody() -> None:
    """A watcher of `/ws/status` is not left with a client that never was."""
    async with playground() as app, connect(app.ws("/ws/status")) as watcher:
        await watcher.receive()
        for _ in range(3):
            assert (await _probe(app, "/ws/status"))["status"] == 101
        async with connect(app.ws("/ws/status")) as client:
            assert (await client.receive_json())["active"] == 2
