"""A link that only writes: the body of one long HTTP response. ▲

What the client says comes by other requests (`centrifuge.http_streams`). Messages wait in the same
bounded outbox as on a WebSocket; one loop, run by the response's own task, writes all that has
gathered in one piece, whole messages only: some clients decode each piece by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Send

from pongee.centrifuge.codes import Disconnect
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.limits import Limits
from pongee.links.asgi import ServerTraits
from pongee.links.base import Batch, Capabilities, LinkStatistics, Outgoing, Receiver
from pongee.links.outbox import Outbox, Pushed
from pongee.links.stall import StallWatch

__all__ = ["Frame", "StreamLink"]

Frame = Callable[[str | bytes], bytes]
"""Writes one message as it stands in the body."""


class StreamLink:
    """One response that does not end. Implements `links.base.Link` and `links.stall.Writer`.

    Args:
        receiver: who is told what happens.
        receive: of the ASGI call; the body has been read.
        send: of the ASGI call.
        start: status and headers.
        first: what flushes them, if anything.
        frame: how a message stands in the body.
        farewell: writes what tells the client code and reason before the body ends.
        limits: outbox bounds, write deadline.
        watch: the process's write deadline.
        traits: what the server can do.
    """

    def __init__(
        self,
        receiver: Receiver,
        receive: Receive,
        send: Send,
        *,
        start: Message,
        first: bytes,
        frame: Frame,
        farewell: Callable[[int, str], str | bytes],
        limits: Limits,
        watch: StallWatch,
        traits: ServerTraits,
    ) -> None:
        self._receiver = receiver
        self._receive = receive
        self._send = send
        self._start = start
        self._first = first
        self._frame = frame
        self._farewell = farewell
        self._limits = limits
        self._watch = watch
        self._traits = traits
        self._outbox = Outbox("disconnect", limits.outbox_messages, limits.outbox_bytes)
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._writing: asyncio.Task[Any] | None = None
        self._ending = False
        self._cutting = False
        self._ended = asyncio.Event()
        self._on_gone: list[Callable[[], None]] = []
        self.lost = False
        self.sent_messages = 0
        self.sent_bytes = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the server under the response lets us do."""
        return Capabilities(abort=self._traits.abort is not None, denial=True)

    # The response

    async def pump(self) -> None:
        """Send the response until it is closed, or the client is gone."""
        listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            await self._send(self._start)
            if self._first:
                await self._write(self._first)
            while not self.lost:
                if self._outbox:
                    await self._write(self._gathered())
                elif self._ending:
                    await self._send({"type": "http.response.body", "body": b""})
                    break
                else:
                    self._taken.set()
                    self._wake.clear()
                    await self._wake.wait()
        except OSError:
            self._is_gone()
        except asyncio.CancelledError:
            if not self._cutting:
                await self._leave()
        finally:
            listener.cancel()
            self._watch.end(self)
            self.lost = True
            self._ended.set()
            self._taken.set()
            for callback in self._on_gone:
                callback()

    async def _leave(self) -> None:
        """End in order although the server, which is shutting down, cancels the call."""
        self._ending = True
        farewell = self._frame(self._farewell(Disconnect.SHUTDOWN, "shutdown"))
        for body, more in ((farewell, True), (b"", False)):
            with contextlib.suppress(OSError):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone()

    def _gathered(self) -> bytes:
        parts = []
        while self._outbox:
            parts.append(self._frame(self._outbox.popleft().data))
        self.sent_messages += len(parts)
        return b"".join(parts)

    async def _write(self, data: bytes) -> None:
        self._writing = asyncio.current_task()
        self._watch.begin(self)
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self.sent_bytes += len(data)
        finally:
            self._writing = None
            self._watch.end(self)

    def _is_gone(self) -> None:
        if not self.lost:
            self.lost = True
            self.drop_waiting()
            self._wake.set()
            self._taken.set()
            if not self._ending:
                # A client that says goodbye aborts its request, which looks like a line that broke.
                self._receiver.on_lost(
                    CloseCause(CauseKind.CONNECTION_LOST, CloseCode.ABNORMAL, "request aborted")
                )

    # Writing

    def push(self, message: Outgoing) -> None:
        """Send without waiting; a full outbox ends the client."""
        if self.lost or self._ending:
            return
        if self._outbox.push(message) is Pushed.FULL:
            self._receiver.on_stalled("outbox full")
        else:
            self._wake.set()

    def deliver(self, batch: Batch) -> None:
        """Send a turn's publications."""
        for message in batch.messages:
            self.push(message)

    def send_now(self, data: str | bytes) -> bool:
        """Never: what is sent waits for its turn."""
        return False

    async def send(self, message: Outgoing) -> None:
        """Send in the order of calls."""
        self.push(message)

    async def flushed(self) -> None:
        """Wait until the server has taken what was sent, or the client is gone."""
        while (self._writing or self._outbox) and not (self._ending or self.lost):
            self._taken.clear()
            await self._taken.wait()

    # The end

    async def close(self, code: int, reason: str) -> None:
        """Send what waits and a farewell, then end the body, within the close timeout; else abort.

        Idempotent; never raises but for cancellation.
        """
        if self.lost or self._ending:
            return
        self._outbox.append(Outgoing(self._farewell(code, reason)))
        self._ending = True
        self._wake.set()
        self._taken.set()
        try:
            async with self._watch.wheel.timeout(self._limits.close_timeout):
                await self._ended.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> bool:
        """Cut the connection now and drop what waits; false where the server cannot."""
        self._cut()
        return self._traits.abort is not None

    def _cut(self) -> None:
        self._ending = True
        self.lost = True
        self.drop_waiting()
        self._wake.set()
        if self._traits.abort is not None:
            self._traits.abort()
        if self._writing is not None:
            self._cutting = True  # it waits for a client that does not read
            self._writing.cancel()

    def abort_after(self, seconds: float) -> None:
        """Cut the connection after `seconds`, if it is still there."""
        self._watch.wheel.call_later(seconds, self._cut)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the response has ended, which may be now."""
        if self._ended.is_set():
            callback()
        else:
            self._on_gone.append(callback)

    def drop_waiting(self) -> None:
        """Drop what waits."""
        self._outbox.clear()

    def stop_reading(self) -> None:
        """Nothing is read here."""

    def pause_reading(self) -> None:
        """Nothing is read here: a client that says too much is told so by its queue."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

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

    # What the watch asks (links.stall.Writer)

    @property
    def write_deadline(self) -> float:
        """Seconds one write may make no progress."""
        return self._limits.write_deadline

    def buffered(self) -> int | None:
        """Bytes in the transport's buffer, where the server lets us know."""
        return None if self._traits.buffered is None else self._traits.buffered()

    def is_blocked(self) -> bool:
        """Whether a write is under way."""
        return self._writing is not None and not self.lost

    def server_gave_up(self) -> bool:
        """Never asked: the link is not in the slow look."""
        return False

    def on_write_deadline(self) -> None:
        """Learn that the buffer does not drain."""
        self._receiver.on_stalled("write deadline")
