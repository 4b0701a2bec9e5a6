"""A user's callable, read: names, parameters, and how it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends
from fastapi.dependencies.utils import get_dependant
from pydantic import BaseModel

from pongee.errors import ConfigurationError
from pongee.handlers.signature import (
    bare,
    call_name,
    handler_name,
    is_a,
    is_async,
    is_async_generator,
    is_generator,
    parameters_of,
    walk,
)

if TYPE_CHECKING:
    from decimal import Decimal


class Message(BaseModel):
    text: str


async def coroutine(a: int, b: Annotated[Message, 1], c: list[Message] | None = None) -> None: ...
def plain(a: int) -> None: ...
async def async_yields(a: int) -> AsyncIterator[int]:
    yield a


def yields(a: int) -> Iterator[int]:
    yield a


class AsyncCall:
    def __init__(self, b: int = 0) -> None: ...
    async def __call__(self, a: int) -> None: ...
    async def method(self, a: int) -> None: ...


class YieldingCall:
    def __call__(self, a: int) -> Iterator[int]:
        yield a


class AsyncYieldingCall:
    async def __call__(self, a: int) -> AsyncIterator[int]:
        yield a


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        (coroutine, "async"),
        (plain, ""),
        (async_yields, "generator async-generator"),
        (yields, "generator"),
        (AsyncCall(), "async"),
        (AsyncCall().method, "async"),
        (AsyncCall, ""),
        (YieldingCall(), "generator"),
        (YieldingCall, ""),
        (AsyncYieldingCall(), "generator async-generator"),
        (AsyncYieldingCall, ""),
        (wrapping(coroutine), "async"),
        (wrapping(plain), ""),
        (wrapping(yields), "generator"),
        (functools.partial(coroutine, 1), "async"),
        (functools.partial(functools.partial(AsyncCall()), a=1), "async"),
        (functools.partial(async_yields, a=1), "generator async-generator"),
        (functools.partial(AsyncCall, 1), ""),
        (None, ""),
    ],
)
def test_how_a_callable_runs_is_seen_through_what_is_around_it(call: Any, kinds: str) -> None:
    """Decorators, partials, ``__call__``; making an object of a class runs nothing of this."""
    found = {
        "async": is_async(call),
        "generator": is_generator(call),
        "async-generator": is_async_generator(call),
    }
    assert " ".join(kind for kind, true in found.items() if true) == kinds


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    return {p.name: p.annotation for p in parameters_of(function, "here")}


@pytest.mark.parametrize(
    ("function", "annotations"),
    [
        (coroutine, {"a": int, "b": Annotated[Message, 1], "c": list[Message] | None}),
        (wrapping(plain), {"a": int}),
        (AsyncCall(), {"a": int}),
        (AsyncCall().method, {"a": int}),
        (AsyncCall, {"b": int}),
        (lambda x: x, {"x": inspect.Parameter.empty}),
        (functools.partial(coroutine, 1), {"b": Annotated[Message, 1], "c": list[Message] | None}),
        (functools.partial(coroutine, a=1, c=None), {"b": Annotated[Message, 1]}),
        (functools.partial(plain, a=Depends(plain)), {"a": int}),
        (functools.partial(AsyncCall(), a=1), {}),
        (functools.partial(functools.partial(plain, a=1)), {}),
    ],
)
def test_parameters_have_evaluated_annotations(
    function: Callable[..., Any], annotations: dict[str, Any]
) -> None:
    """What a partial has set is gone, unless FastAPI is to resolve it."""
    assert _annotations(function) == annotations


async def missing(a: Decimal) -> None: ...
async def rests(*a: int) -> None: ...
async def rests_by_name(**a: int) -> None: ...
async def positional(a: int, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (missing, "here: an annotation cannot be resolved when the program runs: name 'Decimal'"),
        (rests, r"here: name each parameter; \*a says nothing"),
        (rests_by_name, r"here: name each parameter; \*a says nothing"),
        (positional, "here: a cannot be positional-only"),
        (type, "here: its parameters cannot be read"),
    ],
)
def test_parameters_that_cannot_be_filled_by_name_are_refused(
    function: Callable[..., Any], why: str
) -> None:
    """The message begins with what the caller calls it."""
    with pytest.raises(ConfigurationError, match=why):
        parameters_of(function, "here")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (coroutine, "coroutine"),
        (AsyncCall(), "AsyncCall"),
        (AsyncCall, "AsyncCall"),
        (AsyncCall().method, "AsyncCall.method"),
        (functools.partial(functools.partial(plain)), "plain"),
    ],
)
def test_handler_is_named_by_module_and_name(function: Callable[..., Any], name: str) -> None:
    """Whatever callable it is."""
    assert handler_name(function) == f"{__name__}.{name}"


def below() -> int:
    return 1


def middle(x: Annotated[int, Depends(below)]) -> int:
    return x


def top(x: Annotated[int, Depends(middle)], y: Annotated[int, Depends(AsyncCall())]) -> int:
    return x + y


def test_dependencies_are_walked_from_the_top() -> None:
    """Each before what it depends on."""
    dependant = get_dependant(path="/{a}", call=top)
    assert [call_name(node) for node in walk(dependant)] == ["top", "middle", "below", "AsyncCall"]


def test_annotations_are_seen_through_annotated() -> None:
    """Classes only are something."""
    assert bare(Annotated[int, 1]) is int
    assert bare(list[int]) == list[int]
    assert is_a(Annotated[Message, 1], BaseModel)
    assert not is_a(list[Message], BaseModel)
    assert not is_a(None, BaseModel)
