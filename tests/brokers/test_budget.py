"""A budget is never exceeded, never lost, and given out in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.brokers.budget import Budget

AMOUNT = 4


class _Taker:
    """Somebody who asks, holds what it got until told, and may be cancelled at any time."""

    def __init__(self, budget: Budget, number: int, wanted: int, began: list[int]) -> None:
        self.wanted = min(wanted, AMOUNT)
        self.over = asyncio.Event()
        self.has = False
        self.task = asyncio.create_task(self._take(budget, number, wanted, began))

    def end(self) -> bool:
        """Have it give back what it got."""
        self.over.set()
        return True

    async def _take(self, budget: Budget, number: int, wanted: int, began: list[int]) -> None:
        async with budget.share(wanted):
            self.has = True
            began.append(number)
            try:
                await self.over.wait()
            finally:
                self.has = False


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _play(steps: list[tuple[str, int]]) -> None:
    budget, takers, began = Budget(AMOUNT), list[_Taker](), list[int]()
    do: dict[str, Callable[[int], Any]] = {
        "ask": lambda n: takers.append(_Taker(budget, len(takers), 1 + n % 6, began)),
        "end": lambda n: takers and takers[n % len(takers)].end(),
        "cancel": lambda n: takers and takers[n % len(takers)].task.cancel(),
        "turn": lambda n: None,
    }
    for what, number in steps:
        do[what](number)
        if what == "turn":
            await asyncio.sleep(0)
        assert sum(taker.wanted for taker in takers if taker.has) <= AMOUNT
    await _settle()
    waiting = [taker for taker in takers if not taker.task.done() and not taker.has]
    held = sum(taker.wanted for taker in takers if taker.has)
    assert not waiting or held + waiting[0].wanted > AMOUNT  # nobody waits for nothing
    assert began == sorted(began)
    for taker in takers:
        taker.over.set()
    await asyncio.gather(*(taker.task for taker in takers), return_exceptions=True)
    async with asyncio.timeout(1), budget.share(AMOUNT):
        pass  # all of it is there


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "end", "cancel", "turn"]), st.integers(0, 99))
    )
)
def test_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Takers come, end and are cancelled in any order."""
    asyncio.run(_play(steps))


def test_it_belongs_to_no_event_loop() -> None:
    """A broker may be stopped, and started in another one."""
    budget = Budget(1)

    async def two() -> None:
        async def one() -> None:
            async with budget.share():
                await asyncio.sleep(0)

        await asyncio.gather(one(), one(), one())

    asyncio.run(two())
    asyncio.run(two())


def test_an_error_gives_it_back() -> None:
    """Also when what was done with it failed."""

    async def main() -> None:
        budget = Budget(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="x"):
                async with budget.share():
                    raise ValueError("x")

    asyncio.run(main())
