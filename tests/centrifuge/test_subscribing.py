"""Subscriptions in frames: positions and recovery, caches, the server's own, and what fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pongee import Client, SessionClosed, public
from pongee.testing import eventually
from tests.centrifuge.test_frames import Message, World, ask, push_of, reply_to, token

pytestmark = pytest.mark.anyio

CHAT = {"channel": "chat:1"}


def said(publications: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Offsets and texts."""
    return [(one["offset"], one["data"]["text"]) for one in publications]


async def test_recovery_row_by_row() -> None:
    """All that was missed, or that something is lost; the epoch is always the present one."""
    world = World(recovered_publications=5)
    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        for number in range(1, 13):  # ten are kept
            await world.room.publish(Message(text=str(number)), room_id=1)
        epoch = (await world.pongee.history("chat:1", limit=0)).top.epoch
        rows: list[tuple[dict[str, Any], int | None]] = [
            ({"epoch": epoch, "offset": 12}, 0),
            ({"epoch": epoch, "offset": 9}, 3),
            ({"epoch": "", "offset": 9}, 3),
            ({"epoch": epoch, "offset": 7}, 5),
            ({"epoch": epoch, "offset": 6}, None),  # more than the server gives
            ({"epoch": epoch, "offset": 1}, None),  # no longer kept
            ({"epoch": "_", "offset": 0}, None),
            ({"epoch": "old", "offset": 12}, None),
            ({"epoch": epoch, "offset": 13}, None),  # of the future
            ({"epoch": epoch, "offset": 2**63 - 1}, None),
            ({}, None),
        ]
        for number, (asked, missed) in enumerate(rows, 2):
            reply = await ask(peer, 10 * number, subscribe={**CHAT, "recover": True, **asked})
            result = reply["subscribe"]
            assert result["epoch"] == epoch
            assert result["was_recovering"] is result["positioned"] is result["recoverable"] is True
            assert result.get("recovered", False) == (missed is not None), asked
            assert result["offset"] == (asked["offset"] if missed is not None else 12)
            found = said(result.get("publications", []))
            assert found == [(one, str(one)) for one in range(13 - (missed or 0), 13)]
            await ask(peer, 10 * number + 1, unsubscribe=CHAT)
        for asked in ({"epoch": "old", "offset": 3}, {"epoch": epoch, "offset": 99}):
            wish = {**CHAT, "recover": True, "flag": 2, **asked}
            assert (await ask(peer, 500, subscribe=wish))["error"]["code"] == 112
        assert world.pongee.local_channels() == {}
        reply = await ask(peer, 501, subscribe=CHAT)
        assert {"was_recovering", "recovered", "publications"}.isdisjoint(reply["subscribe"])


async def test_history_page_by_page() -> None:
    """Forward and back, with the position alone, and when nothing is there."""
    world = World()
    async with world.open() as server, world.peer(server) as peer:
        await ask(peer, 2, subscribe=CHAT)
        empty = (await ask(peer, 3, history={**CHAT, "limit": 5}))["history"]
        assert (empty["publications"], empty["offset"]) == ([], 0)
        for number in range(1, 6):
            await world.room.publish(Message(text=str(number)), room_id=1, tags={"n": "1"})
        epoch = empty["epoch"]
        rows: list[tuple[dict[str, Any], list[int]]] = [
            ({}, []),
            ({"limit": -1}, [1, 2, 3, 4, 5]),
            ({"limit": 2}, [1, 2]),
            ({"limit": 2, "reverse": True}, [5, 4]),
            ({"limit": 2, "since": {"offset": 2, "epoch": epoch}}, [3, 4]),
            ({"limit": 9, "since": {"offset": 3, "epoch": ""}, "reverse": True}, [2, 1]),
            ({"limit": 9, "since": {"offset": 5, "epoch": epoch}}, []),
        ]
        for number, (asked, offsets) in enumerate(rows, 10):
            page = (await ask(peer, number, history={**CHAT, **asked}))["history"]
            assert [one["offset"] for one in page["publications"]] == offsets, asked
            assert (page["epoch"], page["offset"]) == (epoch, 5)
            assert all(one["tags"] == {"n": "1"} for one in page["publications"])


async def test_presence_in_frames() -> None:
    """Who is there, with what is known of each; anonymous ones are one user."""
    world = World()
    async with (
        world.open() as server,
        world.peer(server, token(info={"age": 5})) as ann,
        world.peer(server) as nobody,
        world.peer(server) as other,
    ):
        reply = await ask(ann, 2, subscribe={**CHAT, "join_leave": True})
        join = await push_of(ann, "join")
        mine = join["join"]["info"]
        assert (mine["user"], mine["conn_info"]) == ("ann", {"age": 5})
        for peer in (nobody, other):
            assert "subscribe" in await ask(peer, 2, subscribe=CHAT)
            assert (await push_of(ann, "join"))["join"]["info"]["user"] == ""
        presence = (await ask(ann, 3, presence=CHAT))["presence"]["presence"]
        assert len(presence) == 3
        assert presence[mine["client"]] == mine
        stats = (await ask(ann, 4, presence_stats=CHAT))["presence_stats"]
        assert stats == {"num_clients": 3, "num_users": 2}
        # Leaving and coming back in one frame leaves it present.
        await nobody.send(
            '{"id":5,"unsubscribe":{"channel":"chat:1"}}\n{"id":6,"subscribe":{"channel":"chat:1"}}'
        )
        assert "subscribe" in await reply_to(nobody, 6)
        assert "leave" in await push_of(ann, "leave")
        assert "join" in await push_of(ann, "join")
        stats = (await ask(ann, 7, presence_stats=CHAT))["presence_stats"]
        assert stats == {"num_clients": 3, "num_users": 2}
        assert reply["subscribe"]["recoverable"]


async def test_publication_carries_who_published() -> None:
    """A client's does, with the channel's info; the application's does not."""
    world = World()
    async with world.open() as server, world.peer(server, token(info=1)) as peer:
        await reply_to(peer, 1)
        proof = token(channel="chat:1", info={"seat": 4})
        await ask(peer, 2, subscribe={**CHAT, "token": proof})
        await ask(peer, 3, publish={**CHAT, "data": {"text": "hi", "more": 1}})
        await world.room.publish(Message(text="ho"), room_id=1)
        await ask(peer, 4, unsubscribe=CHAT)
        await ask(peer, 5, subscribe={**CHAT, "recover": True})
        await peer.send_json({"id": 6, "history": {**CHAT, "limit": 9}})
        found = (await reply_to(peer, 6))["history"]["publications"]
        assert said(found) == [(1, "hi"), (2, "ho")]
        assert found[0]["data"] == {"text": "hi"}
        assert found[0]["info"]["user"] == "ann"
        assert (found[0]["info"]["conn_info"], found[0]["info"]["chan_info"]) == (1, {"seat": 4})
        assert "info" not in found[1]


async def test_cache_gives_the_newest_publication_and_nothing_older() -> None:
    """To whoever subscribes, and to whoever is subscribed by the server."""
    world = World()
    board = world.pongee.channel(
        "score:{game}", Message, history=1, cache=True, may_subscribe=public
    )
    score = {"channel": "score:a"}
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        empty = (await ask(peer, 2, subscribe=score))["subscribe"]
        assert "publications" not in empty
        await ask(peer, 3, unsubscribe=score)
        for text in ("1:0", "1:1"):
            await board.publish(Message(text=text), game="a")
        result = (await ask(peer, 4, subscribe={**score, "recover": True}))["subscribe"]
        assert result["recovered"]
        assert said(result["publications"]) == [(2, "1:1")]
        await ask(peer, 5, unsubscribe=score)
        assert await world.pongee.subscribe("score:a", user="ann") == 1
        assert (await push_of(peer, "subscribe"))["channel"] == "score:a"
        assert said([(await push_of(peer, "pub"))["pub"]]) == [(2, "1:1")]
        await board.publish(Message(text="2:1"), game="a")
        assert said([(await push_of(peer, "pub"))["pub"]]) == [(3, "2:1")]


async def test_handler_whose_answer_is_no_json_lets_nobody_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client is told of an error, so it must not be subscribed."""
    world = World()
    answers: list[Any] = [object(), {"fine": 1}]

    @world.room.on_subscribe
    async def enter(room_id: int) -> Any:
        return answers.pop(0)

    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        assert (await ask(peer, 2, subscribe=CHAT))["error"]["code"] == 100
        assert world.pongee.local_channels() == {}
        assert await world.pongee.presence("chat:1") == {}
        assert (await ask(peer, 3, subscribe=CHAT))["subscribe"]["data"] == {"fine": 1}
    assert "cannot be written as JSON" in caplog.text


async def test_handler_that_awaited_something_cancelled_is_an_error_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its client is answered, and the commands behind it are carried out."""
    world = World()

    @world.room.on_subscribe
    async def enter(room_id: int) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async with world.open() as server, world.peer(server) as peer:
        await peer.send(
            '{"id":2,"subscribe":{"channel":"chat:1"}}\n{"id":3,"subscribe":{"channel":"plain"}}'
        )
        await reply_to(peer, 1)
        replies = [await peer.receive_json() for _ in range(2)]  # in whichever order
        by_number = {reply["id"]: reply for reply in replies}
        assert by_number[2]["error"]["code"] == 100
        assert "subscribe" in by_number[3]
    assert "CancelledError" in caplog.text


# By the server


async def test_server_subscribes_and_unsubscribes() -> None:
    """Twice is once; the client cannot do it itself meanwhile; each end has its code."""
    world = World()
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        assert await world.pongee.subscribe("chat:1", user="ann") == 1
        push = (await push_of(peer, "subscribe"))["subscribe"]
        assert push["positioned"] is push["recoverable"] is True
        assert push["epoch"]
        assert await world.pongee.subscribe("chat:1", user="ann") == 1
        assert (await ask(peer, 2, subscribe=CHAT))["error"]["code"] == 105
        for code, reason, told in ((2000, "", "server unsubscribe"), (2400, "away", "away")):
            await world.pongee.subscribe("chat:1", user="ann")
            await world.pongee.unsubscribe("chat:1", user="ann", code=code, reason=reason)
            push = await push_of(peer, "unsubscribe")
            assert push == {"channel": "chat:1", "unsubscribe": {"code": code, "reason": told}}
        await world.pongee.unsubscribe("chat:1", user="ann")
        assert world.pongee.local_channels() == {}
        assert await world.pongee.subscribe("chat:1", user="nobody") == 0


async def test_client_that_leaves_while_it_is_subscribed_is_not_counted() -> None:
    """Nor does the caller learn of it by a cancellation; asked for by hand, it is a closed one."""
    world = World()
    broker = world.broker
    clients: list[Client] = []

    @world.connection.on_connect
    async def note(client: Client) -> None:
        clients.append(client)

    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        broker.paced = True
        subscribing = asyncio.create_task(world.pongee.subscribe("chat:1", user="ann"))
        by_hand = asyncio.create_task(clients[0].subscribe("chat:2"))
        await eventually(lambda: broker.waiting == 2, what="the broker is asked")
        await peer.close()
        await eventually(lambda: not world.pongee.connections(), what="it is gone")
        broker.paced = False
        while broker.waiting:
            broker.go_on()
        assert await subscribing == 0
        with pytest.raises(SessionClosed):
            await by_hand
        await world.pongee._node.board._errands.finish()
        assert world.pongee.local_channels() == {}
        assert broker.subscribed == frozenset()


async def test_publication_that_nobody_keeps_makes_the_client_subscribe_again() -> None:
    """With 2500, and it recovers; where the server subscribed it, the connection ends: 3010."""
    world = World()
    broker = world.broker
    async with (
        world.open() as server,
        world.peer(server, token()) as peer,
        world.peer(server, token(channels=["chat:1"])) as subscribed,
    ):
        assert "chat:1" in (await reply_to(subscribed, 1))["connect"]["subs"]
        epoch = (await ask(peer, 2, subscribe=CHAT))["subscribe"]["epoch"]
        broker.slow = True
        for text in ("a", "b", "c"):
            await world.room.publish(Message(text=text), room_id=1)
        broker.arrive()
        broker.lose()
        await broker.remove_history("chat:1")
        broker.arrive()
        assert said([(await push_of(peer, "pub"))["pub"]]) == [(1, "a")]
        push = await push_of(peer, "unsubscribe")
        assert push["unsubscribe"] == {"code": 2500, "reason": "insufficient state"}
        asked = {**CHAT, "recover": True, "epoch": epoch, "offset": 1}
        result = (await ask(peer, 3, subscribe=asked))["subscribe"]
        assert result["was_recovering"]
        assert "recovered" not in result
        assert result["offset"] == 3
        assert (await subscribed.wait_closed()).code == 3010
