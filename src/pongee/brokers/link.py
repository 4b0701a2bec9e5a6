"""The link between a process and a broker's server, kept alive.

A connection that looks open may carry nothing: the server hangs, a firewall forgot it, a
subscription was lost. So the link is only up while messages that the process sends itself, over the
same way as everybody else's, come back. When they do not, or the connection breaks, the link is
down at once, and tried again with growing, random waits until one has come back again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from pongee.brokers.base import UP, Health
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import (
    BROKER_FIRST_WAIT,
    BROKER_LONGEST_WAIT,
    BROKER_PROBE,
    BROKER_TIMEOUT,
    REDIS_SECOND_LOOK,
)

__all__ = ["Link", "waits"]

logger = logging.getLogger("pongee.brokers")


def waits(failures: int, chance: float) -> float:
    """Return the seconds to wait after so many failures in a row, 1 or more. ◇

    Args:
        failures: in a row.
        chance: from 0 to 1, drawn anew each time.
    """
    longest = min(BROKER_LONGEST_WAIT, BROKER_FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    return longest * (1 + chance) / 2


class Link:
    """Keeps a link up, and knows whether it is.

    Times are real seconds, whatever clock the application has: the network follows no other.

    Args:
        name: of the server, without secrets; for the log and for errors.
        open: connects, and subscribes to everything wanted; raises what it likes.
        probe: sends a message to this process itself and returns when it has come; cancelled after
            `BROKER_TIMEOUT`.
        close: lets go of whatever `open` got, also when it failed halfway; must not wait long.
        changed: is told of every change, on the loop's thread.
    """

    def __init__(
        self,
        name: str,
        *,
        open: Callable[[], Awaitable[None]],  # noqa: A002 - what it does
        probe: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        changed: Callable[[bool], None],
    ) -> None:
        self.name = name
        self._open = open
        self._probe = probe
        self._close = close
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[str] | None = None
        self._tried = asyncio.Event()
        self._misconfigured: ConfigurationError | None = None
        self._failures = 0  # in a row
        self.health = Health(False, f"{name}: not connected yet")

    async def start(self) -> None:
        """Begin, and wait until the link is up or the first try has failed.

        Raises:
            ConfigurationError: trying again could not help.
        """
        self._task = task = asyncio.get_running_loop().create_task(self._keep())
        await self._tried.wait()
        if self._misconfigured is not None:
            await asyncio.wait([task])  # it is letting go of the connection, and ends then
            await self.stop()
            raise self._misconfigured

    async def stop(self) -> None:
        """End, and let go of the connection. Idempotent; nobody is told of a change."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self.health = Health(False, f"{self.name}: stopped")

    def check(self) -> None:
        """Raise `BrokerUnavailable` if the link is down. ▲"""
        if not self.health.up:
            raise BrokerUnavailable(self.health.reason)

    def broke(self, reason: str) -> None:
        """Learn from the connection that it is of no use any more."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(reason)
            self._down(reason)  # at once: what is asked from now on would be lost

    async def _keep(self) -> None:
        try:
            while True:
                reason = await self._live()
                self._failures += 1
                self._down(reason)
                await self._let_go()
                await asyncio.sleep(waits(self._failures, random.random()))  # noqa: S311 - no secret
        except ConfigurationError as error:
            self._misconfigured = error
            self._down(str(error))
            logger.error("the broker cannot be used: %s", error)
        finally:
            self._tried.set()
            await self._let_go()

    async def _live(self) -> str:
        """Open the link and probe it until it breaks; returns why."""
        self._broken = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(2 * BROKER_TIMEOUT):
                await self._open()
            await self._prove()
            self._up()
            while not self._broken.done():
                await asyncio.wait([self._broken], timeout=BROKER_PROBE)
                if not self._broken.done():
                    await self._prove()
            return self._broken.result()
        except ConfigurationError as error:
            if not self._tried.is_set():
                raise
            return str(error)  # it may be mended; whoever looks at the health sees it
        except BrokerUnavailable as error:
            return str(error)  # names the server itself
        except TimeoutError:
            return f"{self.name}: no answer within {BROKER_TIMEOUT:g} s"
        except Exception as error:
            return f"{self.name}: {_told(error)}"

    async def _prove(self) -> None:
        probe = asyncio.ensure_future(self._probe())
        try:
            await asyncio.wait([probe], timeout=BROKER_TIMEOUT)
            if not probe.done():  # it may be us who did not look: then it has come by now
                await asyncio.wait([probe], timeout=REDIS_SECOND_LOOK)
            if not probe.done():
                raise TimeoutError
            probe.result()
        finally:
            probe.cancel()

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(BROKER_TIMEOUT):
                await self._close()
        except Exception as error:
            logger.debug("closing the link to %s: %r", self.name, error)

    def _up(self) -> None:
        if self._broken is not None and self._broken.done():
            return
        self._failures = 0
        self._set(UP)

    def _down(self, reason: str) -> None:
        if not self._tried.is_set():  # of a link that was up, whoever listens to changes tells
            logger.warning("the broker cannot be reached, trying again: %s", reason)
        self._set(Health(False, reason))

    def _set(self, health: Health) -> None:
        before, self.health = self.health, health
        self._tried.set()
        if before.up != health.up:
            try:
                self._changed(health.up)
            except Exception:
                logger.exception("a sink raised at a change of the link")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
