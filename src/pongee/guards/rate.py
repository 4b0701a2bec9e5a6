"""How often something may happen: a token bucket and a window of events. ◇▲

The session asks a `TokenBucket` before it takes a message (one for messages, one for bytes) and a
`Window` after each invalid one. Both decide from the `now` they are given, in seconds of any
monotonic clock; neither reads a clock, waits, or needs a lock (one event loop calls them).

Promises: in any span of t seconds a bucket gives at most ``burst + rate * t``; a window remembers
at most ``limit + 1`` moments, however many events come; a clock that steps back gives nothing.
"""

from __future__ import annotations

from collections import deque

from pongee.errors import ConfigurationError
from pongee.limits import Limits

__all__ = ["TokenBucket", "Window", "buckets_of"]


class TokenBucket:
    """Gives `rate` units a second on average and at most `burst` at once. It starts full.

    Args:
        rate: units per second, such as messages or bytes.
        burst: units the bucket holds. An amount above it is never given.
        now: the present moment, in seconds.

    Raises:
        ConfigurationError: `rate` or `burst` is not greater than 0.
    """

    __slots__ = ("_at", "_burst", "_rate", "_units")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        _require_positive("TokenBucket", rate=rate, burst=burst)
        self._rate = rate
        self._burst = burst
        self._units = burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` (0 or more) and return `True`; or take nothing and return `False`."""
        units = self._units
        if now > self._at:  # and `_at` never moves back, so no span of time is counted twice
            units += (now - self._at) * self._rate
            if units > self._burst:  # asked for every message: cheaper than min()
                units = self._burst
            self._at = now
        if amount > units:
            self._units = units
            return False
        self._units = units - amount
        return True


def buckets_of(limits: Limits, now: float) -> tuple[TokenBucket | None, TokenBucket | None]:
    """Make the buckets of one session, for messages and for bytes; `None` is no limit."""
    messages, size = limits.messages_per_second, limits.bytes_per_second
    return (
        TokenBucket(messages, limits.message_burst or max(1.0, 2 * messages), now)
        if messages
        else None,
        TokenBucket(size, limits.byte_burst or max(2 * size, limits.max_message_size), now)
        if size
        else None,
    )


class Window:
    """Counts events and tells when there were too many within the last `seconds`.

    Args:
        limit: events allowed within the window.
        seconds: length of the window, which slides.

    Raises:
        ConfigurationError: `limit` or `seconds` is not greater than 0.
    """

    __slots__ = ("_moments", "_seconds")

    def __init__(self, limit: int, seconds: float) -> None:
        _require_positive("Window", limit=limit, seconds=seconds)
        # The event number `limit + 1` from the end decides alone: older ones need no memory.
        self._moments: deque[float] = deque(maxlen=limit + 1)
        self._seconds = seconds

    def hit(self, now: float) -> bool:
        """Note one event; return whether more than `limit` fell within the last `seconds`."""
        moments = self._moments
        moments.append(now)
        return len(moments) == moments.maxlen and now - moments[0] < self._seconds


def _require_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:  # also refuses a NaN
            raise ConfigurationError(f"{owner}({name}={value!r}): must be greater than 0")
