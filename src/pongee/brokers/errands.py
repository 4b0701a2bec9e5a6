"""What is owed to a broker by those who cannot wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable

__all__ = ["Errand", "Errands", "Key"]

logger = logging.getLogger("pongee.brokers")

Errand = Callable[[], Awaitable[None]]
Key = tuple[str, str]
"""A channel and a client, whose steps must keep their order; no client is the channel itself."""


class Errands:
    """What is owed to the broker, in order for each key: a channel, or a client in one.

    Who can wait, and has nothing of the same key before it, does its errand itself; the rest are
    done one after the other.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Key, Errand]] = deque()
        self._keys: Counter[Key] = Counter()  # of those waiting, and of the one under way
        self._by_callers: dict[Key, asyncio.Future[None]] = {}
        self._worker: asyncio.Task[None] | None = None

    def add(self, key: Key, errand: Errand) -> None:
        """Run `errand` soon; one that fails is logged."""
        self._waiting.append((key, errand))
        self._keys[key] += 1
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def run(self, key: Key, errand: Errand) -> None:
        """Run `errand` behind those of the same key, and wait for it; raises what it raises. ▲

        Cancellation: it may or may not be run.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if key not in self._keys and key not in self._by_callers:
            self._by_callers[key] = done
            try:
                await errand()
            finally:
                del self._by_callers[key]
                done.set_result(None)
            return

        async def tell() -> None:
            problem: Exception | None = None
            try:
                await errand()
            except Exception as error:
                problem = error
            if not done.done():
                done.set_exception(problem) if problem else done.set_result(None)

        self.add(key, tell)
        await done

    async def finish(self) -> None:
        """Wait until nothing is left to do."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._waiting:
                key, errand = self._waiting.popleft()
                if key in self._by_callers:
                    await self._by_callers[key]
                try:
                    await errand()
                except Exception:
                    logger.exception("the broker did not do what was owed to it")
                self._keys[key] -= 1
                if not self._keys[key]:
                    del self._keys[key]
        finally:
            self._worker = None
