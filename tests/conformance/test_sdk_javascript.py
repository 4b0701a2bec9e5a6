"""The official JavaScript SDK, unmodified, on our channels; it runs in Node."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.conformance.sdk import KitFactory
from tests.conformance.sdk_app import Message, token
from tests.conformance.sdk_javascript import javascript
from tests.conformance.sdk_scenarios import Bench, Scenarios

pytestmark = [pytest.mark.anyio, pytest.mark.node]


class TestJavascriptSdk(Scenarios):
    """``centrifuge`` from npm."""

    kit: ClassVar[KitFactory] = staticmethod(javascript)

    async def test_messages_outside_of_channels(self, bench: Bench) -> None:
        app = await bench.serve()
        app.letter = {"for": "you alone"}
        client = await bench.connected(token=token("ann"))
        assert await client.do("rpc", method="write_me", data=None) == {"data": None}
        assert (await client.wait("message"))["data"] == {"for": "you alone"}

    async def test_a_message_nobody_takes_is_terminal(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected()
        await client.do("send", data={"to": "nobody"})
        assert (await client.wait("disconnected"))["code"] == 3508

    async def test_fifty_channels_in_one_frame(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.client(token=token("ann"))
        channels = [f"plain:{number}" for number in range(50)]
        for channel in channels:
            await client.do("subscribe", channel=channel)
        await client.connect()
        for channel in channels:
            await client.wait("subscribed", channel=channel)
        assert len(client.all("frame")) == 1
        assert app.pongee.local_channels() == dict.fromkeys(channels, 1)
        await app.pongee.broadcast(channels, "to all")
        await client.wait("publication", count=50)
        assert [one["channel"] for one in client.all("publication")] == channels

    async def test_it_starts_where_it_wants(self, bench: Bench) -> None:
        app = await bench.serve()
        for number in range(5):
            await app.chat.publish(Message(text=str(number)), room_id=1)
        client = await bench.connected()
        await client.subscribe("chat:1", since={"offset": 2, "epoch": ""})
        await client.wait("publication", count=3)
        assert client.heard("chat:1") == [{"text": "2"}, {"text": "3"}, {"text": "4"}]
