"""The write deadline: whose buffer does not drain. ▲

A write to an ASGI server does not return while the transport's buffer is over its high-water
mark. Arming a timer for each write would cost more than most writes, so a write only enters and
leaves a dictionary here, and one timer looks through those under way while there are any. A link
stays in it after its write returned for as long as the buffer is over the mark: the next write may
never come.

A slower look goes over every open link for one whose server has begun to close the transport but
waits for a buffer that does not drain; uvicorn does so when a pong does not come.
"""

from __future__ import annotations

from typing import Protocol

from pongee.clock import Timer, TimerWheel

__all__ = ["StallWatch", "Writer"]

LOOK_EVERY = 0.25
"""Seconds between two looks, or an eighth of the shortest deadline where that is less."""

SWEEP_EVERY = 1.0
"""Seconds between two looks over all open links."""


class Writer(Protocol):
    """What is watched."""

    @property
    def write_deadline(self) -> float:
        """Seconds a write may make no progress."""

    def buffered(self) -> int | None:
        """Bytes in the transport's buffer, `None` where the server does not tell."""

    def is_blocked(self) -> bool:
        """Whether a write is under way, or the buffer is over its high-water mark."""

    def server_gave_up(self) -> bool:
        """Whether the server is closing the transport, and only its buffer keeps it open."""

    def on_write_deadline(self) -> None:
        """Learn that nothing was written for `write_deadline` seconds."""


class StallWatch:
    """Watches every write of the process."""

    def __init__(self, wheel: TimerWheel) -> None:
        self.wheel = wheel
        self._now = wheel.clock.monotonic
        self._since: dict[Writer, float] = {}
        self._sizes: dict[Writer, int] = {}
        self._timer: Timer | None = None
        self._open: dict[Writer, None] = {}
        self._sweeper: Timer | None = None

    def __len__(self) -> int:
        """Links that are watched for progress."""
        return len(self._since)

    def begin(self, writer: Writer) -> None:
        """Watch `writer`; watched already, its time goes on."""
        self._since.setdefault(writer, self._now())
        if self._timer is None:
            self._arm(writer.write_deadline)

    def end(self, writer: Writer) -> None:
        """Watch it no more."""
        self._since.pop(writer, None)
        self._sizes.pop(writer, None)

    def open(self, writer: Writer) -> None:
        """Include `writer` in the slower look until `close`."""
        self._open[writer] = None
        if self._sweeper is None:
            self._sweeper = self.wheel.call_later(SWEEP_EVERY, self._sweep)

    def close(self, writer: Writer) -> None:
        """Forget `writer`."""
        self._open.pop(writer, None)
        self.end(writer)

    def reset(self) -> None:
        """Forget everybody; the wheel has forgotten our timers."""
        self._since.clear()
        self._sizes.clear()
        self._open.clear()
        self._timer = self._sweeper = None

    def _arm(self, shortest: float) -> None:
        self._timer = self.wheel.call_later(min(LOOK_EVERY, shortest / 8), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._now()
        late = []
        for writer, since in list(self._since.items()):
            if not writer.is_blocked():
                self.end(writer)
            elif self._has_progressed(writer):
                self._since[writer] = now
            elif now - since >= writer.write_deadline:
                late.append(writer)
        for writer in late:
            self.end(writer)
            writer.on_write_deadline()
        if self._since and self._timer is None:
            self._arm(min(writer.write_deadline for writer in self._since))

    def _has_progressed(self, writer: Writer) -> bool:
        size = writer.buffered()
        if size is None:
            return False
        before = self._sizes.get(writer, size)
        self._sizes[writer] = size
        return size < before

    def _sweep(self) -> None:
        self._sweeper = None
        for writer in [writer for writer in self._open if writer.server_gave_up()]:
            self.close(writer)
            writer.on_write_deadline()
        if self._open:
            self._sweeper = self.wheel.call_later(SWEEP_EVERY, self._sweep)
