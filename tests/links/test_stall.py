"""The write deadline, on a clock moved by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.clock import TimerWheel
from pongee.links.stall import LOOK_EVERY, StallWatch
from pongee.testing import ManualClock

TICK = 0.05


class Writing:
    """A writer that notes when it is called late."""

    def __init__(self, clock: ManualClock, write_deadline: float) -> None:
        self.write_deadline = write_deadline
        self.clock = clock
        self.late: list[float] = []
        self.blocked = True
        self.size: int | None = None
        self.gave_up = False

    def buffered(self) -> int | None:
        return self.size

    def is_blocked(self) -> bool:
        return self.blocked

    def server_gave_up(self) -> bool:
        return self.gave_up

    def on_write_deadline(self) -> None:
        self.late.append(self.clock.monotonic())


def _watch() -> tuple[ManualClock, StallWatch]:
    clock = ManualClock()
    return clock, StallWatch(TimerWheel(clock, TICK))


def test_write_without_progress_is_told_once_after_its_deadline() -> None:
    """Not before, and not again for the same write."""
    clock, watch = _watch()
    writer = Writing(clock, 10)
    started = clock.monotonic()
    watch.begin(writer)

    clock.advance(9.9)
    assert writer.late == []
    clock.advance(60)

    assert len(writer.late) == 1
    assert 10 <= writer.late[0] - started <= 10 + LOOK_EVERY + TICK
    assert len(watch) == 0


def test_write_that_ends_in_time_is_never_told() -> None:
    """However many writes: each starts its own deadline."""
    clock, watch = _watch()
    writer = Writing(clock, 1)
    for _ in range(50):
        watch.begin(writer)
        clock.advance(0.9)
        watch.end(writer)

    clock.advance(5)

    assert writer.late == []


def test_watch_that_has_nothing_to_watch_sets_no_timer() -> None:
    """An idle process is not woken four times a second."""
    clock, watch = _watch()
    writer = Writing(clock, 1)
    assert len(watch.wheel) == 0
    watch.begin(writer)
    assert len(watch.wheel) == 1

    watch.end(writer)
    clock.advance(LOOK_EVERY + 2 * TICK)

    assert len(watch.wheel) == 0


def test_end_without_begin_is_harmless() -> None:
    """A write that was told late ends later on its own."""
    clock, watch = _watch()

    watch.end(Writing(clock, 1))

    assert len(watch) == 0


def test_writer_that_ends_others_when_told_disturbs_nobody() -> None:
    """A session that is cut may take others with it."""
    clock, watch = _watch()
    other = Writing(clock, 1)

    class Cutting(Writing):
        def on_write_deadline(self) -> None:
            super().on_write_deadline()
            watch.end(other)
            watch.begin(other)

    first = Cutting(clock, 1)
    watch.begin(first)
    clock.advance(0.5)
    watch.begin(other)
    clock.advance(0.8)

    assert len(first.late) == 1
    assert other.late == []
    clock.advance(2)
    assert len(other.late) == 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(0.05, 5), st.one_of(st.none(), st.floats(0, 6))),
        min_size=1,
        max_size=12,
    )
)
def test_each_writer_has_its_own_deadline(
    writes: list[tuple[float, float, float | None]],
) -> None:
    """Many writes, begun and ended at any time: late ones are told, others are not."""
    clock, watch = _watch()
    origin = clock.monotonic()
    writers = [Writing(clock, deadline) for _, deadline, _ in writes]
    moments: list[tuple[float, int, int]] = []
    for number, (begin, _, lasts) in enumerate(writes):
        moments.append((begin, 0, number))
        if lasts is not None:
            moments.append((begin + lasts, 1, number))

    for moment, kind, number in sorted(moments):
        clock.advance(max(0.0, origin + moment - clock.monotonic()))
        (watch.end if kind else watch.begin)(writers[number])
    clock.advance(20)

    slack = LOOK_EVERY + 2 * TICK
    for writer, (begin, deadline, lasts) in zip(writers, writes, strict=True):
        if lasts is not None and lasts < deadline:
            assert writer.late == []
        elif lasts is None or lasts > deadline + slack:
            assert len(writer.late) == 1
        for late in writer.late:
            assert deadline - 1e-6 <= late - origin - begin <= deadline + slack


def test_buffer_that_stays_full_after_its_last_write_is_told() -> None:
    """The next write may never come."""
    clock, watch = _watch()
    writer = Writing(clock, 2)
    watch.begin(writer)
    watch.begin(writer)  # the write has returned, and the buffer is over its mark

    clock.advance(2.5)

    assert len(writer.late) == 1


def test_buffer_that_shrinks_is_progress() -> None:
    """A slow but steady reader is not cut; once it stops it is."""
    clock, watch = _watch()
    writer = Writing(clock, 2)
    writer.size = 1000
    watch.begin(writer)
    for _ in range(20):
        clock.advance(1)
        writer.size -= 10
    assert writer.late == []

    clock.advance(3)

    assert len(writer.late) == 1


def test_buffer_under_its_mark_is_watched_no_more() -> None:
    """Drained: forgotten at the next look."""
    clock, watch = _watch()
    writer = Writing(clock, 2)
    watch.begin(writer)
    writer.blocked = False

    clock.advance(5)

    assert writer.late == []
    assert len(watch) == 0


def test_open_link_whose_server_gave_up_is_told_within_a_sweep() -> None:
    """A server that closes politely waits for a buffer that does not drain."""
    clock, watch = _watch()
    writer, other = Writing(clock, 60), Writing(clock, 60)
    watch.open(writer)
    watch.open(other)
    clock.advance(10)
    assert writer.late == []

    writer.gave_up = True
    clock.advance(1.2)

    assert len(writer.late) == 1
    assert other.late == []
    watch.close(other)
    clock.advance(5)
    assert len(watch.wheel) == 0


def test_watch_works_again_after_its_wheel_was_closed() -> None:
    """An application may be started twice."""
    clock, watch = _watch()
    watch.begin(Writing(clock, 2))
    watch.wheel.close()
    watch.reset()

    writer = Writing(clock, 2)
    watch.begin(writer)
    clock.advance(2.5)

    assert len(writer.late) == 1
