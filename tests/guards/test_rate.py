"""How often something may happen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.errors import ConfigurationError
from pongee.guards.rate import TokenBucket, Window


def test_a_full_bucket_gives_the_burst_and_no_more() -> None:
    """A new bucket is full; a refused take takes nothing."""
    bucket = TokenBucket(rate=1, burst=3, now=0)

    assert [bucket.take(1, 0) for _ in range(5)] == [True, True, True, False, False]


def test_a_bucket_fills_with_time_up_to_the_burst() -> None:
    """`rate` units come back a second, never more than `burst` in all."""
    bucket = TokenBucket(rate=2, burst=4, now=0)
    assert bucket.take(4, 0)

    assert not bucket.take(2, 0.5)
    assert bucket.take(2, 1)
    assert not bucket.take(5, 1000)
    assert bucket.take(4, 1000)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    """No span of time is counted twice."""
    bucket = TokenBucket(rate=1, burst=1, now=100)
    assert bucket.take(1, 100)

    assert not bucket.take(1, 50)
    assert not bucket.take(1, 100)
    assert bucket.take(1, 101)


@given(
    st.floats(0.01, 1000),
    st.floats(0.01, 1000),
    st.lists(st.tuples(st.floats(-1, 10), st.floats(0, 50)), max_size=60),
)
def test_a_bucket_never_gives_more_than_burst_plus_rate_times_time(
    rate: float, burst: float, takes: list[tuple[float, float]]
) -> None:
    """The bound holds for any takes at any moments, even with a clock that steps back."""
    bucket = TokenBucket(rate, burst, now=0)
    now = latest = given_out = 0.0

    for step, amount in takes:
        now += step
        latest = max(latest, now)
        given_out += amount if bucket.take(amount, now) else 0
        assert given_out <= (burst + rate * latest) * (1 + 1e-9)


def test_a_window_tells_when_more_than_the_limit_fell_within_it() -> None:
    """The limit itself is allowed; one more within the window is too many."""
    window = Window(limit=2, seconds=10)

    assert not window.hit(0)
    assert not window.hit(5)
    assert window.hit(9.9)


def test_a_window_slides() -> None:
    """Events `seconds` old or older no longer count."""
    window = Window(limit=2, seconds=10)
    window.hit(0)
    window.hit(5)

    assert not window.hit(10)
    assert window.hit(14.9)
    assert not window.hit(30)


@given(st.integers(1, 5), st.lists(st.floats(0, 5), max_size=40))
def test_a_window_agrees_with_counting_all_events(limit: int, steps: list[float]) -> None:
    """Remembering `limit + 1` moments gives the same answers as remembering all."""
    window = Window(limit, 10)
    moments: list[float] = []

    for step in steps:
        moments.append((moments[-1] if moments else 0) + step)
        recent = [moment for moment in moments if moments[-1] - moment < 10]
        assert window.hit(moments[-1]) == (len(recent) > limit)


@pytest.mark.parametrize("bad", [0, -1, math.nan])
def test_a_bound_that_is_not_positive_stops_the_start(bad: float) -> None:
    """Nothing at all per second, or a window of no length, is a mistake."""
    for make in (
        lambda: TokenBucket(bad, 1, 0),
        lambda: TokenBucket(1, bad, 0),
        lambda: Window(1, bad),
        lambda: Window(bad, 1),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match="greater than 0"):
            make()
