"""The bounded queue of messages for a client that reads slowly. ◇▲

Pure: it decides what is kept, dropped or replaced, and counts it; `links.asgi` moves the bytes.
The bound is in messages and in bytes, because either alone is no bound on memory.

============== =========================================== =============================
policy         a push into a full outbox                   a push with a key
============== =========================================== =============================
disconnect     `Pushed.FULL`: the caller cuts the client   kept like any other
drop_oldest    oldest dropped until it fits                kept like any other
latest_per_key oldest dropped until it fits                replaces a waiting equal key,
                                                           in its place in the queue
============== =========================================== =============================

A message may bring a policy of its own, that of its channel: one with ``disconnect`` is never
dropped for another, and when nothing that waits may be dropped, the outbox is full.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from pongee.links.base import Outgoing, Overflow

__all__ = ["Outbox", "Pushed"]


class Pushed(Enum):
    """What became of a message."""

    KEPT = "kept"
    FULL = "full"


class Outbox:
    """Messages waiting, oldest first.

    Args:
        policy: what a full outbox does.
        max_messages: bound in messages.
        max_bytes: bound in bytes. A single message over it is kept when the outbox is empty, so
            that a large message is slow rather than impossible.

    Attributes:
        waiting: the messages by number, oldest first; for a quick look, not to be changed.
    """

    __slots__ = (
        "_keyed",
        "_max_bytes",
        "_max_messages",
        "_next",
        "_policy",
        "bytes",
        "dropped",
        "replaced",
        "waiting",
    )

    def __init__(self, policy: Overflow, max_messages: int, max_bytes: int) -> None:
        self._policy = policy
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.waiting: OrderedDict[int, Outgoing] = OrderedDict()
        self._keyed: dict[str, int] = {}
        self._next = 0
        self.bytes = 0
        self.dropped = 0
        self.replaced = 0

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self.waiting)

    @property
    def over(self) -> bool:
        """Whether more waits than the bound allows."""
        return len(self.waiting) > self._max_messages or (
            self.bytes > self._max_bytes and len(self.waiting) > 1
        )

    @property
    def waits(self) -> bool:
        """Whether a sender has to wait for room; under the other policies messages are dropped."""
        return self._policy == "disconnect" and self.over

    def push(self, message: Outgoing) -> Pushed:
        """Keep `message`, making room as the policy says."""
        policy = message.overflow or self._policy
        if policy == "latest_per_key" and message.key in self._keyed:
            self._replace(message)
        elif policy == "disconnect":
            while self._would_overflow(message):
                if not self._drop_oldest():
                    self.dropped += 1
                    return Pushed.FULL
            self.append(message)
        else:
            self.append(message)
        while self.over:
            if not self._drop_oldest():
                return Pushed.FULL
        return Pushed.KEPT

    def append(self, message: Outgoing) -> None:
        """Keep `message` whatever the bound says; for senders that wait their turn."""
        policy = message.overflow or self._policy
        if policy == "latest_per_key" and message.key is not None:
            self._keyed[message.key] = self._next
        self.waiting[self._next] = message
        self._next += 1
        self.bytes += message.size

    def popleft(self) -> Outgoing:
        """Take the oldest message."""
        return self._take(next(iter(self.waiting)))

    def clear(self) -> None:
        """Drop and count everything that waits."""
        self.dropped += len(self.waiting)
        self.waiting.clear()
        self._keyed.clear()
        self.bytes = 0

    def _take(self, number: int) -> Outgoing:
        message = self.waiting.pop(number)
        self.bytes -= message.size
        if message.key is not None and self._keyed.get(message.key) == number:
            del self._keyed[message.key]
        return message

    def _drop_oldest(self) -> bool:
        """Drop the oldest message that may be dropped; false if none may."""
        for number, message in self.waiting.items():
            if (message.overflow or self._policy) != "disconnect":
                self._take(number)
                self.dropped += 1
                return True
        return False

    def _would_overflow(self, message: Outgoing) -> bool:
        if not self.waiting:
            return False
        return (
            len(self.waiting) >= self._max_messages or self.bytes + message.size > self._max_bytes
        )

    def _replace(self, message: Outgoing) -> None:
        number = self._keyed[message.key]  # type: ignore[index]
        self.bytes += message.size - self.waiting[number].size
        self.waiting[number] = message
        self.replaced += 1
