"""Local subscribers per channel: encode once, hand the same bytes to many, once per turn. ▲

One hub per process. `Hub.publish` encodes a message once for each format among the channel's
members and keeps it; the next turn of the event loop hands each member all that has gathered, in
one write. After a hand-over the hub rests for three times as long as it took, at most `FLUSH_REST`,
so that under load the batches grow and most of the loop is left for others; a small room, or an
idle one, waits for one turn. Publishing never waits for a client: each subscriber's link takes what
it is given, and its overflow policy decides what happens when that client reads too slowly.

Promised: messages of one channel reach every subscriber in the order of the calls to `publish`;
a subscriber gets what is published after its `subscribe` and before its `unsubscribe`, and nothing
else. A hand-over too large for one turn goes on in the next, so that others are served in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from pongee.channels.encoding import Format, encode_any
from pongee.channels.names import check_channel
from pongee.errors import UsageError
from pongee.limits import (
    BATCH_BYTES,
    FLUSH_BYTES,
    FLUSH_REST,
    FLUSH_STEP,
    FLUSH_WRITES,
    PENDING_BYTES,
    PENDING_MESSAGES,
    SHORTEST_REST,
)
from pongee.links.base import Batch, Outgoing, Overflow

__all__ = ["Hub", "Subscriber"]

logger = logging.getLogger("pongee")


class Subscriber(Protocol):
    """Who receives."""

    @property
    def format(self) -> Format:
        """How its messages are encoded."""

    @property
    def deliver(self) -> Callable[[Batch], None]:
        """Takes publications without waiting; asked for once, when it subscribes."""


class Turns(Protocol):
    """What the hub needs of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call on the next turn."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call after `delay` seconds."""


Members = dict[Subscriber, Callable[[Batch], None]]
Encode = Callable[[str, Any, Format], str | bytes]


def _encode_plain(channel: str, data: Any, form: Format) -> str | bytes:
    return encode_any(data, form)


class _Channel:
    """The members of one channel by format, and what waits for them."""

    __slots__ = ("_late", "_under_way", "members", "pending", "waiting_bytes", "waits")

    def __init__(self) -> None:
        self.members: dict[Format, Members] = {}
        self.pending: dict[Format, list[Outgoing]] = {}
        self.waits = 0  # messages pending, in all formats
        self.waiting_bytes = 0
        # How many of the pending messages were published before this member came.
        self._late: dict[Subscriber, int] = {}
        # Batches that were too large for one turn, with the members who have not got them yet.
        self._under_way: list[tuple[Batch, Members]] = []

    @property
    def size(self) -> int:
        return sum(map(len, self.members.values()))

    @property
    def busy(self) -> bool:
        return bool(self.waits or self._under_way)

    def add(self, subscriber: Subscriber, deliver: Callable[[Batch], None]) -> None:
        members = self.members.setdefault(subscriber.format, {})
        if subscriber not in members:
            members[subscriber] = deliver
            if self.waits:
                self._late[subscriber] = len(self.pending.get(subscriber.format, ()))

    def discard(self, subscriber: Subscriber) -> None:
        members = self.members.get(subscriber.format)
        deliver = None if members is None else members.pop(subscriber, None)
        if members is None or deliver is None:
            return
        if not members:
            del self.members[subscriber.format]
        # It gets now what was published while it was a member.
        for batch, todo in self._under_way:
            if todo.pop(subscriber, None) is not None:
                _deliver(deliver, batch)
        for batch in _batches(
            self.pending.get(subscriber.format, []), self._late.pop(subscriber, 0)
        ):
            _deliver(deliver, batch)

    def keep(self, make: Callable[[Format], Outgoing]) -> None:
        """Encode a message for the members' formats.

        Raises:
            UsageError: it cannot be encoded for one of them; the others get it.
        """
        problem: UsageError | None = None
        for form in self.members:
            try:
                message = make(form)
            except UsageError as error:
                problem = error
                continue
            self.pending.setdefault(form, []).append(message)
            self.waits += 1
            self.waiting_bytes += message.size
        if problem is not None:
            raise problem

    def give(self, writes: int) -> tuple[int, int]:
        """Hand over to about `writes` members; returns how many, and how many bytes. ▲"""
        if not self._under_way:
            self._begin()
        given = size = 0
        while self._under_way and given < writes:
            batch, todo = self._under_way[0]
            part = min(writes - given, len(todo))
            for _ in range(part):
                deliver = todo.popitem()[1]
                try:
                    deliver(batch)
                except Exception:  # the others of this channel, and of this turn, get theirs
                    logger.exception("a subscriber raised")
            given += part
            size += part * sum(message.size for message in batch.messages)
            if not todo:
                del self._under_way[0]
        return given, size

    def _begin(self) -> None:
        pending, self.pending, self.waits, self.waiting_bytes = self.pending, {}, 0, 0
        late, self._late = self._late, {}
        for form, messages in pending.items():
            # A copy, because a member that is cut for reading too slowly leaves meanwhile; turned
            # round, because a dictionary gives its last entry first.
            todo = dict(reversed(self.members.get(form, {}).items()))
            for subscriber in late.keys() & todo.keys():
                deliver = todo.pop(subscriber)
                for batch in _batches(messages, late[subscriber]):
                    _deliver(deliver, batch)
            if todo:
                self._under_way += [(batch, dict(todo)) for batch in _batches(messages)]


def _deliver(deliver: Callable[[Batch], None], batch: Batch) -> None:
    try:
        deliver(batch)
    except Exception:
        logger.exception("a subscriber raised")


def _batches(messages: list[Outgoing], start: int = 0) -> list[Batch]:
    """Divide into pieces of `BATCH_BYTES`: one write must not hide a client that reads slowly."""
    batches: list[Batch] = []
    room = 0
    for message in messages[start:] if start else messages:
        if message.size > room:
            batches.append(Batch([]))
            room = BATCH_BYTES
        batches[-1].messages.append(message)
        room -= message.size
    return batches


class Hub:
    """Channels of this process that have members. Not for use from other threads.

    Args:
        loop: returns the event loop whose turns are meant; a test gives one moved by hand.
        encode: writes what is published in a channel for members of one format.
    """

    def __init__(
        self,
        loop: Callable[[], Turns] = asyncio.get_running_loop,
        encode: Encode = _encode_plain,
    ) -> None:
        self._running_loop = loop
        self._encode = encode
        self._channels: dict[str, _Channel] = {}
        self._busy: dict[_Channel, None] = {}
        self._loop: Turns | None = None
        self._scheduled = False
        self._resting = False
        self._began = 0.0  # when the hand-over under way did; 0 is none

    def subscribe(
        self,
        channel: str,
        subscriber: Subscriber,
        deliver: Callable[[Batch], None] | None = None,
    ) -> None:
        """Add `subscriber`; twice is once.

        Args:
            channel: its name.
            subscriber: who.
            deliver: takes its publications until `redirect`, instead of its own ``deliver``.
        """
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel()
        entry.add(subscriber, deliver or subscriber.deliver)

    def redirect(self, channel: str, subscriber: Subscriber) -> None:
        """Hand over to its present ``deliver`` what waits for `subscriber`; then use its own.

        Harmless when it is no member.
        """
        entry = self._channels.get(channel)
        if entry is not None and subscriber in entry.members.get(subscriber.format, ()):
            entry.discard(subscriber)
            entry.add(subscriber, subscriber.deliver)

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Remove `subscriber`; harmless when it is no member. An empty channel is forgotten."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.discard(subscriber)
            if not entry.members:
                del self._channels[channel]

    def publish(
        self,
        channel: str,
        data: Any,
        key: str | None = None,
        *,
        offset: int = 0,
        overflow: Overflow | None = None,
    ) -> int:
        """Keep `data` for every member until the next turn of the event loop.

        Args:
            channel: its name.
            data: what `encode` takes.
            key: what ``latest_per_key`` compares.
            offset: in the channel's stream.
            overflow: what a member's full outbox does with it; `None` is what the member's own
                policy says.

        Returns:
            How many members it is for.

        Raises:
            UsageError: the name is not allowed, or `data` cannot be encoded for some member; the
                others get it.
        """
        check_channel(channel)
        entry = self._channels.get(channel)
        if entry is None:
            return 0
        try:
            entry.keep(
                lambda form: Outgoing(self._encode(channel, data, form), key, offset, overflow)
            )
        finally:
            if entry.waits:
                self._busy[entry] = None
                self._schedule()
                if entry.waits >= PENDING_MESSAGES or entry.waiting_bytes >= PENDING_BYTES:
                    self._finish(entry)
        return entry.size

    def channels(self) -> dict[str, int]:
        """Channels with members, and how many."""
        return {channel: entry.size for channel, entry in self._channels.items()}

    def _finish(self, entry: _Channel) -> None:
        """Hand over all of one channel: a publisher that never lets go must not fill the memory."""
        while entry.busy:
            entry.give(FLUSH_STEP)
        self._busy.pop(entry, None)

    def _schedule(self) -> None:
        loop = self._running_loop()
        if loop is not self._loop:  # another test's, say: what was scheduled died with it
            self._loop = loop
            self._scheduled = self._resting = False
            self._began = 0.0
        if not self._scheduled and not self._resting:
            self._scheduled = True
            loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Hand over as much as one turn may take, channel by channel. ▲"""
        self._scheduled = False
        self._began = self._began or time.perf_counter()
        writes, room = FLUSH_WRITES, FLUSH_BYTES
        while self._busy and writes > 0 and room > 0:
            entry = next(iter(self._busy))
            del self._busy[entry]
            given, size = entry.give(FLUSH_STEP)
            writes -= given
            room -= size
            if entry.busy:
                self._busy[entry] = None  # behind the others
        if self._busy:
            self._schedule()
        else:
            # The transports write at the end of this turn: that belongs to the cost.
            self._resting = True
            self._running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        pause = min(FLUSH_REST, 3 * (time.perf_counter() - self._began))
        self._began = 0.0
        if pause < SHORTEST_REST:
            self._go_on()
        else:
            self._running_loop().call_later(pause, self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if self._busy:
            self._schedule()
