"""Local subscribers per channel: encode once, hand the same bytes to many. ▲

One hub per process. Publishing never waits for a client: each subscriber's link takes the message
at once, and its overflow policy decides what happens when that client reads too slowly. Messages
of one channel reach every subscriber in the order of the calls to `Hub.publish`.
"""

from __future__ import annotations

from typing import Any, Protocol

from pongee.channels.encoding import Format, encode_any
from pongee.channels.names import check_channel
from pongee.errors import UsageError
from pongee.links.base import Outgoing

__all__ = ["Hub", "Publication", "Subscriber"]


class Publication:
    """One published value and its encodings, each made once when the first subscriber needs it."""

    __slots__ = ("_encoded", "channel", "data", "key")

    def __init__(self, channel: str, data: Any, key: str | None) -> None:
        self.channel = channel
        self.data = data
        self.key = key
        self._encoded: dict[Format, Outgoing] = {}

    def outgoing(self, form: Format) -> Outgoing:
        """Encode for endpoints of `form`."""
        message = self._encoded.get(form)
        if message is None:
            message = self._encoded[form] = Outgoing(encode_any(self.data, form), self.key)
        return message


class Subscriber(Protocol):
    """Who receives."""

    def deliver(self, publication: Publication) -> None:
        """Take the publication without waiting.

        Raises:
            UsageError: it cannot be encoded in the subscriber's format.
        """


class Hub:
    """Channels of this process that have members. Not for use from other threads."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Subscriber, None]] = {}

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Add `subscriber`; twice is once."""
        self._members.setdefault(channel, {})[subscriber] = None

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Remove `subscriber`; harmless when it is no member. An empty channel is forgotten."""
        members = self._members.get(channel)
        if members is not None:
            members.pop(subscriber, None)
            if not members:
                del self._members[channel]

    def publish(self, channel: str, data: Any, key: str | None = None) -> int:
        """Hand `data` to every member.

        Returns:
            How many members it was handed to.

        Raises:
            UsageError: the name is not allowed, or `data` cannot be encoded for some member; the
                others got it.
        """
        check_channel(channel)
        members = self._members.get(channel)
        if not members:
            return 0
        publication = Publication(channel, data, key)
        # A copy, because a member that is cut for reading too slowly leaves while we iterate.
        receivers = tuple(members)
        problem: UsageError | None = None
        for subscriber in receivers:
            try:
                subscriber.deliver(publication)
            except UsageError as error:
                problem = error  # of this member's format; the others get theirs
        if problem is not None:
            raise problem
        return len(receivers)

    def channels(self) -> dict[str, int]:
        """Channels with members, and how many."""
        return {channel: len(members) for channel, members in self._members.items()}
