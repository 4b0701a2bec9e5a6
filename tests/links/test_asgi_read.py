"""A link on plain ASGI messages: reading, stopping, and what events and servers mean."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pongee.codes import CauseKind, CloseCause
from pongee.links.asgi import cause_of, traits_of
from tests.links.harness import Wired, all_blocked, start

pytestmark = pytest.mark.anyio


async def test_messages_arrive_in_order_and_then_the_loss_once() -> None:
    """Text and binary frames; after `on_lost` nothing more."""
    async with Wired() as wired:
        wired.server.arrive(text="a")
        wired.server.arrive(bytes=b"b")
        wired.server.arrive(text="", bytes=None)
        wired.server.arrive(text=None, bytes=b"")
        wired.server.arrive(type="websocket.disconnect", code=1001, reason="bye")
        await wired.link.pump()

        assert wired.owner.messages == ["a", b"b", "", b""]
        assert wired.owner.lost == [CloseCause(CauseKind.CLIENT_CLOSED, 1001, "bye")]
        assert wired.link.lost


async def test_stop_reading_while_the_reader_waits_ends_it_undisturbed() -> None:
    """The caller's task goes on as if `pump` had just returned."""
    async with Wired() as wired:

        async def body() -> str:
            await wired.link.pump()
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return f"went on, {task.cancelling()} cancellations"

        reader = start(body())
        await all_blocked()
        wired.link.stop_reading()
        wired.link.stop_reading()

        assert await reader == "went on, 0 cancellations"
        assert wired.owner.lost == []


async def test_stop_reading_while_paused_ends_the_reader() -> None:
    """A reader that waits for room can be stopped as well."""
    async with Wired() as wired:
        wired.link.pause_reading()
        reader = start(wired.link.pump())
        await all_blocked()

        wired.link.stop_reading()

        await reader


async def test_stop_reading_from_inside_a_message_cancels_nothing() -> None:
    """The owner ends the session while it takes a message."""
    async with Wired() as wired:
        wired.server.arrive(text="a")
        wired.server.arrive(text="b")
        wired.owner.on_message = lambda data: wired.link.stop_reading()  # type: ignore[method-assign]

        await wired.link.pump()
        await asyncio.sleep(0)

        assert wired.owner.lost == []


async def test_stop_reading_before_and_after_the_reader_is_harmless() -> None:
    """A session that ends before it is read is not read at all."""
    async with Wired() as wired:
        wired.link.stop_reading()
        wired.server.arrive(text="a")
        await wired.link.pump()
        wired.link.stop_reading()
        await asyncio.sleep(0)

        assert wired.owner.messages == []


@pytest.mark.parametrize("order", ["cancel", "cancel, stop", "stop, cancel"])
async def test_cancellation_from_outside_is_not_swallowed(order: str) -> None:
    """Only the cancellation that `stop_reading` made is taken back."""
    async with Wired() as wired:
        reader = start(wired.link.pump())
        await all_blocked()
        for step in order.split(", "):
            if step == "cancel":
                reader.cancel()
            else:
                wired.link.stop_reading()

        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_timeout_around_the_reader_still_works() -> None:
    """A scope of the caller that cancels gets its cancellation."""
    async with Wired() as wired:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await wired.link.pump()


async def test_paused_reader_takes_nothing_until_it_is_resumed() -> None:
    """What is not taken stays with the server, which then pauses its socket."""
    async with Wired() as wired:

        def on_message(data: str | bytes) -> None:
            wired.owner.messages.append(data)
            wired.link.pause_reading()
            wired.link.pause_reading()

        wired.owner.on_message = on_message  # type: ignore[method-assign]
        for text in "abc":
            wired.server.arrive(text=text)
        reader = start(wired.link.pump())
        await all_blocked()
        assert wired.owner.messages == ["a"]

        wired.link.resume_reading()
        wired.link.resume_reading()
        await all_blocked()
        assert wired.owner.messages == ["a", "b"]
        wired.link.stop_reading()
        await reader


async def test_pause_again_before_the_reader_woke_is_a_pause() -> None:
    """Resume and pause in one turn of the loop let nothing through."""
    async with Wired() as wired:
        wired.link.pause_reading()
        reader = start(wired.link.pump())
        await all_blocked()
        wired.server.arrive(text="a")
        wired.link.resume_reading()
        wired.link.pause_reading()
        await all_blocked()

        assert wired.owner.messages == []
        wired.link.stop_reading()
        await reader


# What events and servers mean


@pytest.mark.parametrize(
    ("event", "kind", "code", "reason"),
    [
        ({}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": None}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": 1005}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": 1005, "reason": None}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": 1005, "reason": ""}, CauseKind.CLIENT_CLOSED, 1005, ""),
        ({"code": 1006}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": 1006, "reason": ""}, CauseKind.CONNECTION_LOST, 1006, ""),
        ({"code": 1006, "reason": "x"}, CauseKind.CONNECTION_LOST, 1006, "x"),
        ({"code": 1000}, CauseKind.CLIENT_CLOSED, 1000, ""),
        ({"code": 1000, "reason": "bye"}, CauseKind.CLIENT_CLOSED, 1000, "bye"),
        ({"code": 1001, "reason": ""}, CauseKind.CLIENT_CLOSED, 1001, ""),
        ({"code": 4321, "reason": "mine"}, CauseKind.CLIENT_CLOSED, 4321, "mine"),
        ({"code": 1002, "reason": ""}, CauseKind.BAD_INPUT, 1002, ""),
        ({"code": 1007, "reason": "utf-8"}, CauseKind.BAD_INPUT, 1007, "utf-8"),
        ({"code": 1009}, CauseKind.BAD_INPUT, 1009, ""),
        ({"code": 1012}, CauseKind.DRAINING, 1012, ""),
        ({"code": 1012, "reason": ""}, CauseKind.CLIENT_CLOSED, 1012, ""),
    ],
)
def test_cause_is_read_out_of_every_shape_of_event(
    event: dict[str, Any], kind: CauseKind, code: int, reason: str
) -> None:
    """Servers differ in how they tell a lost connection from a close frame without a code."""
    assert cause_of({"type": "websocket.disconnect"} | event) == CloseCause(kind, code, reason)


def _owner(module: str, name: str = "Protocol", **fields: Any) -> Any:
    """Make an object whose `send` is a method, as servers give it to applications."""

    async def send(self: Any, event: Any) -> None: ...

    owner = type(name, (), {"__module__": module, "send": send})()
    for field, value in fields.items():
        setattr(owner, field, value)
    return owner


def test_traits_of_servers_whose_transport_is_reachable() -> None:
    """On uvicorn it is on the protocol; on hypercorn two steps further, for HTTP/1.1 only."""
    aborted: list[str] = []
    transport = SimpleNamespace(abort=lambda: aborted.append("cut"))
    config = SimpleNamespace(ws_ping_interval=20.0, ws_ping_timeout=20.0)

    uvicorn = traits_of(_owner("uvicorn.protocols.x", transport=transport, config=config).send)
    connection = _owner("hypercorn.asyncio.tcp", writer=SimpleNamespace(transport=transport))
    streams = [
        _owner("hypercorn.protocol.h11", name, send=connection.send)
        for name in ("H11Protocol", "H2Protocol")
    ]

    class Stream:
        __module__ = "hypercorn.protocol.ws_stream"

        def __init__(self, protocol: Any) -> None:
            protocol_send = type(protocol).send.__get__(protocol)
            self.send = protocol_send

        async def app_send(self, event: Any) -> None: ...

    h11, h2 = (traits_of(Stream(stream).app_send) for stream in streams)

    assert (uvicorn.name, uvicorn.pings) == ("uvicorn", True)
    assert (h11.name, h11.pings, h2.name) == ("hypercorn", False, "hypercorn")
    assert uvicorn.abort is not None
    assert h11.abort is not None
    assert h2.abort is None
    uvicorn.abort()
    h11.abort()
    assert aborted == ["cut", "cut"]


def test_traits_of_servers_that_keep_their_transport() -> None:
    """As granian and unknown servers: no abort, no pings; a plain function is no server."""

    async def plain(event: Any) -> None: ...

    granian = traits_of(_owner("_granian.asgi").send)
    assert (granian.name, granian.abort, granian.pings) == ("granian", None, False)
    for send in (plain, _owner("elsewhere").send, _owner("uvicornish").send):
        traits = traits_of(send)
        assert (traits.name, traits.abort, traits.pings) == ("unknown", None, False)


@pytest.mark.parametrize(("interval", "timeout"), [(None, 20.0), (20.0, None), (0, 20.0)])
def test_uvicorn_without_pings_is_known_to_have_none(interval: Any, timeout: Any) -> None:
    """A missing pong cannot end what is never pinged."""
    config = SimpleNamespace(ws_ping_interval=interval, ws_ping_timeout=timeout)

    assert not traits_of(_owner("uvicorn.protocols.x", config=config).send).pings
