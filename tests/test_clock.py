"""Time: never early, at most one tick late, and a timer that was cancelled stays silent."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.clock import Handle, SystemClock, Timer, TimerWheel
from pongee.testing import ManualClock
from tests.links.harness import all_blocked

TICK = 0.05
CLOSE = 1e-6
"""Seconds that rounding may cost."""


class CountingClock(ManualClock):
    """A clock that knows how many appointments it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: set[object] = set()
        self.made = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:  # type: ignore[override]
        token = object()
        self.pending.add(token)
        self.made += 1

        def fire() -> None:
            self.pending.discard(token)
            callback()

        inner, pending = super().call_at(when, fire), self.pending

        class Cancel:
            def cancel(self) -> None:
                pending.discard(token)
                inner.cancel()

        return Cancel()


def _wheel() -> tuple[CountingClock, TimerWheel]:
    clock = CountingClock()
    return clock, TimerWheel(clock, TICK)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.floats(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.floats(0, 1.5)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_timers_fire_once_in_order_never_early_and_at_most_one_tick_late(
    steps: list[tuple[str, float]],
) -> None:
    """Whatever is set, cancelled and waited for, the wheel does what a plain list would do."""
    clock, wheel = _wheel()
    timers: list[Timer] = []
    due: dict[int, float] = {}
    fired: list[tuple[int, float]] = []

    for kind, value in (*steps, ("advance", 4.0)):
        if kind == "set":
            number = len(timers)
            due[number] = clock.monotonic() + value
            timers.append(
                wheel.call_later(value, lambda n=number: fired.append((n, clock.monotonic())))  # type: ignore[misc]
            )
        elif kind == "cancel" and timers:
            number = int(value) % len(timers)
            timers[number].cancel()
            if number not in dict(fired):
                due.pop(number, None)
        elif kind == "advance":
            before = len(fired)
            clock.advance(value)
            moments = [moment for _, moment in fired[before:]]
            assert moments == sorted(moments)
        left = {n for n in due if n not in dict(fired)}
        assert len(wheel) == len(left)
        assert all(clock.monotonic() <= due[n] + TICK + CLOSE for n in left)
        assert len(clock.pending) <= 1

    assert sorted(n for n, _ in fired) == sorted(due)
    assert all(due[n] - CLOSE <= moment <= due[n] + TICK + CLOSE for n, moment in fired)
    slots = [math.ceil(due[n] / TICK) for n, _ in fired]
    assert slots == sorted(slots)
    assert not clock.pending


def test_timers_of_one_tick_fire_in_the_order_they_were_set() -> None:
    """Within a tick, first come is first served."""
    clock, wheel = _wheel()
    fired: list[int] = []
    for number in range(5):
        wheel.call_later(0.01, lambda n=number: fired.append(n))  # type: ignore[misc]

    clock.advance(2 * TICK)

    assert fired == [0, 1, 2, 3, 4]


def test_cancelled_timer_never_fires_and_may_be_cancelled_again() -> None:
    """Cancel is idempotent, and the timer is forgotten at once."""
    clock, wheel = _wheel()
    fired: list[str] = []
    timer = wheel.call_later(1, lambda: fired.append("late"))

    timer.cancel()
    timer.cancel()

    assert len(wheel) == 0
    clock.advance(5)
    assert fired == []


def test_cancel_after_firing_is_harmless_to_timers_of_the_same_tick() -> None:
    """A timer that has fired holds nothing that a late cancel could break."""
    clock, wheel = _wheel()
    fired: list[str] = []
    first = wheel.call_later(0.01, lambda: fired.append("first"))
    clock.advance(2 * TICK)
    wheel.call_later(0, lambda: fired.append("second"))

    first.cancel()

    clock.advance(2 * TICK)
    assert fired == ["first", "second"]


def test_timer_cancelled_by_a_callback_of_the_same_tick_does_not_fire() -> None:
    """A session that ends in one callback must not be beaten by its other timers."""
    clock, wheel = _wheel()
    fired: list[str] = []
    wheel.call_later(0.01, lambda: other.cancel())
    other = wheel.call_later(0.01, lambda: fired.append("cancelled"))

    clock.advance(1)

    assert fired == []


def test_callback_may_set_timers_that_fire_in_their_turn() -> None:
    """A heartbeat sets the next one from inside its callback."""
    clock, wheel = _wheel()
    beats: list[float] = []

    def beat() -> None:
        beats.append(clock.monotonic())
        wheel.call_later(1.0, beat)

    wheel.call_later(1.0, beat)
    clock.advance(3.5)

    assert len(beats) == 3
    assert len(clock.pending) == 1


def test_callback_may_cancel_a_later_timer() -> None:
    """What one callback cancels in another tick stays silent."""
    clock, wheel = _wheel()
    fired: list[str] = []
    later = wheel.call_later(1.0, lambda: fired.append("later"))
    wheel.call_later(0.5, later.cancel)

    clock.advance(2)

    assert fired == []
    assert not clock.pending


def test_raising_callback_is_logged_and_hurts_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand sessions share the wheel; one bug must not stop the others."""
    clock, wheel = _wheel()
    fired: list[str] = []
    wheel.call_later(0.01, lambda: [][0])
    wheel.call_later(0.01, lambda: fired.append("same tick"))
    wheel.call_later(1.0, lambda: fired.append("later"))

    clock.advance(2)

    assert fired == ["same tick", "later"]
    assert [(r.name, r.levelno) for r in caplog.records] == [("pongee.clock", logging.ERROR)]
    assert caplog.records[0].exc_info is not None


def test_earlier_timer_moves_the_only_appointment_forward() -> None:
    """Ten thousand timers cost the clock one appointment."""
    clock, wheel = _wheel()
    fired: list[float] = []
    for delay in (9.0, 5.0, 1.0, 7.0):
        wheel.call_later(delay, lambda: fired.append(clock.monotonic()))
        assert len(clock.pending) == 1

    clock.advance(1 + TICK)

    assert len(fired) == 1
    assert len(clock.pending) == 1


def test_setting_and_cancelling_within_one_tick_asks_nothing_of_the_clock() -> None:
    """A timer per message is a dictionary operation."""
    clock, wheel = _wheel()
    wheel.call_later(1.0, lambda: None)
    made = clock.made

    for _ in range(100):
        wheel.call_later(1.0, lambda: None).cancel()

    assert clock.made == made


def test_close_forgets_every_timer_and_the_appointment() -> None:
    """After close nothing fires, and cancelling what was set is harmless."""
    clock, wheel = _wheel()
    fired: list[str] = []
    timer = wheel.call_later(1.0, lambda: fired.append("x"))

    wheel.close()
    wheel.close()
    timer.cancel()

    assert (len(wheel), len(clock.pending)) == (0, 0)
    clock.advance(5)
    assert fired == []


def test_close_from_a_callback_silences_the_timers_of_the_same_tick() -> None:
    """Close means every timer, those about to fire included."""
    clock, wheel = _wheel()
    fired: list[str] = []
    wheel.call_later(0.01, wheel.close)
    wheel.call_later(0.01, lambda: fired.append("after close"))

    clock.advance(1)

    assert fired == []


def test_wall_clock_that_jumps_moves_no_timer() -> None:
    """Timers run by the monotonic clock."""
    clock, wheel = _wheel()
    fired: list[str] = []
    wheel.call_later(1.0, lambda: fired.append("x"))

    clock.jump(3600)
    clock.advance(0.5)

    assert fired == []


@pytest.mark.anyio
async def test_timeout_raises_when_the_manual_clock_reaches_it() -> None:
    """The body is cancelled by the wheel's clock, not by the loop's."""
    clock, wheel = _wheel()

    async def body() -> None:
        async with wheel.timeout(10):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await all_blocked()
    clock.advance(9)
    await all_blocked()
    assert not task.done()
    clock.advance(1 + TICK)

    with pytest.raises(TimeoutError):
        await task


@pytest.mark.anyio
async def test_timeout_does_not_fire_after_its_block() -> None:
    """A body that ends in time leaves no timer behind."""
    clock, wheel = _wheel()

    async with wheel.timeout(1):
        pass

    assert len(wheel) == 0
    clock.advance(5)
    await all_blocked()


@pytest.mark.anyio
@pytest.mark.parametrize(("inner", "outer", "caught"), [(1, 5, "inner"), (5, 1, "outer")])
async def test_nested_timeouts_end_the_block_they_belong_to(
    inner: float, outer: float, caught: str
) -> None:
    """The sooner one fires, at its own level."""
    clock, wheel = _wheel()
    seen: list[str] = []

    async def body() -> None:
        try:
            async with wheel.timeout(outer):
                try:
                    async with wheel.timeout(inner):
                        await asyncio.Event().wait()
                except TimeoutError:
                    seen.append("inner")
        except TimeoutError:
            seen.append("outer")

    task = asyncio.create_task(body())
    await all_blocked()
    clock.advance(1 + TICK)
    await task

    assert seen == [caught]
    assert len(wheel) == 0


@pytest.mark.anyio
async def test_cancellation_from_outside_passes_through_a_timeout() -> None:
    """A cancelled body is cancelled, not timed out."""
    _, wheel = _wheel()

    async def body() -> None:
        async with wheel.timeout(10):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await all_blocked()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(wheel) == 0


@pytest.mark.anyio
async def test_exception_of_the_body_passes_through_a_timeout() -> None:
    """The timeout adds nothing to an error of the body, and its timer is gone."""
    _, wheel = _wheel()

    with pytest.raises(KeyError):
        async with wheel.timeout(10):
            raise KeyError

    assert len(wheel) == 0


@pytest.mark.anyio
async def test_system_clock_is_never_early() -> None:
    """The loop's timers round; ours do not call before the moment."""
    clock = SystemClock()
    early: list[float] = []
    done = asyncio.Event()
    moments = [clock.monotonic() + delay for delay in (0, 0.0004, 0.001, 0.0123, 0.02)]

    for when in moments:
        clock.call_at(when, lambda w=when: early.append(w - clock.monotonic()))  # type: ignore[misc]
    clock.call_at(moments[-1] + 0.001, done.set)
    await done.wait()

    assert len(early) == len(moments)
    assert max(early) <= 0


@pytest.mark.anyio
async def test_system_clock_cancels_and_tells_both_times() -> None:
    """A cancelled appointment is not kept; the times are the operating system's."""
    clock = SystemClock()
    fired: list[str] = []
    done = asyncio.Event()

    clock.call_at(clock.monotonic(), lambda: fired.append("x")).cancel()
    clock.call_at(clock.monotonic() + 0.002, done.set)
    await done.wait()

    assert fired == []
    assert abs(clock.time() - time.time()) < 5
    assert abs(clock.monotonic() - time.monotonic()) < 5
