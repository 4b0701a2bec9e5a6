"""Time moved by hand: the twin of `pongee.clock.SystemClock`."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["ManualClock"]


class _Appointment:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that stands still until told otherwise.

    Args:
        time: wall-clock time at the start, in Unix seconds.
    """

    def __init__(self, time: float = 1_700_000_000.0) -> None:
        self._time = time
        self._monotonic = 1000.0
        self._order = itertools.count()
        self._appointments: list[tuple[float, int, _Appointment]] = []

    def time(self) -> float:
        """Wall-clock time in Unix seconds."""
        return self._time

    def monotonic(self) -> float:
        """Seconds from an unspecified start."""
        return self._monotonic

    def call_at(self, when: float, callback: Callable[[], None]) -> _Appointment:
        """Call `callback` when `advance` reaches `when`."""
        appointment = _Appointment(callback)
        heapq.heappush(self._appointments, (when, next(self._order), appointment))
        return appointment

    def advance(self, seconds: float) -> None:
        """Move time on and call what falls due, in order, each at its own time.

        Raises:
            ValueError: monotonic time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back, so advance({seconds}) cannot be")
        target = self._monotonic + seconds
        while self._appointments and self._appointments[0][0] <= target:
            when, _, appointment = heapq.heappop(self._appointments)
            if not appointment.cancelled:
                self._move_to(max(when, self._monotonic))
                appointment.callback()
        self._move_to(target)

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an administrator or NTP does."""
        self._time += seconds

    def _move_to(self, monotonic: float) -> None:
        self._time += monotonic - self._monotonic
        self._monotonic = monotonic
