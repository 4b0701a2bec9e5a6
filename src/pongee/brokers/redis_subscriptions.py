"""The channels a process has subscribed to at its Redis servers."""

from __future__ import annotations

import asyncio
from typing import Any

from pongee.brokers.redis_shards import Servers, Shard
from pongee.errors import BrokerUnavailable
from pongee.limits import REDIS_CHUNK

__all__ = ["Subscriptions"]


class _Wanted:
    """A channel that is subscribed, or about to be.

    Attributes:
        channel: its name.
        done: ends when the server has confirmed it.
        waiters: who wait for that.
    """

    __slots__ = ("channel", "done", "waiters")

    def __init__(self, channel: str, done: asyncio.Future[Any]) -> None:
        self.channel = channel
        self.done = done
        self.waiters = 0


class Subscriptions:
    """What is subscribed, and to be subscribed again when a connection was lost.

    Args:
        servers: where.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._wanted: dict[bytes, _Wanted] = {}

    def channel(self, subject: bytes) -> str | None:
        """Return whose subject it is, if that channel is wanted. ▲"""
        wanted = self._wanted.get(subject)
        return None if wanted is None else wanted.channel

    def clear(self) -> None:
        """Forget them all; the servers do when the connection ends."""
        self._wanted.clear()

    async def add(self, subject: bytes, channel: str) -> None:
        """Subscribe; returns when the server has confirmed it. Idempotent.

        Cancellation: nothing is left of it, unless others want the same.

        Raises:
            BrokerUnavailable: nothing is left of it.
        """
        wanted = self._wanted.get(subject)
        if wanted is None:
            shard = self._servers.of(subject)
            done = shard.ears.change(shard.s + "SUBSCRIBE", subject)
            wanted = self._wanted[subject] = _Wanted(channel, done)
        if wanted.done.done() and wanted.done.exception() is None:
            return
        wanted.waiters += 1
        try:
            await asyncio.shield(wanted.done)
        except BaseException:
            # Nobody may rely on it; who waits besides us does, or learns of the same failure.
            if wanted.waiters == 1 and self._wanted.get(subject) is wanted:
                self.remove(subject)
            raise
        finally:
            wanted.waiters -= 1

    def remove(self, subject: bytes) -> None:
        """Unsubscribe; what comes from now on is of no channel. Idempotent."""
        if self._wanted.pop(subject, None) is None:
            return
        try:
            shard = self._servers.of(subject)
            shard.ears.change(shard.s + "UNSUBSCRIBE", subject)
        except BrokerUnavailable:
            pass  # it is forgotten with the connection

    async def renew(self) -> None:
        """Subscribe to everything wanted at servers that know of nothing."""
        subjects = list(self._wanted)
        for first in range(0, len(subjects), REDIS_CHUNK):
            by_shard: dict[Shard, list[bytes]] = {}
            for subject in subjects[first : first + REDIS_CHUNK]:
                if subject in self._wanted:  # nobody has left meanwhile
                    by_shard.setdefault(self._servers.of(subject), []).append(subject)
            done = []
            for shard, some in by_shard.items():
                if shard.s:  # one command may not name several slots
                    done += [shard.ears.change("SSUBSCRIBE", one) for one in some]
                else:
                    done.append(shard.ears.change("SUBSCRIBE", *some))
            await asyncio.gather(*done)
