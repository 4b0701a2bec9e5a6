"""One WebSocket on a transport, from accept to the last byte. ▲

`Connection` parses what comes, answers pings and closes, looks after the peer's liveness, and
tells a `DirectReceiver` of messages and of the end. Who that is, the ASGI side or an application
in direct mode, is `pongee.wire.protocol`'s business. What it promises whoever that is:

* `on_end` comes exactly once; no message comes after it;
* a protocol error, and a close frame of the peer's, is answered and ends the connection;
* a missing pong ends it in an abort, and does not depend on the receiver taking messages;
* at most `bounds.PER_TURN` messages are handed over in one turn of the event loop;
* a peer that does not read is owed the latest pong only (RFC 6455 section 5.5.3).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from enum import Enum
from typing import cast

from uvicorn.config import Config

from pongee.wire import bounds
from pongee.wire.direct import DirectReceiver
from pongee.wire.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    FrameError,
    FrameParser,
    encode_close,
    encode_frame,
    parse_close,
)
from pongee.wire.wheel import Timer, wheel_of

__all__ = ["Connection", "State"]

logger = logging.getLogger("pongee.wire")


class State(Enum):
    """Where a connection stands. It only ever moves down this list."""

    HEAD = 0  # the request is not complete
    ASKED = 1  # no answer to the handshake yet: what comes is kept
    OPEN = 2
    CLOSING = 3  # our close frame is out: messages are dropped, the peer's close is awaited
    LINGERING = 4  # the peer broke the protocol: what still comes is not looked at
    ENDED = 5  # nothing is read any more


def _ignore(_: str | bytes) -> None:
    """Take a message for nobody."""


class Connection(asyncio.Protocol):
    """An open WebSocket. Implements `pongee.wire.direct.DirectConnection`, but for `attach`."""

    __slots__ = (
        "__weakref__",
        "_deadline",
        "_going_on",
        "_heard",
        "_on_message",
        "_owed_pong",
        "_parser",
        "_ping",
        "_ping_payload",
        "_reading",
        "_receiver",
        "_state",
        "_told",
        "can_write",
        "config",
        "held",
        "loop",
        "lost",
        "on_gone",
        "transport",
        "window_bits",
    )

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.can_write = True
        self.held = False  # the receiver wants no more for now
        self.lost = False
        self.on_gone: Callable[[], None] | None = None
        self.window_bits = 0
        self.loop = loop
        self._parser = FrameParser(config.ws_max_size)
        self._state = State.HEAD
        self._receiver: DirectReceiver | None = None
        self._on_message: Callable[[str | bytes], None]
        self._told = False
        self._going_on = False  # more messages are here than one turn may take
        self._reading = True
        self._heard = 0  # bytes since the last look while lingering
        self._owed_pong: bytes | None = None
        self._deadline: Timer | None = None
        self._ping: Timer | None = None
        self._ping_payload: bytes | None = None

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take bytes; leave for the next turn what is too much for one. ▲

        Budget: 1 µs for one small message, the receiver's own time apart.
        """
        if self._state is not State.OPEN and self._state is not State.CLOSING:
            self._take_otherwise(data)
            return
        parser = self._parser
        try:
            for opcode, payload in parser.feed(data, bounds.PER_TURN):
                if opcode <= BINARY:
                    if not self._told:  # past its end the receiver hears no more
                        self._on_message(payload)
                elif opcode == PING:
                    self._take_ping(cast("bytes", payload))
                elif opcode == PONG:
                    self._take_pong(cast("bytes", payload))
                elif opcode == CLOSE:
                    self._take_close(cast("bytes", payload))
                    return
        except Exception:
            logger.exception("a receiver raised")
            self.send_close(1011, "")
            if parser.stopped_early:
                self._go_on_later()
            return
        if parser.error is not None:
            self._fail(parser.error)
        elif parser.stopped_early and not self.held:
            self._go_on_later()
            self._adjust_reading()

    def _take_otherwise(self, data: bytes) -> None:
        if self._state is State.HEAD:
            self._take_head(data)
        elif self._state is State.ASKED:
            # Our answer to the handshake comes before any frame of ours: see `_open`.
            self._parser.feed(data, 0)
            if self._parser.waiting > bounds.EARLY_HIGH:
                self.pause_reading()
        else:
            self._heard += len(data)

    def _take_head(self, data: bytes) -> None:
        """Take bytes of the request: `WireProtocol` does."""

    def eof_received(self) -> bool:
        """End when the peer ends: half a WebSocket is none, and its buffer may never drain."""
        self._tell_end(1006, None)
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, and tell the receiver if it was not told."""
        self.lost = True
        self._state = State.ENDED
        self._cancel_deadline()
        self._cancel_ping()
        self._tell_end(1006, None)
        self._receiver = None  # nobody is called any more, and no cycle keeps us
        self._on_message = _ignore
        if self.on_gone is not None:
            gone, self.on_gone = self.on_gone, None
            gone()

    def pause_writing(self) -> None:
        """Note that the buffer is over its high-water mark."""
        self.can_write = False
        if self._receiver is not None:
            self._receiver.on_write_paused()

    def resume_writing(self) -> None:
        """Note that the buffer has drained."""
        self.can_write = True
        if self._owed_pong is not None:
            payload, self._owed_pong = self._owed_pong, None
            self.write(encode_frame(PONG, payload))
        if self._receiver is not None:
            self._receiver.on_write_resumed()

    # What a receiver can do

    def write(self, data: bytes) -> None:
        """Write finished frames as they are. Ignored after a close frame of ours."""
        if self._state is State.OPEN:
            self.transport.write(data)

    def send_close(self, code: int, reason: str, within: float | None = None) -> None:
        """Send a close frame; cut the connection unless it is answered in time. Idempotent."""
        if self._state is State.OPEN:
            self._close_frame(code, reason)
            self._tell_end(code, reason)
            self.resume_reading()  # or its answer would not be seen
            self._abort_later(bounds.CLOSE_TIMEOUT if within is None else within)

    def abort(self) -> None:
        """Cut the connection now, and drop what was not sent."""
        if not self.lost:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Hand over no more messages until `resume_reading`."""
        if not self.held and self._state in (State.ASKED, State.OPEN):
            self.held = True
            self._adjust_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self.held:
            self.held = False
            if self._parser.stopped_early:  # what is here comes before what is to come
                self._go_on_later()
            self._adjust_reading()

    def write_buffer_size(self) -> int:
        """Bytes written and not yet taken by the kernel."""
        return self.transport.get_write_buffer_size()

    # Opening

    def _open(self, answer: bytes) -> None:
        """Send the answer to the handshake; frames may travel from here on."""
        self._cancel_deadline()
        self._state = State.OPEN
        self.transport.write(answer)
        self._schedule_ping()
        self.resume_reading()  # paused, if so, for what came too early
        if self._parser.waiting:
            self.data_received(b"")

    def _set_receiver(self, receiver: DirectReceiver) -> None:
        self._receiver = receiver
        self._on_message = receiver.on_message

    # From the peer

    def _go_on_later(self) -> None:
        if not self._going_on:
            self._going_on = True
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = False
        if not self.held and self._state in (State.OPEN, State.CLOSING):
            self.data_received(b"")
        self._adjust_reading()

    def _take_ping(self, payload: bytes) -> None:
        if self.can_write:
            self.write(encode_frame(PONG, payload))
        else:
            self._owed_pong = payload

    def _take_pong(self, payload: bytes) -> None:
        if payload == self._ping_payload:
            self._ping_payload = None
            self._cancel_ping()
            self._schedule_ping()

    def _take_close(self, payload: bytes) -> None:
        try:
            code, reason = parse_close(payload)
        except FrameError as error:
            self._fail(error)
            return
        if self._state is State.OPEN:
            self._close_frame(code, "")
        self._tell_end(code, reason)
        self._leave()

    def _fail(self, error: FrameError) -> None:
        """End because the peer broke the protocol (section 7.1.7)."""
        if self._state is State.OPEN:
            self._close_frame(error.code, error.reason)
        self._tell_end(error.code, error.reason)
        self._state = State.LINGERING
        self.held = False
        self._adjust_reading()
        self._linger(bounds.LINGER_STEPS)

    def _linger(self, steps: int) -> None:
        """Read on, without looking, until the peer is quiet: its close frame must arrive first."""
        heard, self._heard = self._heard, 0
        if steps == bounds.LINGER_STEPS or (heard and steps):
            self._cancel_deadline()
            self._deadline = wheel_of(self.loop).call_later(
                bounds.LINGER_STEP, lambda: self._linger(steps - 1)
            )
        else:
            self._leave()

    # The end

    def _tell_end(self, code: int, reason: str | None) -> None:
        if not self._told and self._receiver is not None:
            self._told = True
            try:
                self._receiver.on_end(code, reason)
            except Exception:
                logger.exception("a receiver raised at the end")

    def _close_frame(self, code: int, reason: str) -> None:
        self._cancel_ping()
        self.transport.write(encode_close(code, reason))
        self._state = State.CLOSING

    def _leave(self, within: float | None = None) -> None:
        """Close the transport once its buffer is sent; cut it if that takes too long."""
        self._state = State.ENDED
        if not self.lost:
            self.transport.close()
            self._abort_later(bounds.CLOSE_TIMEOUT if within is None else within)

    def _abort_later(self, seconds: float) -> None:
        """Cut what a polite close leaves open: a buffer that does not drain."""
        self._cancel_deadline()
        if not self.lost:
            self._deadline = wheel_of(self.loop).call_later(seconds, self.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Liveness

    def _schedule_ping(self) -> None:
        interval = self.config.ws_ping_interval
        if interval and self._state is State.OPEN:
            self._ping = wheel_of(self.loop).call_later(interval, self._send_ping)

    def _send_ping(self) -> None:
        if not self.can_write:
            # The write deadline judges this peer; what was not asked cannot be answered.
            self._schedule_ping()
            return
        self._ping_payload = os.urandom(4)
        self.write(encode_frame(PING, self._ping_payload))
        timeout = self.config.ws_ping_timeout
        if timeout:
            self._ping = wheel_of(self.loop).call_later(timeout, self._ping_is_late)
        else:
            self._schedule_ping()

    def _ping_is_late(self) -> None:
        if self.held:
            # We are not reading, so we cannot know: ask again rather than blame the peer.
            self._schedule_ping()
            return
        self._tell_end(1006, None)
        if self._state is State.OPEN:
            self._close_frame(1011, "keepalive ping timeout")
        self._leave(within=bounds.PING_GRACE)

    def _cancel_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    def _adjust_reading(self) -> None:
        wanted = not (self.held or self._going_on)
        if wanted is not self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()
