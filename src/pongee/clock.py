"""Time, injected: now, and wake me at.

`SystemClock` is the real one; `pongee.testing.ManualClock` is its twin that a test moves by hand.
Nothing else in the package asks the event loop or the operating system for the time.

The timer wheel itself is the wire's, which knows nothing of the rest: `pongee.wire.wheel`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from pongee.wire.wheel import Callback, Handle, Timer, TimerWheel

__all__ = ["Clock", "Handle", "SystemClock", "Timer", "TimerWheel"]


class Clock(Protocol):
    """What the rest of the package knows of time."""

    def time(self) -> float:
        """Wall-clock time in Unix seconds; may jump."""

    def monotonic(self) -> float:
        """Seconds from an unspecified start; never goes back."""

    def call_at(self, when: float, callback: Callback) -> Handle:
        """Call `callback` when `monotonic` reaches `when`; never before."""


class SystemClock:
    """The operating system's time and the running event loop's timers."""

    # Asked for every message: no Python function in between.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def call_at(self, when: float, callback: Callback) -> Handle:
        """Call `callback` on the running loop when `monotonic` reaches `when`."""
        # uvloop rounds a timer down to a millisecond: fire after `when`, never before.
        delay = max(0.0, when - self.monotonic()) + 0.001
        return asyncio.get_running_loop().call_later(delay, callback)
