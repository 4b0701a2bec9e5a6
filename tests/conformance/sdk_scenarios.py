"""What every client SDK must see of channels, whatever its language and its encoding.

The modules with the tests derive a class for each SDK; what only one of them can do is there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import pytest

from pongee.testing import Relay, Server, eventually
from tests.conformance.sdk import Kit, KitFactory, SdkClient, SdkError
from tests.conformance.sdk_app import Message, SdkApp, brief_grace, token

FORGED = "a secret that the server does not know, of some length"
PATH = "/connection/websocket"


class Bench:
    """An SDK and an application to connect it to; all of it ends with the test."""

    def __init__(self, kit: Kit, stack: AsyncExitStack) -> None:
        self.kit = kit
        self.app: SdkApp
        self._server: Server
        self._stack = stack
        self._url = ""

    async def serve(self, *, face: dict[str, Any] | None = None, **connection: Any) -> SdkApp:
        """Run the application, with these options of ``pongee.connection``."""
        self.app = SdkApp(**connection)
        self._server = await self._stack.enter_async_context(self.app.running(**(face or {})))
        self._url = self._server.ws(PATH)
        return self.app

    async def relay(self) -> Relay:
        """Put a relay before the server, for the clients made from now on."""
        made = await self._stack.enter_async_context(Relay(self._server.port))
        self._url = made.ws(PATH)
        return made

    async def client(self, **options: Any) -> SdkClient:
        """Make a client."""
        return await self.kit.client(self._url, **options)

    async def connected(self, **options: Any) -> SdkClient:
        """Make a client and connect it."""
        client = await self.client(**options)
        await client.connect()
        return client


async def away(relay: Relay, client: SdkClient) -> None:
    """Cut the line, and let the client come back only when the relay thaws."""
    before = len(client.all("connecting"))
    relay.freeze()
    relay.cut()
    await client.wait("connecting", count=before + 1)


class Scenarios:
    """The tests of one SDK."""

    kit: ClassVar[KitFactory]

    @pytest.fixture(params=["json", "protobuf"])
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        async with AsyncExitStack() as stack:
            kit = await stack.enter_async_context(type(self).kit(request.param))
            yield Bench(kit, stack)

    @pytest.fixture
    def no_leave_delay_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever is heard to leave did not have to wait for it."""
        monkeypatch.setattr("pongee.attendance.LEAVE_DELAY", 3600.0)

    # Connecting

    async def test_connects_without_a_token(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.client(data={"from": "the test"})
        connected = await client.connect()
        assert connected["client"]
        assert connected["data"]["hello"] is None
        assert connected["data"]["sdk"]
        assert app.sent == [{"from": "the test"}]

    async def test_connects_on_plain_uvicorn(self, bench: Bench) -> None:
        await bench.serve(face={"ws": "auto"})
        client = await bench.connected(token=token("ann"))
        await client.subscribe("chat:1")
        await client.do("publish", channel="chat:1", data={"text": "hi"})
        await client.wait("publication", channel="chat:1")
        assert client.heard("chat:1") == [{"text": "hi"}]

    async def test_connects_with_a_token(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.client(token=token("ann", info={"name": "Ann"}))
        assert (await client.connect())["data"]["hello"] == "ann"
        await client.subscribe("chat:1")
        (info,) = (await client.do("presence", channel="chat:1"))["clients"].values()
        assert info["user"] == "ann"
        assert info["conn_info"] == {"name": "Ann"}

    async def test_fetches_its_first_token(self, bench: Bench) -> None:
        await bench.serve(anonymous=False)
        client = await bench.client(get_token=lambda _: token("ann"))
        assert (await client.connect())["data"]["hello"] == "ann"

    async def test_an_expired_token_is_fetched_anew(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.client(
            token=token("ann", lasts=-5), get_token=lambda _: token("ann", lasts=60)
        )
        assert (await client.connect())["data"]["hello"] == "ann"
        assert len(client.all("get_token")) == 1

    async def test_a_bad_token_is_terminal(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.client(token=token("ann", secret=FORGED))
        await client.do("connect")
        ended = await client.wait("disconnected")
        assert (ended["code"], ended["reason"]) == (3500, "invalid token")

    async def test_no_token_where_one_is_needed_is_terminal(self, bench: Bench) -> None:
        await bench.serve(anonymous=False)
        client = await bench.client()
        await client.do("connect")
        assert (await client.wait("disconnected"))["code"] == 3501

    async def test_a_connection_outlives_its_tokens_and_is_pinged(self, bench: Bench) -> None:
        """A second for each token, so that those of both kinds are refreshed again and again."""
        app = await bench.serve(limits=brief_grace(2), ping_interval=1, pong_timeout=0.9)
        client = await bench.client(get_token=lambda _: token("ann", lasts=1))
        await client.connect()
        await client.subscribe(
            "locked:1", get_token=lambda channel: token("ann", lasts=1, channel=channel)
        )
        # The first, and one in each of four seconds: longer than a token lasts with its grace.
        await client.wait("get_token", count=10)
        await app.locked.publish("still here", n=1)
        await client.wait("publication", channel="locked:1")
        assert len(client.all("get_token", channel="locked:1")) >= 4
        assert len(app.pongee.connections()) == 1
        for once in ("connecting", "connected", "subscribing", "subscribed"):
            assert len(client.all(once)) == 1

    async def test_out_of_time_it_comes_back(self, bench: Bench) -> None:
        app = await bench.serve(limits=brief_grace(0.1))
        client = await bench.connected(token=token("ann"))
        assert await app.pongee.refresh(time.time() + 0.1, user="ann") == 1
        await client.wait("connecting", code=3005)
        await client.wait("connected", count=2)

    # Channels

    async def test_publications_reach_subscribers(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected(token=token("ann"))
        subscribed = await client.subscribe("chat:7", data={"with": "me"})
        assert subscribed["data"] == {"room": 7}
        assert subscribed["recoverable"]
        assert subscribed["positioned"]
        assert app.sent[-1] == {"with": "me"}
        await client.do("publish", channel="chat:7", data={"text": "mine"})
        await app.chat.publish(Message(text="yours"), room_id=7, tags={"lang": "en"})
        own = await client.wait("publication", channel="chat:7")
        other = await client.wait("publication", channel="chat:7", count=2)
        assert own["data"] == {"text": "mine"}
        assert own["info"]["user"] == "ann"
        assert other["data"] == {"text": "yours"}
        assert other["tags"] == {"lang": "en"}
        assert not other.get("info")
        assert [own["offset"], other["offset"]] == [1, 2]

    async def test_what_may_not_be_is_refused(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected()
        await client.subscribe("plain:1")
        for channel, data, code in [
            ("chat:1", {"text": "from outside"}, 103),
            ("plain:1", {"text": "nobody may"}, 103),
            ("chat:1", {"no": "message"}, 107),
            ("nowhere", {}, 102),
        ]:
            with pytest.raises(SdkError) as failed:
                await client.do("publish", channel=channel, data=data)
            assert failed.value.code == code, channel
        with pytest.raises(SdkError) as failed:
            await client.do("history", channel="plain:1", limit=1)
        assert failed.value.code == 108
        with pytest.raises(SdkError) as failed:
            await client.do("presence", channel="plain:1")
        assert failed.value.code == 108
        for channel, code in [("locked:1", 103), ("nowhere", 102), ("chat:no number", 102)]:
            await client.do("subscribe", channel=channel)
            assert (await client.wait("unsubscribed", channel=channel))["code"] == code

    async def test_unsubscribed_it_hears_nothing_more(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected()
        await client.subscribe("plain:1")
        await client.do("unsubscribe", channel="plain:1")
        await client.wait("unsubscribed", channel="plain:1", code=0)
        await eventually(lambda: "plain:1" not in app.pongee.local_channels())
        await app.plain.publish("unheard", n=1)
        await client.subscribe("plain:2")
        await app.plain.publish("heard", n=2)
        await client.wait("publication", channel="plain:2")
        assert client.heard("plain:1") == []

    async def test_payloads_of_every_kind(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected()
        await client.subscribe("plain:1")
        payloads: list[Any] = [
            "",
            "two\nlines",
            "Straße 🚋",
            0,
            1.5,
            True,
            [],
            {},
            [1, {"a": [""]}],
            "x" * 70_000,
        ]
        for one in payloads:
            await app.plain.publish(one, n=1)
        await client.wait("publication", channel="plain:1", count=len(payloads))
        assert client.heard("plain:1") == payloads

    async def test_history(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected()
        for number in range(1, 8):
            await app.chat.publish(Message(text=str(number)), room_id=1)
        await client.subscribe("chat:1")

        async def read(**options: Any) -> list[str]:
            page = await client.do("history", channel="chat:1", **options)
            assert page["offset"] == 7
            assert [one["data"]["text"] for one in page["publications"]] == [
                str(one["offset"]) for one in page["publications"]
            ]
            return [one["data"]["text"] for one in page["publications"]]

        top = await client.do("history", channel="chat:1")
        assert (top["offset"], top["publications"]) == (7, [])
        epoch = top["epoch"]
        assert await read(limit=3) == ["1", "2", "3"]
        assert await read(limit=-1) == ["1", "2", "3", "4", "5", "6", "7"]
        assert await read(limit=2, since={"offset": 3, "epoch": epoch}) == ["4", "5"]
        assert await read(limit=2, reverse=True) == ["7", "6"]
        assert await read(limit=9, since={"offset": 3, "epoch": epoch}, reverse=True) == ["2", "1"]
        with pytest.raises(SdkError) as failed:
            await read(limit=2, since={"offset": 3, "epoch": "other"})
        assert failed.value.code == 112

    async def test_presence(self, bench: Bench) -> None:
        await bench.serve()
        first, second = [await bench.connected(token=token("ann")) for _ in range(2)]
        third = await bench.connected(token=token("bob"))
        for one in (first, second, third):
            await one.subscribe("chat:1")
        clients = (await first.do("presence", channel="chat:1"))["clients"]
        assert sorted(one["user"] for one in clients.values()) == ["ann", "ann", "bob"]
        assert all(name == one["client"] for name, one in clients.items())
        stats = await first.do("presence_stats", channel="chat:1")
        assert stats == {"num_clients": 3, "num_users": 2}

    async def test_joins_and_leaves(self, bench: Bench, no_leave_delay_ends: None) -> None:
        """Of a client that says goodbye the others hear at once."""
        await bench.serve()
        first = await bench.connected(token=token("ann"))
        await first.subscribe("chat:1", join_leave=True)
        await first.wait("join", channel="chat:1")
        second = await bench.connected(token=token("bob"))
        await second.subscribe("chat:1")
        joined = await first.wait("join", channel="chat:1", count=2)
        assert joined["info"]["user"] == "bob"
        await second.do("disconnect")
        left = await first.wait("leave", channel="chat:1")
        assert left["info"] == joined["info"]
        assert [one["info"]["user"] for one in first.all("join")] == ["ann", "bob"]
        assert second.all("join") == []  # it did not ask

    async def test_a_user_whose_line_broke_does_not_flicker(
        self, bench: Bench, no_leave_delay_ends: None
    ) -> None:
        """The others hear that it left only when it is back."""
        app = await bench.serve()
        first = await bench.connected(token=token("ann"))
        await first.subscribe("chat:1", join_leave=True)
        relay = await bench.relay()
        second = await bench.connected(token=token("bob"))
        await second.subscribe("chat:1")
        before = (await first.wait("join", channel="chat:1", count=2))["info"]
        await away(relay, second)
        await eventually(lambda: len(app.pongee.connections()) == 1)
        await first.do("presence_stats", channel="chat:1")  # there and back: nothing is on the way
        assert first.all("leave") == []
        relay.thaw()
        left = await first.wait("leave", channel="chat:1")
        assert left["info"] == before
        assert (await first.wait("join", channel="chat:1", count=3))["info"]["user"] == "bob"
        stats = await first.do("presence_stats", channel="chat:1")
        assert stats == {"num_clients": 2, "num_users": 2}

    async def test_rpc(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected()
        assert await client.do("rpc", method="add", data={"left": 20, "right": 22}) == {"data": 42}
        for method, data, code in [
            ("fail", 400, 400),
            ("fail", 1999, 1999),
            ("nothing", 1, 104),
            ("add", {"left": "no number"}, 107),
        ]:
            with pytest.raises(SdkError) as failed:
                await client.do("rpc", method=method, data=data)
            assert failed.value.code == code, method

    # Tokens of subscriptions

    async def test_a_token_opens_a_channel(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected(token=token("ann"))
        await client.subscribe(
            "locked:1", get_token=lambda channel: token("ann", lasts=None, channel=channel)
        )
        await client.do("subscribe", channel="locked:2", token=token("ann", secret=FORGED))
        assert (await client.wait("unsubscribed", channel="locked:2"))["code"] == 103

    async def test_an_expired_subscription_token_is_fetched_anew(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected(token=token("ann"))
        await client.subscribe(
            "locked:1",
            token=token("ann", lasts=-5, channel="locked:1"),
            get_token=lambda channel: token("ann", channel=channel),
        )
        assert len(client.all("get_token", channel="locked:1")) == 1

    async def test_a_token_for_another_channel_is_terminal(self, bench: Bench) -> None:
        await bench.serve()
        client = await bench.connected(token=token("ann"))
        await client.do("subscribe", channel="locked:1", token=token("ann", channel="locked:2"))
        assert (await client.wait("disconnected"))["code"] == 3500

    # Recovery

    async def test_what_was_missed_arrives(self, bench: Bench) -> None:
        app = await bench.serve()
        relay = await bench.relay()
        client = await bench.connected()
        await client.subscribe("chat:1")
        await app.chat.publish(Message(text="0"), room_id=1)
        await client.wait("publication")
        await away(relay, client)
        for number in range(1, 41):
            await app.chat.publish(Message(text=str(number)), room_id=1)
        relay.thaw()
        again = await client.wait("subscribed", channel="chat:1", count=2)
        assert again["was_recovering"]
        assert again["recovered"]
        await app.chat.publish(Message(text="41"), room_id=1)
        await client.wait("publication", count=42)
        assert client.heard("chat:1") == [{"text": str(number)} for number in range(42)]

    async def test_what_was_forgotten_is_not_recovered(self, bench: Bench) -> None:
        app = await bench.serve()
        relay = await bench.relay()
        client = await bench.connected()
        await client.subscribe("short:1")
        await app.short.publish(0, n=1)
        await client.wait("publication")
        await away(relay, client)
        for number in range(1, 6):
            await app.short.publish(number, n=1)
        relay.thaw()
        again = await client.wait("subscribed", channel="short:1", count=2)
        assert again["was_recovering"]
        assert not again["recovered"]
        await app.short.publish(6, n=1)
        await client.wait("publication", count=2)
        assert client.heard("short:1") == [0, 6]

    async def test_a_state_is_loaded_only_where_recovery_fails(self, bench: Bench) -> None:
        app = await bench.serve()
        relay = await bench.relay()
        position = await app.short.publish(0, n=1)
        client = await bench.connected()
        first = await client.subscribe("short:1", get_state=lambda _: position._asdict())
        assert first["recovered"]
        await away(relay, client)
        await app.short.publish(1, n=1)
        relay.thaw()
        await client.wait("publication")
        assert len(client.all("get_state")) == 1
        await away(relay, client)
        for number in range(2, 8):
            position = await app.short.publish(number, n=1)
        relay.thaw()
        third = await client.wait("subscribed", count=3)
        assert third["recovered"]
        assert len(client.all("get_state")) == 2
        await app.short.publish(8, n=1)
        await client.wait("publication", count=2)
        assert client.heard("short:1") == [1, 8]

    async def test_a_cache_gives_the_newest(self, bench: Bench) -> None:
        app = await bench.serve()
        relay = await bench.relay()
        for number in range(3):
            await app.cached.publish(number, n=1)
        client = await bench.connected()
        first = await client.subscribe("cached:1")
        assert first["recovered"]
        await client.wait("publication")
        await away(relay, client)
        for number in range(3, 6):
            await app.cached.publish(number, n=1)
        relay.thaw()
        await client.wait("publication", count=2)
        assert client.heard("cached:1") == [2, 5]

    # By the server

    async def test_server_side_subscriptions(self, bench: Bench) -> None:
        app = await bench.serve()
        app.greeting = ["plain:hello"]
        relay = await bench.relay()
        client = await bench.connected(
            token=token("ann", channels=["chat:1"], subs={"plain:subs": {}})
        )
        for channel in ("chat:1", "plain:subs", "plain:hello"):
            await client.wait("subscribed", channel=channel, server_side=True)
        await client.do("rpc", method="add", data={"left": 1, "right": 2})
        assert await app.pongee.subscribe("plain:later", user="ann") == 1
        await client.wait("subscribed", channel="plain:later", server_side=True)
        await app.plain.publish("hi", n="later")
        await client.wait("publication", channel="plain:later", server_side=True)
        assert await app.pongee.unsubscribe("plain:later", user="ann") == 1
        await client.wait("unsubscribed", channel="plain:later", server_side=True)
        await app.chat.publish(Message(text="0"), room_id=1)
        await client.wait("publication", channel="chat:1")
        await away(relay, client)
        for number in range(1, 6):
            await app.chat.publish(Message(text=str(number)), room_id=1)
        relay.thaw()
        again = await client.wait("subscribed", channel="chat:1", count=2)
        assert again["recovered"]
        assert again["was_recovering"]
        await client.wait("publication", channel="chat:1", count=6)
        assert client.heard("chat:1") == [{"text": str(number)} for number in range(6)]

    async def test_unsubscribed_by_the_server(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected(token=token("ann"))
        await client.subscribe("chat:1")
        await app.pongee.unsubscribe("chat:1", user="ann", code=2500)
        again = await client.wait("subscribed", channel="chat:1", count=2)
        assert again["recovered"]
        assert client.all("unsubscribed") == []
        await app.pongee.unsubscribe("chat:1", user="ann", code=2000)
        ended = await client.wait("unsubscribed", channel="chat:1")
        assert (ended["code"], ended["reason"]) == (2000, "server unsubscribe")

    @pytest.mark.parametrize(
        ("code", "comes_back"),
        [(None, False), (3011, True), (3999, False), (4000, True), (4499, True), (4500, False)],
    )
    async def test_disconnected_by_the_server(
        self, bench: Bench, code: int | None, comes_back: bool
    ) -> None:
        app = await bench.serve()
        client = await bench.connected(token=token("ann"))
        assert await app.pongee.disconnect(user="ann", code=code) == 1
        if comes_back:
            await client.wait("connecting", code=code)
            await client.wait("connected", count=2)
            assert client.all("disconnected") == []
        else:
            ended = await client.wait("disconnected")
            assert ended["code"] == (code or 3503)
            assert ended["reason"]

    async def test_an_own_reason_is_told(self, bench: Bench) -> None:
        app = await bench.serve()
        client = await bench.connected(token=token("ann"))
        await app.pongee.disconnect(user="ann", code=4501, reason="moved elsewhere")
        assert (await client.wait("disconnected"))["reason"] == "moved elsewhere"
