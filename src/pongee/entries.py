"""One channel's members in this process, and how a member comes in without a hole."""

from __future__ import annotations

from typing import Protocol

from pongee.channels.options import ChannelOptions
from pongee.channels.publication import Position, Publication
from pongee.hub import Hub, Subscriber
from pongee.limits import HELD_MESSAGES
from pongee.links.base import Batch, Outgoing

__all__ = ["Entry", "Gap", "Held", "Member"]

_TOO_MUCH = -1  # in place of a number of breaks: more was published than is held


class Gap(Exception):
    """Something was lost between the history and what came live: the member has to start again."""


class Member(Subscriber, Protocol):
    """Who is subscribed."""

    def on_gap(self, channel: str) -> None:
        """Learn that a publication was lost; called only if it entered with a position."""


class Entry:
    """What this process knows of one channel that it has members in."""

    __slots__ = (
        "asked",
        "breaks",
        "listened",
        "members",
        "options",
        "position",
        "proven",
        "quiet",
        "tries",
        "waiting",
    )

    def __init__(self, options: ChannelOptions) -> None:
        self.options = options
        # Members, and whether each was promised to be told of gaps.
        self.members: dict[Member, bool] = {}
        # Of what was handed over last; until something was, of the oldest history that was read.
        self.position: Position | None = None
        self.proven = False  # whether something was
        self.breaks = 0  # how often the sequence was broken
        self.asked = False  # whether the broker was asked to hand the channel over
        self.listened = False  # whether it does
        self.quiet = False  # whether nothing was handed over since the last look at the position
        # What came while something before it is being read; `None` while nothing is.
        self.waiting: list[Publication] | None = None
        self.tries = 0  # to read it

    def tell_gap(self, channel: str) -> None:
        """Tell the members that were promised to be told that something was lost."""
        self.breaks += 1
        for member, positioned in list(self.members.items()):
            if positioned:
                member.on_gap(channel)


class Held:
    """What is published to a member that is still subscribing."""

    __slots__ = ("_breaks", "_channel", "_entry", "_hub", "_member", "_messages")

    def __init__(self, hub: Hub, channel: str, entry: Entry, member: Member) -> None:
        self._hub = hub
        self._channel = channel
        self._entry = entry
        self._member = member
        self._breaks = entry.breaks
        self._messages: list[Outgoing] = []

    def take(self, batch: Batch) -> None:
        """Hold a turn's publications."""
        self._messages += batch.messages
        if len(self._messages) > HELD_MESSAGES:
            self._messages.clear()
            self._breaks = _TOO_MUCH

    def release(self, top: Position | None) -> list[Outgoing]:
        """End holding; returns what came after `top`, in order.

        Args:
            top: the position up to which the member is told otherwise; `None` is no position.

        Raises:
            Gap: it does not follow on `top`; the member is still in the channel.
        """
        self._hub.redirect(self._channel, self._member)
        if self._breaks == _TOO_MUCH:
            raise Gap
        if top is None:
            return self._messages
        entry, position = self._entry, self._entry.position
        assert position is not None  # noqa: S101 - its history has been read
        if self._breaks != entry.breaks or position.epoch != top.epoch:
            raise Gap
        rest = after(top.offset, self._messages)
        end = top.offset + sum(message.offset > 0 for message in rest)
        if not entry.proven or position.offset < end:
            self._wait_for(end)
        elif position.offset > end:  # they rise by one, so one after the top is missing
            raise Gap
        return rest

    def _wait_for(self, offset: int) -> None:
        """Keep from the member what comes late: it has been told everything up to `offset`."""
        hub, channel, member = self._hub, self._channel, self._member

        def pass_on(batch: Batch) -> None:
            news = after(offset, batch.messages)
            if news:
                member.deliver(batch if len(news) == len(batch.messages) else Batch(news))
            if any(message.offset > offset for message in news):
                hub.redirect(channel, member)

        hub.unsubscribe(channel, member)
        hub.subscribe(channel, member, pass_on)


def after(offset: int, messages: list[Outgoing]) -> list[Outgoing]:
    """Leave out what is up to `offset`; what has none, because it was not kept, stays."""
    return [message for message in messages if not message.offset or message.offset > offset]
