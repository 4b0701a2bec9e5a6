"""What brokers lose on the way, read again from what they keep.

Publications of a channel have offsets without gaps, so that a missing one shows when the next one
comes. Then what comes is held, what is missing is read from the history, and both are handed over
in order: members notice nothing. What nobody keeps any more cannot be brought; then the members
that were promised to be told are told, and start again from their own positions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from pongee.brokers.base import Broker, Page
from pongee.brokers.errands import Errands
from pongee.channels.options import stream_of
from pongee.channels.publication import Position, Publication
from pongee.clock import TimerWheel
from pongee.entries import Entry
from pongee.errors import BrokerUnavailable
from pongee.limits import HELD_MESSAGES, REPAIR_PAUSE, REPAIR_TRIES

__all__ = ["Repair"]

logger = logging.getLogger("pongee.brokers")


class Repair:
    """Brings a channel's members what did not come.

    Args:
        broker: keeps histories.
        errands: after those that begin and end listening.
        wheel: for further tries.
        hand_over: gives the members the next publication.
        take: handles a publication as if it came only now.
    """

    def __init__(
        self,
        broker: Broker,
        errands: Errands,
        wheel: TimerWheel,
        *,
        hand_over: Callable[[str, Entry, Publication], None],
        take: Callable[[str, Publication], None],
    ) -> None:
        self._broker = broker
        self._errands = errands
        self._wheel = wheel
        self._hand_over = hand_over
        self._take = take

    def begin(self, channel: str, entry: Entry, *came: Publication) -> None:
        """Hold what comes until what was lost before it has been read."""
        entry.waiting = list(came)
        entry.tries = 0
        self._read_soon(channel, entry)

    def hold(self, channel: str, entry: Entry, publication: Publication) -> None:
        """Hold `publication`: something before it is being read. Too many: members are told."""
        assert entry.waiting is not None  # noqa: S101 - the caller has looked
        entry.waiting.append(publication)
        if len(entry.waiting) > HELD_MESSAGES:
            self._give_up(channel, entry)

    def look(self, channel: str, entry: Entry) -> None:
        """See whether anything was lost, or go on with what could not be read before."""
        if not entry.options.history or entry.position is None or not entry.listened:
            return
        entry.tries = 0
        self._read_soon(channel, entry)

    def _read_soon(self, channel: str, entry: Entry) -> None:
        self._errands.add((channel, ""), partial(self._read, channel, entry))

    async def _read(self, channel: str, entry: Entry) -> None:
        start, stream = entry.position, stream_of(entry.options)
        if start is None or stream is None or not entry.listened:
            return
        if entry.waiting is None:
            entry.waiting = []
        waiting = entry.waiting
        try:
            page = await self._broker.history(channel, stream, since=start)
            if entry.waiting is not waiting:
                return  # given up meanwhile
            if entry.position is start:  # else the history has begun anew, and the members know
                self._bring(channel, entry, start, page)
            self._go_on(channel, entry)
        except BrokerUnavailable:
            if entry.waiting is waiting:
                self._try_later(channel, entry)
        except Exception:
            logger.exception("what was lost of a channel could not be brought")
            if entry.waiting is waiting:
                self._give_up(channel, entry)

    def _bring(self, channel: str, entry: Entry, start: Position, page: Page) -> None:
        """Hand over what was missed, or what there is of it."""
        if not _follows(start, page):
            entry.tell_gap(channel)
            entry.proven = False
            if not page.publications or not _is_later(start, page):
                entry.position = _before(entry.waiting[0]) if entry.waiting else page.top
                return
        for publication in page.publications:
            self._hand_over(channel, entry, publication)

    def _try_later(self, channel: str, entry: Entry) -> None:
        if not self._broker.health.up:
            return  # `look` is called when it is up
        entry.tries += 1
        if entry.tries < REPAIR_TRIES:
            self._wheel.call_later(REPAIR_PAUSE, lambda: self._read_soon(channel, entry))
        else:
            self._give_up(channel, entry)

    def _give_up(self, channel: str, entry: Entry) -> None:
        entry.tell_gap(channel)
        waiting = entry.waiting
        if waiting:
            entry.position = _before(waiting[0])
        self._go_on(channel, entry)

    def _go_on(self, channel: str, entry: Entry) -> None:
        """Take what was held."""
        waiting, entry.waiting = entry.waiting or [], None
        position = entry.position
        assert position is not None  # noqa: S101 - nothing is held before
        news = [
            one for one in waiting if one.epoch != position.epoch or one.offset > position.offset
        ]
        if news and news[0].epoch == position.epoch and news[0].offset > position.offset + 1:
            # Not even the history has it: a broker that breaks its promise, or lost it meanwhile.
            entry.tell_gap(channel)
            entry.position = _before(news[0])
        for publication in news:
            self._take(channel, publication)


def _follows(start: Position, page: Page) -> bool:
    """Whether `page`, read since `start`, has everything after it."""
    if not _is_later(start, page):
        return False
    if page.top.offset == start.offset:
        return True
    return bool(page.publications) and page.publications[0].offset == start.offset + 1


def _is_later(start: Position, page: Page) -> bool:
    """Whether `page` tells of the same life of the stream, and of no time before."""
    return page.top.epoch == start.epoch and page.top.offset >= start.offset


def _before(publication: Publication) -> Position:
    return Position(publication.offset - 1, publication.epoch)
