"""One event, one call of a user's handler, with what FastAPI resolves around it. ▲

FastAPI's own resolver does the work, on a `Request` made from the handshake of the connection, so
that `Depends`, `Annotated`, `Security` and ``dependency_overrides`` behave as users know. What a
``yield`` dependency opens is closed when the event is over: a connection holds nothing meanwhile.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args, solve_dependencies
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pongee.errors import PongeeError, UsageError
from pongee.handlers.resolvable import read_event
from pongee.handlers.signature import handler_name, is_async, is_async_generator, is_generator

__all__ = ["CLIENT", "EventHandler", "InvalidParameters"]

CLIENT = "pongee.client"
"""Where a dependency finds the client: ``request.scope["pongee.client"]``."""


class InvalidParameters(PongeeError):
    """What the client sent does not fit what the handler or a dependency asks for.

    Args:
        errors: FastAPI's list, each a mapping with ``type``, ``loc``, ``msg`` and the ``input``.
    """

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = [dict(error) for error in errors]

    def __str__(self) -> str:
        """Say what is wrong, without what was sent."""
        return "; ".join(
            f"{'.'.join(map(str, error.get('loc', ())))}: {error.get('msg', '')}"
            for error in self.errors
        )

    @property
    def in_path(self) -> bool:
        """Whether a parameter of the channel is among them: there is no such channel."""
        return any(tuple(error.get("loc", ()))[:1] == ("path",) for error in self.errors)


class EventHandler:
    """A function of the user's, ready to be called with one event after the other.

    Args:
        function: ``async def``; or ``def``, which runs in a thread as in FastAPI; or a callable
            object or `functools.partial`; or a dependency, with ``yield`` too. The application's
            ``dependency_overrides`` are asked for it as well.
        where: what it handles, for messages, such as ``chat:{room_id} (on_publish)``.
        given: types of parameters that get a value from us, and its key in `__call__`'s `given`.
        parameters: names of the channel's parameters. The function and its dependencies get them
            as FastAPI gives path parameters: validated.

    Attributes:
        plain: nothing is resolved, opened or closed: there are only values that we give, which
            are `given` ones and the channel's parameters.

    Raises:
        ConfigurationError: a parameter cannot be given; the message names it and the cure.

    Concurrency: one handler may be called for any number of events at once.
    """

    __slots__ = (
        "_async",
        "_dependant",
        "_function",
        "_given",
        "_given_of",
        "_overridable",
        "_override",
        "_path",
        "_yields",
        "parameters",
        "plain",
        "where",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        where: str,
        given: Mapping[Any, str],
        parameters: Sequence[str] = (),
    ) -> None:
        self.where = f"{where} ({handler_name(function)})"
        self.parameters = tuple(parameters)
        self._function = function
        self._given_of = given
        event = read_event(function, self.where, given, self.parameters)
        self._given = list(event.given.items())
        self._dependant = event.dependant
        self._path = event.dependant.path_params
        self._async = is_async(function)
        self._yields = is_generator(function)
        self.plain = not self._yields and not _needs_request(event.dependant)
        self._overridable = isinstance(function, Hashable)
        self._override: EventHandler | None = None

    def __repr__(self) -> str:
        return f"<EventHandler {self.where}>"

    async def __call__(
        self, scope: Mapping[str, Any], parameters: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Any:
        """Call the function for one event.

        Args:
            scope: of the connection's handshake; it is copied, not changed.
            parameters: the channel's, by name.
            given: values by the keys of the constructor's `given`; ``"client"`` is also put where
                dependencies find it.

        Returns:
            What the function returns; of a ``yield`` dependency, what it yields.

        Raises:
            InvalidParameters: a channel's parameter, header, cookie or query parameter is wrong or
                missing.
            UsageError: a ``yield`` dependency swallowed what the function raised.
            Exception: whatever the function or a dependency raises.

        Cancellation: what dependencies opened is closed. A plain ``def`` is waited for, since a
        thread cannot be stopped.
        """
        app = scope.get("app")
        if app is not None and getattr(app, "dependency_overrides", None):
            self = self._replaced(app.dependency_overrides)
        values = {name: given[key] for name, key in self._given}
        if not self.plain:
            return await self._resolve(scope, parameters, given, values)
        if self._path:
            texts = {name: str(value) for name, value in parameters.items()}
            found, errors = request_params_to_args(self._path, texts)
            if errors:
                raise InvalidParameters(errors)
            values.update(found)
        if self._async:
            return await self._function(**values)
        return await self._in_thread(values)

    def _replaced(self, overrides: Mapping[Any, Callable[..., Any]]) -> EventHandler:
        """Return what the application wants called instead, as tests do with a policy."""
        other = overrides.get(self._function) if self._overridable else None
        if other is None or other is self._function:
            return self
        if self._override is None or self._override._function is not other:
            self._override = EventHandler(
                other, where=self.where, given=self._given_of, parameters=self.parameters
            )
        return self._override

    async def _resolve(
        self,
        scope: Mapping[str, Any],
        parameters: Mapping[str, Any],
        given: Mapping[str, Any],
        values: dict[str, Any],
    ) -> Any:
        """Open what the function depends on, call it, and close that again."""
        request = _request(scope, parameters, given.get("client"))
        raised: list[BaseException] = []
        result = None
        try:
            # The same two stacks that FastAPI puts around an endpoint.
            async with AsyncExitStack() as request_stack:
                request.scope["fastapi_inner_astack"] = request_stack
                with _noting(raised):
                    async with AsyncExitStack() as function_stack:
                        request.scope["fastapi_function_astack"] = function_stack
                        with _noting(raised):
                            values.update(await self._solve(request, function_stack))
                            result = await self._invoke(values, function_stack)
            if raised:
                raise _swallowed(raised[0], self.where)
            return result
        finally:
            raised.clear()  # a traceback that holds this frame, which holds the traceback

    async def _solve(self, request: Request, stack: AsyncExitStack) -> dict[str, Any]:
        solved = await solve_dependencies(
            request=request,
            dependant=self._dependant,
            dependency_overrides_provider=request.scope.get("app"),
            async_exit_stack=stack,
            embed_body_fields=False,
        )
        if solved.errors:
            raise InvalidParameters(solved.errors)
        return solved.values

    async def _invoke(self, values: dict[str, Any], stack: AsyncExitStack) -> Any:
        if self._async:
            return await self._function(**values)
        if not self._yields:
            return await self._in_thread(values)
        if is_async_generator(self._function):
            opened = asynccontextmanager(self._function)(**values)
        else:
            opened = contextmanager_in_threadpool(contextmanager(self._function)(**values))
        return await stack.enter_async_context(opened)

    async def _in_thread(self, values: dict[str, Any]) -> Any:
        result = await run_in_threadpool(self._function, **values)
        # Such as a lambda around a coroutine function: a check must not pass for not being run.
        return await result if inspect.isawaitable(result) else result


def _needs_request(dependant: Dependant) -> bool:
    return bool(
        dependant.dependencies
        or dependant.query_params
        or dependant.header_params
        or dependant.cookie_params
        or dependant.request_param_name
        or dependant.http_connection_param_name
        or dependant.security_scopes_param_name
    )


def _request(scope: Mapping[str, Any], parameters: Mapping[str, Any], client: Any) -> Request:
    """Make the request that dependencies see: the handshake, with the channel's parameters."""
    return Request(
        {
            **scope,
            "type": "http",
            "method": "GET",
            "path_params": {name: str(value) for name, value in parameters.items()},
            # One each, as servers do: what an event leaves there is not the next one's.
            "state": dict(scope.get("state") or {}),
            CLIENT: client,
        }
    )


@contextmanager
def _noting(raised: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raised.append(error)
        raise


def _swallowed(error: BaseException, where: str) -> BaseException:
    """Say what comes out where a dependency let nothing out: a refusal must not get lost."""
    if not isinstance(error, Exception):
        return error  # a cancellation
    failure = UsageError(
        f"{where}: a dependency with yield swallowed {type(error).__name__}; let it raise the "
        "exception again"
    )
    failure.__cause__ = error
    return failure
