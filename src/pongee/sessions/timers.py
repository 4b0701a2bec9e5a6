"""A session's appointments: heartbeat, idle timeout, expiry of its token.

All of them are entries of the process's one timer wheel; an idle session has no task for them.
"""

from __future__ import annotations

import math
from typing import Protocol

from pongee.channels.encoding import encode_any, to_json
from pongee.clock import Timer
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.sessions.options import EndpointSpec, Heartbeat
from pongee.sessions.runtime import Runtime

__all__ = ["SessionTimers", "Timed"]


class Timed(Protocol):
    """What the timers need of a session."""

    last_heard: float

    def push(self, data: str | bytes) -> None:
        """Send without waiting."""

    def end(self, cause: CloseCause) -> None:
        """End it."""


class SessionTimers:
    """Arms, fires and cancels one session's appointments."""

    __slots__ = (
        "_expires_at",
        "_expiry",
        "_heartbeat",
        "_idle",
        "_runtime",
        "_session",
        "_settings",
        "_spec",
    )

    def __init__(
        self, session: Timed, spec: EndpointSpec, runtime: Runtime, heartbeat: Heartbeat | None
    ) -> None:
        self._session = session
        self._settings = heartbeat
        self._spec = spec
        self._runtime = runtime
        self._heartbeat: Timer | None = None
        self._idle: Timer | None = None
        self._expiry: Timer | None = None
        self._expires_at = 0.0

    def start(self, expires_at: float | None) -> None:
        """Begin, once the session is open. Times are counted from here."""
        beat = self._settings
        if beat is not None and beat.interval is not None:
            self._heartbeat = self._runtime.wheel.call_later(beat.interval, self._beat)
        if beat is not None and beat.idle_timeout is not None:
            self._idle = self._runtime.wheel.call_later(beat.idle_timeout, self._check_idle)
        self.arm_expiry(expires_at)

    def arm_expiry(self, expires_at: float | None) -> None:
        """Warn `expiry_warning` seconds before `expires_at` (Unix seconds), then end with 4401."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if expires_at is None:
            return
        self._expires_at = expires_at
        if math.isnan(expires_at):
            self._expires_at = 0.0  # no time at all: expired
        warning = self._expires_at - self._runtime.clock.time() - self._spec.expiry_warning
        self._expiry = self._runtime.wheel.call_later(max(0.0, warning), self._warn)

    def cancel(self) -> None:
        """Forget all of them."""
        for timer in (self._heartbeat, self._idle, self._expiry):
            if timer is not None:
                timer.cancel()

    def _beat(self) -> None:
        beat = self._settings
        assert beat is not None  # noqa: S101 - armed only with a heartbeat
        assert beat.interval is not None  # noqa: S101
        self._heartbeat = self._runtime.wheel.call_later(beat.interval, self._beat)
        form = self._spec.codec.format
        self._session.push(encode_any(beat.message(self._runtime.clock.time()), form))

    def _check_idle(self) -> None:
        beat = self._settings
        assert beat is not None  # noqa: S101 - armed only with a heartbeat
        assert beat.idle_timeout is not None  # noqa: S101
        left = self._session.last_heard + beat.idle_timeout - self._runtime.clock.monotonic()
        if left <= 0:
            self._session.end(CloseCause(CauseKind.IDLE, CloseCode.IDLE_TIMEOUT, "idle timeout"))
        else:
            self._idle = self._runtime.wheel.call_later(left, self._check_idle)

    def _warn(self) -> None:
        # The wall clock may have jumped since the timer was set: count what is left anew.
        left = self._expires_at - self._runtime.clock.time()
        if left <= 0:
            self._expire()
            return
        self._expiry = self._runtime.wheel.call_later(left, self._expire)
        if self._spec.codec.format != "bytes":
            self._session.push(to_json({"type": "token_expiring", "expires_in": round(left, 1)}))

    def _expire(self) -> None:
        self._session.end(
            CloseCause(CauseKind.TOKEN_EXPIRED, CloseCode.TOKEN_EXPIRED, "token expired")
        )
