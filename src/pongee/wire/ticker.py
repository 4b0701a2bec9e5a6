"""Deadlines of all connections of one event loop behind one timer.

Coarse on purpose: an appointment fires within `TICK` seconds after its time. Setting and
cancelling one is a dictionary operation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

__all__ = ["Appointment", "Ticker", "ticker_of"]

TICK = 0.1
"""Seconds between two looks while there are appointments."""

logger = logging.getLogger("pongee.wire")


class Appointment:
    """One call at a time to come."""

    __slots__ = ("_ticker", "callback", "slot")

    def __init__(self, ticker: Ticker, slot: int, callback: Callable[[], None]) -> None:
        self._ticker = ticker
        self.slot = slot
        self.callback = callback

    def cancel(self) -> None:
        """Cancel. Idempotent, and harmless after it has fired."""
        self._ticker.forget(self)


class Ticker:
    """Appointments of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, dict[Appointment, None]] = {}
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Appointment:
        """Call `callback` between `delay` and `delay` plus two ticks from now."""
        now = self._loop.time()
        if self._timer is None:
            self._next = int(now / TICK) + 1
            self._timer = self._loop.call_later(TICK, self._tick)
        slot = max(int((now + delay) / TICK) + 1, self._next)
        appointment = Appointment(self, slot, callback)
        self._slots.setdefault(slot, {})[appointment] = None
        return appointment

    def forget(self, appointment: Appointment) -> None:
        """Remove it, if it is still there."""
        slot = self._slots.get(appointment.slot)
        if slot is not None:
            slot.pop(appointment, None)
            if not slot:  # or the timer would go on until a time that nobody waits for
                del self._slots[appointment.slot]

    def _tick(self) -> None:
        now = int(self._loop.time() / TICK)
        while self._next <= now:
            due = self._slots.get(self._next)
            while due:
                appointment = next(iter(due))
                del due[appointment]
                try:
                    appointment.callback()
                except Exception:
                    logger.exception("a connection's timer raised")
            self._slots.pop(self._next, None)
            self._next += 1
        self._timer = self._loop.call_later(TICK, self._tick) if self._slots else None


_tickers: dict[int, tuple[asyncio.AbstractEventLoop, Ticker]] = {}


def ticker_of(loop: asyncio.AbstractEventLoop) -> Ticker:
    """Return the ticker of `loop`, made when first asked for."""
    known = _tickers.get(id(loop))
    if known is None or known[0] is not loop:
        for key, (other, _) in list(_tickers.items()):
            if other.is_closed():
                del _tickers[key]
        known = _tickers[id(loop)] = (loop, Ticker(loop))
    return known[1]
