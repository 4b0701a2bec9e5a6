"""Refusals: a status and a readable body before accept, or a close frame after it."""

from __future__ import annotations

import pytest

from pongee.testing import CloseFrame, HandshakeRefused
from tests.servers.expectations import Expected
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(15)]


async def refusal(server: ServerProcess, path: str, **options: str) -> HandshakeRefused:
    with pytest.raises(HandshakeRefused) as refused:
        async with server.connect(path, **options):
            pass
    return refused.value


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_a_refusal_has_its_status_and_a_readable_body(
    server: ServerProcess, status: int
) -> None:
    refused = await refusal(server, f"/refused/{status}")
    assert refused.status == status
    assert refused.json() == {"detail": "Not today"}
    assert refused.headers["content-type"] == "application/json"
    assert ("www-authenticate" in refused.headers) == (status == 401)


async def test_a_refusal_by_close_frame_keeps_code_and_reason(server: ServerProcess) -> None:
    async with server.connect("/refused-by-close") as client:
        assert await client.wait_closed() == CloseFrame(1008, "Invalid credentials")


async def test_a_route_nobody_declared_is_not_found(server: ServerProcess) -> None:
    refused = await refusal(server, "/nowhere")
    assert (refused.status, refused.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize("path", ["/rooms/seven", "/token"])
async def test_a_handshake_that_does_not_fit_is_explained(server: ServerProcess, path: str) -> None:
    refused = await refusal(server, path)
    assert refused.status == 422
    assert refused.json()["detail"][0]["loc"][0] in ("path", "query")


async def test_another_site_may_not_connect(server: ServerProcess) -> None:
    refused = await refusal(server, "/text", origin="https://evil.example")
    assert refused.status == 403


async def test_a_token_in_the_query_stays_out_of_the_log(
    server: ServerProcess, expected: Expected, request: pytest.FixtureRequest
) -> None:
    secret, barrier = "s3cr3t-in-the-query", "/barrier-in-the-log"
    async with server.connect(f"/token?token={secret}") as client:
        assert await client.receive() == str(len(secret))
    await refusal(server, f"/refused/403?token={secret}")
    await refusal(server, f"{barrier}?token={secret}")
    await server.until_printed(barrier)
    assert "/token" in server.output()
    assert secret not in server.output()
