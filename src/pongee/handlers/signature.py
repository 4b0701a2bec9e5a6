"""A user's callable, read: its name, its parameters, and what FastAPI will make of it."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi.dependencies.models import Dependant
from fastapi.params import Depends
from pydantic.fields import FieldInfo

from pongee.errors import ConfigurationError

__all__ = [
    "bare",
    "call_name",
    "handler_name",
    "is_a",
    "is_async",
    "is_async_generator",
    "is_generator",
    "parameters_of",
    "walk",
]


def handler_name(handler: Callable[..., Any]) -> str:
    """Name a handler for people, whatever callable it is."""
    plain = _plain(handler)
    name = getattr(plain, "__qualname__", None) or type(plain).__qualname__
    return f"{plain.__module__}.{name}"


def parameters_of(handler: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """Read the parameters with their annotations evaluated, quoted ones and nested ones too.

    What `functools.partial` has given a value to is not among them.

    Raises:
        ConfigurationError: there are none to read, or they are not named one by one, or an
            annotation cannot be evaluated; the message begins with `name`.
    """
    try:
        hints = typing.get_type_hints(_annotated(handler), include_extras=True)
        parameters = list(inspect.signature(handler).parameters.values())
    except NameError as error:
        raise ConfigurationError(
            f"{name}: an annotation cannot be resolved when the program runs: {error}; import it "
            "outside of `if TYPE_CHECKING:`, or define it at module level"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: its parameters cannot be read: {error}") from error
    bound = _bound(handler)
    parameters = [p for p in parameters if p.name not in bound]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(f"{name}: name each parameter; *{parameter.name} says nothing")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(f"{name}: {parameter.name} cannot be positional-only")
    return [p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters]


def walk(dependant: Dependant) -> Iterator[Dependant]:
    """Go through `dependant` and all that it depends on."""
    yield dependant
    for below in dependant.dependencies:
        yield from walk(below)


def call_name(dependant: Dependant) -> str:
    """Name the callable of a dependency for people."""
    return getattr(dependant.call, "__name__", None) or type(dependant.call).__name__


def is_generator(call: Any) -> bool:
    """Whether `call` is a ``yield`` dependency, asynchronous or not."""
    return any(inspect.isgeneratorfunction(c) for c in _faces(call)) or is_async_generator(call)


def is_async_generator(call: Any) -> bool:
    """Whether `call` is an asynchronous ``yield`` dependency."""
    return any(inspect.isasyncgenfunction(c) for c in _faces(call))


def is_async(call: Any) -> bool:
    """Whether what `call` returns is to be awaited."""
    return any(inspect.iscoroutinefunction(c) for c in _faces(call))


def bare(annotation: Any) -> Any:
    """Return a type without what `Annotated` adds to it."""
    if typing.get_origin(annotation) is Annotated:
        return typing.get_args(annotation)[0]
    return annotation


def is_a(annotation: Any, kind: type) -> bool:
    """Whether an annotation, bare or inside `Annotated`, is `kind` or a class made from it."""
    annotation = bare(annotation)
    return isinstance(annotation, type) and issubclass(annotation, kind)


def _plain(handler: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler


def _faces(call: Any) -> tuple[Any, ...]:
    """What tells how `call` runs: itself, what a decorator wrapped, or its ``__call__``."""
    if call is None:
        return ()
    plain = _plain(call)
    if inspect.isclass(plain):
        return ()
    return (plain, inspect.unwrap(plain), getattr(plain, "__call__", None))  # noqa: B004


def _annotated(handler: Callable[..., Any]) -> Any:
    """Return where the annotations are."""
    plain = _plain(handler)
    if inspect.isclass(plain):
        return plain.__init__
    return plain if inspect.isroutine(plain) else type(plain).__call__


def _bound(handler: Callable[..., Any]) -> set[str]:
    """Name what a `functools.partial` has set, unless that is for FastAPI to resolve."""
    names = set()
    while isinstance(handler, functools.partial):
        for name, value in handler.keywords.items():
            if not isinstance(value, Depends | FieldInfo):
                names.add(name)
        handler = handler.func
    return names
