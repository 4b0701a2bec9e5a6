"""The ledger finds out a server that loses, repeats or mixes up, and clears an honest one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.ledger import Body, Ledger

SUBSCRIBERS = ("ada", "bob")


@dataclass
class Entry:
    """One line that a run writes into a ledger."""

    method: str
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


class HonestServer:
    """One topic and its subscribers; `steps` says what happens, `lines` is what is written down."""

    def __init__(self) -> None:
        self.lines: list[Entry] = []
        self.epoch, self.stream = 0, list[Body]()
        self.sent = 0
        self.at: dict[str, tuple[int, int] | None] = {}
        self.away: set[str] = set()
        for who in SUBSCRIBERS:
            self.come(who)

    def name(self) -> str:
        return f"e{self.epoch}"

    def write(self, method: str, *args: Any, **options: Any) -> None:
        self.lines.append(Entry(method, args, options))

    def publish(self, outcome: str) -> None:
        body = Body(0, self.sent)
        self.sent += 1
        self.write("send", "t", body)
        if outcome != "lost on the way":
            self.stream.append(body)
        if outcome == "accepted":
            self.write("accept", "t", body, self.name(), len(self.stream))

    def come(self, who: str) -> None:
        known = self.at.get(who)
        self.away.discard(who)
        if known is not None and known[0] == self.epoch:
            self.write("subscribe", who, "t", self.name(), known[1], recovered=True)
            return
        self.at[who] = (self.epoch, len(self.stream))
        recovered = None if known is None else False
        self.write("subscribe", who, "t", self.name(), len(self.stream), recovered=recovered)

    def go(self, who: str) -> None:
        self.away.add(who)

    def deliver(self, who: str, most: int) -> None:
        known = self.at[who]
        assert known is not None
        if who in self.away or known[0] != self.epoch:
            return
        for offset in range(known[1] + 1, min(len(self.stream), known[1] + most) + 1):
            self.write("arrive", who, "t", offset, self.stream[offset - 1])
            self.at[who] = (self.epoch, offset)

    def wipe(self) -> None:
        self.epoch, self.stream = self.epoch + 1, []
        self.away.update(SUBSCRIBERS)

    def finish(self) -> None:
        for who in SUBSCRIBERS:
            if who in self.away:
                self.come(who)
            self.deliver(who, 1_000_000)


who = st.sampled_from(SUBSCRIBERS)
without_wipes: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("publish"), st.sampled_from(["accepted", "unanswered", "lost on the way"])),
    st.tuples(st.just("deliver"), who, st.integers(1, 5)),
    st.tuples(st.just("go"), who),
    st.tuples(st.just("come"), who),
]
steps = st.lists(st.one_of(*without_wipes, st.tuples(st.just("wipe"))), max_size=60)
# One epoch, with something to deliver at the end.
plain_steps = st.lists(st.one_of(*without_wipes), max_size=60).map(
    lambda chosen: [*chosen, ("publish", "accepted"), ("publish", "accepted")]
)


def run(chosen: list[tuple[Any, ...]]) -> list[Entry]:
    server = HonestServer()
    for name, *args in chosen:
        if name != "come" or args[0] in server.away:
            getattr(server, name)(*args)
    server.finish()
    return server.lines


def book(lines: list[Entry]) -> Ledger:
    ledger = Ledger()
    for line in lines:
        getattr(ledger, line.method)(*line.args, **line.options)
    return ledger


@given(steps)
def test_an_honest_run_is_clean(chosen: list[tuple[Any, ...]]) -> None:
    lines = run(chosen)
    report = book(lines).report()
    assert report.clean, report
    sent = [line for line in lines if line.method == "send"]
    assert report.sent == len(sent) == report.accepted + report.unaccounted
    told = [line for line in lines if line.options.get("recovered") is False]
    assert report.told == len(told)


def one_arrival(lines: list[Entry], data: st.DataObject) -> int:
    """Choose one of those that were accepted."""
    accepted = {line.args[3] for line in lines if line.method == "accept"}
    return data.draw(
        st.sampled_from(
            [
                n
                for n, line in enumerate(lines)
                if line.method == "arrive" and line.args[2] in accepted
            ]
        )
    )


@given(plain_steps, st.data())
def test_an_arrival_that_is_missing_is_found_out(
    chosen: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    lines = run(chosen)
    del lines[one_arrival(lines, data)]
    report = book(lines).report()
    assert report.lost == 1
    assert not report.clean


@given(plain_steps, st.data())
def test_an_arrival_twice_is_found_out(chosen: list[tuple[Any, ...]], data: st.DataObject) -> None:
    lines = run(chosen)
    at = one_arrival(lines, data)
    lines.insert(at, lines[at])
    assert book(lines).report().duplicated == 1


@given(plain_steps, st.data())
def test_another_content_is_found_out(chosen: list[tuple[Any, ...]], data: st.DataObject) -> None:
    lines = run(chosen)
    at = one_arrival(lines, data)
    *start, _ = lines[at].args
    lines[at] = Entry("arrive", (*start, Body(9, 9)))
    assert book(lines).report().mismatched


@given(plain_steps, st.data())
def test_two_that_changed_places_are_found_out(
    chosen: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    lines = run(chosen)
    arrivals = [n for n, line in enumerate(lines) if line.method == "arrive"]
    pairs = [
        (first, second)
        for first, second in pairwise(arrivals)
        if lines[first].args[0] == lines[second].args[0]
    ]
    first, second = data.draw(st.sampled_from(pairs))
    lines[first], lines[second] = lines[second], lines[first]
    assert book(lines).report().out_of_order == 1


def small() -> Ledger:
    """Three publications, all accepted, for ada who is at the beginning."""
    ledger = Ledger()
    ledger.subscribe("ada", "t", "e", 0)
    for n in (1, 2, 3):
        ledger.send("t", Body(0, n))
        ledger.accept("t", Body(0, n), "e", n)
    return ledger


def arrive(ledger: Ledger, *offsets: int, who: str = "ada") -> None:
    for offset in offsets:
        ledger.arrive(who, "t", offset, Body(0, offset))


def test_what_is_still_to_come_is_owed() -> None:
    ledger = small()
    arrive(ledger, 1)
    assert ledger.owed() == 2
    assert ledger.waiting() == ["ada of t: 2 after e/1"]
    arrive(ledger, 2, 3)
    assert ledger.owed() == 0
    assert ledger.report().clean


def test_a_hole_is_lost_until_it_is_filled_and_then_out_of_order() -> None:
    ledger = small()
    arrive(ledger, 1, 3)
    assert (ledger.report().lost, ledger.report().holes) == (1, 1)
    arrive(ledger, 2)
    report = ledger.report()
    assert (report.lost, report.out_of_order) == (0, 1)


def test_a_word_settles_what_was_lost_before_it() -> None:
    ledger = small()
    ledger.subscribe("ada", "t", "e", 3, recovered=False)
    report = ledger.report()
    assert (report.lost, report.told) == (0, 1)


def test_what_was_accepted_in_a_later_epoch_is_owed() -> None:
    ledger = small()
    arrive(ledger, 1, 2, 3)
    ledger.send("t", Body(0, 4))
    ledger.accept("t", Body(0, 4), "f", 1)
    assert ledger.report().lost == 1
    ledger.subscribe("ada", "t", "f", 0, recovered=False)
    assert ledger.report().lost == 1
    ledger.arrive("ada", "t", 1, Body(0, 4))
    assert ledger.report().clean


def test_an_old_epochs_offset_taken_for_a_new_ones_is_a_mismatch() -> None:
    ledger = small()
    arrive(ledger, 1, 2, 3)
    ledger.subscribe("ada", "t", "f", 3, recovered=True)
    assert ledger.report().mismatched == 1


def test_a_publication_at_two_positions_is_duplicated() -> None:
    ledger = small()
    arrive(ledger, 1, 2, 3)
    ledger.arrive("ada", "t", 4, Body(0, 3))
    assert ledger.report().duplicated == 1


def test_two_subscribers_with_different_histories_have_different_hashes() -> None:
    ledger = Ledger()
    for who in SUBSCRIBERS:
        ledger.subscribe(who, "t", "e", 0)
    ledger.arrive("ada", "t", 1, Body(0, 1))
    ledger.arrive("ada", "t", 2, Body(0, 2))
    ledger.arrive("bob", "t", 2, Body(0, 2))
    report = ledger.report()
    assert (report.mismatched, report.holes) == (1, 1)


@pytest.mark.parametrize("comes", [True, False])
def test_what_was_not_answered_may_come_or_not(comes: bool) -> None:
    ledger = small()
    arrive(ledger, 1, 2, 3)
    ledger.send("t", Body(0, 4))
    if comes:
        arrive(ledger, 4)
    report = ledger.report()
    assert (report.unaccounted, report.surfaced) == (1, int(comes))
    assert report.clean


def test_who_left_is_owed_nothing() -> None:
    ledger = small()
    ledger.leave("ada", "t")
    assert ledger.owed() == 0
