"""Every method, called by Centrifugo's own library, and what connected clients see of it."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any

import cent
import pytest
from fastapi import FastAPI
from pydantic import AfterValidator

from pongee import Pongee
from pongee.brokers.base import Page
from pongee.brokers.memory import MemoryBroker
from pongee.limits import API_STEPS, ClientLimits
from pongee.testing import ManualClock, connect, eventually
from tests.server_api.conftest import KEY, Connected, serving

pytestmark = pytest.mark.anyio


async def test_publication_reaches_subscribers_and_has_a_position() -> None:
    """Data, tags and offset arrive; the reply tells the position."""
    async with serving() as api, api.client("ada") as ada, api.library() as library:
        entered = await ada.subscribe("chat:1")

        result = await library.publish(
            cent.PublishRequest(channel="chat:1", data={"text": "hi"}, tags={"from": "crm"})
        )

        assert (result.offset, result.epoch) == (1, entered["epoch"])
        push = await ada.push()
        assert push == {
            "channel": "chat:1",
            "pub": {"data": {"text": "hi"}, "offset": 1, "tags": {"from": "crm"}},
        }


async def test_undeclared_channel_takes_publications_for_sessions() -> None:
    """It keeps nothing, so that its position is none."""
    async with serving() as api, connect(api.server.ws("/ws/plain")) as session:
        assert await session.receive() == "in"
        result = await api.result("publish", {"channel": "plain", "data": "hello"})
        assert result == {"offset": 0, "epoch": ""}
        assert await session.receive() == "hello"
        await api.result("publish", {"channel": "plain", "data": {"n": 2**60}})
        assert await session.receive_json() == {"n": 2**60}


async def test_base64_that_holds_json_is_published() -> None:
    """It counts instead of the data, as in Centrifugo."""
    encoded = base64.b64encode(b'{"text": "hi"}').decode()
    async with serving() as api, api.client("ada") as ada, api.library() as library:
        await ada.subscribe("chat:1")
        await library.publish(cent.PublishRequest(channel="chat:1", data=None, b64data=encoded))
        assert (await ada.push())["pub"]["data"] == {"text": "hi"}


async def test_same_idempotency_key_publishes_once() -> None:
    """A repetition gets the first one's position."""
    request = cent.PublishRequest(channel="chat:1", data={"text": "once"}, idempotency_key="k")
    async with serving() as api, api.library() as library:
        assert (await library.publish(request)).offset == 1
        assert (await library.publish(request)).offset == 1
        assert (await library.history(cent.HistoryRequest(channel="chat:1", limit=9))).offset == 1


async def test_publication_may_skip_the_history() -> None:
    """It is delivered without an offset, and is not kept."""
    async with serving() as api, api.client("ada") as ada:
        await ada.subscribe("chat:1")
        sent = {"channel": "chat:1", "data": {"text": "psst"}, "skip_history": True}
        assert await api.result("publish", sent) == {"offset": 0, "epoch": ""}
        assert (await ada.push())["pub"] == {"data": {"text": "psst"}}
        history = await api.result("history", {"channel": "chat:1", "limit": -1})
        assert history["publications"] == []


async def test_broadcast_answers_for_each_channel() -> None:
    """One that cannot take the data does not keep it from the others."""
    channels = ["chat:1", "", "plain", "live:1"]
    async with serving() as api, api.client("ada") as ada, api.library() as library:
        await ada.subscribe("live:1")
        result = await library.broadcast(
            cent.BroadcastRequest(channels=channels, data={"text": "all"})
        )
        errors = [one.error.code if one.error else None for one in result.responses]
        offsets = [one.result.offset if one.result else None for one in result.responses]
        assert errors == [None, 107, None, None]
        assert offsets == [1, None, 0, 0]
        assert (await ada.push())["pub"]["data"] == {"text": "all"}


async def test_broadcast_is_checked_for_each_declaration() -> None:
    """What an undeclared channel takes may be nothing for a declared one."""
    async with serving() as api:
        result = await api.result("broadcast", {"channels": ["plain", "chat:1"], "data": 7})
        assert [next(iter(one)) for one in result["responses"]] == ["result", "error"]


@pytest.mark.parametrize("many", [0, API_STEPS + 1])
async def test_broadcast_has_a_bound(many: int) -> None:
    """Nothing is published."""
    async with serving() as api:
        body = {"channels": ["c"] * many, "data": 1}
        assert (await api.error("broadcast", body))[0] == 107


async def test_clients_are_subscribed_and_unsubscribed() -> None:
    """All of a user, or the one that is named; they are told, and get what is published."""
    async with (
        serving() as api,
        api.client("ada") as first,
        api.client("ada") as second,
        api.library() as library,
    ):
        await library.subscribe(cent.SubscribeRequest(user="ada", channel="chat:1"))
        for client in (first, second):
            assert (await client.push()).keys() == {"channel", "subscribe"}

        await library.unsubscribe(
            cent.UnsubscribeRequest(user="ada", client=first.id, channel="chat:1")
        )
        push = await first.push()
        assert push["unsubscribe"] == {"code": 2000, "reason": "server unsubscribe"}

        await library.publish(cent.PublishRequest(channel="chat:1", data={"text": "two"}))
        assert (await second.push())["pub"]["data"] == {"text": "two"}
        assert api.pongee.local_channels() == {"chat:1": 1}


async def test_whoever_does_not_fit_everything_is_left_alone() -> None:
    """The client of another user, or of another session, is not meant."""
    async with serving() as api, api.client("ada") as ada:
        other: dict[str, Any]
        for other in ({"user": "bob", "client": ada.id}, {"user": "ada", "session": "no"}):
            assert await api.result("subscribe", {"channel": "chat:1", **other}) == {}
            assert await api.result("disconnect", other) == {}
        assert api.pongee.local_channels() == {}
        assert len(api.pongee.connections()) == 1


class SlowBroker(MemoryBroker):
    """Answers what a channel keeps when it is let."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def history(self, *given: Any, **more: Any) -> Page:
        self.asked.set()
        await self.go.wait()
        return await super().history(*given, **more)


async def test_client_that_leaves_while_it_is_subscribed_is_no_error() -> None:
    """The others of the user are subscribed, and the request is answered."""
    brokers: list[SlowBroker] = []

    def slow(*given: Any) -> SlowBroker:
        brokers.append(SlowBroker(*given))
        return brokers[0]

    async with serving(broker=slow) as api, api.client("ada") as first, api.client("ada") as second:
        body = {"user": "ada", "channel": "chat:1"}
        request = asyncio.create_task(api.result("subscribe", body))
        async with asyncio.timeout(5):
            await brokers[0].asked.wait()
        await first.socket.close()
        await eventually(lambda: [one.id for one in api.pongee.connections()] == [second.id])
        brokers[0].go.set()

        assert await request == {}
        assert (await second.push()).keys() == {"channel", "subscribe"}
        assert api.pongee.local_channels() == {"chat:1": 1}


async def _closed(client: Connected) -> tuple[int, str]:
    frame = await client.socket.wait_closed()
    return frame.code, frame.reason


async def test_disconnect_ends_connections_with_the_given_code() -> None:
    """By default 3503, after which an SDK stays away."""
    async with serving() as api, api.client("ada") as ada, api.client("bob") as bob:
        async with api.library() as library:
            await library.disconnect(cent.DisconnectRequest(user="ada"))
            custom = cent.Disconnect(code=4001, reason="moved")
            await library.disconnect(
                cent.DisconnectRequest(user="bob", client=bob.id, disconnect=custom)
            )
        assert await _closed(ada) == (3503, "force disconnect")
        assert await _closed(bob) == (4001, "moved")


async def test_disconnect_spares_the_whitelist_and_ends_sessions_too() -> None:
    """A session of the same user gets the code of its own kind."""
    async with (
        serving() as api,
        api.client("ada") as kept,
        api.client("ada") as gone,
        connect(api.server.ws("/ws/plain?user=ada")) as session,
    ):
        assert await session.receive() == "in"
        await api.result("disconnect", {"user": "ada", "whitelist": [kept.id]})
        assert (await _closed(gone))[0] == 3503
        assert (await session.wait_closed()).code == 4403
        assert [one.id for one in api.pongee.connections()] == [kept.id]


async def test_anonymous_client_is_found_by_its_id() -> None:
    """It has no user to be named by."""
    async with serving() as api, api.client("") as nobody:
        await api.result("disconnect", {"user": "", "client": nobody.id})
        assert (await _closed(nobody))[0] == 3503


@pytest.mark.parametrize("how", [{"expired": True}, {"expire_at": 1}])
async def test_refresh_ends_what_has_expired(how: dict[str, Any]) -> None:
    """3005: an SDK comes back with a new token."""
    async with serving() as api, api.client("ada") as ada, api.library() as library:
        await library.refresh(cent.RefreshRequest(user="ada", **how))
        assert await _closed(ada) == (3005, "connection expired")


async def test_refresh_moves_the_end() -> None:
    """Later, and then to never."""
    clock = ManualClock()
    async with serving(clock=clock) as api, api.client("ada") as ada, api.client("bob"):
        for user in ("ada", "bob"):
            at = int(clock.time()) + 60
            await api.result("refresh", {"user": user, "expire_at": at})
        await api.result("refresh", {"user": "bob"})

        clock.advance(60 + ClientLimits().expiry_grace + 1)

        assert (await _closed(ada))[0] == 3005
        assert [one.user for one in api.pongee.connections()] == ["bob"]


async def test_presence_tells_who_is_there_and_how_many() -> None:
    """By connection, with the user."""
    async with (
        serving() as api,
        api.client("ada") as first,
        api.client("ada") as second,
        api.library() as library,
    ):
        await first.subscribe("chat:1")
        await second.subscribe("chat:1")
        present = await library.presence(cent.PresenceRequest(channel="chat:1"))
        users = {one: info.user for one, info in present.presence.items()}
        assert users == {first.id: "ada", second.id: "ada"}
        stats = await library.presence_stats(cent.PresenceStatsRequest(channel="chat:1"))
        assert (stats.num_clients, stats.num_users) == (2, 1)


async def test_history_is_read_from_either_end_and_removed() -> None:
    """Without a limit it is the position only; the position outlives the removal."""
    async with serving() as api, api.library() as library:
        for text in "abc":
            await library.publish(cent.PublishRequest(channel="chat:1", data={"text": text}))

        async def texts(**how: Any) -> list[str]:
            page = await library.history(cent.HistoryRequest(channel="chat:1", **how))
            assert page.offset == 3
            assert page.epoch
            return [one.data["text"] for one in page.publications]

        top = await library.history(cent.HistoryRequest(channel="chat:1"))
        first = cent.StreamPosition(offset=1, epoch=top.epoch)
        assert await texts() == []
        assert await texts(limit=-1) == ["a", "b", "c"]
        assert await texts(limit=1, since=first) == ["b"]
        assert await texts(limit=2, reverse=True) == ["c", "b"]

        await library.history_remove(cent.HistoryRemoveRequest(channel="chat:1"))
        assert await texts(limit=-1) == []


async def test_channels_are_listed_by_pattern() -> None:
    """Sessions and clients count alike."""
    async with serving() as api, api.client("ada") as ada, api.library() as library:
        for name in ("chat:1", "chat:2", "live:1"):
            await ada.subscribe(name)

        async def names(pattern: str | None = None) -> dict[str, int]:
            found = await library.channels(cent.ChannelsRequest(pattern=pattern))
            return {name: info.num_clients for name, info in found.channels.items()}

        assert await names() == {"chat:1": 1, "chat:2": 1, "live:1": 1}
        assert await names("chat:*") == {"chat:1": 1, "chat:2": 1}
        assert await names("*:[!2]") == {"chat:1": 1, "live:1": 1}
        assert await names("nobody") == {}


async def test_info_counts_what_is_connected() -> None:
    """One process, one node."""
    async with serving() as api, api.client("ada") as ada, api.client("ada"):
        await ada.subscribe("chat:1")
        async with api.library() as library:
            (node,) = (await library.info(cent.InfoRequest())).nodes
        assert (node.num_clients, node.num_users, node.num_channels) == (2, 1, 1)
        assert node.uid
        assert node.name
        assert node.uptime >= 0


async def test_library_without_asyncio_works_as_well() -> None:
    """In a thread, as a program of another framework would call."""
    async with serving() as api, api.client("ada") as ada:
        await ada.subscribe("chat:1")

        def call() -> tuple[int, int]:
            client = cent.Client(api.url, KEY, timeout=5)
            sent = client.publish(cent.PublishRequest(channel="chat:1", data={"text": "hi"}))
            stats = client.presence_stats(cent.PresenceStatsRequest(channel="chat:1"))
            with pytest.raises(cent.CentApiResponseError) as caught:
                client.history(cent.HistoryRequest(channel="live:1"))
            assert caught.value.code == 108
            client._session.close()
            return sent.offset, stats.num_clients

        assert await asyncio.to_thread(call) == (1, 1)
        assert (await ada.push())["pub"]["offset"] == 1


@pytest.mark.parametrize("parallel", [False, True])
async def test_batch_answers_in_order(parallel: bool) -> None:
    """Each command under its own name."""
    async with serving() as api, api.library() as library:
        result = await library.batch(
            cent.BatchRequest(
                requests=[
                    cent.PublishRequest(channel="chat:1", data={"text": "a"}),
                    cent.ChannelsRequest(),
                    cent.InfoRequest(),
                ],
                parallel=parallel,
            )
        )
        assert [type(one).__name__ for one in result.replies] == [
            "PublishResult",
            "ChannelsResult",
            "InfoResult",
        ]


@pytest.mark.parametrize("parallel", [False, True])
async def test_batch_goes_on_behind_an_error(parallel: bool) -> None:
    """Not one command depends on another."""
    said = {"channel": "chat:1", "data": {"text": "a"}}
    commands: list[dict[str, Any]] = [
        {"publish": said, "info": None},
        {"history": {"channel": "live:1"}},
        {"rpc": {}},
        {"batch": {"commands": []}},
        {"publish": said, "info": {}},
        {},
        {"publish": {"channel": 7}},
        {"publish": said},
    ]
    async with serving() as api:
        answer = await api.post("batch", {"commands": commands, "parallel": parallel})
        replies = answer.json()["replies"]
        codes = [one.get("error", {}).get("code") for one in replies]
        assert codes == [None, 108, 104, 104, 107, 104, 107, None]
        assert sorted(replies[number]["publish"]["offset"] for number in (0, 7)) == [1, 2]


async def test_batch_has_a_bound() -> None:
    """Nothing of it is done."""
    async with serving() as api:
        commands: list[dict[str, Any]] = [{"info": {}}] * (API_STEPS + 1)
        assert (await api.error("batch", {"commands": commands}))[0] == 107


WRONG: list[tuple[str, Any, int, str]] = [
    ("publish", {"channel": "chat:1"}, 107, "data is missing"),
    ("publish", {"channel": "", "data": 1}, 107, "channel"),
    ("publish", {"data": 1}, 107, "channel"),
    ("publish", {"channel": "a\n", "data": 1}, 107, "control characters"),
    ("publish", {"channel": "chat:1", "data": {"txt": 1}}, 107, "text: Field required"),
    ("publish", {"channel": "plain", "data": "", "b64data": "%%"}, 107, "base64"),
    ("publish", {"channel": "plain", "b64data": "AAEC"}, 107, "base64"),
    ("publish", {"channel": "chat:1", "data": {"text": "a"}, "delta": True}, 108, "delta"),
    ("publish", {"channel": "chat:1", "data": {"text": "a"}, "version": 3}, 108, "version"),
    ("publish", {"channel": "plain", "data": 1, "tags": {"a": 1}}, 107, "tags"),
    ("publish", [], 107, "object"),
    ("subscribe", {"user": "ada", "channel": "plain"}, 102, "unknown channel"),
    ("subscribe", {"channel": "chat:1"}, 107, "user is missing"),
    ("subscribe", {"user": "ada", "channel": "chat:1", "info": {}}, 108, "info"),
    ("unsubscribe", {"user": "ada", "channel": ""}, 107, "channel"),
    ("disconnect", {}, 107, "user is missing"),
    ("disconnect", {"user": "ada", "disconnect": {"code": 1000}}, 107, "3000 to 4999"),
    ("refresh", {"user": "ada", "expire_at": "soon"}, 107, "expire_at"),
    ("presence", {"channel": "live:1"}, 108, "no presence"),
    ("presence", {"channel": "plain"}, 108, "no presence"),
    ("presence_stats", {"channel": "plain"}, 108, "no presence"),
    ("history", {"channel": "live:1"}, 108, "no history"),
    ("history", {"channel": "plain"}, 108, "no history"),
    ("history", {"channel": "chat:1", "since": {"offset": 1, "epoch": "x"}}, 112, "position"),
    ("history", {"channel": "chat:1", "reverse": True, "since": {}}, 107, "offset"),
    ("history_remove", {"channel": "plain"}, 108, "no history"),
    ("channels", {"pattern": "{a,b}"}, 107, "braces"),
    ("batch", {"commands": 7}, 107, "commands"),
]


@pytest.mark.parametrize(("method", "body", "code", "words"), WRONG)
async def test_what_cannot_be_done_is_answered_with_code_and_words(
    method: str, body: Any, code: int, words: str
) -> None:
    """HTTP 200, as Centrifugo: the request was read, and this is its answer."""
    async with serving() as api, api.client("ada"):
        told = await api.error(method, body)
        assert told[0] == code
        assert words in told[1]


async def test_unknown_fields_and_nulls_are_ignored() -> None:
    """Libraries of other languages send them."""
    async with serving() as api:
        body = {"channel": "chat:1", "data": {"text": "a"}, "tags": None, "b64data": None, "new": 1}
        assert (await api.result("publish", body))["offset"] == 1


async def test_fault_of_the_application_is_logged_and_told_as_100(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller learns nothing of its insides."""

    def broken(value: int) -> int:
        raise RuntimeError("out of order")

    def declare(pongee: Pongee, app: FastAPI) -> None:
        pongee.channel("broken:{number}", Annotated[int, AfterValidator(broken)])  # type: ignore[arg-type]

    async with serving(change=declare) as api:
        told = await api.error("publish", {"channel": "broken:1", "data": 7})
        assert told == (100, "internal server error")
        assert "server API, publish raised" in caplog.text
        assert "out of order" in caplog.text
