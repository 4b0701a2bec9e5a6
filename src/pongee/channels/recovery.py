"""What a subscriber that comes back gets. ◇

Either everything that it missed, or word that something is lost: never a part. The caller reads the
page from its broker, and compares an epoch that is not the page's by these rules alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pongee.channels.publication import Position, Publication
from pongee.channels.stream import Page

__all__ = ["Recovery", "recover", "recover_cache"]


class Recovery(NamedTuple):
    """The answer to a subscriber that came back.

    Attributes:
        recovered: nothing is missing after `publications`.
        publications: what was missed, oldest first; empty unless `recovered`.
        offset: where the subscriber stands before it has taken `publications`. Adding their number
            gives the page's top.
    """

    recovered: bool
    publications: Sequence[Publication]
    offset: int


def recover(asked: Position, page: Page, limit: int) -> Recovery:
    """Decide whether everything after `asked` can be handed over.

    Args:
        asked: where the subscriber stood, as it says. An empty epoch fits every epoch; an offset
            may be any number.
        page: what the channel keeps after ``asked.offset``, oldest first; read with ``since=asked``
            and no limit below `limit`.
        limit: publications at most. More: not recovered.
    """
    publications, top = page
    if asked.epoch and asked.epoch != top.epoch:
        return Recovery(False, (), top.offset)
    missed = top.offset - asked.offset
    # Offsets only rise in a page, so that the first and the number tell of every hole, in between
    # and at the end.
    whole = (
        0 <= missed == len(publications) <= limit
        and (not publications or publications[0].offset == asked.offset + 1)
        and (not publications or publications[-1].offset == top.offset)
    )
    if not whole:
        return Recovery(False, (), top.offset)
    return Recovery(True, publications, asked.offset)


def recover_cache(asked: Position | None, page: Page) -> Recovery:
    """Decide what a subscriber gets that wants the newest publication only.

    Args:
        asked: where it stood, as it says; `None` if it says nothing.
        page: the newest publication that the channel keeps, or nothing; read with ``limit=1,
            reverse=True``.
    """
    publications, top = page
    is_there = asked == top and top.offset > 0
    if publications and publications[0].offset != top.offset:
        return Recovery(False, (), top.offset)
    if is_there:
        return Recovery(True, (), top.offset)
    if not publications:
        return Recovery(False, (), top.offset)
    return Recovery(True, publications[:1], top.offset - 1)
