"""Samples to one table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.load import Sample

__all__ = ["table"]

HEAD = (
    "| workload | unit | plain FastAPI | Pongee | ratio | lowest to highest | aim "
    "| server's core | client's core |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def table(rows: Sequence[tuple[str, str, float | None, list[Sample], list[Sample]]]) -> str:
    """Write rows of (workload, unit, aim, plain FastAPI's samples, Pongee's samples).

    The ratio is the median of the ratios of the rounds, each of samples taken one after the other.
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
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        "" if aim is None else f"{aim:.2f}",
        _shares([sample.server for sample in plain], [sample.server for sample in pongee]),
        _shares([sample.client for sample in plain], [sample.client for sample in pongee]),
    ]
    return "| " + " | ".join(cells) + " |"


def _median(samples: list[Sample]) -> float:
    return median(sample.value for sample in samples)


def _shares(plain: list[float], pongee: list[float]) -> str:
    if not any(plain):
        return ""
    return f"{median(plain):.0%}, {median(pongee):.0%}"
