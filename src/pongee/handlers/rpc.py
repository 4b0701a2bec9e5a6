"""RPC methods: a typed request, a typed reply, and FastAPI's dependencies around each call."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pydantic_core
from fastapi.params import Depends
from fastapi.params import Param as FieldParam
from pydantic import TypeAdapter
from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError, UsageError
from pongee.handlers.event import EventHandler
from pongee.handlers.faults import read_json
from pongee.handlers.signature import parameters_of

__all__ = ["Method"]

REQUEST = "request"


class Method:
    """One method. Made by `Pongee.rpc`.

    Args:
        name: as clients call it.
        function: takes the request (the one parameter that is neither the client nor FastAPI's),
            and returns the reply.
        client_type: the annotation that gets the client.

    Raises:
        ConfigurationError: the function's signature cannot be used.
    """

    def __init__(self, name: str, function: Callable[..., Any], client_type: type) -> None:
        self.name = name
        where = f"rpc {name!r}"
        request = _request_of(function, where, client_type)
        given: dict[Any, str] = {client_type: "client"}
        self._request: TypeAdapter[Any] | None = None
        if request is not None:
            given[request] = REQUEST
            self._request = TypeAdapter(request)
        returned = typing.get_type_hints(function, include_extras=True).get("return", Any)
        self._reply: TypeAdapter[Any] = TypeAdapter(returned)
        self._typed = returned is not Any
        self._handler = EventHandler(function, where=where, given=given)

    async def __call__(self, scope: Mapping[str, Any], client: Any, data: bytes) -> bytes:
        """Call the method with a request in JSON; returns the reply in JSON. ▲

        Raises:
            ClientError: 107, the request is not what the method takes.
            UsageError: the reply is not what it says it returns.
            Exception: whatever the method raises.
        """
        given = {"client": client}
        if self._request is not None:
            given[REQUEST] = read_json(self._request, data or b"null")
        reply = await self._handler(scope, {}, given)
        if self._typed:
            try:
                return self._reply.dump_json(self._reply.validate_python(reply))
            except ValueError as error:
                raise UsageError(
                    f"rpc {self.name!r} did not return what it says: {error}"
                ) from None
        return pydantic_core.to_json(reply, inf_nan_mode="null")


def _request_of(function: Callable[..., Any], where: str, client_type: type) -> Any:
    """Find the annotation of the request, `None` if the method takes none."""
    found = [
        parameter
        for parameter in parameters_of(function, where)
        if not _is_others(parameter, client_type)
    ]
    if len(found) > 1:
        names = ", ".join(parameter.name for parameter in found)
        raise ConfigurationError(
            f"{where}: a method takes one request, not {len(found)} ({names}); put them into one "
            "Pydantic model, or mark what FastAPI is to resolve with Depends, Header or Query"
        )
    if not found:
        return None
    annotation = found[0].annotation
    if annotation is inspect.Parameter.empty:
        raise ConfigurationError(
            f"{where}: say what {found[0].name} is, such as `{found[0].name}: Request` with a "
            "Pydantic model"
        )
    return annotation


def _is_others(parameter: inspect.Parameter, client_type: type) -> bool:
    annotation, marks = parameter.annotation, [parameter.default]
    if typing.get_origin(annotation) is Annotated:
        annotation, *more = typing.get_args(annotation)
        marks += more
    if any(isinstance(mark, Depends | FieldParam) for mark in marks):
        return True
    return isinstance(annotation, type) and issubclass(annotation, client_type | HTTPConnection)
