"""A link on our own wire: frames by plain calls, no task and no queue in between. ▲

Bytes are written as finished frames: a publication is encoded once and the same bytes are handed to
every member's transport. While nothing waits, which is the common case, sending is one call of the
transport's own ``write``. When its buffer is over the high-water mark, messages go to the outbox,
which is made at that moment: an idle connection holds none.

The write deadline is the process's `StallWatch`, which looks only at links that are blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pongee.codes import shorten_reason
from pongee.limits import Limits
from pongee.links.asgi import cause_of
from pongee.links.base import Batch, Capabilities, LinkStatistics, Outgoing, Overflow, Receiver
from pongee.links.outbox import Outbox, Pushed
from pongee.links.stall import StallWatch
from pongee.wire.bounds import COMPRESS_FROM
from pongee.wire.direct import DirectConnection
from pongee.wire.frames import BINARY, TEXT, encode_compressed, encode_frame

__all__ = ["DirectLink", "frame_of"]


def frame_of(message: Outgoing, window_bits: int) -> bytes:
    """Write `message` as a frame; once for each variant, however many links ask. ▲"""
    frame = message.frames.get(window_bits)
    if frame is None:
        data = message.data
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if window_bits and len(payload) >= COMPRESS_FROM:
            frame = encode_compressed(opcode, payload, window_bits)
        else:
            frame = encode_frame(opcode, payload)
        message.frames[window_bits] = frame
    return frame


def _joined(batch: Batch, window_bits: int) -> bytes:
    joined = batch.joined.get(window_bits)
    if joined is None:
        joined = b"".join([frame_of(message, window_bits) for message in batch.messages])
        batch.joined[window_bits] = joined
    return joined


class DirectLink:
    """One WebSocket on our wire. Implements `links.base.Link` and the wire's `DirectReceiver`.

    Args:
        connection: accepted already.
        receiver: who is told what happens.
        limits: outbox bounds, write deadline, close timeout.
        overflow: what a full outbox does.
        watch: the process's write deadline.
    """

    __slots__ = (
        "_bits",
        "_clear",
        "_closing",
        "_connection",
        "_done",
        "_limits",
        "_outbox",
        "_overflow",
        "_receiver",
        "_room",
        "_stopped",
        "_watch",
        "_write",
        "lost",
        "on_message",
        "sent_bytes",
        "sent_messages",
    )

    def __init__(
        self,
        connection: DirectConnection,
        receiver: Receiver,
        *,
        limits: Limits,
        overflow: Overflow,
        watch: StallWatch,
    ) -> None:
        self._connection = connection
        self._receiver = receiver
        self._limits = limits
        self._overflow = overflow
        self._watch = watch
        self._bits = connection.window_bits
        self._write: Callable[[bytes], None] = connection.transport.write
        self._outbox: Outbox | None = None
        self._room: list[asyncio.Future[None]] | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._clear = True  # nothing waits, and the transport takes more
        self._closing = False
        self._done = False
        self.lost = False
        self.sent_messages = 0
        self.sent_bytes = 0
        # The wire calls the receiver itself: no function in between.
        self.on_message = receiver.on_message

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities(abort=True, denial=True)

    @property
    def write_deadline(self) -> float:
        """Seconds one write may make no progress."""
        return self._limits.write_deadline

    # Reading

    async def pump(self) -> None:
        """Take messages until the peer is gone or `stop_reading` is called."""
        stopped = self._stopped = asyncio.get_running_loop().create_future()
        self.detach()
        if not self._done:  # else the owner had ended before we came
            await stopped

    def detach(self) -> None:
        """Take messages, and return: the caller needs no task to wait in."""
        self._connection.attach(self)

    def stop_reading(self) -> None:
        """End `pump`, now or when it is called; the owner takes no more messages."""
        self._done = True
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def pause_reading(self) -> None:
        """Stop taking messages until `resume_reading`."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._connection.resume_reading()

    # Writing

    def send_now(self, data: str | bytes) -> bool:
        """Write at once, if nothing waits; else do nothing and return false. ▲

        Budget: 0.5 µs beside the transport's own write.
        """
        if not self._clear:
            return False
        if self._bits:
            frame = frame_of(Outgoing(data), self._bits)
        elif isinstance(data, str):
            frame = encode_frame(TEXT, data.encode())
        else:
            frame = encode_frame(BINARY, data)
        self.sent_messages += 1
        self.sent_bytes += len(frame)
        self._write(frame)
        return True

    def deliver(self, batch: Batch) -> None:
        """Send a turn's publications in one write. ▲

        Budget: 0.3 µs beside the transport's own write.
        """
        if self._clear:
            joined = batch.joined.get(self._bits)
            if joined is None:
                joined = _joined(batch, self._bits)
            self.sent_messages += len(batch.messages)
            self.sent_bytes += len(joined)
            self._write(joined)
        else:
            for message in batch.messages:
                self.push(message)

    def push(self, message: Outgoing) -> None:
        """Send without waiting. Never raises; messages after the end are ignored."""
        if self._clear:
            self._write_frame(message)
        elif self._closing or self.lost:
            return
        elif self._waiting().push(message) is Pushed.FULL:
            self._receiver.on_stalled("outbox full")

    async def send(self, message: Outgoing) -> None:
        """Send in the order of calls; wait while a ``disconnect`` outbox is over its bound.

        Under the other policies it never waits: what does not fit is dropped and counted.

        Cancellation: the message may still be delivered. Concurrency: any number of callers.
        """
        if self._clear or self._overflow != "disconnect":
            self.push(message)
            return
        if self._closing or self.lost:
            return
        outbox = self._waiting()
        outbox.append(message)
        while outbox.waits and not self.lost:
            await self._wait_for_room()

    async def flushed(self) -> None:
        """Wait until nothing waits and the transport takes more, or the peer is gone."""
        while not (self._clear or self._closing or self.lost):
            await self._wait_for_room()

    async def close(self, code: int, reason: str) -> None:
        """Send what waits, then a close frame, within the close timeout; else abort.

        Idempotent; never raises but for cancellation.
        """
        if self._closing or self.lost:
            return
        waits = not self._clear
        self._closing = True
        self._clear = False
        if waits:
            try:
                async with self._watch.wheel.timeout(self._limits.close_timeout):
                    while (self._outbox or not self._connection.can_write) and not self.lost:
                        await self._wait_for_room()
            except TimeoutError:
                self.abort()
        if not self.lost:
            self._connection.send_close(
                code, shorten_reason(reason), within=self._limits.close_timeout
            )

    def abort(self) -> bool:
        """Cut the connection now and drop what waits."""
        self._give_up()
        self._connection.abort()
        return True

    def abort_after(self, seconds: float) -> None:
        """Cut the connection after `seconds`, if it is still there."""
        self._watch.wheel.call_later(seconds, self._connection.abort)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the socket is closed, which may be now."""
        if self._connection.lost:
            callback()
        else:
            self._connection.on_gone = callback

    def drop_waiting(self) -> None:
        """Drop what waits, so that a close frame has a chance to be next."""
        if self._outbox is not None:
            self._outbox.clear()

    def statistics(self) -> LinkStatistics:
        """Counters, cheap to take."""
        outbox = self._outbox
        return LinkStatistics(
            sent_messages=self.sent_messages,
            sent_bytes=self.sent_bytes,
            outbox_messages=0 if outbox is None else len(outbox),
            outbox_bytes=0 if outbox is None else outbox.bytes,
            dropped_messages=0 if outbox is None else outbox.dropped,
            replaced_messages=0 if outbox is None else outbox.replaced,
        )

    # What the wire tells (wire.direct.DirectReceiver)

    def on_end(self, code: int, reason: str | None) -> None:
        """Learn that nothing more will come, or can be sent."""
        ended_by_us = self._closing
        self._give_up()
        if not ended_by_us:
            self._receiver.on_lost(cause_of({"code": code, "reason": reason}))

    def on_write_paused(self) -> None:
        """Let messages wait, under the eyes of the watch."""
        self._clear = False
        self._watch.begin(self)

    def on_write_resumed(self) -> None:
        """Send what waits, as long as the transport takes it."""
        self._watch.end(self)
        outbox = self._outbox
        while outbox and self._connection.can_write:
            self._write_frame(outbox.popleft())
        if not outbox and self._connection.can_write and not self._closing and not self.lost:
            self._clear = True
        if self._room and not (outbox is not None and outbox.waits):
            self._wake()

    # What the watch asks (links.stall.Writer)

    def buffered(self) -> int:
        """Bytes in the transport's buffer."""
        return self._connection.write_buffer_size()

    def is_blocked(self) -> bool:
        """Whether the buffer is over its high-water mark."""
        return not self._connection.can_write and not self.lost

    def server_gave_up(self) -> bool:
        """Never: the wire cuts what it has given up."""
        return False

    def on_write_deadline(self) -> None:
        """Learn that the buffer does not drain."""
        self._receiver.on_stalled("write deadline")

    def _write_frame(self, message: Outgoing) -> None:
        frame = frame_of(message, self._bits)
        self.sent_messages += 1
        self.sent_bytes += len(frame)
        self._write(frame)

    def _waiting(self) -> Outbox:
        if self._outbox is None:
            limits = self._limits
            self._outbox = Outbox(self._overflow, limits.outbox_messages, limits.outbox_bytes)
        return self._outbox

    async def _wait_for_room(self) -> None:
        room = asyncio.get_running_loop().create_future()
        if self._room is None:
            self._room = []
        self._room.append(room)
        await room

    def _give_up(self) -> None:
        self.lost = True
        self._clear = False
        self.drop_waiting()
        self._watch.end(self)
        self._wake()

    def _wake(self) -> None:
        waiting, self._room = self._room or [], None
        for room in waiting:
            if not room.done():
                room.set_result(None)
