"""Who was owed which publication, and what became of it. ◇

Publishers write down what was accepted, with its position, and what was not answered. Subscribers
write down what arrived and when they were told that something is lost. `Ledger.report` then counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import NamedTuple

__all__ = ["Body", "Ledger", "Report"]


class Body(NamedTuple):
    """What a publication carries: who published it, and that publisher's counter."""

    publisher: int
    counter: int


@dataclass
class Report:
    """What a run amounts to. All but `told`, `refused` and `unaccounted` must be 0.

    Attributes:
        sent: publications.
        accepted: the server answered with a position.
        unaccounted: refused or not answered: may have been delivered or not.
        surfaced: of those, delivered to somebody all the same.
        arrived: deliveries.
        told: times that a subscriber got word that something is lost.
        lost: accepted, never delivered to a subscriber that was not told since.
        holes: offsets skipped in what one subscriber got between two words.
        duplicated: a position twice to one subscriber, or one publication at two positions.
        out_of_order: came after one with a greater offset.
        mismatched: another content at the same position, or another running hash than a fellow
            subscriber's.
    """

    sent: int = 0
    accepted: int = 0
    unaccounted: int = 0
    surfaced: int = 0
    arrived: int = 0
    told: int = 0
    lost: int = 0
    holes: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    mismatched: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was lost without a word, doubled or mixed up."""
        wrong = (self.lost, self.holes, self.duplicated, self.out_of_order, self.mismatched)
        return not any(wrong)

    def __str__(self) -> str:
        return "  ".join(f"{name}={value}" for name, value in asdict(self).items())


class _Topic:
    """What is known of one topic's streams."""

    def __init__(self) -> None:
        self.epochs: list[str] = []  # in the order in which they were first heard of
        self.accepted: dict[str, list[int]] = defaultdict(list)  # offsets, sorted when asked for
        self.bodies: dict[tuple[str, int], Body] = {}
        self.places: dict[Body, tuple[str, int]] = {}
        # Of each sequence that begins at the same place: the running hash at each offset.
        self.hashes: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
        self.twice = 0
        self.mismatched = 0
        self._sorted = True

    def hear_of(self, epoch: str) -> None:
        if epoch not in self.epochs:
            self.epochs.append(epoch)

    def place(self, epoch: str, offset: int, body: Body) -> None:
        if self.bodies.setdefault((epoch, offset), body) != body:
            self.mismatched += 1
        elif self.places.setdefault(body, (epoch, offset)) != (epoch, offset):
            self.twice += 1

    def accept(self, epoch: str, offset: int) -> None:
        offsets = self.accepted[epoch]
        if offsets and offset < offsets[-1]:
            self._sorted = False
        offsets.append(offset)

    def between(self, epoch: str, after: int, to: int | None = None) -> int:
        """Count what was accepted after `after`, up to `to`."""
        self._sort()
        offsets = self.accepted.get(epoch, [])
        end = len(offsets) if to is None else bisect_right(offsets, to)
        return max(0, end - bisect_right(offsets, after))

    def owed(self, epoch: str, last: int) -> int:
        """Count what was accepted after `last`, later epochs included."""
        later = self.epochs[self.epochs.index(epoch) + 1 :]
        return self.between(epoch, last) + sum(self.between(each, 0) for each in later)

    def _sort(self) -> None:
        if not self._sorted:
            for offsets in self.accepted.values():
                offsets.sort()
            self._sorted = True


class _Membership:
    """One subscriber of one topic."""

    def __init__(self, topic: _Topic, epoch: str, start: int) -> None:
        self.topic = topic
        self.epoch, self.last = epoch, start
        self._hash = 0
        self._hashes = topic.hashes[epoch, start]
        self._gaps: set[int] = set()
        self.told = self.holes = self.duplicated = self.out_of_order = 0
        self.mismatched = False
        self.judged = True

    def begin_anew(self, epoch: str, start: int) -> None:
        self.told += 1
        self._gaps.clear()
        self.epoch, self.last = epoch, start
        self._hash, self._hashes = 0, self.topic.hashes[epoch, start]

    def take(self, offset: int, body: Body) -> None:
        if offset <= self.last:
            if offset in self._gaps:
                self._gaps.discard(offset)
                self.out_of_order += 1
            else:
                self.duplicated += 1
            return
        for missing in range(self.last + 1, offset):
            self._gaps.add(missing)
            self.holes += 1
        self.last = offset
        self._hash = hash((self._hash, offset, body))
        if self._hashes.setdefault(offset, self._hash) != self._hash:
            self.mismatched = True

    def lost(self) -> int:
        if not self.judged:
            return 0
        gaps = sum(self.topic.between(self.epoch, each - 1, each) for each in self._gaps)
        return gaps + self.topic.owed(self.epoch, self.last)


class Ledger:
    """The book of one run. Topics and subscribers are any names."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = defaultdict(_Topic)
        self._members: dict[tuple[str, str], _Membership] = {}
        self._open: set[tuple[str, Body]] = set()  # sent, and not accepted
        self._surfaced: set[tuple[str, Body]] = set()
        self._sent = self._accepted = self._arrived = self._astray = 0

    # What publishers write

    def send(self, topic: str, body: Body) -> None:
        """Note that a publication is about to be sent; until `accept` it is unaccounted."""
        self._sent += 1
        self._open.add((topic, body))

    def accept(self, topic: str, body: Body, epoch: str, offset: int) -> None:
        """Note that the server has answered with a position."""
        self._accepted += 1
        self._open.discard((topic, body))
        self._surfaced.discard((topic, body))
        book = self._topics[topic]
        book.hear_of(epoch)
        book.place(epoch, offset, body)
        book.accept(epoch, offset)

    # What subscribers write

    def subscribe(
        self, who: str, topic: str, epoch: str, offset: int, *, recovered: bool | None = None
    ) -> None:
        """Note a subscription that begins after `offset`.

        Args:
            who: the subscriber.
            topic: its name.
            epoch: of the reply.
            offset: of the reply.
            recovered: `None` is a first subscription; false is the word that something is lost.
        """
        book = self._topics[topic]
        book.hear_of(epoch)
        member = self._members.get((who, topic))
        if member is None:
            self._members[who, topic] = _Membership(book, epoch, offset)
        elif not recovered:
            member.begin_anew(epoch, offset)
        elif (member.epoch, member.last) != (epoch, offset):
            self._astray += 1  # it goes on where the subscriber was not

    def arrive(self, who: str, topic: str, offset: int, body: Body) -> None:
        """Note a delivery."""
        self._arrived += 1
        member = self._members[who, topic]
        member.topic.place(member.epoch, offset, body)
        member.take(offset, body)
        if (topic, body) in self._open:
            self._surfaced.add((topic, body))

    def leave(self, who: str, topic: str) -> None:
        """Note that a subscriber wants no more: it is owed nothing."""
        if (who, topic) in self._members:
            self._members[who, topic].judged = False

    # What is read

    def owed(self) -> int:
        """Count the deliveries that are still to come, or lost."""
        return sum(member.lost() for member in self._members.values())

    def waiting(self) -> list[str]:
        """Name those who are owed something."""
        return [
            f"{who} of {topic}: {member.lost()} after {member.epoch}/{member.last}"
            for (who, topic), member in self._members.items()
            if member.lost()
        ]

    def told(self) -> int:
        """Count the words that something is lost."""
        return sum(member.told for member in self._members.values())

    def told_each(self) -> list[int]:
        """Count them for each subscriber and topic."""
        return [member.told for member in self._members.values()]

    def epochs(self) -> dict[str, int]:
        """Count the epochs of each topic."""
        return {name: len(topic.epochs) for name, topic in self._topics.items()}

    def report(self) -> Report:
        """Count everything."""
        members, topics = self._members.values(), self._topics.values()
        return Report(
            sent=self._sent,
            accepted=self._accepted,
            unaccounted=len(self._open),
            surfaced=len(self._surfaced),
            arrived=self._arrived,
            told=self.told(),
            lost=self.owed(),
            holes=sum(member.holes for member in members),
            duplicated=sum(m.duplicated for m in members) + sum(t.twice for t in topics),
            out_of_order=sum(member.out_of_order for member in members),
            mismatched=self._astray
            + sum(member.mismatched for member in members)
            + sum(topic.mismatched for topic in topics),
        )
