"""Messages received and not yet taken by the handler: a bounded queue that pauses reading. ▲

On plain ASGI a paused reader sees neither pongs nor the client's departure, so no pause is without
limit. Which way it ends depends on the handler:

* one that reads gets `Limits.inbox_patience` seconds to make room; then the session ends;
* one that has never read gets `Limits.handler_grace` seconds to begin. Then it is taken for one
  that only pushes: reading goes on, and what does not fit is discarded and counted. Should it begin
  to read after all, the session ends: a gap is never silent.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pongee.clock import Timer, TimerWheel
from pongee.limits import Limits

__all__ = ["Inbox", "Pausable"]

logger = logging.getLogger("pongee.sessions")


class Pausable(Protocol):
    """What the inbox needs of a link."""

    def pause_reading(self) -> None:
        """Stop calling the receiver."""

    def resume_reading(self) -> None:
        """Go on."""


class Inbox:
    """One session's unread messages.

    Args:
        limits: bounds and patience.
        wheel: for the patience.
        give_up: called when messages stay unread, or a reader comes too late. Ends the session.
        name: of the session, for the line that is logged when discarding begins.

    Attributes:
        messages: oldest first; for a quick look, not to be changed.
    """

    __slots__ = (
        "_discarding",
        "_give_up",
        "_limits",
        "_link",
        "_max_bytes",
        "_max_messages",
        "_name",
        "_paused",
        "_timer",
        "_wheel",
        "bytes",
        "discarded",
        "has_reader",
        "messages",
    )

    def __init__(
        self,
        limits: Limits,
        wheel: TimerWheel,
        give_up: Callable[[], None],
        name: str,
    ) -> None:
        self._limits = limits
        self._max_messages = limits.inbox_messages
        self._max_bytes = limits.inbox_bytes
        self._wheel = wheel
        self._give_up = give_up
        self._name = name
        self._link: Pausable
        self.messages: deque[str | bytes] = deque()
        self._paused = False
        self._timer: Timer | None = None
        self._discarding = False
        self.bytes = 0
        self.discarded = 0
        self.has_reader = False

    def attach(self, link: Pausable) -> None:
        """Say whose reading is paused."""
        self._link = link

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self.messages)

    def put(self, data: str | bytes) -> None:
        """Keep a message; a full inbox pauses reading, or discards."""
        if self._discarding and self._is_full():
            self.discarded += 1
            return
        self.messages.append(data)
        self.bytes += len(data)
        if len(self.messages) >= self._max_messages or self.bytes >= self._max_bytes:
            self._pause()

    def take(self) -> str | bytes:
        """Return the oldest message; reading goes on once half of the inbox is free."""
        data = self.messages.popleft()
        self.bytes -= len(data)
        if (
            self._paused
            and len(self.messages) <= self._max_messages // 2
            and self.bytes <= self._max_bytes // 2
        ):
            self._resume()
        return data

    def put_back(self, data: str | bytes) -> None:
        """Keep a message that was taken and not used, before all others."""
        self.messages.appendleft(data)
        self.bytes += len(data)

    def begin_reading(self) -> None:
        """Note that the handler reads. Gives up if it has missed messages."""
        self.has_reader = True
        if self.discarded:
            self._give_up()
        elif self._paused:
            self._arm(self._limits.inbox_patience)

    def close(self) -> None:
        """Forget the patience."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_full(self) -> bool:
        return len(self.messages) >= self._max_messages or self.bytes >= self._max_bytes

    def _pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        self._link.pause_reading()
        limits = self._limits
        self._arm(limits.inbox_patience if self.has_reader else limits.handler_grace)

    def _resume(self) -> None:
        self._paused = False
        self.close()
        self._link.resume_reading()

    def _arm(self, seconds: float) -> None:
        self.close()
        self._timer = self._wheel.call_later(seconds, self._patience_is_over)

    def _patience_is_over(self) -> None:
        if self.has_reader:
            self._give_up()
            return
        logger.warning(
            "%s: the handler has read nothing of %d messages; more are discarded",
            self._name,
            len(self.messages),
        )
        self._discarding = True
        self._resume()
