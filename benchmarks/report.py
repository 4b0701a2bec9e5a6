"""Samples to tables.

A ratio is the median over pairs of samples taken one after the other, so it need not equal the
quotient of the two medians beside it. "Lost" on a schedule is what had not been delivered two
seconds after its end; the cost is over what had. Two marks warn: ⚠ the generator used more than
nine tenths of its core and may have been what held a server back; ◑ a server waited for its core
for more than a tenth of the time, since other processes had it, and delays are not its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from benchmarks.measure import Sample
from benchmarks.sides import OTHERS, OURS, PLAIN, SIDES
from benchmarks.workloads import GROWTH, WORKLOADS, Aim, Workload

__all__ = ["Results", "growth_table", "our_table", "their_table"]

GENERATOR_LIMIT = 0.9
WAITING_LIMIT = 0.1
FLAT = 0.2
"""How far the cost of a delivery may be from its level at 1,000 members."""


@dataclass
class Results:
    """What was measured of one workload.

    Attributes:
        samples: by side, then by round and repeat.
        failures: by side, what went wrong.
    """

    workload: Workload
    samples: dict[str, dict[tuple[int, int], Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, when: tuple[int, int], sample: Sample) -> None:
        """Keep a sample."""
        self.samples.setdefault(side, {})[when] = sample

    def of(self, side: str) -> list[Sample]:
        """Its samples."""
        return list(self.samples.get(side, {}).values())

    def ratios(self, side: str) -> list[float]:
        """Ratios to plain FastAPI, pair by pair."""
        plain, other = self.samples.get(PLAIN, {}), self.samples.get(side, {})
        return [other[when].value / plain[when].value for when in plain if when in other]


def our_table(results: Sequence[Results]) -> str:
    """Pongee beside plain FastAPI: a row for each workload and side."""
    head = (
        "work",
        "side",
        "unit",
        "plain FastAPI",
        "here",
        "ratio",
        "middle half",
        "aim",
        "met",
        "lost: plain, here",
        "p99 ms: plain, here",
        "server's core: plain, here",
        "generator's core: plain, here",
    )
    rows = [_our_row(each, side) for each in results for side in OURS if each.of(side)]
    return _table(head, rows) if rows else ""


def _our_row(results: Results, side: str) -> Sequence[str]:
    workload, plain, ours = results.workload, results.of(PLAIN), results.of(side)
    ratios = results.ratios(side)
    aim = workload.aims.get(side)
    return (
        workload.title,
        SIDES[side].title,
        workload.unit,
        _number(plain),
        _number(ours),
        f"{median(ratios):.2f}" if ratios else "",
        _middle_half(ratios),
        _aim(aim),
        "" if aim is None else _met(aim, ours, ratios),
        _both([_lost(some) for some in (plain, ours) if some], "{:.0%}"),
        _both([median(s.p99 for s in some) for some in (plain, ours) if some], "{:.1f}"),
        _both([median(s.server for s in some) for some in (plain, ours) if some], "{:.0%}"),
        _both([median(s.client for s in some) for some in (plain, ours) if some], "{:.0%}")
        + _mark((*plain, *ours)),
    )


def their_table(results: Sequence[Results]) -> str:
    """Everybody who does the same work: ratios to plain FastAPI."""
    measured = [each for each in results if each.of(PLAIN) and any(map(each.of, OTHERS))]
    sides = [side for side in (*OURS, *OTHERS) if any(each.ratios(side) for each in measured)]
    head = ("work", "plain FastAPI", *(SIDES[side].title for side in sides))
    rows = []
    for each in measured:
        cells = [_their_cell(each, side) for side in sides]
        rows.append(
            (each.workload.title, f"{_number(each.of(PLAIN))} {each.workload.unit}", *cells)
        )
    return _table(head, rows) if rows else ""


def _their_cell(results: Results, side: str) -> str:
    if side in results.failures:
        return "failed"
    ratios, samples = results.ratios(side), results.of(side)
    if not ratios:
        return ""
    lost = _lost(samples)
    return f"{median(ratios):.2f}" + (f", {lost:.0%} lost" if lost else "") + _mark(samples)


def growth_table(results: Sequence[Results]) -> str:
    """How the cost of a delivery grows with the room: relative to 1,000 members."""
    by_key = {each.workload.key: each for each in results}
    rows = []
    for in_flight, keys in GROWTH.items():
        for side in (PLAIN, *OURS):
            found = {
                members: by_key[key].of(side) for members, key in keys.items() if key in by_key
            }
            if not all(found.get(members) for members in keys):
                continue
            level = median(sample.value for sample in found[1000])
            shares = [median(s.value for s in samples) / level for samples in found.values()]
            flat = max(abs(share - 1) for share in shares) <= FLAT
            rows.append(
                (
                    f"{in_flight} in flight",
                    SIDES[side].title,
                    *(f"{_number(samples)} µs" for samples in found.values()),
                    ", ".join(f"{share:.2f}" for share in shares),
                    "" if side == PLAIN else "yes" if flat else "no",
                )
            )
    sizes = tuple(f"{members:,} members" for members in next(iter(GROWTH.values())))
    head = ("deliveries", "side", *sizes, "of the level at 1,000", f"within {FLAT:.0%}")
    return _table(head, rows) if rows else ""


def _number(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    value = median(sample.value for sample in samples)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _middle_half(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return ""
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return f"{low:.2f} to {high:.2f}"


def _aim(aim: Aim | None) -> str:
    if aim is None:
        return ""
    most = f"≤ {aim.most:,.0f}" if aim.absolute else f"≤ {aim.most:.2f}"
    return most if aim.p99 is None else f"{most}, none lost, p99 ≤ {aim.p99:.0f} ms"


def _met(aim: Aim, samples: Sequence[Sample], ratios: list[float]) -> str:
    if not aim.absolute and not ratios:
        return ""
    value = median(sample.value for sample in samples) if aim.absolute else median(ratios)
    kept = aim.p99 is None or (
        not any(sample.lost for sample in samples) and median(s.p99 for s in samples) <= aim.p99
    )
    return "yes" if value <= aim.most and kept else "no"


def _both(values: Sequence[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values) if any(values) else ""


def _lost(samples: Sequence[Sample]) -> float:
    """The share of the messages that did not come in time, or not in order."""
    return sum(each.lost for each in samples) / max(1, sum(each.wanted for each in samples))


def _mark(samples: Sequence[Sample]) -> str:
    busy = any(sample.client > GENERATOR_LIMIT for sample in samples)
    waited = any(sample.waited > WAITING_LIMIT for sample in samples)
    return " ⚠" * busy + " ◑" * waited


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def failures(results: Sequence[Results]) -> Mapping[str, str]:
    """What could not be measured, by workload and side."""
    return {
        f"{each.workload.title}, {SIDES[side].title}": why
        for each in results
        for side, why in each.failures.items()
    }


def select(only: Sequence[str]) -> list[Workload]:
    """Workloads whose keys begin with one of `only`; all, if there is none."""
    return [each for each in WORKLOADS if not only or each.key.startswith(tuple(only))]
