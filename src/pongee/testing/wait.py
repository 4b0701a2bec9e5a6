"""Wait for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")


async def eventually(condition: Callable[[], T], *, within: float = 5.0, what: str = "") -> T:
    """Return what `condition` returns once that is true.

    Args:
        condition: called again and again; must not wait.
        within: seconds.
        what: names the condition in the failure.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}; last: {value!r}")
        await asyncio.sleep(0.005)
