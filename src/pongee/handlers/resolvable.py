"""What a handler of events asks for, sorted by who can give it; mistakes to clear errors."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import FastAPIError
from fastapi.params import Body, Depends, Param
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from pongee.errors import ConfigurationError
from pongee.handlers.signature import bare, call_name, is_a, parameters_of, walk

__all__ = ["EventShape", "read_event"]


@dataclass(frozen=True)
class EventShape:
    """What a handler's signature says.

    Attributes:
        given: names of parameters that get a value from us, and its key.
        dependant: everything else, for FastAPI.
    """

    given: dict[str, str]
    dependant: Dependant


def read_event(
    function: Callable[..., Any], where: str, given: Mapping[Any, str], names: tuple[str, ...]
) -> EventShape:
    """Read `function`'s signature.

    Args:
        function: the handler.
        where: what messages begin with.
        given: types that get a value from us, and its key.
        names: of the channel's parameters, which come before `given`: a parameter of such a name
            is the channel's whatever its type.

    Raises:
        ConfigurationError: a parameter that nobody can give; the message shows the cure.
    """
    keys: dict[str, str] = {}
    rest: list[inspect.Parameter] = []
    allowed = _allowed(given, names)
    for parameter in parameters_of(function, where):
        key = None if parameter.name in names else _key_of(parameter, given)
        if key is None:
            _check(parameter, where, names, allowed)
            rest.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        elif key in keys.values():
            first = next(name for name, taken in keys.items() if taken == key)
            raise ConfigurationError(
                f"{where}: {first} and {parameter.name} would both be the {key}; take it once"
            )
        else:
            keys[parameter.name] = key
    return EventShape(keys, _dependant(rest, names))


def _key_of(parameter: inspect.Parameter, given: Mapping[Any, str]) -> str | None:
    """Find the key of what we give, unless the parameter says that FastAPI resolves it."""
    annotation = parameter.annotation
    if _marks(parameter):
        return None
    return next(
        (key for kind, key in given.items() if annotation == kind or bare(annotation) == kind), None
    )


def _marks(parameter: inspect.Parameter) -> list[Any]:
    """Return what tells FastAPI how to resolve the parameter."""
    marks = [parameter.default, *getattr(parameter.annotation, "__metadata__", ())]
    return [mark for mark in marks if isinstance(mark, Depends | Param | Body)]


def _check(parameter: inspect.Parameter, where: str, names: tuple[str, ...], allowed: str) -> None:
    """Refuse what FastAPI does not take, or resolves into something useless here."""
    name, annotation = parameter.name, parameter.annotation
    marks = _marks(parameter)
    if annotation is parameter.empty and name not in names and not marks:
        raise ConfigurationError(f"{where}: say what {name} is; allowed: {allowed}")
    body = f"{name} would be the body of a request, and an event has none; allowed: {allowed}"
    if is_a(annotation, UploadFile) or any(isinstance(mark, Body) for mark in marks):
        # FastAPI would ask for python-multipart first.
        raise ConfigurationError(f"{where}: {body}")
    try:
        dependant = _dependant([parameter.replace(kind=parameter.KEYWORD_ONLY)], names)
    except (FastAPIError, AssertionError, RuntimeError) as error:
        raise ConfigurationError(
            f"{where}: FastAPI cannot resolve {name}: {_first_line(error)}; allowed: {allowed}"
        ) from error
    for node in walk(dependant):
        whose = name if node is dependant else f"{name}, through {call_name(node)},"
        trap = _trap(node)
        if trap is not None:
            raise ConfigurationError(f"{where}: {whose} {trap}")
        if node.body_params and node is dependant:
            raise ConfigurationError(f"{where}: {body}")
        if node.body_params:
            inner = node.body_params[0].name
            raise ConfigurationError(
                f"{where}: {whose} asks for {inner}, which would be the body of a request; "
                "an event has none, and values that we give reach the handler alone. Take "
                f'{inner} in the handler; dependencies find request.scope["pongee.client"]'
            )
        for field in node.path_params:
            known = (field.name, field.alias, field.field_info.validation_alias)
            if not any(name in known for name in names) and not is_a(
                field.field_info.annotation, BaseModel
            ):
                raise ConfigurationError(
                    f"{where}: {whose} takes Path() {field.alias}, and the channel has no such "
                    f"parameter; it has {', '.join(names) or 'none'}"
                )


def _trap(node: Dependant) -> str | None:
    if node.websocket_param_name:
        return (
            "takes WebSocket, but not every client has one; take Request or HTTPConnection, which "
            "show the handshake"
        )
    if node.background_tasks_param_name:
        return (
            "takes BackgroundTasks, which nobody runs after an event; await the work, or hand it on"
        )
    if node.response_param_name:
        return "takes Response, whose cookies and headers go nowhere after an event; take it out"
    return None


def _dependant(parameters: list[inspect.Parameter], names: tuple[str, ...]) -> Dependant:
    def asks(**values: Any) -> None: ...

    asks.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return get_dependant(path="".join(f"/{{{name}}}" for name in names), call=asks)


def _allowed(given: Mapping[Any, str], names: tuple[str, ...]) -> str:
    ours = [f"{key}: {_type_name(kind)}" for kind, key in given.items()]
    return ", ".join(
        [*ours, *names, "Request, and what is marked with Depends, Header, Cookie or Query"]
    )


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated or not hasattr(kind, "__name__"):
        return str(kind)
    return str(kind.__name__)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
