"""Many deadlines behind one timer."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

import pytest

from pongee.testing import eventually
from pongee.wire.ticker import TICK, Appointment, Ticker, ticker_of

pytestmark = pytest.mark.anyio

SLACK = 0.25
"""Seconds a busy machine may add."""


class CountingLoop:
    """What a ticker uses of an event loop, with time moved by hand and timers to look at."""

    def __init__(self) -> None:
        self.now = 1000.03
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        self.timers.append((self.now + delay, callback))
        return object()

    def advance(self, seconds: float) -> None:
        """Move time on, calling each timer at its own time."""
        target = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= target]:
            timer = min(due, key=lambda candidate: candidate[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = target


def by_hand() -> tuple[CountingLoop, Ticker]:
    loop = CountingLoop()
    return loop, Ticker(loop)  # type: ignore[arg-type]


def test_order() -> None:
    """Earlier appointments come first; those of one tick in the order they were made."""
    loop, ticker = by_hand()
    fired: list[str] = []
    for delay, name in [(0.95, "late"), (0.3, "soon"), (0.301, "soon too"), (0.0, "at once")]:
        ticker.call_later(delay, lambda name=name: fired.append(name))  # type: ignore[misc]

    loop.advance(2)

    assert fired == ["at once", "soon", "soon too", "late"]


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.05, 0.0999])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.55, 20.0])
def test_lateness(delay: float, offset: float) -> None:
    """Never early, and at most two ticks late, wherever in a tick it was made."""
    loop, ticker = by_hand()
    ticker.call_later(60, lambda: None)
    loop.advance(offset)
    fired: list[float] = []
    due = loop.now + delay
    ticker.call_later(delay, lambda: fired.append(loop.now))

    loop.advance(delay + 1)

    assert due <= fired[0] <= due + 2 * TICK + 1e-6


def test_cancel() -> None:
    """A cancelled appointment does not fire, and cancelling again is harmless."""
    loop, ticker = by_hand()
    fired: list[str] = []
    appointment = ticker.call_later(0.1, lambda: fired.append("cancelled"))
    ticker.call_later(0.1, lambda: fired.append("kept"))
    appointment.cancel()
    appointment.cancel()

    loop.advance(1)
    appointment.cancel()

    assert fired == ["kept"]


def test_cancel_inside_a_callback() -> None:
    """A callback may cancel another of the same tick, and itself."""
    loop, ticker = by_hand()
    fired: list[str] = []
    made: list[Appointment] = []

    def first() -> None:
        fired.append("first")
        for appointment in made:
            appointment.cancel()

    made += [ticker.call_later(0.1, first)]
    made += [ticker.call_later(0.1, lambda: fired.append("second"))]
    ticker.call_later(0.1, lambda: fired.append("third"))

    loop.advance(1)

    assert fired == ["first", "third"]


def test_appointment_made_inside_a_callback() -> None:
    """A callback may make the next appointment, and it fires in its turn."""
    loop, ticker = by_hand()
    fired: list[float] = []

    def again() -> None:
        fired.append(loop.now)
        if len(fired) < 3:
            ticker.call_later(0.5, again)

    ticker.call_later(0.5, again)
    loop.advance(5)

    assert len(fired) == 3
    assert all(
        0.5 <= later - sooner <= 0.5 + 2 * TICK for sooner, later in itertools.pairwise(fired)
    )


def test_no_timer_when_empty() -> None:
    """An event loop without appointments is not woken."""
    loop, ticker = by_hand()
    assert not loop.timers

    ticker.call_later(0.1, lambda: None)
    ticker.call_later(0.2, lambda: None)
    assert len(loop.timers) == 1
    loop.advance(1)

    assert not loop.timers


def test_no_timer_when_all_are_cancelled() -> None:
    """Appointments that were cancelled keep no timer until the time they were for."""
    loop, ticker = by_hand()
    for _ in range(3):
        ticker.call_later(20, lambda: None).cancel()

    loop.advance(3 * TICK)

    assert not loop.timers


def test_goes_on_after_idle() -> None:
    """Having been empty for long, a ticker serves the next appointment as punctually."""
    loop, ticker = by_hand()
    ticker.call_later(0.1, lambda: None)
    loop.advance(1000)
    fired: list[float] = []
    made = loop.now
    ticker.call_later(0.5, lambda: fired.append(loop.now - made))

    loop.advance(1)

    assert 0.5 <= fired[0] <= 0.5 + 2 * TICK


def test_raising_callback_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged; those after it fire, and the timer goes on."""
    loop, ticker = by_hand()
    fired: list[str] = []

    def boom() -> None:
        raise ValueError("boom")

    ticker.call_later(0.1, boom)
    ticker.call_later(0.1, lambda: fired.append("same tick"))
    ticker.call_later(0.5, lambda: fired.append("later"))
    with caplog.at_level(logging.ERROR, "pongee.wire"):
        loop.advance(1)

    assert fired == ["same tick", "later"]
    assert "boom" in caplog.text


async def test_one_ticker_for_a_loop() -> None:
    """A loop has one ticker, and it keeps real time."""
    loop = asyncio.get_running_loop()
    ticker = ticker_of(loop)
    fired: list[float] = []
    made = loop.time()
    ticker.call_later(0.15, lambda: fired.append(loop.time() - made))

    await eventually(lambda: fired, within=2)

    assert ticker_of(loop) is ticker
    assert 0.15 <= fired[0] <= 0.15 + 2 * TICK + SLACK


def test_another_loop_has_another_ticker() -> None:
    """Event loops share no ticker, and a closed loop's is let go."""
    found: list[Ticker] = []

    async def look() -> None:
        found.append(ticker_of(asyncio.get_running_loop()))

    asyncio.run(look())
    asyncio.run(look())

    assert found[0] is not found[1]
