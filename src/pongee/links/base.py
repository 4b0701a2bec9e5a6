"""Link (what can be done to an accepted WebSocket) and Receiver (what can happen on it). ◇

A link hides how bytes travel: through an ASGI server (`links.asgi`) or straight from our own wire
(`links.direct`). Its owner is a `Receiver`. All calls come from the event loop's thread. Messages
reach `Receiver.on_message` in the order of arrival, never two at once and never after `on_lost`;
`on_lost` comes exactly once, unless the owner closed the link itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pongee.channels.options import Overflow
from pongee.codes import CloseCause

__all__ = ["Batch", "Capabilities", "Link", "LinkStatistics", "Outgoing", "Overflow", "Receiver"]


class Outgoing:
    """One message, encoded once and handed to as many links as want it. ▲

    Attributes:
        data: `str` travels as a text frame, `bytes` as a binary frame.
        key: what ``latest_per_key`` compares, or `None`.
        offset: in its channel's stream; 0 is none.
        overflow: what a full outbox does with it; `None` is the link's own policy.
        size: bytes, as the outbox counts them.
        event: the ASGI message, built once and shared; never changed by anybody.
        frames: finished frames by compression window, made when first asked for (`links.direct`).
    """

    __slots__ = ("data", "event", "frames", "key", "offset", "overflow", "size")

    def __init__(
        self,
        data: str | bytes,
        key: str | None = None,
        offset: int = 0,
        overflow: Overflow | None = None,
    ) -> None:
        self.data = data
        self.key = key
        self.offset = offset
        self.overflow = overflow
        self.frames: dict[int, bytes] = {}
        if isinstance(data, str):
            # Counting UTF-8 bytes would cost an encoding; this is exact for ASCII and an upper
            # bound else.
            self.size = len(data) if data.isascii() else 4 * len(data)
            self.event: dict[str, Any] = {"type": "websocket.send", "text": data}
        else:
            self.size = len(data)
            self.event = {"type": "websocket.send", "bytes": data}


class Batch:
    """What one turn of the event loop brings to the members of a channel, in order. ▲

    Attributes:
        messages: encoded once for all members of one format.
        joined: all their frames as one piece, by compression window (`links.direct`).
    """

    __slots__ = ("joined", "messages")

    def __init__(self, messages: list[Outgoing]) -> None:
        self.messages = messages
        self.joined: dict[int, bytes] = {}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server under a link lets us do.

    Attributes:
        abort: cut a connection whose buffer does not drain.
        denial: refuse a handshake with an HTTP response of our choice.
    """

    abort: bool
    denial: bool


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counters of one link; messages and bytes since accept, and what waits now."""

    sent_messages: int
    sent_bytes: int
    outbox_messages: int
    outbox_bytes: int
    dropped_messages: int
    replaced_messages: int


class Receiver(Protocol):
    """What a link tells its owner."""

    def on_message(self, data: str | bytes) -> None:
        """Take a whole message arrived. Must not wait; may call `Link.pause_reading`."""

    def on_lost(self, cause: CloseCause) -> None:
        """Learn that the peer is gone, or has broken the protocol; nothing can be sent any more."""

    def on_stalled(self, why: str) -> None:
        """Learn that the peer does not read: the outbox is full or the write deadline passed."""


class Link(Protocol):
    """What an owner can do."""

    @property
    def capabilities(self) -> Capabilities:
        """What the server lets us do."""

    @property
    def lost(self) -> bool:
        """Whether the peer is known to be gone."""

    async def pump(self) -> None:
        """Read until the peer is gone or `stop_reading` is called."""

    def stop_reading(self) -> None:
        """End `pump`. Idempotent."""

    def send_now(self, data: str | bytes) -> bool:
        """Send at once, if that needs no waiting; false: nothing happened, use `send`."""

    def deliver(self, batch: Batch) -> None:
        """Push all messages of `batch`, in one write where that is possible."""

    def push(self, message: Outgoing) -> None:
        """Send without waiting; a full outbox meets the overflow policy. Never raises."""

    async def send(self, message: Outgoing) -> None:
        """Send in the order of calls, then wait while a ``disconnect`` outbox is over its bound.

        Cancellation: the message may still be delivered. Concurrency: any number of callers.
        """

    async def flushed(self) -> None:
        """Wait until nothing waits to be sent, but for what buffers hold, or the peer is gone.

        Concurrency: any number of callers.
        """

    def pause_reading(self) -> None:
        """Stop calling `Receiver.on_message` until `resume_reading`."""

    def resume_reading(self) -> None:
        """Go on reading. Harmless when reading is not paused."""

    async def close(self, code: int, reason: str) -> None:
        """Send what waits, then a close frame, within the close timeout; else abort."""

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the socket is closed, or at once where nobody can tell."""

    def drop_waiting(self) -> None:
        """Drop what waits, so that a close frame has a chance to be next."""

    def abort(self) -> bool:
        """Cut the connection now and drop what waits; false where the server cannot."""

    def abort_after(self, seconds: float) -> None:
        """Cut the connection after `seconds`, if it is still there."""

    def statistics(self) -> LinkStatistics:
        """Counters, cheap to take."""
