"""Recovery: everything that was missed, or word that something is lost."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from pongee.channels.publication import Position, Publication
from pongee.channels.recovery import Recovery, recover, recover_cache
from pongee.channels.stream import Page, Stream, StreamLog

TOP = 8
LOST = Recovery(False, (), TOP)


def _page(*offsets: int, top: int = TOP, epoch: str = "E") -> Page:
    return Page([Publication(b"%d" % one, offset=one) for one in offsets], Position(top, epoch))


@pytest.mark.parametrize(
    ("asked", "page", "limit", "recovered"),
    [
        (Position(8, "E"), _page(), 300, True),
        (Position(8, ""), _page(), 300, True),
        (Position(8, "F"), _page(), 300, False),
        (Position(8, "_"), _page(), 300, False),
        (Position(7, "E"), _page(), 300, False),
        (Position(9, "E"), _page(), 300, False),
        (Position(-1, "E"), _page(*range(1, 9)), 300, False),
        (Position(6, "E"), _page(7, 8), 300, True),
        (Position(6, "E"), _page(7, 8), 2, True),
        (Position(6, "E"), _page(7, 8), 1, False),
        (Position(6, "E"), _page(7), 1, False),  # a page that ended at its limit
        (Position(5, "E"), _page(7, 8), 300, False),
        (Position(5, "E"), _page(6, 8), 300, False),
        (Position(0, ""), _page(*range(1, 9)), 300, True),
        (Position(0, ""), _page(*range(2, 9)), 300, False),
        (Position(2**64, "E"), _page(), 300, False),
    ],
)
def test_table(asked: Position, page: Page, limit: int, recovered: bool) -> None:
    """Row by row; what is not recovered brings nothing and tells the top."""
    wanted = Recovery(True, page.publications, asked.offset) if recovered else LOST
    assert recover(asked, page, limit) == wanted


def test_nothing_was_ever_published() -> None:
    """A subscriber of the first hour has missed nothing."""
    assert recover(Position(0, "E"), _page(top=0), 300) == Recovery(True, [], 0)
    assert recover(Position(0, ""), _page(top=0), 0).recovered
    assert not recover(Position(1, ""), _page(top=0), 300).recovered


@given(
    asked=st.builds(Position, st.integers(-1, 12), st.sampled_from(["", "E", "E", "F"])),
    top=st.integers(0, 10) | st.just(10),
    oldest=st.integers(1, 11) | st.just(1),
    holes=st.sets(st.integers(1, 10), max_size=1) | st.just(set()) | st.just(set()),
    limit=st.integers(0, 10) | st.just(300),
)
def test_recover_as_written_down(
    asked: Position, top: int, oldest: int, holes: set[int], limit: int
) -> None:
    """Whatever a broker has lost, at the ends or in between."""
    kept = set(range(oldest, top + 1)) - holes
    after = sorted(one for one in kept if asked.offset < one)
    found = recover(asked, _page(*after, top=top), limit)

    missed = list(range(asked.offset + 1, top + 1))
    wanted = (
        asked.epoch in ("", "E") and after == missed and len(after) <= limit and asked.offset <= top
    )
    event(f"recovered: {wanted}, with publications: {bool(after)}")
    assert found.recovered == wanted
    assert [one.offset for one in found.publications] == (after if wanted else [])
    assert found.offset == (asked.offset if wanted else top)
    assert not found.recovered or found.offset + len(found.publications) == top


@given(
    size=st.integers(1, 6),
    count=st.integers(0, 12),
    asked=st.integers(-1, 14),
    limit=st.integers(0, 8),
    age=st.integers(0, 12),
)
def test_recover_from_a_stream(size: int, count: int, asked: int, limit: int, age: int) -> None:
    """With a page read up to the same limit, exactly those that miss nothing recover."""
    log = StreamLog(Stream(size, 10, 1000), 0)
    for number in range(count):
        log.append(Publication(b""), number)
    position = Position(asked, log.epoch)
    page = log.read(position, limit, now=count + age)
    found = recover(position, page, limit)

    kept = [one for one in range(max(0, count - size), count) if count + age - one < 10]
    missed = range(asked, count)
    assert found.recovered == (
        0 <= asked <= count and len(missed) <= limit and set(missed) <= set(kept)
    )


CACHE = [
    (Position(8, "E"), _page(), Recovery(True, (), 8)),
    (Position(7, "E"), _page(), LOST),
    (Position(8, "F"), _page(), LOST),
    (None, _page(), LOST),
    (Position(0, "E"), _page(top=0), Recovery(False, (), 0)),
    (None, _page(top=0), Recovery(False, (), 0)),
    (Position(7, "E"), _page(8), Recovery(True, _page(8).publications, 7)),
    (Position(8, "F"), _page(8), Recovery(True, _page(8).publications, 7)),
    (Position(8, ""), _page(8), Recovery(True, _page(8).publications, 7)),
    (None, _page(8), Recovery(True, _page(8).publications, 7)),
    (Position(8, "E"), _page(8), Recovery(True, (), 8)),
    (Position(7, "E"), _page(7), LOST),
    (Position(8, "E"), _page(7), LOST),
    (None, _page(7), LOST),
]


@pytest.mark.parametrize(("asked", "page", "wanted"), CACHE)
def test_cache_table(asked: Position | None, page: Page, wanted: Recovery) -> None:
    """The newest only, and not to one who has it."""
    assert recover_cache(asked, page) == wanted


def test_cache_takes_the_newest_of_a_longer_page() -> None:
    """Newest first, as such a page is read."""
    found = recover_cache(None, _page(8, 7, 6))
    assert [one.offset for one in found.publications] == [8]
