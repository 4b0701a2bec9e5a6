"""A channel's history against a list that keeps everything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pongee.channels.publication import Position, Publication
from pongee.channels.stream import Page, Stream, StreamLog, new_epoch
from pongee.errors import ConfigurationError

STREAMS = st.builds(
    lambda size, ttl, more: Stream(size, ttl, ttl + more),
    st.one_of(st.integers(1, 5), st.integers(1, 90)),
    st.integers(1, 12),
    st.integers(0, 30),
)


class Model(RuleBasedStateMachine):
    """Every publication of an epoch in one list; what is kept is worked out at each look."""

    @initialize(stream=STREAMS)
    def begin(self, stream: Stream) -> None:
        self.now = 100
        self.log = StreamLog(stream, self.now)
        self.epochs = [self.log.epoch]
        self.ever: list[tuple[Publication, int]] = []
        self.cleared = 0
        self.gone = 0
        """Places of the list before this are gone, whatever the bounds are later."""
        self.used = self.now

    @rule(count=st.one_of(st.integers(1, 3), st.integers(1, 100)))
    def append(self, count: int) -> None:
        for _ in range(count):
            self._look()
            publication = Publication(b"%d" % len(self.ever))
            position = self.log.append(publication, self.now)
            self.ever.append((publication, self.now))
            assert position == (len(self.ever), self.epochs[-1])
            assert publication.position == position
            self._kept()

    @rule(seconds=st.one_of(st.integers(0, 4), st.integers(0, 50)))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def trim(self) -> None:
        kept = self._kept()
        self.log.trim(self.now)
        assert len(self.log) == len(kept)

    @rule()
    def clear(self) -> None:
        self.log.clear()
        self.gone = len(self.ever)
        assert len(self.log) == 0

    @rule(stream=STREAMS)
    def change_bounds(self, stream: Stream) -> None:
        self._kept()
        self.log.trim(self.now)  # what the old bounds remove does not come back
        self.log.stream = stream
        self.log.trim(self.now)

    @rule(
        since=st.one_of(st.none(), st.integers(-2, 100)),
        from_top=st.booleans(),
        limit=st.one_of(st.none(), st.integers(-1, 8)),
        reverse=st.booleans(),
    )
    def read(self, since: int | None, from_top: bool, limit: int | None, reverse: bool) -> None:
        self._look()
        if since is not None and from_top:
            since = len(self.ever) - since
        asked = None if since is None else Position(since, "any")
        page = self.log.read(asked, limit, reverse, now=self.now)
        wanted = naive_read(self._kept(), since, limit, reverse)
        assert list(page.publications) == wanted
        assert page.top == (len(self.ever), self.epochs[-1])

    @invariant()
    def holds_no_more_than_it_says(self) -> None:
        assert len(self.log) <= max(self.log.stream.size, len(self._kept()))
        assert self.log.top == len(self.ever)

    def _look(self) -> None:
        """A publication or read: a new epoch if there was none for too long."""
        over = self.now - self.used >= self.log.stream.meta_ttl
        assert self.log.is_over(self.now) == over
        if over:
            # The log finds a new name only when it is asked.
            self.log.read(limit=0, now=self.now)
            assert self.log.epoch not in self.epochs
            self.epochs.append(self.log.epoch)
            self.ever, self.gone = [], 0
        self.used = self.now

    def _kept(self) -> list[Publication]:
        stream = self.log.stream
        self.gone = max(self.gone, len(self.ever) - stream.size)
        while self.gone < len(self.ever) and self.now - self.ever[self.gone][1] >= stream.ttl:
            self.gone += 1
        return [publication for publication, _ in self.ever[self.gone :]]


def naive_read(
    kept: list[Publication], since: int | None, limit: int | None, reverse: bool
) -> list[Publication]:
    """The table of history reads, word by word."""
    if not reverse:
        found = [one for one in kept if since is None or one.offset > since]
    elif since is None:
        found = kept[::-1]
    elif any(one.offset == since - 1 for one in kept):
        found = [one for one in reversed(kept) if one.offset <= since - 1]
    else:
        found = []
    return found if limit is None else found[: max(0, limit)]


TestModel = Model.TestCase


def _log(count: int, stream: Stream | None = None) -> StreamLog:
    log = StreamLog(stream or Stream(5, 60, 600), 0)
    for number in range(1, count + 1):
        log.append(Publication(b"%d" % number), number)
    return log


def _offsets(page: Page) -> list[int]:
    return [one.offset for one in page.publications]


@pytest.mark.parametrize(
    ("since", "limit", "reverse", "wanted"),
    [
        (None, None, False, [4, 5, 6, 7, 8]),
        (None, None, True, [8, 7, 6, 5, 4]),
        (None, 2, False, [4, 5]),
        (None, 2, True, [8, 7]),
        (6, None, False, [7, 8]),
        (6, None, True, [5, 4]),
        (6, 1, False, [7]),
        (6, 1, True, [5]),
        (1, None, False, [4, 5, 6, 7, 8]),
        (4, None, True, []),
        (5, None, True, [4]),
        (8, None, False, []),
        (8, None, True, [7, 6, 5, 4]),
        (9, None, True, [8, 7, 6, 5, 4]),
        (10, None, True, []),
        (2**64, None, False, []),
        (2**64, None, True, []),
        (0, None, True, []),
        (None, 0, False, []),
    ],
)
def test_reads(since: int | None, limit: int | None, reverse: bool, wanted: list[int]) -> None:
    """Eight publications, of which five are kept."""
    asked = None if since is None else Position(since, "")
    page = _log(8).read(asked, limit, reverse, now=9)

    assert _offsets(page) == wanted
    assert page.top.offset == 8


def test_publication_is_gone_at_its_age_and_not_before() -> None:
    """One published at second 1 with 60 seconds to live is there until second 61."""
    log = _log(2)
    assert _offsets(log.read(now=60.999)) == [1, 2]
    assert _offsets(log.read(now=61)) == [2]
    assert _offsets(log.read(now=62)) == []
    assert log.read(now=62).top.offset == 2


def test_epoch_outlives_publications_and_ends_when_nobody_asks() -> None:
    """Reading counts as asking."""
    log = _log(1)
    first = log.epoch
    assert log.read(limit=0, now=600).top == (1, first)
    assert log.read(limit=0, now=1199).top == (1, first)
    assert log.is_over(1799)
    page = log.read(now=1799)
    assert page.top.offset == 0
    assert page.top.epoch != first
    assert log.append(Publication(b"x"), 1800) == (1, page.top.epoch)


def test_epoch_is_new_when_one_appends_too_late() -> None:
    """Without a read in between."""
    log = _log(3)
    first = log.epoch
    position = log.append(Publication(b"x"), 603)
    assert position.offset == 1
    assert position.epoch != first
    assert _offsets(log.read(now=603)) == [1]


def test_log_moves_together_and_holds_no_old_publication() -> None:
    """Memory follows what is kept, whatever was published."""
    log = _log(100_000, Stream(100, 1e9, 1e9))
    assert len(log) == 100
    assert len(log._items) <= 2 * 100 + 34
    assert len({id(one) for one in log._items}) <= 100 + 1
    log.clear()
    assert (log._items, log._times) == ([], [])


def test_epochs_differ_and_can_be_told_from_none() -> None:
    """Not empty, not the sign that clients send to fail, and fit for a URL."""
    epochs = {new_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{8}", epoch) for epoch in epochs)


@given(size=st.integers(-3, 3), ttl=st.integers(-2, 4), meta_ttl=st.integers(-2, 4))
def test_stream_that_keeps_nothing_is_refused(size: int, ttl: int, meta_ttl: int) -> None:
    """And one whose position would be forgotten before its publications."""
    try:
        Stream(size, ttl, meta_ttl)
    except ConfigurationError:
        assert size < 1 or ttl <= 0 or meta_ttl < ttl
    else:
        assert size >= 1
        assert 0 < ttl <= meta_ttl


def test_stream_refuses_what_is_no_number() -> None:
    """NaN is neither more nor less than anything."""
    for bad in ((1, float("nan"), 5.0), (1, 1.0, float("nan"))):
        with pytest.raises(ConfigurationError):
            Stream(*bad)
