"""What may be under way at a broker at once. ◇"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Budget"]


class Budget:
    """An amount that is shared, in the order of asking.

    Nobody overtakes: who needs much waits no longer for those that need little.

    Args:
        amount: of it.
    """

    def __init__(self, amount: int) -> None:
        self._amount = self._left = amount
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def share(self, wanted: int = 1) -> AsyncIterator[None]:
        """Have `wanted` of it, or all if that is less, during this block.

        Cancellation: nothing is taken, or it is given back.
        """
        wanted = min(wanted, self._amount)
        if self._waiting or wanted > self._left:
            await self._wait(wanted)
        else:
            self._left -= wanted
        try:
            yield
        finally:
            self._give_back(wanted)

    async def _wait(self, wanted: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._give_back(0)  # those behind may need less
            else:
                self._give_back(wanted)
            raise

    def _give_back(self, amount: int) -> None:
        self._left += amount
        waiting = self._waiting
        while waiting and (waiting[0][1].done() or waiting[0][0] <= self._left):
            wanted, turn = waiting.popleft()
            if not turn.done():
                self._left -= wanted
                turn.set_result(None)
