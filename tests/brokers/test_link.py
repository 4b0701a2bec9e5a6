"""A link that is kept up: by probes, with pauses that grow, and nobody is told a lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee import BrokerUnavailable, ConfigurationError
from pongee.brokers.link import Link, waits
from pongee.limits import BROKER_FIRST_WAIT, BROKER_LONGEST_WAIT
from pongee.testing import eventually

pytestmark = pytest.mark.anyio


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_and_are_spread(failures: int, chance: float) -> None:
    """Each is in the upper half of its bound, and no bound is beyond the longest."""
    bound = min(BROKER_LONGEST_WAIT, BROKER_FIRST_WAIT * 2 ** min(failures - 1, 16))
    assert bound / 2 <= waits(failures, chance) <= bound
    assert waits(failures, chance) <= waits(failures + 1, 1.0)


class Server:
    """A connection that does what it is told, and counts."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.refuses: Exception | None = None
        self.silent = False
        self.changes: list[bool] = []
        self.link = Link(
            "server",
            open=self._open,
            probe=self._probe,
            close=self._close,
            changed=self.changes.append,
        )

    async def _open(self) -> None:
        self.opened += 1
        if self.refuses is not None:
            raise self.refuses

    async def _probe(self) -> None:
        if self.silent:
            await asyncio.Event().wait()

    async def _close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def started(server: Server) -> AsyncIterator[Link]:
    """Start the link of `server`, and stop it."""
    await server.link.start()
    try:
        yield server.link
    finally:
        await server.link.stop()


async def test_link_is_up_once_it_was_proved() -> None:
    """And down for good when it is stopped; whatever was opened is let go."""
    server = Server()
    async with started(server) as link:
        assert link.health.up
        link.check()
    assert not link.health.up
    with pytest.raises(BrokerUnavailable, match="stopped"):
        link.check()
    assert (server.opened, server.closed, server.changes) == (1, 1, [True])
    await link.stop()


async def test_start_returns_though_nobody_is_there() -> None:
    """And the link is up as soon as somebody is."""
    server = Server()
    server.refuses = OSError("refused")
    async with started(server) as link:
        assert not link.health.up
        with pytest.raises(BrokerUnavailable, match="refused"):
            link.check()
        server.refuses = None
        await eventually(lambda: link.health.up, what="it is up")
    assert server.changes == [True]
    assert server.opened == server.closed


async def test_connection_that_breaks_is_down_at_once() -> None:
    """Before anything else happens; and it is opened anew."""
    server = Server()
    async with started(server) as link:
        link.broke("server: reset")
        link.broke("server: reset again")
        assert link.health == (False, "server: reset")
        assert server.changes == [True, False]
        await eventually(lambda: link.health.up, what="it is up again")
    assert server.changes == [True, False, True]
    assert server.opened == server.closed == 2


async def test_connection_that_is_silent_is_not_up() -> None:
    """However open it looks."""
    server = Server()
    server.silent = True
    async with started(server) as link:
        assert "no answer" in link.health.reason
        server.silent = False
        await eventually(lambda: link.health.up, within=10, what="it answers")


async def test_what_went_wrong_later_may_be_mended() -> None:
    """A server that was away and came back with another password: tried again and again."""
    server = Server()
    server.refuses = OSError("refused")
    async with started(server) as link:
        server.refuses = ConfigurationError("another password")
        await eventually(lambda: "another password" in link.health.reason, what="it is told")
        server.refuses = None
        await eventually(lambda: link.health.up, what="it is mended")


async def test_what_can_never_work_is_told_at_the_start() -> None:
    """Nobody tries again."""
    server = Server()
    server.refuses = ConfigurationError("another password")
    with pytest.raises(ConfigurationError, match="another password"):
        await server.link.start()
    assert (server.opened, server.closed) == (1, 1)
    assert not server.link.health.up
