"""The official JavaScript SDK over HTTP, as where WebSockets are blocked: the same tests again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.sdk import GetToken, SdkClient
from tests.conformance.sdk_javascript import Node, javascript
from tests.conformance.sdk_scenarios import Bench, Scenarios

pytestmark = [pytest.mark.anyio, pytest.mark.node]


class OverHttp:
    """The SDK with one transport of the fallback, whatever address it is given."""

    def __init__(self, node: Node, transport: str) -> None:
        self._node = node
        self._transport = transport

    async def client(
        self,
        url: str,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        data: Any = None,
    ) -> SdkClient:
        """Make a client."""
        base = f"http://{urlsplit(url).netloc}"
        endpoint = f"{base}/connection/{self._transport}"
        return await self._node.client(
            token=token,
            get_token=get_token,
            data=data,
            transports=[{"transport": self._transport, "endpoint": endpoint}],
            emulation=f"{base}/emulation",
        )


@asynccontextmanager
async def bench_over(transport: str, encoding: str) -> AsyncIterator[Bench]:
    """A bench whose streams end before its server does, which would wait for them."""
    async with javascript(encoding) as node, AsyncExitStack() as stack:
        bench = Bench(OverHttp(node, transport), stack)
        yield bench
        await bench.app.pongee.drain(0)


class OverStreams(Scenarios):
    """What is the same for both transports."""

    @pytest.fixture
    def no_leave_delay_ends(self) -> None:
        """A goodbye looks like a line that broke, so that others hear of it a little later."""


class TestHttpStream(OverStreams):
    """A long response to a POST, in both encodings."""

    @pytest.fixture(params=["json", "protobuf"])
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        async with bench_over("http_stream", request.param) as bench:
            yield bench


class TestSse(OverStreams):
    """Server-sent events, which carry JSON only."""

    @pytest.fixture(params=["json"])
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        async with bench_over("sse", request.param) as bench:
            yield bench
