"""What is owed to a broker: in order for each client, and nobody holds up the others."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pongee import BrokerUnavailable
from pongee.brokers.errands import Errand, Errands, Key
from pongee.limits import ERRANDS_AT_ONCE

pytestmark = pytest.mark.anyio

ANN, BEN = ("room", "ann"), ("room", "ben")


class Desk:
    """Errands that take as long as they are made to."""

    def __init__(self) -> None:
        self.errands = Errands()
        self.log: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def slow(self, name: str) -> Errand:
        """Make an errand that waits for its gate."""
        gate = self.gates[name] = asyncio.Event()

        async def errand() -> None:
            self.log.append(f"+{name}")
            await gate.wait()
            self.log.append(f"-{name}")

        return errand

    def quick(self, name: str) -> Errand:
        """Make an errand that does not wait."""

        async def errand() -> None:
            self.log.append(name)

        return errand

    async def turns(self) -> None:
        """Let everything happen that can."""
        for _ in range(10):
            await asyncio.sleep(0)


async def test_each_key_keeps_its_order_and_waits_for_no_other() -> None:
    """A slow errand holds up its own key only."""
    desk = Desk()
    desk.errands.add(ANN, desk.slow("a"))
    desk.errands.add(ANN, desk.quick("b"))
    desk.errands.add(BEN, desk.quick("c"))
    await desk.turns()
    assert desk.log == ["+a", "c"]
    assert ANN in desk.errands
    assert BEN not in desk.errands
    desk.gates["a"].set()
    await desk.errands.finish()
    assert desk.log == ["+a", "c", "-a", "b"]
    assert ANN not in desk.errands


async def test_caller_does_its_own_errand_if_nothing_is_before_it() -> None:
    """Else it waits; what comes behind waits for it."""
    desk = Desk()
    await desk.errands.run(ANN, desk.quick("a"))
    assert desk.log == ["a"]
    first = asyncio.create_task(desk.errands.run(ANN, desk.slow("b")))
    await desk.turns()
    second = asyncio.create_task(desk.errands.run(ANN, desk.quick("c")))
    await desk.turns()
    desk.errands.add(ANN, desk.quick("d"))
    await desk.turns()
    assert desk.log == ["a", "+b"]
    desk.gates["b"].set()
    await asyncio.gather(first, second)
    await desk.errands.finish()
    assert desk.log == ["a", "+b", "-b", "c", "d"]


@pytest.mark.parametrize("waits", [False, True])
async def test_caller_that_is_cancelled_lets_the_others_go_on(waits: bool) -> None:
    """Whether its errand was under way or waited."""
    desk = Desk()
    if waits:
        desk.errands.add(ANN, desk.slow("first"))
    caller = asyncio.create_task(desk.errands.run(ANN, desk.slow("own")))
    await desk.turns()
    desk.errands.add(ANN, desk.quick("behind"))
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    for gate in desk.gates.values():
        gate.set()
    await desk.errands.finish()
    await desk.turns()
    assert desk.log[-1] == "behind"
    assert ANN not in desk.errands


async def test_many_at_once_are_bounded() -> None:
    """As many as are allowed, and the others behind them."""
    desk = Desk()
    number = ERRANDS_AT_ONCE + 20
    for one in range(number):
        desk.errands.add(("room", f"{one}"), desk.slow(f"{one}"))
    for _ in range(number):
        await desk.turns()
    assert len(desk.log) == ERRANDS_AT_ONCE
    for gate in desk.gates.values():
        gate.set()
    await desk.errands.finish()
    assert sum(entry.startswith("-") for entry in desk.log) == number


async def test_failures_are_told_to_who_waits_and_logged_for_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thousand that fail for one reason are one line; a bug of ours has its traceback."""
    desk = Desk()

    def failing(error: Exception) -> Errand:
        async def errand() -> None:
            raise error

        return errand

    with pytest.raises(BrokerUnavailable):
        await desk.errands.run(ANN, failing(BrokerUnavailable("away")))
    with caplog.at_level(logging.WARNING, "pongee.brokers"):
        keys: list[Key] = [("room", f"{number}") for number in range(1000)]
        for key in keys:
            desk.errands.add(key, failing(BrokerUnavailable("away")))
        await desk.errands.finish()
        assert [record.message for record in caplog.records] == [
            "1000 steps owed to the broker failed: away"
        ]
        caplog.clear()
        desk.errands.add(ANN, failing(ValueError("bug")))
        desk.errands.add(ANN, desk.quick("after"))
        await desk.errands.finish()
        assert "did not do what was owed" in caplog.text
    assert desk.log == ["after"]
