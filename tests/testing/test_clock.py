"""The clock that a test moves by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.testing import ManualClock


def test_clock_stands_still_until_it_is_moved() -> None:
    """Two questions get the same answer, however long the test takes."""
    clock = ManualClock(time=100.0)
    before = clock.monotonic()

    assert (clock.time(), clock.monotonic()) == (100.0, before)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, before + 2.5)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), max_size=20), st.lists(st.floats(0, 3), max_size=10))
def test_appointments_are_kept_in_order_each_at_its_own_time(
    delays: list[float], steps: list[float]
) -> None:
    """A callback sees the moment it asked for; equal moments keep the order of the calls."""
    clock = ManualClock()
    start = clock.monotonic()
    seen: list[tuple[int, float]] = []
    for number, delay in enumerate(delays):
        clock.call_at(
            start + delay,
            lambda n=number: seen.append((n, clock.monotonic())),  # type: ignore[misc]
        )

    for step in (*steps, 11.0):
        clock.advance(step)

    expected = sorted(range(len(delays)), key=lambda number: start + delays[number])
    assert [number for number, _ in seen] == expected
    assert all(moment == start + delays[number] for number, moment in seen)


def test_appointment_at_the_moment_itself_is_kept() -> None:
    """Reaching the moment is enough."""
    clock = ManualClock()
    seen: list[str] = []
    clock.call_at(clock.monotonic() + 1, lambda: seen.append("now"))

    clock.advance(1)

    assert seen == ["now"]


def test_appointment_in_the_past_is_kept_at_the_next_move_without_going_back() -> None:
    """Time never runs backwards for a late appointment."""
    clock = ManualClock()
    start = clock.monotonic()
    seen: list[float] = []
    clock.call_at(start - 5, lambda: seen.append(clock.monotonic()))

    clock.advance(0)

    assert seen == [start]


def test_callback_may_make_an_appointment_within_the_same_move() -> None:
    """A chain of timers unrolls in one `advance`."""
    clock = ManualClock()
    start = clock.monotonic()
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.monotonic() - start)
        clock.call_at(clock.monotonic() + 1, again)

    clock.call_at(start + 1, again)
    clock.advance(3.5)

    assert seen == [1.0, 2.0, 3.0]


def test_cancelled_appointment_is_not_kept() -> None:
    """Cancel twice is cancel; after the fact it is harmless."""
    clock = ManualClock()
    seen: list[str] = []
    cancelled = clock.call_at(clock.monotonic() + 1, lambda: seen.append("cancelled"))
    kept = clock.call_at(clock.monotonic() + 1, lambda: seen.append("kept"))

    cancelled.cancel()
    cancelled.cancel()
    clock.advance(2)
    kept.cancel()

    assert seen == ["kept"]


def test_jump_moves_the_wall_clock_alone() -> None:
    """As an administrator or NTP does: no appointment comes sooner."""
    clock = ManualClock(time=100.0)
    seen: list[str] = []
    clock.call_at(clock.monotonic() + 1, lambda: seen.append("x"))

    clock.jump(-50)
    clock.advance(0.5)

    assert clock.time() == 50.5
    assert seen == []
