"""The protocol on a transport of the test's own: moments that a real network cannot be held at."""

from __future__ import annotations

import asyncio

import pytest

from pongee.testing import eventually
from pongee.wire import bounds as module
from tests.wire.harness import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Accepting,
    Event,
    Receive,
    Send,
    Wired,
    echo,
    frames,
    masked_frame,
)

pytestmark = pytest.mark.anyio


async def turns(count: int = 5) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Gated:
    """Accepts when the gate opens, then echoes."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        await self.gate.wait()
        await echo(scope, receive, send)


async def test_nothing_goes_out_before_the_answer_to_the_handshake() -> None:
    """Frames that come before accept wait for it: the 101 is the first byte of ours."""
    app = Gated()
    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        wired.protocol.data_received(masked_frame(PING, b"p") + masked_frame(TEXT, b"hello"))
        await turns()
        assert wired.transport.written == b""

        app.gate.set()
        await eventually(lambda: wired.transport.written.endswith(b"hello"), what="the echo")

        head, _, after = wired.transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames(after) == [(PONG, b"p"), (TEXT, b"hello")]


async def test_close_before_accept_waits_too() -> None:
    """A close frame before accept is answered after the 101, never instead of it."""
    app = Gated()
    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        wired.protocol.data_received(masked_frame(CLOSE, b"\x03\xe8"))
        await turns()
        assert not wired.transport.closing

        app.gate.set()
        await eventually(lambda: wired.transport.closing, what="the close")

        head, _, after = wired.transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames(after) == [(CLOSE, b"\x03\xe8")]


async def test_what_comes_before_accept_is_bounded() -> None:
    """A peer that sends on and on before accept is not read; all it sent is served after."""
    app = Gated()
    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        many = 20_000
        wired.protocol.data_received(masked_frame(TEXT, b"x") * many)
        await turns()
        assert not wired.transport.reading

        app.gate.set()
        await eventually(lambda: wired.transport.reading, what="reading goes on")

        _, _, after = wired.transport.written.partition(b"\r\n\r\n")
        assert frames(after) == [(TEXT, b"x")] * many


async def test_request_in_pieces() -> None:
    """The request is taken in any pieces."""
    with Wired(echo) as wired:
        for byte in REQUEST:
            wired.protocol.data_received(bytes((byte,)))
        await eventually(lambda: wired.transport.written, what="an answer")

        assert wired.transport.written.startswith(b"HTTP/1.1 101 ")


async def test_handshake_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is never finished is dropped, however lively its bytes come."""
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT", 0.2)
    with Wired(echo) as wired:
        for byte in REQUEST[:-1]:
            wired.protocol.data_received(bytes((byte,)))
        await eventually(lambda: wired.transport.aborted, within=2, what="the abort")


async def test_queue_is_bounded_within_one_read() -> None:
    """Messages that came in one read do not all become events before the application asks."""
    app = Accepting(listen=False)

    async def script(receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    app.script = script
    with Wired(app) as wired:
        await wired.opened()
        wired.protocol.data_received(masked_frame(BINARY) * 40_000)
        await turns(500)

        assert not wired.transport.reading
        asgi = wired.protocol._asgi
        assert asgi is not None
        assert len(asgi._events) <= module.QUEUE_HIGH + module.PER_TURN


async def test_every_message_of_a_large_read_arrives() -> None:
    """A large read is served whole, in order, over as many turns as it takes."""
    app = Accepting()
    with Wired(app) as wired:
        await wired.opened()
        wired.protocol.data_received(
            b"".join(masked_frame(TEXT, str(number).encode()) for number in range(5000))
            + masked_frame(CLOSE)
        )
        await eventually(lambda: app.end, what="the end")

        assert [event["text"] for event in app.events[:-1]] == [str(n) for n in range(5000)]
        assert app.end == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


async def test_only_the_latest_pong_is_owed() -> None:
    """Pings that cannot be answered at once get one pong, for the latest."""
    with Wired(echo) as wired:
        await wired.opened()
        wired.protocol.pause_writing()
        for number in range(1000):
            wired.protocol.data_received(masked_frame(PING, str(number).encode()))
        assert wired.transport.written == b""

        wired.protocol.resume_writing()

        assert frames(wired.transport.take()) == [(PONG, b"999")]


async def test_no_pong_after_our_close() -> None:
    """Our close frame is the last of ours, whatever is owed."""
    with Wired(echo) as wired:
        await wired.opened()
        wired.protocol.pause_writing()
        wired.protocol.data_received(masked_frame(PING, b"p"))
        wired.protocol.data_received(masked_frame(3))
        wired.transport.closing = False  # the buffer has not drained yet
        wired.protocol.resume_writing()

        assert [opcode for opcode, _ in frames(wired.transport.take())] == [CLOSE]


async def test_a_ping_that_was_not_sent_is_not_held_against_the_peer() -> None:
    """While the write buffer is full no ping goes out, and none is waited for."""
    app = Accepting()
    with Wired(app, ws_ping_interval=0.1, ws_ping_timeout=0.5) as wired:
        await wired.opened()
        wired.protocol.pause_writing()
        # Long enough for several pings to have been due.
        await asyncio.sleep(0.6)
        wired.protocol.resume_writing()
        await eventually(lambda: wired.transport.written, within=2, what="a ping")

        ((opcode, payload),) = frames(wired.transport.take())
        assert opcode == PING
        wired.protocol.data_received(masked_frame(PONG, payload))
        assert app.end is None


async def test_pongs_with_another_payload_do_not_count() -> None:
    """Only the pong to our ping is an answer to it."""
    app = Accepting()
    with Wired(app, ws_ping_interval=0.1, ws_ping_timeout=0.3) as wired:
        await wired.opened()
        await eventually(lambda: wired.transport.written, within=2, what="a ping")
        wired.protocol.data_received(masked_frame(PONG, b"nonsense"))

        await eventually(lambda: app.end, within=2, what="the timeout")
        assert app.end == {"type": "websocket.disconnect", "code": 1006}


async def test_data_after_the_peers_close_is_not_looked_at() -> None:
    """What a TLS layer still delivers after the close frame changes nothing."""
    app = Accepting()
    with Wired(app) as wired:
        await wired.opened()
        wired.protocol.data_received(masked_frame(CLOSE, b"\x03\xe8"))
        wired.protocol.data_received(masked_frame(TEXT, b"late") + masked_frame(3))
        await eventually(lambda: app.end, what="the end")

        assert frames(wired.transport.take()) == [(CLOSE, b"\x03\xe8")]
        assert app.events == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


async def test_a_large_beginning_before_accept_does_not_stop_the_reading() -> None:
    """An application that has taken the connect event waits for a message that can go on coming."""

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        await gate.wait()
        await send({"type": "websocket.accept"})
        received.append(await receive())

    gate, received = asyncio.Event(), list[Event]()
    size = 100_000
    head = b"\x82\xff" + size.to_bytes(8, "big") + bytes(4)
    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        await turns()
        wired.protocol.data_received(head + bytes(module.EARLY_HIGH + 1))
        assert not wired.transport.reading

        gate.set()
        await eventually(lambda: wired.transport.reading, what="reading goes on")
        wired.protocol.data_received(bytes(size - module.EARLY_HIGH - 1))
        await eventually(lambda: received, what="the message")
        assert received[0]["bytes"] == bytes(size)


async def test_upgrade_behind_an_answer_that_is_not_read_is_refused() -> None:
    """That its buffer is full was told to the HTTP protocol: nobody would act on it here."""
    with Wired(echo) as wired:
        wired.transport.written = bytes(module.UNREAD_ANSWER + 1)
        wired.protocol.data_received(REQUEST)
        assert wired.transport.written[module.UNREAD_ANSWER + 1 :].startswith(b"HTTP/1.1 400 ")
        assert wired.transport.closing


async def test_refusal_with_a_header_that_must_not_be_sent_is_500() -> None:
    """What the application took from its input does not leave the connection open."""

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        start = {"type": "websocket.http.response.start", "status": 403}
        await send(start | {"headers": [(b"x-why", b"a\r\nb: c")]})
        await send({"type": "websocket.http.response.body", "body": b""})

    with Wired(app) as wired:
        wired.protocol.data_received(REQUEST)
        await eventually(lambda: wired.transport.closing, what="the answer")
        assert wired.transport.written.startswith(b"HTTP/1.1 500 ")
        assert b"b: c" not in wired.transport.written


@pytest.mark.parametrize("name", [b"Upgrade", b"Connection", b"Sec-WebSocket-Protocol"])
async def test_long_lists_are_refused_unread(name: bytes) -> None:
    """They are parsed before any guard can speak, so they must not cost much."""
    many = name + b": " + b"a," * 10_000 + b"a\r\n"
    with Wired(echo) as wired:
        wired.protocol.data_received(REQUEST.replace(b"Host:", many + b"Host:"))
        assert wired.transport.written.startswith(b"HTTP/1.1 431 ")
