"""The timer wheel: every heartbeat, deadline and expiry behind one wake-up.

Setting and cancelling a timer is a dictionary operation; 10,000 idle connections cost one
event-loop timer. A timer never fires early and at most one tick late. Callbacks run on the event
loop, one after the other; one that raises is logged and hurts no other.

`wheel_of` is the wheel of the wire's own connections, one for each event loop. The rest of the
package makes its own from an injected clock, so that a test can move it by hand.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

__all__ = ["FAR", "Callback", "Handle", "Monotonic", "Timer", "TimerWheel", "wheel_of"]

logger = logging.getLogger("pongee.clock")

Callback = Callable[[], None]

FAR = 10 * 365 * 86400.0
"""Seconds. A timer set for later than that fires then."""


class Handle(Protocol):
    """Something that can be cancelled."""

    def cancel(self) -> None:
        """Cancel; harmless when it has fired already."""


class Monotonic(Protocol):
    """What the wheel needs of a clock."""

    def monotonic(self) -> float:
        """Seconds from an unspecified start; never goes back."""

    def call_at(self, when: float, callback: Callback) -> Handle:
        """Call `callback` when `monotonic` reaches `when`; never before."""


class Timer:
    """One appointment in a `TimerWheel`."""

    __slots__ = ("_callback", "_wheel", "when")

    def __init__(self, wheel: TimerWheel, when: float, callback: Callback) -> None:
        self.when = when
        self._wheel: TimerWheel | None = wheel
        self._callback = callback

    def cancel(self) -> None:
        """Cancel. Idempotent, and harmless after the timer has fired."""
        if self._wheel is not None:
            self._wheel._remove(self)
            self._wheel = None

    def _fire(self) -> None:
        if self._wheel is not None:  # else cancelled by another callback of the same tick
            self._wheel = None
            self._callback()


class TimerWheel:
    """Many timers behind one wake-up.

    Args:
        clock: where time comes from.
        tick: seconds; timers of the same tick fire together.
    """

    def __init__(self, clock: Monotonic, tick: float = 0.05) -> None:
        self.clock = clock
        self.tick = tick
        self._slots: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []
        self._due: dict[Timer, None] = {}
        self._wakeup: Handle | None = None
        self._wakeup_slot = 0

    def __len__(self) -> int:
        """Timers that are set."""
        return sum(len(slot) for slot in self._slots.values())

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call `callback` once, `delay` seconds from now, at most one tick late."""
        # Beyond FAR, and for NaN, the arithmetic of ticks fails; nothing waits that long.
        timer = Timer(self, self.clock.monotonic() + min(FAR, max(0.0, delay)), callback)
        number = math.ceil(timer.when / self.tick)
        slot = self._slots.get(number)
        if slot is not None:
            slot[timer] = None
            return timer
        self._slots[number] = {timer: None}
        heapq.heappush(self._order, number)
        if self._wakeup is None or number < self._wakeup_slot:
            self._arm()
        return timer

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        """Cancel the body after `seconds` and raise `TimeoutError`, by this wheel's clock."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:
            timer = self.call_later(seconds, lambda: scope.reschedule(loop.time()))
            try:
                yield
            finally:
                timer.cancel()

    def close(self) -> None:
        """Forget every timer."""
        self._slots.clear()
        self._order.clear()
        self._due.clear()
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def _remove(self, timer: Timer) -> None:
        number = math.ceil(timer.when / self.tick)
        slot = self._slots.get(number)
        if slot is not None:
            slot.pop(timer, None)
            if not slot:
                del self._slots[number]
                self._compact()

    def _compact(self) -> None:
        """Drop the numbers of slots that are gone, once they are the most of the heap."""
        if len(self._order) > 2 * len(self._slots) + 64:
            self._order = list(self._slots)
            heapq.heapify(self._order)

    def _arm(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        # A slot whose timers were all cancelled is dropped here instead of waking for nothing.
        while self._order and self._order[0] not in self._slots:
            heapq.heappop(self._order)
        if self._order:
            self._wakeup_slot = self._order[0]
            self._wakeup = self.clock.call_at(self._wakeup_slot * self.tick, self._turn)

    def _turn(self) -> None:
        self._wakeup = None
        now = self.clock.monotonic()
        while self._order and self._order[0] * self.tick <= now + 1e-9:
            self._due = self._slots.pop(heapq.heappop(self._order), {})
            while self._due:
                timer = next(iter(self._due))
                del self._due[timer]
                try:
                    timer._fire()
                except Exception:
                    logger.exception("a timer's callback raised")
        if self._wakeup is None:
            self._arm()


class _LoopClock:
    """An event loop's own time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.monotonic = loop.time

    def call_at(self, when: float, callback: Callback) -> Handle:
        # uvloop rounds a timer down to a millisecond: fire after `when`, never before.
        return self._loop.call_later(max(0.0, when - self._loop.time()) + 0.001, callback)


_wheels: dict[int, tuple[asyncio.AbstractEventLoop, TimerWheel]] = {}


def wheel_of(loop: asyncio.AbstractEventLoop) -> TimerWheel:
    """Return the wheel of `loop`, made when first asked for."""
    known = _wheels.get(id(loop))
    if known is None or known[0] is not loop:
        for key, (other, _) in list(_wheels.items()):
            if other.is_closed():
                del _wheels[key]
        known = _wheels[id(loop)] = (loop, TimerWheel(_LoopClock(loop)))
    return known[1]
