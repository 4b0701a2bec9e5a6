"""What happens at the same time in channels: leave in the middle, both sides at once, storms."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, ClassVar

import pytest

from pongee import Client, CloseCause
from pongee.testing import HandshakeRefused, Server, connect, eventually
from tests.centrifuge.test_frames import Message, ask, reply_to, token
from tests.centrifuge.test_frames import World as Furnished

pytestmark = pytest.mark.anyio

CHAT = {"channel": "chat:1"}


class World(Furnished):
    """The same application, served on each face; it keeps count of who comes and goes."""

    server: ClassVar[dict[str, Any]] = {}

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.here: list[str] = []
        self.came = self.went = self.left = 0

        @self.connection.on_connect
        async def came(client: Client) -> None:
            self.came += 1

        @self.connection.on_disconnect
        async def went(client: Client, cause: CloseCause) -> None:
            self.went += 1

        @self.room.on_unsubscribe
        async def left(room_id: int) -> None:
            self.left += 1

    async def nothing_is_left(self) -> None:
        """See that every trace of the clients is gone."""
        runtime, board = self.pongee._node.runtime, self.pongee._node.board
        await eventually(lambda: not runtime.unfinished, what="clients that are forgotten")
        await eventually(lambda: not runtime.endings, what="handlers that have run")
        await board._errands.finish()
        assert self.pongee.local_channels() == {}
        assert self.broker.subscribed == frozenset()
        assert await self.broker.presence("chat:1") == {}
        assert not board.attendance._present
        assert self.came == self.went


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("how", ["cut", "close", "kick"])
async def test_departure_at_each_step_of_a_subscribe(steps: int, how: str) -> None:
    """Nothing is left behind, and the next client of the channel is served."""
    world = World()
    async with world.open() as server:
        async with world.peer(server, token()) as peer:
            await reply_to(peer, 1)
            world.broker.paced = True
            await peer.send_json({"id": 2, "subscribe": {**CHAT, "recover": True}})
            await eventually(lambda: world.broker.waiting, what="the broker is asked")
            for _ in range(steps):
                world.broker.go_on()
                for _ in range(3):
                    await asyncio.sleep(0)
            if how == "cut":
                peer.cut()
            elif how == "close":
                await peer.close()
            else:
                assert await world.pongee.disconnect(user="ann") == 1
                await peer.wait_closed()
            await eventually(lambda: not world.pongee.connections(), what="it is gone")
            world.broker.paced = False
            while world.broker.waiting:
                world.broker.go_on()
                await asyncio.sleep(0)
        await world.nothing_is_left()
        async with world.peer(server) as peer:
            assert "subscribe" in await ask(peer, 2, subscribe=CHAT)
        await world.nothing_is_left()


async def test_departure_amid_handlers_of_each_kind() -> None:
    """Each is cancelled, what it had opened is closed, and the next one is served."""
    world = World()
    entered, closed = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    @world.room.on_publish
    async def publish(room_id: int) -> None:
        await hang()

    @world.room.on_presence
    async def presence(room_id: int) -> None:
        await hang()

    @world.pongee.rpc("hang")
    async def method() -> None:
        await hang()

    wishes: list[dict[str, Any]] = [
        {"publish": {**CHAT, "data": {"text": "x"}}},
        {"presence": CHAT},
        {"rpc": {"method": "hang"}},
    ]
    async with world.open() as server:
        for wish in wishes:
            entered.clear()
            closed.clear()
            async with world.peer(server) as peer:
                assert "subscribe" in await ask(peer, 2, subscribe=CHAT)
                await peer.send_json({"id": 3, **wish})
                async with asyncio.timeout(5):
                    await entered.wait()
                    peer.cut()
                    await closed.wait()
            await world.nothing_is_left()
        assert world.left == 3


async def test_subscribe_and_unsubscribe_in_a_hurry() -> None:
    """A hundred of each in one frame, with presence: the last word counts."""
    world = World()
    async with (
        world.open() as server,
        world.peer(server) as steady,
        world.peer(server, token()) as peer,
    ):
        await ask(steady, 2, subscribe=CHAT)
        await reply_to(peer, 1)
        wishes = [{"subscribe": CHAT}, {"unsubscribe": CHAT}] * 100 + [{"subscribe": CHAT}]
        frame = [json.dumps({"id": number, **wish}) for number, wish in enumerate(wishes, 2)]
        await peer.send("\n".join(frame))
        reply = await reply_to(peer, 202)
        assert "subscribe" in reply
        await world.pongee._node.board._errands.finish()
        stats = (await ask(peer, 300, presence_stats=CHAT))["presence_stats"]
        assert stats == {"num_clients": 2, "num_users": 2}
        assert world.pongee.local_channels() == {"chat:1": 2}
        await eventually(lambda: world.left == 100, what="each departure")


async def test_subscriptions_of_one_frame_wait_for_the_broker_together() -> None:
    """Eight at once; what follows them finds them in, and no more than are allowed."""
    world = World(max_subscriptions=20)
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        world.broker.paced = True
        wishes = [{"subscribe": {"channel": f"chat:{number}"}} for number in range(22)]
        wishes += [{"subscribe": {"channel": "chat:0"}}, {"unsubscribe": {"channel": "chat:3"}}]
        frame = [json.dumps({"id": number, **wish}) for number, wish in enumerate(wishes, 2)]
        await peer.send("\n".join(frame))
        most, replies = 0, dict[int, dict[str, Any]]()
        receiving = asyncio.create_task(_replies(peer, len(wishes), replies))
        while not receiving.done():
            most = max(most, world.broker.waiting)
            while world.broker.waiting:
                world.broker.go_on()
            await asyncio.sleep(0)
        await receiving
        assert most == 8
        assert ["subscribe" in replies[number] for number in range(2, 24)].count(True) == 20
        refused = [reply["error"]["code"] for reply in replies.values() if "error" in reply]
        assert sorted(refused) == [105, 106, 106]
        assert "unsubscribe" in replies[len(wishes) + 1]
        world.broker.paced = False
        await eventually(lambda: len(world.pongee.local_channels()) == 19, what="one is out")
    await world.nothing_is_left()


async def test_revoked_while_it_subscribes() -> None:
    """Whoever was put out before it was in does not get in."""
    world = World()
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        world.broker.paced = True
        await peer.send_json({"id": 2, "subscribe": CHAT})
        await eventually(lambda: world.broker.waiting, what="the broker is asked")
        assert await world.pongee.unsubscribe("chat:1", user="ann") == 1
        world.broker.paced = False
        while world.broker.waiting:
            world.broker.go_on()
            await asyncio.sleep(0)
        assert (await reply_to(peer, 2))["error"]["code"] == 103
        await eventually(lambda: not world.pongee.local_channels(), what="it is out")
    await world.nothing_is_left()


async def _replies(peer: Any, number: int, found: dict[int, dict[str, Any]]) -> None:
    """Take so many replies."""
    while len(found) < number:
        for line in str(await peer.receive()).split("\n"):
            told = json.loads(line)
            if "id" in told:
                found[told["id"]] = told


async def test_server_and_client_subscribe_at_the_same_time() -> None:
    """One of them does; the other is told, or does nothing; and one unsubscribe undoes it."""
    world = World()
    async with world.open() as server, world.peer(server, token()) as peer:
        await reply_to(peer, 1)
        for number in range(2, 40, 3):
            world.broker.paced = True
            by_server = asyncio.create_task(world.pongee.subscribe("chat:1", user="ann"))
            if number % 2:
                await asyncio.sleep(0)
            await peer.send_json({"id": number, "subscribe": CHAT})
            await peer.send_json({"id": number + 1, "rpc": {}})
            await reply_or_wait(world, peer, number)
            world.broker.paced = False
            while world.broker.waiting:
                world.broker.go_on()
                await asyncio.sleep(0)
            await by_server
            await eventually(
                lambda: world.pongee.local_channels() == {"chat:1": 1}, what="one is in"
            )
            await ask(peer, number + 2, unsubscribe=CHAT)
            await world.pongee._node.board._errands.finish()
            assert world.pongee.local_channels() == {}
            assert await world.broker.presence("chat:1") == {}


async def reply_or_wait(world: World, peer: Any, number: int) -> None:
    """Until the client's command is answered, or waits for the broker."""
    await eventually(lambda: world.broker.waiting, what="the broker is asked")
    for _ in range(10):
        await asyncio.sleep(0)


async def test_storm_of_recoveries_while_messages_flow() -> None:
    """Kicked again and again, every subscriber ends with each message once, in order."""
    world = World(recovered_publications=2000)
    world.room = world.pongee.channel(
        "storm:{n:int}", Message, history=2000, may_subscribe=lambda: True
    )
    total, storm = 400, {"channel": "storm:1"}
    done = asyncio.Event()

    async def subscriber(server: Server, seed: int) -> list[int]:
        choose, got = random.Random(seed), list[int]()
        epoch: str | None = None
        while True:
            async with world.peer(server) as peer:
                wish = dict(storm) | (
                    {} if epoch is None else {"recover": True, "epoch": epoch, "offset": len(got)}
                )
                await peer.send_json({"id": 2, "subscribe": wish})
                result = (await reply_to(peer, 2))["subscribe"]
                if epoch is None:
                    assert "offset" not in result  # before the first message
                    ready.release()
                else:
                    assert result["recovered"]
                epoch = result["epoch"]
                got += [one["offset"] for one in result.get("publications", ())]
                stay = choose.randrange(1, 60)
                while len(got) < total and (stay or done.is_set()):
                    push = (await peer.receive_json()).get("push", {})
                    if "pub" in push:
                        got.append(push["pub"]["offset"])
                        stay = max(0, stay - 1)
                if len(got) >= total:
                    return got
                peer.cut() if choose.random() < 0.5 else await peer.close()

    ready = asyncio.Semaphore(0)
    async with world.open() as server:
        async with asyncio.TaskGroup() as group:
            subscribers = [group.create_task(subscriber(server, seed)) for seed in range(8)]
            async with asyncio.timeout(10):
                for _ in subscribers:
                    await ready.acquire()
            for number in range(total):
                await world.pongee.publish("storm:1", {"text": str(number)})
                if number % 20 == 0:
                    await asyncio.sleep(0.002)
            done.set()
        for one in subscribers:
            assert one.result() == list(range(1, total + 1))


async def test_drain_amid_connects_and_subscribes() -> None:
    """Every client ends with 3001 or is not let in; handlers pair."""
    world = World()
    codes: list[int] = []

    async def come(server: Server) -> None:
        try:
            async with connect(server.ws("/connection/websocket")) as peer:
                await peer.send(
                    '{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": CHAT})
                )
                codes.append((await peer.wait_closed()).code)
        except HandshakeRefused as refused:
            codes.append(refused.status)

    async with world.open() as server:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(come(server))
                if number == 25:
                    await eventually(lambda: world.came, what="some are in")
                    group.create_task(world.pongee.drain(0))

            def time_passes() -> bool:
                world.clock.advance(0.05)
                return len(codes) == 40

            await eventually(time_passes, what="everybody is gone")
        assert set(codes) <= {3001, 503}
        await world.nothing_is_left()
