"""Where publications wait for a broken link, if they may."""

from __future__ import annotations

import asyncio

from pongee.clock import TimerWheel
from pongee.errors import BrokerUnavailable
from pongee.limits import BROKER_BUFFER_WAIT

__all__ = ["WaitingRoom"]


class WaitingRoom:
    """Publishers that wait for the link, in order, and how many bytes they hold.

    Args:
        size: bytes at most; 0 lets nobody wait.
        wheel: for those who have waited too long.
    """

    def __init__(self, size: int, wheel: TimerWheel) -> None:
        self.size = size
        self._wheel = wheel
        self._held = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order of their coming

    async def enter(self, size: int, reason: str) -> None:
        """Wait until the link is up.

        Args:
            size: bytes of the publication.
            reason: why it has to wait.

        Raises:
            BrokerUnavailable: no room is left, or it took longer than `BROKER_BUFFER_WAIT`. It was
                not published.
        """
        if self._held + size > self.size:
            raise BrokerUnavailable(
                f"{reason}; the buffer of {self.size} bytes is full (PONGEE_BROKER_BUFFER)"
            )
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[up] = None
        self._held += size
        try:
            async with self._wheel.timeout(BROKER_BUFFER_WAIT):
                await up
        except TimeoutError:
            raise BrokerUnavailable(f"{reason}; waited {BROKER_BUFFER_WAIT:g} s") from None
        finally:
            self._held -= size
            self._waiting.pop(up, None)

    def open(self) -> None:
        """Let everybody go on, the first first."""
        for up in self._waiting:
            if not up.done():
                up.set_result(None)

    def close(self, reason: str) -> None:
        """Turn everybody away."""
        for up in self._waiting:
            if not up.done():
                up.set_exception(BrokerUnavailable(reason))
