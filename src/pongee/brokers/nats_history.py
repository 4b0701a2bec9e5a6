"""Where a channel's stream stands at NATS, and what it keeps.

**The truth is the last message of the channel's subject**: its head holds the offset of the newest
publication and the epoch, whatever its kind. Whoever appends says which message was the last
(`Nats-Expected-Last-Subject-Sequence`), and is refused if that is no longer so. Therefore offsets
have neither gaps nor doubles, and no step can be half done.

* Nobody has published or read for longer than the position is kept: the next message begins a new
  epoch. Reading leaves a mark, a message without a publication, if the last message is older than
  a sixteenth of that time; so a position is kept for up to a sixteenth longer than asked for.
* Publications are removed by a message that says so; what is before it is gone for every reader.
* Publications that are too old, too many, or of another epoch are skipped by readers, who look at
  the server's time. That they are removed as well (`Server.forget`) only saves space; whatever a
  process that died had not removed goes with its position at last.

A publication is found from its offset by what is known of sequences: each has a greater one than
the one before. Reading costs what is returned and, in the midst of a long stream, a few questions.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from pongee.brokers.base import Page, Stream
from pongee.brokers.budget import Budget
from pongee.brokers.nats_jetstream import Server, ServerError, Stored
from pongee.brokers.nats_messages import (
    CLEARED,
    MARK,
    PUBLICATION,
    Head,
    Undecodable,
    conditions,
    header,
    pack,
    publication_in,
    unpack,
)
from pongee.channels.publication import Position, Publication
from pongee.channels.stream import new_epoch
from pongee.limits import NATS_PAGE, NATS_PAGE_BYTES, NATS_READS, NATS_UNUSED

__all__ = ["NEVER", "History", "Last", "kept_for"]

_PLACED = (PUBLICATION, MARK, CLEARED)
_SLACK = 1 / 16
_SPARE = 32
"""Messages asked for beyond those wanted: there may be marks among them."""
_NEAR = 16
"""Publications that are rather skipped than searched for."""
_STEP = 4
"""By how much further back each guess goes than the one before."""


class Last(NamedTuple):
    """The last message of a channel's subject.

    Attributes:
        sequence: its number in the log; 0 if there is none.
        offset: of the newest publication of the epoch.
        epoch: of the stream.
        at: when it was stored, seconds on the server's clock.
    """

    sequence: int
    offset: int
    epoch: str
    at: float

    @property
    def position(self) -> Position:
        """Where the stream stands."""
        return Position(self.offset, self.epoch)

    def is_over(self, stream: Stream, now: float) -> bool:
        """Whether the next message begins a new epoch."""
        if not self.sequence:
            return True
        return now - self.at >= kept_for(stream, self.offset) * (1 + _SLACK)


NEVER = Last(0, 0, "", 0.0)


class _Range(NamedTuple):
    """Which publications are wanted: offsets from `first` to `end`, and so many at most."""

    first: int
    end: int
    most: int


def kept_for(stream: Stream, offset: int) -> float:
    """Tell for how many seconds a position is kept that nobody asks for."""
    # Clients choose names: channels that they only looked at must not stay for weeks.
    return stream.meta_ttl if offset else min(stream.meta_ttl, max(stream.ttl, NATS_UNUSED))


def lasting(stream: Stream, offset: int) -> float:
    """Tell for how many seconds the server has to keep a message with that offset."""
    return kept_for(stream, offset) * (1 + _SLACK)


class History:
    """Reads the log.

    Args:
        server: that has it. Deadlines are set by the caller, but for `read`.
    """

    def __init__(self, server: Server) -> None:
        self._reads = Budget(NATS_READS)
        self._server = server
        self._log = server.names.log

    async def last(self, channel: str) -> Last:
        """Look where the stream stands: one round trip."""
        return _last(await self._server.last(self._log, self._server.names.publications(channel)))

    async def read(
        self,
        channel: str,
        stream: Stream,
        since: Position | None,
        limit: int | None,
        reverse: bool,
    ) -> Page:
        """Read what is kept; one round trip where nothing is returned."""
        subject = self._server.names.publications(channel)
        async with self._server.deadline():
            stored, last = await self._stand(subject, stream)
        wanted = _wanted(last.offset, stream.size, since, limit, reverse)
        if wanted is None:
            return Page((), last.position)
        if wanted.first == last.offset and stored is not None and _is_publication(stored):
            found = self._those([stored], wanted, last, stream)
        else:
            # To wait for a turn is no sign that the server does not answer.
            many = min(wanted.end - wanted.first + 1, NATS_PAGE)
            async with self._reads.share(many), self._server.deadline():
                found = await self._range(subject, stream, last, wanted)
        if reverse:
            whole = since is None or (found and found[-1].offset == wanted.end)
            return Page(found[::-1] if whole else (), last.position)
        return Page(found[: wanted.most], last.position)

    async def _stand(self, subject: str, stream: Stream) -> tuple[Stored | None, Last]:
        """Find the last message, and have the position kept."""
        while True:
            stored = await self._server.last(self._log, subject)
            try:
                return stored, await self._keep_alive(subject, stream, _last(stored))
            except ServerError as error:
                if not error.is_conflict:
                    raise

    async def remove(self, channel: str) -> None:
        """Remove all publications, and say so."""
        subject = self._server.names.publications(channel)
        while True:
            stored = await self._server.last(self._log, subject)
            if stored is None:
                return
            last = _last(stored)
            ttl = header(stored.headers, b"Nats-TTL")
            more = b"Nats-TTL: %s\r\n" % ttl if ttl else b""
            headers = conditions(expected=last.sequence, more=more)
            message = pack(CLEARED, last.offset, last.epoch)
            # First, because nothing can be stored where there is no space.
            await self._server.remove(subject, last.sequence)
            try:
                sequence = await self._server.store(subject, message, headers)
            except ServerError as error:
                if not error.is_conflict:
                    raise
                continue
            self._server.forget(subject, seq=sequence)
            return

    async def _keep_alive(self, subject: str, stream: Stream, last: Last) -> Last:
        """Leave a mark if the last message gets old, or begin a new epoch."""
        now = self._server.now()
        over = last.is_over(stream, now)
        if not over and now - last.at < kept_for(stream, last.offset) * _SLACK:
            return last
        offset, epoch = (0, new_epoch()) if over else last.position
        headers = conditions(expected=last.sequence, ttl=lasting(stream, offset))
        sequence = await self._server.store(subject, pack(MARK, offset, epoch), headers)
        if over and last.sequence:
            self._server.forget(subject, seq=sequence)
        return Last(sequence, offset, epoch, now)

    async def _range(
        self, subject: str, stream: Stream, last: Last, wanted: _Range
    ) -> list[Publication]:
        """Read publications in their order."""
        sequence, offset = await self._seek(subject, stream, last, wanted)
        found: list[Publication] = []
        while True:
            left = wanted.end - (found[-1].offset if found else offset) + _SPARE
            stored, more = await self._server.some(
                self._log, subject, sequence, min(left, NATS_PAGE), NATS_PAGE_BYTES
            )
            found = self._those(stored, wanted, last, stream, found)
            enough = len(found) >= wanted.most or (found and found[-1].offset >= wanted.end)
            if not stored or not more or enough or stored[-1].sequence >= last.sequence:
                return found
            sequence = stored[-1].sequence + 1

    async def _seek(
        self, subject: str, stream: Stream, last: Last, wanted: _Range
    ) -> tuple[int, int]:
        """Find where to begin, not far before the first one wanted.

        Returns:
            A sequence, and an offset that is not greater than that of what is there.
        """
        oldest = max(0, last.offset - stream.size)
        if wanted.first - oldest <= max(_NEAR, wanted.end - wanted.first):
            return 1, oldest
        # The first one wanted has no greater sequence: between it and the last there are others.
        highest, width = last.sequence - (last.offset - wanted.first), _NEAR
        while highest - width > 1:
            guess = highest - width
            stored, _ = await self._server.some(self._log, subject, guess, 1, NATS_PAGE_BYTES)
            there = _last(stored[0]) if stored else NEVER
            if there.epoch != last.epoch:
                return guess, oldest
            if there.offset <= wanted.first:
                return guess, there.offset
            highest = min(highest - 1, there.sequence - (there.offset - wanted.first))
            width *= _STEP
        return 1, oldest

    def _those(
        self,
        stored: list[Stored],
        wanted: _Range,
        last: Last,
        stream: Stream,
        found: list[Publication] | None = None,
    ) -> list[Publication]:
        """Add those that are wanted and still kept."""
        found = [] if found is None else found
        oldest = self._server.now() - stream.ttl
        for one in stored:
            try:
                head = unpack(one.data)
                if head.epoch != last.epoch:
                    continue
                if head.kind == CLEARED:
                    found.clear()
                elif (
                    head.kind == PUBLICATION
                    and wanted.first <= head.offset <= wanted.end
                    and one.at > oldest
                ):
                    found.append(publication_in(one.data, head))
            except Undecodable:
                continue  # somebody else's
        return found


def _last(stored: Stored | None) -> Last:
    if stored is None:
        return NEVER
    head: Head | None = None
    with suppress(Undecodable):
        head = unpack(stored.data)
    if head is None or head.kind not in _PLACED:  # somebody else's: after it comes a new epoch
        return Last(stored.sequence, 0, "", 0.0)
    return Last(stored.sequence, head.offset, head.epoch, stored.at)


def _is_publication(stored: Stored) -> bool:
    return stored.data[:1] == PUBLICATION


def _wanted(
    top: int, size: int, since: Position | None, limit: int | None, reverse: bool
) -> _Range | None:
    """Tell which offsets to read; `None` is none."""
    oldest = max(1, top - size + 1)
    count = size if limit is None else max(0, limit)
    if reverse:
        end = top if since is None else since.offset - 1
        first = max(oldest, end - count + 1)
        return None if end > top or first > end else _Range(first, end, count)
    first = oldest if since is None else max(oldest, since.offset + 1)
    return None if not count or first > top else _Range(first, top, count)
