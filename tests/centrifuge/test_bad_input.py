"""Whatever a client sends: each command is answered once, or the connection ends with a code."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from pongee import ClientLimits, Pongee, public
from pongee.centrifuge.client import Client
from pongee.centrifuge.json_codec import JSON_FORMAT
from pongee.centrifuge.service import JSON
from pongee.codes import CauseKind, CloseCause
from pongee.testing import ManualClock, connect, eventually
from tests.centrifuge.paced import HandLoop, Line, PacedBroker, at_once
from tests.centrifuge.test_frames import World as Furnished
from tests.centrifuge.test_frames import ask, push_of, reply_to

NAMES = ["chat:1", "chat:2", "chat:x", "plain", "closed", "nowhere", "", "\u0000", "é" * 300]
CODES = {3500, 3501, 3508, 3010, 1009, 3013}
ERRORS = {101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 112}

names = st.sampled_from(NAMES[:5]) | st.sampled_from(NAMES)
values: st.SearchStrategy[Any] = st.sampled_from(
    [{"text": "x"}, {"text": 1}, None, [], "x", 1e300, {"text": "\ud83d\ude00"}]
)
odd: st.SearchStrategy[Any] = st.sampled_from([-1, "1", None, [], {}, 2**64, True, 1.5, "\ud800"])
places = st.fixed_dictionaries(
    {}, optional={"offset": st.integers(0, 9), "epoch": st.sampled_from(["", "_", "old"])}
)


def _request(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_flag = st.booleans()
_requests = {
    "subscribe": _request(
        channel=names,
        recover=_flag,
        offset=st.integers(0, 9),
        epoch=st.sampled_from(["", "old"]),
        flag=st.integers(0, 3),
        join_leave=_flag,
        token=st.sampled_from(["", "x", "a.b.c"]),
        data=values,
        type=st.sampled_from([0, 0, 0, 1]),
        delta=st.sampled_from(["", "", "fossil", "x"]),
    ),
    "unsubscribe": _request(channel=names),
    "publish": _request(channel=names, data=values, type=st.sampled_from([0, 0, 1])),
    "presence": _request(channel=names),
    "presence_stats": _request(channel=names),
    "history": _request(channel=names, limit=st.integers(-2, 9), since=places, reverse=_flag),
    "rpc": _request(method=st.sampled_from(["echo", "nothing"]), data=values),
    "sub_refresh": _request(channel=names, token=st.sampled_from(["", "x"])),
    "refresh": _request(token=st.sampled_from(["", "x"])),
    "ping": st.just({}),
    "send": _request(data=values),
    "connect": st.just({}),
}
_kinds = st.sampled_from(list(_requests)[:7]) | st.sampled_from(list(_requests))
_good = _kinds.flatmap(
    lambda kind: st.tuples(st.integers(1, 12), _requests[kind]).map(
        lambda pair: {"id": pair[0], kind: pair[1]}
    )
)
_spoilt = st.tuples(_good, odd).map(lambda parts: {**parts[0], "id": parts[1]})
_lines = st.one_of(_good, _good, _good, _good, _spoilt, st.just({})).map(json.dumps)
frames = st.lists(
    st.lists(_lines, min_size=1, max_size=5).map("\n".join)
    | st.text(alphabet='{}[]":,01 \n', max_size=8),
    max_size=12,
)


class Served:
    """An application without a socket, whose turns the test takes."""

    def __init__(self) -> None:
        self.loop, self.clock = HandLoop(), ManualClock()
        self.pongee = Pongee(clock=self.clock, broker=PacedBroker)
        self.pongee.connection(auth=public, limits=ClientLimits(max_subscriptions=2))
        self.pongee.channel(
            "chat:{room_id:int}",
            dict[str, str],
            history=3,
            presence=True,
            join_leave=True,
            may_subscribe=public,
            may_publish="subscribers",
            may_see_presence=public,
            may_read_history=public,
        )
        self.pongee.channel("plain", dict[str, str], may_subscribe=public, may_publish=public)
        self.pongee.channel("closed", dict[str, str])

        @self.pongee.rpc("echo")
        async def echo(value: Any) -> Any:
            return value

        board = self.pongee._node.board
        assert isinstance(board.broker, PacedBroker)
        self.broker = board.broker
        self.broker.slow = False
        self.loop.run_until_complete(board.start())

    def client(self, line: Line) -> Client:
        scope: dict[str, Any] = {"type": "http", "headers": [], "query_string": b"", "path": "/"}
        service = self.pongee._node.service
        client = Client(service, JSON, JSON_FORMAT, scope, address=None, route="/", loop=self.loop)
        client.open(line, None)  # type: ignore[arg-type]
        return client


@settings(max_examples=300, deadline=None)
@given(sent=frames)
def test_whatever_comes_is_answered_or_ends_it(sent: list[str]) -> None:
    """Nothing raises, nothing is logged as ours, and nothing is left behind."""
    served, got, errors = Served(), list[dict[str, Any]](), list[logging.LogRecord]()
    handler = logging.Handler(logging.ERROR)
    handler.emit = errors.append  # type: ignore[method-assign, assignment]
    logging.getLogger("pongee").addHandler(handler)
    line = Line(got.append)
    try:
        with served.loop.inside():
            client = served.client(line)
            client.on_message('{"id":100,"connect":{}}')
            for frame in sent:
                client.on_message(frame)
        served.loop.quiet()
        answered = [reply["id"] for reply in got if "id" in reply]
        assert answered[:1] == [100] or line.closed
        for reply in got:
            assert reply.get("error", {}).get("code", 107) in ERRORS, reply
            assert "error" not in reply or reply["error"]["message"]
        if line.closed is not None:
            assert line.closed[0] in CODES, line.closed
            assert line.closed[1]
        else:
            asked = [json.loads(one) for frame in sent for one in frame.split("\n") if one.strip()]
            assert sorted(answered[1:]) == sorted(one["id"] for one in asked if one.get("id"))
            assert len(client.subscriptions) <= 2
            with served.loop.inside():
                client.on_lost(CloseCause(CauseKind.CONNECTION_LOST, 1006, ""))
        served.loop.quiet()
        assert served.pongee.local_channels() == {}
        assert served.broker.subscribed == frozenset()
        assert at_once(served.broker.presence("chat:1")) == {}
        assert not served.pongee._node.runtime.unfinished
        assert not errors, errors[0].getMessage()
    finally:
        logging.getLogger("pongee").removeHandler(handler)
        with served.loop.inside():
            served.pongee._node.runtime.wheel.close()
        served.loop.close()


class World(Furnished):
    """The same application, served on each face."""

    server: ClassVar[dict[str, Any]] = {}


HOSTILE = [
    "[" * 60_000,
    '{"id":2,"publish":{"channel":"chat:1","data":' + "[" * 20_000 + "]" * 20_000 + "}}",
    '{"id":2,"rpc":{"data":' + "9" * 20_000 + "}}",
    '{"id":2,"subscribe":{"channel":"chat:1","offset":1e999}}',
    '{"id":2,"subscribe":{"channel":"chat:1","offset":18446744073709551615}}',
    '{"id":2,"subscribe":{"channel":"chat:1","offset":1.5}}',
    '{"id":2,"subscribe":{"channel":["chat:1"]}}',
    '{"id":4294967296,"rpc":{}}',
    '{"id":2,"rpc":{"data":NaN}}',
    '\ufeff{"id":2,"rpc":{}}',
    '{"id":2,"publish":{"channel":"chat:1","data":"\\ud800"}}',
    '{"id":2,"connect":{}}',
    "\n\n\n",
    "",
]


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(len(HOSTILE)))
async def test_neighbour_of_a_hostile_client_notices_nothing(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered, or ends with 3501; never a traceback, never a delay for others."""
    world = World()
    async with (
        world.open() as server,
        world.peer(server) as neighbour,
        connect(server.ws("/connection/websocket")) as hostile,
    ):
        assert "subscribe" in await ask(neighbour, 2, subscribe={"channel": "chat:1"})
        await hostile.send_json({"id": 1, "connect": {}})
        await reply_to(hostile, 1)
        await hostile.send(HOSTILE[number])
        for count in range(3):
            said = {"channel": "chat:1", "data": {"text": str(count)}}
            await neighbour.send_json({"id": 3 + count, "publish": said})
            assert (await push_of(neighbour, "pub"))["pub"]["data"] == said["data"]
        with contextlib.suppress(ConnectionClosed):  # unless it has ended already
            await hostile.send("{")
        assert (await hostile.wait_closed()).code == 3501
        await eventually(lambda: len(world.pongee.connections()) == 1, what="it is forgotten")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
