"""One client in frames: both encodings, batches, calls beside each other, and what it is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import pytest

from pongee import Client, SessionClosed, UsageError
from pongee.testing import Client as Peer
from pongee.testing import connect, eventually
from tests.centrifuge.test_frames import Message, ask, push_of, reply_to, token
from tests.centrifuge.test_frames import World as Furnished
from tests.centrifuge.test_protobuf_codec import THEIRS, frame

pytestmark = pytest.mark.anyio

ROUTE = "/connection/websocket"


class World(Furnished):
    """The same application, served on each face; it keeps its clients."""

    server: ClassVar[dict[str, Any]] = {}

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.clients: list[Client] = []

        @self.connection.on_connect
        async def note(client: Client) -> None:
            self.clients.append(client)


async def binary(peer: Peer, *commands: dict[str, Any]) -> None:
    """Send commands in one frame of the other encoding, as another implementation writes them."""
    await peer.send(frame(*(THEIRS.Command(**command).SerializeToString() for command in commands)))


async def replies(peer: Peer, number: int) -> list[Any]:
    """Read so many of its replies; a frame may hold several."""
    found: list[Any] = []
    while len(found) < number:
        data = await peer.receive()
        assert isinstance(data, bytes)
        while data:
            size, start = data[0], 1
            if size > 127:
                size, start = (size & 127) | data[1] << 7, 2
            found.append(THEIRS.Reply.FromString(data[start : start + size]))
            data = data[start + size :]
    assert len(found) == number
    return found


@pytest.mark.parametrize("asked", ["subprotocol", "cf_protocol", "format"])
async def test_conversation_in_protobuf(asked: str) -> None:
    """The same commands, in binary frames; empty results are there."""
    world = World()
    query = "" if asked == "subprotocol" else f"?{asked}=protobuf"
    offered = ["centrifuge-protobuf"] if asked == "subprotocol" else None
    async with (
        world.open() as server,
        connect(server.ws(ROUTE + query), subprotocols=offered) as peer,
    ):
        assert peer.subprotocol == ("centrifuge-protobuf" if offered else None)
        data = b'{"text": "hi"}'
        await binary(
            peer,
            {"id": 1, "connect": {"token": token()}},
            {"id": 2, "subscribe": {"channel": "chat:1"}},
            {"id": 3, "publish": {"channel": "chat:1", "data": data}},
            {"id": 4, "publish": {"channel": "chat:1", "data": b"\xff\x00"}},
            {"id": 5, "unsubscribe": {"channel": "never"}},
            {"id": 6, "presence_stats": {"channel": "chat:1"}},
        )
        found = await replies(peer, 7)
        pushes = [one for one in found if not one.id]
        answers = {one.id: one for one in found if one.id}
        assert found[0].id == 1
        assert answers[1].connect.client
        assert answers[2].subscribe.positioned
        assert answers[3].HasField("publish")
        assert answers[4].error.code == 107
        assert answers[5].HasField("unsubscribe")
        assert answers[6].presence_stats.num_clients == 1
        assert pushes[0].push.pub.data == b'{"text":"hi"}'
        assert pushes[0].push.pub.offset == 1
        await peer.send(b"\x00")  # a pong that nobody asked for
        await peer.send(b"\x05\x01")
        assert (await peer.wait_closed()).code == 3501


@pytest.mark.parametrize("offered", [[], ["centrifuge-json"], ["other"], ["other", "another"]])
async def test_json_is_spoken_otherwise(offered: list[str]) -> None:
    """In text frames; a name we do not know is not chosen."""
    world = World()
    async with (
        world.open() as server,
        connect(server.ws(ROUTE), subprotocols=offered or None) as peer,
    ):
        assert peer.subprotocol == ("centrifuge-json" if "centrifuge-json" in offered else None)
        await peer.send(b'{"id":1,"connect":{}}\n')  # in a binary frame, with an end of line
        answer = await peer.receive()
        assert isinstance(answer, str)
        assert json.loads(answer)["connect"]["client"]


async def test_calls_run_beside_each_other_and_beside_commands() -> None:
    """As many as are allowed; answers come as they are ready."""
    world = World(concurrent_calls=2)
    gates = [asyncio.Event() for _ in range(3)]
    entered: list[int] = []

    @world.pongee.rpc("wait")
    async def wait(number: int) -> int:
        entered.append(number)
        await gates[number].wait()
        return number

    async with world.open() as server, world.peer(server) as peer:
        await reply_to(peer, 1)
        calls = [{"id": 10 + n, "rpc": {"method": "wait", "data": n}} for n in range(2)]
        await peer.send("\n".join(map(json.dumps, calls)))
        await eventually(lambda: entered == [0, 1], what="two calls")
        assert "subscribe" in await ask(peer, 2, subscribe={"channel": "plain"})
        await peer.send_json({"id": 12, "rpc": {"method": "wait", "data": 2}})
        gates[1].set()
        assert (await reply_to(peer, 11))["rpc"] == {"data": 1}
        await eventually(lambda: entered == [0, 1, 2], what="the third call")
        for gate in gates:
            gate.set()
        found = {(await peer.receive_json())["id"] for _ in range(2)}
        assert found == {10, 12}


async def test_call_that_runs_when_the_client_leaves_is_cancelled() -> None:
    """And nobody is blamed for it."""
    world = World()
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @world.pongee.rpc("wait")
    async def wait() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with world.open() as server:
        async with world.peer(server) as peer:
            await peer.send_json({"id": 2, "rpc": {"method": "wait"}})
            async with asyncio.timeout(5):
                await entered.wait()
        async with asyncio.timeout(5):
            await cancelled.wait()
        await eventually(lambda: not world.pongee._node.runtime.unfinished, what="it is forgotten")


async def test_what_the_application_does_to_a_client() -> None:
    """Messages, subscriptions, codes that may be used, and the end."""
    world = World()
    async with world.open() as server, world.peer(server, token(info={"a": 1}), name="js") as peer:
        await reply_to(peer, 1)
        (client,) = world.clients
        assert (client.user, client.name, client.channels) == ("ann", "js", [])
        assert client.id in repr(client)
        await client.send({"n": [1]})
        assert await push_of(peer, "message") == {"message": {"data": {"n": [1]}}}
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            await client.send(object())
        await client.subscribe("chat:1")
        await client.subscribe("chat:1")
        assert (await push_of(peer, "subscribe"))["channel"] == "chat:1"
        assert client.channels == ["chat:1"]
        for name in ("", "nowhere", "x" * 300):
            with pytest.raises(UsageError):
                await client.subscribe(name)
        for code in (1999, 3000, 0):
            with pytest.raises(UsageError, match="2000 to 2999"):
                await client.unsubscribe("chat:1", code)
        for code in (1000, 2999, 5000):
            with pytest.raises(UsageError, match="3000 to 4999"):
                client.disconnect(code)
        await client.unsubscribe("chat:1", 2700, "move on")
        told = (await push_of(peer, "unsubscribe"))["unsubscribe"]
        assert told == {"code": 2700, "reason": "move on"}
        await client.unsubscribe("chat:1")
        client.disconnect()
        client.disconnect(4000)
        assert (await peer.wait_closed()).code == 3503
        with pytest.raises(SessionClosed):
            await client.send(1)
        with pytest.raises(SessionClosed):
            await client.subscribe("chat:1")


async def test_publications_keep_their_order_and_follow_the_reply() -> None:
    """One client's, in the order of its commands, behind the answer to subscribe."""
    world = World()
    async with world.open() as server, world.peer(server) as peer:
        wishes: list[dict[str, Any]] = [{"subscribe": {"channel": "chat:1"}}]
        wishes += [{"publish": {"channel": "chat:1", "data": {"text": str(n)}}} for n in range(50)]
        wishes += [{"unsubscribe": {"channel": "chat:1"}}]
        lines = [json.dumps({"id": number, **wish}) for number, wish in enumerate(wishes, 2)]
        await peer.send("\n".join(lines))
        seen: list[str] = []
        while "unsubscribe" not in seen:
            for line in str(await peer.receive()).split("\n"):
                reply = json.loads(line)
                pub = reply.get("push", {}).get("pub")
                seen += [pub["data"]["text"]] if pub else [key for key in reply if key != "id"]
        assert seen.index("subscribe") < seen.index("0")
        assert [text for text in seen if text.isdigit()] == [str(n) for n in range(50)]
        await world.room.publish(Message(text="late"), room_id=1)
        assert (await ask(peer, 99, ping={}))["error"]["code"] == 108  # and nothing before it
