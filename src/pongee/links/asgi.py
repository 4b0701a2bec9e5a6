"""A link on plain ASGI messages, for any server. ▲

One task reads (`AsgiLink.pump`, run by the session's owner). Writes happen in the caller's task
while nothing waits, which is the common case and costs no task switch; as soon as something waits,
a writer task sends it in order and ends when the outbox is empty.

What plain ASGI cannot do: tell when a ping was answered, or cut a connection. uvicorn and
hypercorn keep their transport within reach of the `send` they give the application, so there we can
abort; elsewhere `AsgiLink.abort` drops what waits, says `False`, and the server's socket lingers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

from pongee.codes import CauseKind, CloseCause, CloseCode, shorten_reason
from pongee.limits import Limits
from pongee.links.base import Batch, Capabilities, LinkStatistics, Outgoing, Overflow, Receiver
from pongee.links.outbox import Outbox, Pushed
from pongee.links.stall import StallWatch

__all__ = ["AsgiLink", "ServerTraits", "cause_of", "traits_of"]

logger = logging.getLogger("pongee.links")

SERVERS = ("uvicorn", "pongee", "hypercorn", "granian")


@dataclass(frozen=True, slots=True)
class ServerTraits:
    """What is known of the server behind an ASGI `send`.

    Attributes:
        name: one of `SERVERS`, or ``unknown``; ``pongee`` is our own wire on uvicorn.
        abort: cuts the connection, or `None` where the server keeps its transport to itself.
        pings: whether the server sends protocol pings of its own and acts on a missing pong.
        writable: whether a write would return at once, where the server lets us know.
        buffered: bytes in the transport's buffer, likewise.
        closing: whether the server is closing the transport, likewise.
        app: the application as the server knows it, or `None`.
    """

    name: str
    abort: Callable[[], None] | None
    pings: bool
    writable: Callable[[], bool] | None = None
    buffered: Callable[[], int] | None = None
    closing: Callable[[], bool] | None = None
    app: Any = None


def traits_of(send: Callable[..., Any]) -> ServerTraits:
    """Look at the server's own `send`; call it before anything wraps it.

    uvicorn's and granian's `send` is a method of the connection's protocol, hypercorn's of one
    stream, whose own ``send`` leads to the connection; an HTTP/2 connection is left alone there,
    because other streams live on it.
    """
    owner = getattr(send, "__self__", None)
    module = type(owner).__module__ if owner is not None else getattr(send, "__module__", "") or ""
    name = module.lstrip("_").partition(".")[0]
    transport = getattr(owner, "transport", None)
    if name == "hypercorn":
        protocol = getattr(getattr(owner, "send", None), "__self__", None)
        if type(protocol).__name__ == "H11Protocol":
            connection = getattr(getattr(protocol, "send", None), "__self__", None)
            transport = getattr(getattr(connection, "writer", None), "transport", None)
    abort = getattr(transport, "abort", None)
    # hypercorn can send pings, but never looks for the pongs; granian sends none.
    config = getattr(owner, "config", None)
    times = [getattr(config, field, 20.0) for field in ("ws_ping_interval", "ws_ping_timeout")]
    return ServerTraits(
        name=name if name in SERVERS else "unknown",
        abort=abort if callable(abort) else None,
        pings=name in ("uvicorn", "pongee") and all(times),
        writable=getattr(getattr(owner, "writable", None), "is_set", None),
        buffered=getattr(transport, "get_write_buffer_size", None),
        closing=getattr(transport, "is_closing", None),
        app=getattr(config, "loaded_app", None),
    )


def cause_of(event: MutableMapping[str, Any]) -> CloseCause:
    """Read the true cause out of a ``websocket.disconnect`` event.

    Servers report a lost connection as 1005 or 1006. A close frame without a code is 1005 as well
    (RFC 6455 section 7.1.5), but comes with a ``reason`` field; uvicorn leaves that field out when
    no close frame arrived, and also when it closes by itself at shutdown.
    """
    code = event.get("code") or CloseCode.NO_STATUS
    reason = event.get("reason") or ""
    has_frame = event.get("reason") is not None
    if code == CloseCode.SERVICE_RESTART and not has_frame:
        return CloseCause(CauseKind.DRAINING, code, reason)
    if code == CloseCode.ABNORMAL or (code == CloseCode.NO_STATUS and not has_frame):
        return CloseCause(CauseKind.CONNECTION_LOST, CloseCode.ABNORMAL, reason)
    if code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_PAYLOAD, CloseCode.MESSAGE_TOO_BIG):
        return CloseCause(CauseKind.BAD_INPUT, code, reason)
    return CloseCause(CauseKind.CLIENT_CLOSED, code, reason)


class AsgiLink:
    """One accepted WebSocket on an ASGI server. Implements `links.base.Link`.

    Args:
        websocket: accepted already.
        receiver: who is told what happens.
        limits: outbox bounds, write deadline, close timeout.
        overflow: what a full outbox does.
        watch: the process's write deadline.
        traits: what the server can do.
    """

    __slots__ = (
        "_close_frame",
        "_closing",
        "_limits",
        "_lost",
        "_outbox",
        "_overflow",
        "_reader",
        "_receive",
        "_receiver",
        "_resumed",
        "_room",
        "_send",
        "_stopped",
        "_suspended",
        "_traits",
        "_waiting",
        "_watch",
        "_websocket",
        "_writable",
        "_writer",
        "_writing",
        "sent_bytes",
        "sent_messages",
        "write_deadline",
    )

    def __init__(
        self,
        websocket: WebSocket,
        receiver: Receiver,
        *,
        limits: Limits,
        overflow: Overflow,
        watch: StallWatch,
        traits: ServerTraits,
    ) -> None:
        self._websocket = websocket
        self._receiver = receiver
        self._limits = limits
        self._overflow = overflow
        self._watch = watch
        self._traits = traits
        self._writable = traits.writable
        self.write_deadline = limits.write_deadline
        self.sent_messages = 0
        self.sent_bytes = 0
        self._outbox = Outbox(overflow, limits.outbox_messages, limits.outbox_bytes)
        self._waiting = self._outbox.waiting
        # Starlette's own methods check on every message what we know: that it was accepted. These
        # two are what they call, so every middleware of the application still sees each message.
        self._receive = websocket._receive
        self._send = websocket._send
        self._writer: asyncio.Task[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._writing = False
        self._closing = False
        self._close_frame: Outgoing | None = None
        self._lost = False
        self._reader: asyncio.Task[Any] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._stopped = False
        self._suspended = False

    @property
    def capabilities(self) -> Capabilities:
        """What the server lets us do."""
        denial = "websocket.http.response" in self._websocket.scope.get("extensions", {})
        return Capabilities(abort=self._traits.abort is not None, denial=denial)

    @property
    def lost(self) -> bool:
        """Whether a write or the reader has found the peer gone."""
        return self._lost

    # Reading

    async def pump(self) -> None:
        """Read until the peer is gone or `stop_reading` is called.

        Cancellation: a cancellation from outside ends it as usual; the one that `stop_reading`
        uses to wake it is taken back, so that the caller's task goes on undisturbed.
        """
        self._reader = asyncio.current_task()
        self._watch.open(self)
        receive = self._receive
        on_message = self._receiver.on_message
        try:
            while not self._stopped:
                self._suspended = True
                while self._resumed is not None:
                    await self._resumed
                event = await receive()
                self._suspended = False
                if event["type"] == "websocket.receive":
                    text = event.get("text")
                    on_message(event["bytes"] if text is None else text)
                else:
                    self._lost = True
                    self._receiver.on_lost(cause_of(event))
                    return
        except asyncio.CancelledError:
            if not self._stopped or self._reader is None or self._reader.uncancel() > 0:
                raise
        finally:
            self._suspended = False
            self._stopped = True
            self._watch.close(self)

    def stop_reading(self) -> None:
        """End `pump`. Idempotent."""
        if not self._stopped:
            self._stopped = True
            if self._suspended and self._reader is not None:
                self._reader.cancel()

    def pause_reading(self) -> None:
        """Stop taking messages from the server until `resume_reading`."""
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._resumed is not None:
            if not self._resumed.done():
                self._resumed.set_result(None)
            self._resumed = None

    # Writing

    def send_now(self, data: str | bytes) -> bool:
        """Do nothing: an ASGI server's ``send`` has to be awaited."""
        return False

    def deliver(self, batch: Batch) -> None:
        """Push all messages of `batch`."""
        for message in batch.messages:
            self.push(message)

    def push(self, message: Outgoing) -> None:
        """Send without waiting. Never raises; messages after the end are ignored."""
        if self._closing or self._lost:
            return
        if self._outbox.push(message) is Pushed.FULL:
            self._receiver.on_stalled("outbox full")
        else:
            self._start_writer()

    async def send(self, message: Outgoing) -> None:
        """Send in the order of calls; wait while a ``disconnect`` outbox is over its bound.

        Under the other policies it never waits: what does not fit is dropped and counted.

        Cancellation: the message may still be delivered. Concurrency: any number of callers.
        """
        if self._closing or self._lost:
            return
        if self._overflow != "disconnect":
            self.push(message)
        elif self._writing or self._waiting:
            self._outbox.append(message)
            self._start_writer()
            while self._outbox.waits and not self._lost:
                await self._wait_for_room()
        else:
            try:
                await self._write(message)
            finally:
                if self._waiting or self._close_frame is not None:
                    self._start_writer()

    async def flushed(self) -> None:
        """Wait until the server has taken what was sent, or the peer is gone."""
        while (self._writing or self._waiting) and not (self._closing or self._lost):
            await self._wait_for_room()

    async def close(self, code: int, reason: str) -> None:
        """Send what waits, then a close frame, within the close timeout; else abort.

        Idempotent; never raises but for cancellation.
        """
        if self._closing or self._lost:
            return
        self._closing = True
        frame = Outgoing(b"")
        frame.event = {
            "type": "websocket.close",
            "code": int(code),
            "reason": shorten_reason(reason),
        }
        self._close_frame = frame
        self._start_writer()
        try:
            async with self._watch.wheel.timeout(self._limits.close_timeout):
                while self._outbox or self._writing or self._close_frame:
                    if self._writer is None:  # a caller's own write is still under way
                        await self._wait_for_room()
                    else:
                        await asyncio.wait([self._writer])
        except TimeoutError:
            self.abort()

    async def _wait_for_room(self) -> None:
        room = asyncio.get_running_loop().create_future()
        self._room.append(room)
        await room

    def abort(self) -> bool:
        """Cut the connection now and drop what waits; false where the server cannot."""
        self._give_up()
        if self._traits.abort is None:
            return False
        self._traits.abort()
        return True

    def abort_after(self, seconds: float) -> None:
        """Cut the connection after `seconds`, if it is still there and the server lets us."""
        if self._traits.abort is not None:
            self._watch.wheel.call_later(seconds, self._traits.abort)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` now: an ASGI server does not tell when it closes the socket."""
        callback()

    def drop_waiting(self) -> None:
        """Drop what waits, so that a close frame has a chance to be next."""
        self._outbox.clear()

    def buffered(self) -> int | None:
        """Bytes in the transport's buffer, `None` where the server does not tell."""
        return None if self._traits.buffered is None else self._traits.buffered()

    def is_blocked(self) -> bool:
        """Whether a write is under way, or the buffer is over its high-water mark."""
        return self._writing or (self._writable is not None and not self._writable())

    def server_gave_up(self) -> bool:
        """Whether the server is closing the transport, and only its buffer keeps it open."""
        traits = self._traits
        return (
            not self._closing
            and traits.closing is not None
            and traits.closing()
            and bool(self.buffered())
        )

    def on_write_deadline(self) -> None:
        """Learn from the watch that the current write makes no progress."""
        self._receiver.on_stalled("write deadline")

    def statistics(self) -> LinkStatistics:
        """Counters, cheap to take."""
        return LinkStatistics(
            sent_messages=self.sent_messages,
            sent_bytes=self.sent_bytes,
            outbox_messages=len(self._outbox),
            outbox_bytes=self._outbox.bytes,
            dropped_messages=self._outbox.dropped,
            replaced_messages=self._outbox.replaced,
        )

    async def _write(self, message: Outgoing) -> None:
        self._writing = True
        # A write that returns at once needs no watching.
        watched = self._writable is None or not self._writable()
        if watched:
            self._watch.begin(self)
        try:
            await self._send(message.event)
            if message.event["type"] == "websocket.send":
                self.sent_messages += 1
                self.sent_bytes += message.size
        except (OSError, RuntimeError) as error:
            # The reading side knows the true cause and reports it; here it only ends the writing.
            logger.debug("a write found the connection gone: %r", error)
            self._give_up()
            self.resume_reading()
        except Exception:
            logger.exception("the server could not send")
            self._give_up()
            self._receiver.on_lost(CloseCause(CauseKind.CONNECTION_LOST, CloseCode.ABNORMAL))
        finally:
            self._writing = False
            if self._writable is not None and not self._writable():
                self._watch.begin(self)  # until the buffer is under its mark again
            elif watched:
                self._watch.end(self)
            if self._room and not self._outbox.waits:
                self._wake()

    def _start_writer(self) -> None:
        if self._writer is None and not self._writing:
            self._writer = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._outbox:
                await self._write(self._outbox.popleft())
            if self._close_frame is not None:
                frame, self._close_frame = self._close_frame, None
                await self._write(frame)
        finally:
            self._writer = None
            self._wake()

    def _give_up(self) -> None:
        self._lost = True
        self._close_frame = None
        self._outbox.clear()
        if self._writer is not None:
            self._writer.cancel()
        self._wake()

    def _wake(self) -> None:
        waiting, self._room = self._room, []
        for room in waiting:
            if not room.done():
                room.set_result(None)
