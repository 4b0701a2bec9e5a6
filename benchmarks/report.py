"""Samples to one table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from benchmarks.load import Sample

__all__ = ["table"]

HEAD = (
    "| workload | unit | plain FastAPI | Pongee | ratio | middle half | of the lowest | aim "
    "| server's core | client's core |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def table(rows: Sequence[tuple[str, str, float | None, list[Sample], list[Sample]]]) -> str:
    """Write rows of (workload, unit, aim, plain FastAPI's samples, Pongee's samples).

    The ratio is the median over pairs of samples taken one after the other; beside it are its
    quartiles, and the ratio of the lowest samples, which other work disturbed least.
    """
    return "\n".join([HEAD, *(_row(*row) for row in rows)])


def _row(
    workload: str, unit: str, aim: float | None, plain: list[Sample], pongee: list[Sample]
) -> str:
    ratios = [ours.value / theirs.value for theirs, ours in zip(plain, pongee, strict=True)]
    cells = [
        workload,
        unit,
        f"{_median(plain):.1f}",
        f"{_median(pongee):.1f}",
        f"{median(ratios):.2f}",
        _middle_half(ratios),
        f"{_lowest(pongee) / _lowest(plain):.2f}",
        "" if aim is None else f"{aim:.2f}",
        _shares([sample.server for sample in plain], [sample.server for sample in pongee]),
        _shares([sample.client for sample in plain], [sample.client for sample in pongee]),
    ]
    return "| " + " | ".join(cells) + " |"


def _median(samples: list[Sample]) -> float:
    return median(sample.value for sample in samples)


def _lowest(samples: list[Sample]) -> float:
    return min(sample.value for sample in samples)


def _middle_half(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return ""
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return f"{low:.2f} to {high:.2f}"


def _shares(plain: list[float], pongee: list[float]) -> str:
    if not any(plain):
        return ""
    return f"{median(plain):.0%}, {median(pongee):.0%}"
