"""The write deadline: who has been writing for too long without progress. ▲

A write to an ASGI server does not return while the transport's buffer is over its high-water
mark. Arming a timer for each write would cost more than most writes, so a write only enters and
leaves a dictionary here, and one timer looks through those under way while there are any.
"""

from __future__ import annotations

from typing import Protocol

from pongee.clock import Timer, TimerWheel

__all__ = ["StallWatch", "Writer"]

LOOK_EVERY = 0.25
"""Seconds between two looks, or an eighth of the shortest deadline where that is less."""


class Writer(Protocol):
    """What is watched."""

    write_deadline: float

    def on_write_deadline(self) -> None:
        """Learn that the current write made no progress for `write_deadline` seconds."""


class StallWatch:
    """Watches every write of the process."""

    def __init__(self, wheel: TimerWheel) -> None:
        self.wheel = wheel
        self._now = wheel.clock.monotonic
        self._since: dict[Writer, float] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Writes under way."""
        return len(self._since)

    def begin(self, writer: Writer) -> None:
        """Note that `writer` starts one write."""
        self._since[writer] = self._now()
        if self._timer is None:
            self._arm(writer.write_deadline)

    def end(self, writer: Writer) -> None:
        """Note that the write is over."""
        self._since.pop(writer, None)

    def _arm(self, shortest: float) -> None:
        self._timer = self.wheel.call_later(min(LOOK_EVERY, shortest / 8), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._now()
        late = [w for w, since in self._since.items() if now - since >= w.write_deadline]
        for writer in late:
            self.end(writer)
            writer.on_write_deadline()
        if self._since and self._timer is None:
            self._arm(min(writer.write_deadline for writer in self._since))
