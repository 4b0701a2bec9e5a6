"""What is owed to a broker by those who cannot wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from pongee.errors import BrokerUnavailable
from pongee.limits import ERRANDS_AT_ONCE

__all__ = ["Errand", "Errands", "Key"]

logger = logging.getLogger("pongee.brokers")

Errand = Callable[[], Awaitable[None]]
Key = tuple[str, str]
"""A channel and a client, whose steps must keep their order; no client is the channel itself."""


class Errands:
    """What is owed to the broker, in order for each key: a channel, or a client in one.

    Who can wait, and has nothing of the same key before it, does its errand itself. Of the rest
    some are under way at once, so that an answer that takes its time holds up its own key only.
    """

    def __init__(self) -> None:
        # Of each key what waits; a key is here for as long as one of its errands is under way.
        self._waiting: dict[Key, deque[Errand]] = {}
        self._ready: deque[Key] = deque()  # nothing of theirs is under way
        self._workers: set[asyncio.Task[None]] = set()
        self._failed = 0  # since it was last logged

    def add(self, key: Key, errand: Errand) -> None:
        """Run `errand` soon; one that fails is logged."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(errand)
            return
        self._waiting[key] = deque([errand])
        self._ready.append(key)
        if not self._workers:
            self._work_on()

    async def run(self, key: Key, errand: Errand) -> None:
        """Run `errand` behind those of the same key, and wait for it; raises what it raises. ▲

        Cancellation: it may or may not be run.
        """
        if key not in self._waiting:
            self._waiting[key] = deque()
            try:
                await errand()
            finally:
                self._done(key)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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

    def __contains__(self, key: Key) -> bool:
        """Whether something of `key` is under way or waits."""
        return key in self._waiting

    async def finish(self) -> None:
        """Wait until nothing is left to do."""
        while self._workers:
            await asyncio.wait(self._workers)

    def _done(self, key: Key) -> None:
        """Let the next of `key` have its turn."""
        if self._waiting[key]:
            self._ready.append(key)
            if not self._workers:
                self._work_on()
        else:
            del self._waiting[key]

    def _work_on(self) -> None:
        self._workers.add(asyncio.get_running_loop().create_task(self._work()))

    async def _work(self) -> None:
        try:
            await self._work_off()
        finally:
            # Now, not in a callback: whoever adds an errand must not count on this one.
            self._workers.discard(asyncio.current_task())

    async def _work_off(self) -> None:
        while self._ready:
            key = self._ready.popleft()
            waiting = self._waiting[key]
            while waiting:
                errand = waiting.popleft()
                if self._ready and len(self._workers) < ERRANDS_AT_ONCE:
                    self._work_on()  # it finds nothing to do if this errand need not wait
                await self._try(errand)
            del self._waiting[key]

    async def _try(self, errand: Errand) -> None:
        try:
            await errand()
        except BrokerUnavailable as error:
            self._failed += 1  # many fail for one reason
            if not self._ready:
                logger.warning("%d steps owed to the broker failed: %s", self._failed, error)
                self._failed = 0
        except Exception:
            logger.exception("the broker did not do what was owed to it")
