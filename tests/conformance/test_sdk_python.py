"""The official Python SDK, unmodified, on our channels."""

from __future__ import annotations

from typing import ClassVar

import pytest

import centrifuge
from tests.conformance.sdk import KitFactory
from tests.conformance.sdk_app import SdkApp, token
from tests.conformance.sdk_python import python
from tests.conformance.sdk_scenarios import PATH, Scenarios

pytestmark = pytest.mark.anyio


class TestPythonSdk(Scenarios):
    """``centrifuge-python``."""

    kit: ClassVar[KitFactory] = staticmethod(python)


async def test_both_encodings_in_one_channel() -> None:
    """What one publishes reaches the other as the same value."""
    async with (
        SdkApp().running() as server,
        python("json") as texts,
        python("protobuf") as binaries,
    ):
        clients = [
            await kit.client(server.ws(PATH), token=token(user))
            for kit, user in ((texts, "ann"), (binaries, "bob"))
        ]
        for client in clients:
            await client.connect()
            await client.subscribe("chat:1")
        for number, client in enumerate(clients):
            await client.do("publish", channel="chat:1", data={"text": f"naïve {number}"})
        for client in clients:
            await client.wait("publication", count=2)
            assert client.heard("chat:1") == [{"text": "naïve 0"}, {"text": "naïve 1"}]
            assert [one["info"]["user"] for one in client.all("publication")] == ["ann", "bob"]


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"not JSON"])
async def test_what_is_no_json_is_refused(payload: bytes) -> None:
    """A client that speaks Protobuf could send anything, but others read JSON."""
    async with SdkApp().running() as server, python("protobuf") as kit:
        client = await kit.client(server.ws(PATH))
        await client.connect()
        await client.subscribe("chat:1")
        with pytest.raises(centrifuge.ReplyError) as failed:
            await client.inner.publish("chat:1", payload)
        assert failed.value.code == 107
        with pytest.raises(centrifuge.ReplyError) as failed:
            await client.inner.rpc("add", payload)
        assert failed.value.code == 107
