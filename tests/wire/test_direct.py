"""Direct mode: frames by plain calls, and an ASGI call that may end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from pongee.testing import RawPeer, connect, eventually
from pongee.wire import bounds
from pongee.wire.direct import DirectConnection
from pongee.wire.frames import encode_frame
from tests.wire.harness import (
    BINARY,
    CLOSE,
    REQUEST,
    TEXT,
    Event,
    Receive,
    Send,
    Wired,
    all_gone,
    connections,
    frames,
    masked_frame,
    rest,
    wire,
)

pytestmark = pytest.mark.anyio


class Taker:
    """An application that takes each connection over, echoes, and keeps what it heard."""

    def __init__(self, *, stay: bool = False) -> None:
        self.stay = stay
        self.heard: list[object] = []
        self.ends: list[tuple[int, str | None]] = []
        self.connection: DirectConnection
        self.scope: Event = {}
        self.raised: list[Exception] = []

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        await receive()
        await send({"type": "websocket.accept"})
        self.connection = scope["extensions"]["pongee.direct"]["connection"]
        self.connection.attach(self)
        if self.stay:
            for call in (receive, lambda: send({"type": "websocket.send", "text": "x"})):
                try:
                    await call()
                except RuntimeError as error:
                    self.raised.append(error)

    def on_message(self, data: str | bytes) -> None:
        self.heard.append(data)
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self.connection.write(encode_frame(opcode, payload))

    def on_end(self, code: int, reason: str | None) -> None:
        self.ends.append((code, reason))

    def on_write_paused(self) -> None:
        self.heard.append("paused")

    def on_write_resumed(self) -> None:
        self.heard.append("resumed")


async def test_echo_by_a_connection_that_no_task_waits_for() -> None:
    """The ASGI call has returned, and the connection lives until its peer leaves."""
    app = Taker()
    async with wire(app) as server:
        async with connect(server.ws("/")) as client:
            await eventually(lambda: not server.uvicorn.server_state.tasks, what="the call is over")
            await client.send("hello")
            await client.send(b"\x00\xff")
            assert await client.receive() == "hello"
            assert await client.receive() == b"\x00\xff"
        await all_gone(server)
    assert app.heard == ["hello", b"\x00\xff"]
    assert app.ends == [(1000, "")]


async def test_a_detached_connection_holds_neither_scope_nor_application_side() -> None:
    """What an idle connection costs is the connection: nothing of its ASGI call is kept."""
    kept: list[weakref.ref[Any]] = []

    class Detaching(Taker):
        async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
            kept.append(weakref.ref(receive.__self__))  # type: ignore[attr-defined]
            await super().__call__(scope, receive, send)
            self.scope = {}

    async with wire(Detaching()) as server, connect(server.ws("/")) as client:
        await eventually(lambda: not server.uvicorn.server_state.tasks, what="the call is over")
        gc.collect()
        assert [ref() for ref in kept] == [None]
        await client.send("still here")
        assert await client.receive() == "still here"


async def test_receive_and_send_of_a_call_whose_connection_was_taken_over_raise() -> None:
    """A connection has one owner; the other is told of its mistake."""
    app = Taker(stay=True)
    async with wire(app) as server, connect(server.ws("/")):
        await eventually(lambda: len(app.raised) == 2, what="both raise")


async def test_what_arrived_before_attach_is_handed_over_in_order() -> None:
    """Frames that came with the handshake, or while the application was busy, are not lost."""
    gate = asyncio.Event()

    class Late(Taker):
        async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
            await gate.wait()
            await super().__call__(scope, receive, send)

    app = Late()
    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        for text in (b"1", b"2"):
            wired.protocol.data_received(masked_frame(TEXT, text))
        gate.set()
        await eventually(lambda: app.heard == ["1", "2"], what="both")
        wired.protocol.data_received(masked_frame(TEXT, b"3"))
        assert app.heard == ["1", "2", "3"]


async def test_attach_after_the_loss_tells_the_end() -> None:
    """A peer that left between accept and attach is not waited for."""

    class Slow(Taker):
        async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            self.connection = scope["extensions"]["pongee.direct"]["connection"]
            self.connection.attach(self)

    app = Slow()
    async with wire(app) as server:
        async with connect(server.ws("/")):
            pass
        await all_gone(server)
    assert app.ends == [(1000, "")]


async def test_attach_twice_or_before_accept_is_refused() -> None:
    """A connection is taken over after accept, once."""
    raised: list[str] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        connection = scope["extensions"]["pongee.direct"]["connection"]
        for step in ("before", "first", "second"):
            try:
                connection.attach(taker)
            except RuntimeError:
                raised.append(step)
            if step == "before":
                await receive()
                await send({"type": "websocket.accept"})

    taker = Taker()
    async with wire(app) as server:
        async with connect(server.ws("/")):
            pass
        await all_gone(server)
    assert raised == ["before", "second"]


async def test_close_by_the_receiver() -> None:
    """The close frame goes out, its answer is awaited, and the end is told once."""
    app = Taker()
    async with wire(app) as server:
        async with connect(server.ws("/")) as client:
            await eventually(lambda: hasattr(app, "connection") and not app.ends)
            app.connection.send_close(4001, "enough")
            app.connection.send_close(4002, "twice")
            app.connection.write(encode_frame(TEXT, b"after"))
            frame = await client.wait_closed()
            assert (frame.code, frame.reason) == (4001, "enough")
        await all_gone(server)
    assert app.ends == [(4001, "enough")]


async def test_abort_by_the_receiver_is_told_as_a_loss() -> None:
    """An abort sends nothing; the peer and the receiver see a connection that is lost."""
    app = Taker()
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await eventually(lambda: hasattr(app, "connection"))
        app.connection.abort()
        app.connection.abort()
        await all_gone(server)
    assert app.ends == [(1006, None)]


async def test_violation_and_shutdown_are_told() -> None:
    """The wire answers a protocol error; a server that leaves says 1012 to both sides."""
    app = Taker()
    async with wire(app) as server:
        async with RawPeer(server.port, "/") as peer:
            await peer.handshake()
            await peer.send(b"\x83\x80\x00\x00\x00\x00")
            assert [opcode for opcode, _ in await rest(peer)] == [CLOSE]
        await eventually(lambda: len(app.ends) == 1)
        async with connect(server.ws("/")) as client:
            await eventually(lambda: len(connections(server)) == 1 and len(app.ends) == 1)
            server.uvicorn.should_exit = True
            assert (await client.wait_closed()).code == 1012
    assert app.ends == [(1002, "unknown opcode"), (1012, None)]


async def test_reading_pauses_for_a_receiver_that_wants_no_more() -> None:
    """Nothing is handed over while paused, and everything after, in order."""
    app = Taker()
    with Wired(app) as wired:
        await wired.opened()
        await eventually(lambda: hasattr(app, "connection"))
        app.connection.pause_reading()
        assert not wired.transport.reading
        app.connection.resume_reading()
        wired.protocol.data_received(masked_frame(TEXT, b"x") * 1000)
        await eventually(lambda: len(app.heard) == 1000, what="all are handed over")


async def test_receiver_that_pauses_while_it_is_handed_what_waited_stays_paused() -> None:
    """Its pause is its own: the one of the ASGI side before it is not mixed up with it."""

    class Pausing(Taker):
        async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await eventually(lambda: not wired.transport.reading, what="the queue is full")
            self.connection = scope["extensions"]["pongee.direct"]["connection"]
            self.connection.attach(self)

        def on_message(self, data: str | bytes) -> None:
            self.heard.append(data)
            self.connection.pause_reading()

    app = Pausing()
    with Wired(app) as wired:
        await wired.opened()
        wired.protocol.data_received(masked_frame(TEXT, b"x") * bounds.QUEUE_HIGH)
        await eventually(lambda: len(app.heard) == bounds.QUEUE_HIGH, what="what waited")
        assert not wired.transport.reading


async def test_write_pause_and_resume_reach_the_receiver() -> None:
    """The write deadline is the receiver's, so it learns when the buffer is full."""
    app = Taker()
    with Wired(app) as wired:
        await wired.opened()
        await eventually(lambda: hasattr(app, "connection"))
        wired.protocol.pause_writing()
        assert not app.connection.can_write
        wired.protocol.resume_writing()
        assert app.heard == ["paused", "resumed"]
        assert app.connection.can_write


async def test_receiver_that_raises_gets_1011_for_its_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in a receiver is logged, and the peer told."""

    class Broken(Taker):
        def on_message(self, data: str | bytes) -> None:
            raise ValueError(data)

    async with wire(Broken()) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(masked_frame(TEXT, b"x"))
        await eventually(lambda: "a receiver raised" in caplog.text)
        await peer.send(masked_frame(CLOSE, b"\x03\xf3"))
        assert frames(await peer.read_to_end()) == [(CLOSE, b"\x03\xf3")]


async def test_peer_that_sends_on_after_its_violation_still_gets_the_close_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing at once would make TCP throw the close frame away with what was not read."""
    monkeypatch.setattr(bounds, "LINGER_STEP", 0.5)
    async with wire(Taker(), ws_max_size=1000) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await peer.send(b"\x82\xfe\xff\xff" + bytes(4))
        for _ in range(50):
            await peer.send(bytes(64 * 1024))
        assert frames(await peer.read_to_end()) == [(CLOSE, b"\x03\xf1message too big")]
        await all_gone(server)


async def test_application_that_raises_after_it_gave_the_connection_away_ends_nothing() -> None:
    """The connection is its receiver's, whether the ASGI call returns, stays or raises."""

    class Raising(Taker):
        async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
            await super().__call__(scope, receive, send)
            raise ValueError

    app = Raising()
    async with wire(app) as server, connect(server.ws("/")) as client:
        await eventually(lambda: not server.uvicorn.server_state.tasks, what="the call is over")
        await client.send("hello")
        assert await client.receive() == "hello"
        assert app.ends == []


async def test_peer_that_ends_its_side_is_gone_though_its_buffer_does_not_drain() -> None:
    """The receiver is told at once: a polite close would wait for what nobody reads."""
    app = Taker()
    with Wired(app) as wired:
        await wired.opened()
        await eventually(lambda: hasattr(app, "connection"))
        app.connection.write(encode_frame(TEXT, b"unread"))
        wired.protocol.eof_received()
        assert app.ends == [(1006, None)]
        assert wired.transport.closing


async def test_socket_that_closes_is_told_to_whom_it_concerns() -> None:
    """`on_gone` comes with the socket's end, which may be long after `on_end`."""
    app, gone = Taker(), asyncio.Event()
    async with wire(app) as server, RawPeer(server.port, "/") as peer:
        await peer.handshake()
        await eventually(lambda: hasattr(app, "connection"))
        app.connection.on_gone = gone.set
        app.connection.send_close(1000, "")
        assert app.ends == [(1000, "")]
        assert not gone.is_set()
        await peer.send(masked_frame(CLOSE, b"\x03\xe8"))
        await asyncio.wait_for(gone.wait(), 5)
