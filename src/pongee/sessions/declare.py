"""A handler's signature to a FastAPI endpoint, and its mistakes to clear errors.

FastAPI's own resolver does the work: the adapter we hand it has the handler's parameters, with
``session: Session[In, Out]`` replaced by the WebSocket and the auth policy added as a dependency.

Two lifetimes of ``yield`` dependencies follow from FastAPI's own ``scope=``:

* *admission* (``scope="request"``, the default): finished and released before the session goes
  live, so that an idle connection holds no database session;
* *handler* (``scope="function"``): open until the handler ends. A ``yield`` dependency that the
  handler itself names is given this scope, since the handler holds what it yields.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import BackgroundTasks, Response
from fastapi.dependencies.models import Dependant
from fastapi.params import Depends
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.responses import Response as StarletteResponse
from starlette.websockets import WebSocket

from pongee.errors import ConfigurationError
from pongee.handlers.signature import (
    bare,
    call_name,
    handler_name,
    is_a,
    is_generator,
    parameters_of,
    walk,
)
from pongee.sessions.session import Session

__all__ = [
    "HandlerShape",
    "check_cookies",
    "check_lifetimes",
    "handler_name",
    "read_handler",
    "released_early",
]

WEBSOCKET = "pongee_websocket"
IDENTITY = "pongee_identity"


@dataclasses.dataclass(frozen=True)
class HandlerShape:
    """What a handler's signature says.

    Attributes:
        session: name of the parameter that gets the session.
        incoming: the type of messages from the peer.
        outgoing: the type of messages to the peer.
        signature: what FastAPI is to resolve.
        websocket: name of the adapter's WebSocket parameter.
        wants_websocket: whether the handler takes it as well.
    """

    session: str
    incoming: Any
    outgoing: Any
    signature: inspect.Signature
    websocket: str
    wants_websocket: bool


def read_handler(handler: Callable[..., Any], path: str, auth: Any) -> HandlerShape:
    """Read `handler`'s signature.

    Raises:
        ConfigurationError: it cannot be an endpoint; the message shows the cure.
    """
    name = f"{path} ({handler_name(handler)})"
    if not inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            f"{name}: a session's handler lives as long as its connection, so it must be "
            "`async def`; move blocking work into `await run_in_threadpool(...)`"
        )
    parameters = parameters_of(handler, name)
    for parameter in parameters:
        _check_parameter(name, parameter)
    sessions = [p for p in parameters if _session_types(p.annotation) is not None]
    if len(sessions) != 1:
        raise ConfigurationError(
            f"{name}: a handler names its session once, such as `session: Session[str, str]`, "
            f"not {len(sessions)} times"
        )
    types = _session_types(sessions[0].annotation)
    if not types:
        raise ConfigurationError(
            f"{name}: say what travels, such as `Session[str, str]` or `Session[In, Out]` with "
            "Pydantic models, not a bare `Session`"
        )
    own_websocket = next((p.name for p in parameters if is_a(p.annotation, WebSocket)), None)
    return HandlerShape(
        session=sessions[0].name,
        incoming=types[0],
        outgoing=types[1],
        signature=_signature(parameters, sessions[0], own_websocket, auth),
        websocket=own_websocket or WEBSOCKET,
        wants_websocket=own_websocket is not None,
    )


def check_lifetimes(dependant: Dependant, name: str) -> None:
    """Refuse what FastAPI would resolve into something useless on a WebSocket.

    Raises:
        ConfigurationError: ``BackgroundTasks`` or ``Response`` somewhere below, or a dependency
            that outlives one it was made from.
    """
    for node in walk(dependant):
        if node.background_tasks_param_name or node.response_param_name:
            what = "BackgroundTasks" if node.background_tasks_param_name else "Response"
            raise ConfigurationError(f"{name}: {call_name(node)} takes {what}; {_TRAPS[what]}")
        if node.scope == "function" and is_generator(node.call):
            for below in walk(node):
                if below is not node and is_generator(below.call) and below.scope != "function":
                    raise ConfigurationError(
                        f"{name}: {call_name(node)} stays open as long as the handler, but "
                        f"{call_name(below)}, which it is made from, is released before the "
                        f"session goes live; mark it Depends({call_name(below)}, "
                        'scope="function") as well, or open it per message inside the handler'
                    )


def check_cookies(dependant: Dependant, name: str, *, checked: bool) -> None:
    """Refuse a cookie as a token, at any depth, where the origin is not checked.

    Raises:
        ConfigurationError: any site could use the users' cookies.
    """
    for node in walk(dependant):
        for source in getattr(node.call, "sources", ()):
            if getattr(source, "needs_origin_check", False) and not checked:
                raise ConfigurationError(
                    f"{name}: a token from a cookie needs an origin check, or any site could use "
                    "your users' cookies; take origins='*' away or name the allowed origins"
                )


def released_early(dependant: Dependant) -> list[str]:
    """Name the ``yield`` dependencies that are released before the session goes live."""
    return sorted(
        {
            call_name(node)
            for node in walk(dependant)
            if is_generator(node.call) and node.scope != "function"
        }
    )


_TRAPS = {
    "BackgroundTasks": "they never run on a WebSocket: use `session.spawn(job())`",
    "Response": "its cookies and headers are dropped on a WebSocket: take it out",
}


def _check_parameter(name: str, parameter: inspect.Parameter) -> None:
    for what, kinds in (
        ("BackgroundTasks", (BackgroundTasks, StarletteBackgroundTasks)),
        ("Response", (Response, StarletteResponse)),
    ):
        if any(is_a(parameter.annotation, kind) for kind in kinds):
            raise ConfigurationError(f"{name}: {parameter.name} is {what}; {_TRAPS[what]}")


def _session_types(annotation: Any) -> tuple[Any, ...] | None:
    """``(In, Out)`` of a session annotation, ``()`` for a bare one, `None` for anything else."""
    annotation = bare(annotation)
    if annotation is Session:
        return ()
    if typing.get_origin(annotation) is Session:
        return typing.get_args(annotation)
    return None


def _signature(
    parameters: list[inspect.Parameter],
    session: inspect.Parameter,
    own_websocket: str | None,
    auth: Any,
) -> inspect.Signature:
    policy = auth if isinstance(auth, Depends) else Depends(auth)
    keyword = inspect.Parameter.KEYWORD_ONLY
    resolved = [
        # First, so that nothing of the handler's own is opened for a stranger.
        inspect.Parameter(IDENTITY, keyword, annotation=Annotated[Any, policy]),
        *(_held_open(p).replace(kind=keyword) for p in parameters if p is not session),
    ]
    if own_websocket is None:
        resolved.append(inspect.Parameter(WEBSOCKET, keyword, annotation=WebSocket))
    return inspect.Signature(resolved)


def _held_open(parameter: inspect.Parameter) -> inspect.Parameter:
    """Give a ``yield`` dependency that the handler names itself the handler's lifetime."""
    if isinstance(parameter.default, Depends):
        return parameter.replace(default=_as_function_scope(parameter.default))
    if typing.get_origin(parameter.annotation) is Annotated:
        first, *rest = typing.get_args(parameter.annotation)
        held = tuple(_as_function_scope(m) if isinstance(m, Depends) else m for m in rest)
        return parameter.replace(annotation=Annotated[(first, *held)])
    return parameter


def _as_function_scope(depends: Depends) -> Depends:
    if depends.scope is None and is_generator(depends.dependency):
        return dataclasses.replace(depends, scope="function")
    return depends
