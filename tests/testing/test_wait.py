"""Waiting for a condition, with a failure that says what was waited for."""

from __future__ import annotations

import asyncio

import pytest

from pongee.testing import eventually

pytestmark = pytest.mark.anyio


async def test_value_that_is_true_is_returned_at_once() -> None:
    """The condition's own value, not just `True`."""
    assert await eventually(lambda: [1], within=0) == [1]


async def test_condition_that_becomes_true_is_noticed() -> None:
    """Asked again and again until it is."""
    values: list[int] = []
    asyncio.get_running_loop().call_soon(values.append, 7)

    assert await eventually(lambda: values) == [7]


async def test_failure_names_the_condition_the_time_and_the_last_value() -> None:
    """The message alone says what was missing."""
    with pytest.raises(AssertionError) as caught:
        await eventually(list, within=0, what="the client is told")
    assert str(caught.value) == "not within 0 s: the client is told; last: []"


async def test_failure_without_a_name_shows_the_function() -> None:
    """Better than nothing."""

    def nobody_is_connected() -> bool:
        return False

    with pytest.raises(AssertionError, match=r"nobody_is_connected.*; last: False"):
        await eventually(nobody_is_connected, within=0)


async def test_condition_that_raises_is_not_hidden() -> None:
    """A bug in the test is told as what it is."""
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 / 0)
