"""What happens to connections of client SDKs as a whole: connect, refresh, disconnect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import JsonValue

from pongee.codes import CloseCause
from pongee.errors import ConfigurationError
from pongee.handlers.event import EventHandler
from pongee.handlers.table import ConnectionSpec

__all__ = ["Connection"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Connection:
    """The connections of client SDKs. Made by `Pongee.connection`.

    Its handlers may name the `Client` and anything FastAPI resolves; dependencies open before the
    event and close after it.
    """

    def __init__(self, spec: ConnectionSpec, client_type: type) -> None:
        self.spec = spec
        self._client_type = client_type

    def on_connect(self, handler: Handler) -> Handler:
        """Call `handler` when a client has proved who it is, before it is told so.

        What it returns, unless `None`, is JSON for the client's ``connected`` event. It may refuse
        with `ClientError`, and subscribe the client with ``await client.subscribe(...)``. A
        parameter annotated ``JsonValue`` gets the data the client sent along.
        """
        return self._register("connect", handler, {JsonValue: "data"})

    def on_refresh(self, handler: Handler) -> Handler:
        """Call `handler` when a client's time has run out.

        It returns until when the client may stay, in Unix seconds; anything else ends the
        connection with 3005, and the SDK comes back with a new token. With this handler clients
        are not asked to refresh their tokens themselves.
        """
        return self._register("refresh", handler, {})

    def on_disconnect(self, handler: Handler) -> Handler:
        """Call `handler` once for every client that was connected, whatever way it ended.

        Also for one that ``on_connect`` let in and that failed, or left, before it was told so.

        A parameter annotated `CloseCause` gets the cause. A handler that raises is logged.
        """
        return self._register("disconnect", handler, {CloseCause: "cause"})

    def _register(self, event: str, handler: Handler, given: Mapping[Any, str]) -> Handler:
        if event in self.spec.handlers:
            raise ConfigurationError(f"connection: on_{event} was registered before")
        self.spec.handlers[event] = EventHandler(
            handler,
            where=f"connection (on_{event})",
            given={self._client_type: "client", **given},
        )
        return handler
