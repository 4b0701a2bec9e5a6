"""The bounded history of one channel. ◇▲

Time is an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pongee.channels.publication import Position, Publication
from pongee.errors import ConfigurationError

__all__ = ["Page", "Stream", "StreamLog", "new_epoch"]


@dataclass(frozen=True, slots=True)
class Stream:
    """How much of a channel is kept.

    Attributes:
        size: publications.
        ttl: seconds a publication is kept.
        meta_ttl: seconds that the top and the epoch are kept after the last publication or read;
            no less than `ttl`, or publications would be lost with them.

    Raises:
        ConfigurationError: nothing would be kept; a channel without history has no `Stream`.
    """

    size: int
    ttl: float
    meta_ttl: float

    def __post_init__(self) -> None:
        if not (self.size >= 1 and self.ttl > 0):
            raise ConfigurationError(f"{self}: size and ttl must be greater than 0")
        if not self.meta_ttl >= self.ttl:
            raise ConfigurationError(f"{self}: meta_ttl must not be less than ttl")


class Page(NamedTuple):
    """A part of a channel's history.

    Attributes:
        publications: in the order that was asked for; shared with other readers, so not for
            changing.
        top: the position of the newest publication ever in this epoch; offset 0 if there is none.
    """

    publications: Sequence[Publication]
    top: Position


def new_epoch() -> str:
    """Make the name of an epoch: 8 random characters that a URL can carry."""
    # Never "_", which clients of the Centrifuge protocol send to make a recovery fail.
    return secrets.token_urlsafe(6)


_GONE = Publication(b"")
"""Stands where a publication was that is no longer kept."""

_SLACK = 32
"""Empty places before a log is worth moving together."""


class StreamLog:
    """The publications of a channel that are kept, and where the channel's stream stands.

    Appending costs the same whatever is kept, and reading costs what is returned: offsets have no
    gaps, so that a place follows from an offset.

    Args:
        stream: how much is kept.
        now: seconds.

    Attributes:
        stream: how much is kept; may be changed between calls.
        epoch: of the stream.
        top: offset of the newest publication ever in this epoch; 0 if there is none.
    """

    __slots__ = ("_head", "_items", "_times", "_touched", "epoch", "stream", "top")

    def __init__(self, stream: Stream, now: float) -> None:
        self.stream = stream
        self.epoch = new_epoch()
        self.top = 0
        # Lists whose first `_head` places are empty, not deques: an empty deque has 600 bytes, and
        # most channels keep little; and a list can be sliced.
        self._items: list[Publication] = []
        self._times: list[float] = []
        self._head = 0
        self._touched = now

    def __len__(self) -> int:
        """Publications held, some of which may be too old already."""
        return len(self._items) - self._head

    def append(self, publication: Publication, now: float) -> Position:
        """Keep `publication` as the newest, and set its `offset` and `epoch`."""
        if now >= self._touched + self.stream.meta_ttl:
            self._restart()
        self._touched = now
        self.top = publication.offset = self.top + 1
        publication.epoch = self.epoch
        self._items.append(publication)
        self._times.append(now)
        head = self._head
        full = len(self._items) - head > self.stream.size
        if full or self._times[head] <= now - self.stream.ttl:
            self.trim(now)
        return Position(self.top, self.epoch)

    def read(
        self,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        *,
        now: float,
    ) -> Page:
        """Read what is kept.

        Args:
            since: exclusive; its epoch is not looked at. Forward, the first publication has a
                greater offset; in reverse, the first has the offset just below, and nothing is
                returned if that one is gone.
            limit: publications at most; `None` is all.
            reverse: newest first.
            now: seconds.
        """
        if self.is_over(now):
            self._restart()
        self._touched = now
        self.trim(now)
        top = Position(self.top, self.epoch)
        items, head, end = self._items, self._head, len(self._items)
        # The place of the publication with offset `since`, were it kept.
        place = None if since is None else end - 1 - (self.top - since.offset)
        count = end - head if limit is None else max(0, limit)
        if reverse:
            stop = end if place is None else place  # the place after the first one returned
            if not head < stop <= end:
                return Page((), top)
            return Page(items[max(head, stop - count) : stop][::-1], top)
        start = head if place is None else max(head, place + 1)
        return Page(items[start : start + count], top)

    def trim(self, now: float) -> None:
        """Let go of what is too much or too old."""
        times = self._times
        keep = max(self._head, len(times) - self.stream.size)
        keep = bisect_right(times, now - self.stream.ttl, keep)
        if keep > self._head:
            self._let_go(keep)

    def clear(self) -> None:
        """Let go of every publication; the top and the epoch stay."""
        self._let_go(len(self._items))

    def is_over(self, now: float) -> bool:
        """Whether nobody published or read for so long that the next epoch begins."""
        return now >= self._touched + self.stream.meta_ttl

    def is_unused(self, now: float) -> bool:
        """Whether nobody has ever published, nor read for as long as publications are kept."""
        return self.top == 0 and now >= self._touched + self.stream.ttl

    def _restart(self) -> None:
        self.clear()
        self.epoch = new_epoch()
        self.top = 0

    def _let_go(self, keep: int) -> None:
        """Empty the places before `keep`."""
        items, head = self._items, self._head
        # All is gone, or the empty places are the most: then the rest moves together.
        if keep == len(items) or (keep > _SLACK and 2 * keep > len(items)):
            del items[:keep]
            del self._times[:keep]
            self._head = 0
            return
        for place in range(head, keep):
            items[place] = _GONE
        self._head = keep
