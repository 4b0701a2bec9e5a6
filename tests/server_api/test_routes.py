"""The key, the body, and where the routes are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import cent
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException

from pongee import Pongee
from pongee.limits import API_BODY_SIZE
from pongee.server_api.methods import METHODS
from tests.server_api.conftest import KEY, Api, serving

pytestmark = pytest.mark.anyio

ROUTES = [*METHODS, "batch"]


@pytest.mark.parametrize("method", ROUTES)
async def test_without_a_key_in_the_settings_there_is_no_route(method: str) -> None:
    """Nor is there one for somebody who guesses."""
    async with serving(key=None) as api:
        assert (await api.post(method, {})).status_code == 404


@pytest.mark.parametrize("method", ROUTES)
async def test_every_route_asks_for_the_key(method: str) -> None:
    """Before it reads the body."""
    async with serving() as api:
        answer = await api.post(method, headers={}, content=b"no JSON")
        assert answer.status_code == 401
        assert answer.json() == {"detail": "unauthorized"}
        assert answer.headers["www-authenticate"] == "apikey"
        assert (await api.post(method, {})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "0"},
        {"X-API-Key": ""},
        {"X-API-Key": "é" * 20},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "apikey"},
        {"X-API-Key": "wrong", "Authorization": f"apikey {KEY}"},
    ],
)
async def test_wrong_key_is_refused(headers: dict[str, str]) -> None:
    """Whatever is wrong with it; nothing is done."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with serving() as api:
        body = {"channel": "chat:1", "data": {"text": "a"}}
        assert (await api.post("publish", body, headers=raw)).status_code == 401
        assert (await api.result("history", {"channel": "chat:1"}))["offset"] == 0


@pytest.mark.parametrize("scheme", ["apikey", "ApiKey"])
async def test_key_may_be_in_the_authorization_header(scheme: str) -> None:
    """As Centrifugo takes it."""
    async with serving() as api:
        answer = await api.post("info", {}, headers={"Authorization": f"{scheme} {KEY}"})
        assert answer.status_code == 200


async def test_key_in_the_query_is_no_key() -> None:
    """It would end in every log on the way."""
    async with serving() as api:
        assert (await api.post(f"info?api_key={KEY}", {}, headers={})).status_code == 401


async def test_library_learns_that_its_key_is_wrong() -> None:
    """By an exception of its own."""
    async with serving() as api:
        client = cent.AsyncClient(api.url, "wrong-key-of-the-server-api")
        with pytest.raises(cent.CentUnauthorizedError):
            await client.info(cent.InfoRequest())
        await client._session.close()


BROKEN = [b"", b"{", b"{} x", b"\xff", b'{"channel": "\xff", "data": 1}', b"[" * 100_000, b"NaN"]


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:12]))
async def test_body_that_is_not_json_is_400(body: bytes) -> None:
    """For a single method and for a batch."""
    async with serving() as api:
        for method in ("publish", "batch"):
            answer = await api.post(method, content=body, json=None)
            assert answer.status_code == 400, answer.text


async def test_body_over_the_bound_is_413_and_one_of_the_bound_is_not() -> None:
    """Announced, or found out as it comes in pieces."""
    start, end = b'{"channel":"plain","data":"', b'"}'
    fits = start + b"x" * (API_BODY_SIZE - len(start) - len(end)) + end

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(fits), 1 << 16):
            yield fits[at : at + (1 << 16)]
        yield b" "

    async with serving() as api:
        assert (await api.post("publish", content=fits, json=None)).status_code == 200
        assert (await api.post("publish", content=fits + b" ", json=None)).status_code == 413
        assert (await api.post("publish", content=pieces(), json=None)).status_code == 413
        assert (await api.post("info", {})).status_code == 200


async def test_only_post_is_answered() -> None:
    """The address of a request that changes something must not do it."""
    async with serving() as api, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{api.url}/info", headers={"X-API-Key": KEY})
        assert answer.status_code == 405


async def test_requests_at_once_are_all_answered() -> None:
    """Each publication has an offset of its own."""
    async with serving() as api:
        body = {"channel": "chat:1", "data": {"text": "a"}}
        results = await asyncio.gather(*(api.result("publish", body) for _ in range(20)))
        assert sorted(result["offset"] for result in results) == list(range(1, 21))


async def test_key_and_payload_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """At the finest level of our own loggers and the server's."""
    for name in ("pongee", "uvicorn", "uvicorn.asgi", "uvicorn.error", "uvicorn.access"):
        caplog.set_level(logging.DEBUG, logger=name)
    secret = {"channel": "chat:1", "data": {"text": "for nobody else"}}
    async with serving() as api:
        await api.post("publish", secret)
        await api.post("publish", secret, headers={"Authorization": f"apikey {KEY}"})
        await api.post("publish", {"channel": "chat:1", "data": {"txt": "for nobody else"}})
        await api.post("publish", secret, headers={"X-API-Key": KEY + "0"})
    shown = [record.getMessage() for record in caplog.records]
    assert any("/api/publish" in line for line in shown)  # the server's own, of each request
    assert not [line for line in shown if KEY in line or "for nobody else" in line]


async def test_application_knows_nothing_of_it() -> None:
    """Its own schema and its own dependencies are for its own users."""

    def refuse() -> None:
        raise HTTPException(403)

    def change(pongee: Pongee, app: FastAPI) -> None:
        app.router.dependencies.append(Depends(refuse))

    async def schema(api: Api) -> Any:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(api.server.http("/openapi.json"))).json()

    async with serving(change=change) as api:
        assert (await api.post("info", {})).status_code == 200
        assert "/api/info" not in (await schema(api)).get("paths", {})
