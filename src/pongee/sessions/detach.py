"""May the ASGI call of a session end while the session lives?

On our own wire it may: the connection needs no coroutine to be read (`pongee.wire.direct`), and
the call's dozen frames, with the scope they hold, are most of what an idle session would cost. But
it must not be noticed. The call stays where something around the endpoint could notice its end:

* an ASGI middleware of the application that handles WebSockets, inside or around it;
* an application mounted in another one, whose middleware we cannot know;
* a dependency with ``yield`` and ``scope="function"``, which stays open as long as the handler.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

__all__ = ["keeps_nothing", "may_detach"]


def keeps_nothing(app: FastAPI, own: type) -> bool:
    """Whether none of the application's middleware would notice the end of a call.

    Args:
        app: with its middleware declared.
        own: our middleware's class.
    """
    stack: Any = app.middleware_stack
    if stack is None:  # not built before the first request: what was declared is what it will be
        return all(_is_harmless(entry.cls, own) for entry in list[Any](app.user_middleware))
    while not isinstance(stack, APIRouter):
        if not _is_harmless(type(stack), own):
            return False  # declared, or put there by an instrumentation
        stack = getattr(stack, "app", app.router)
    return True


def _is_harmless(cls: Any, own: type) -> bool:
    # What Starlette's and FastAPI's do to a WebSocket, they do before the endpoint is called.
    module = getattr(cls, "__module__", "")
    if cls is own or module.startswith(("starlette.middleware.", "fastapi.")):
        return True
    # A subclass that says what to do with a request only ever sees HTTP.
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseHTTPMiddleware)
        and cls.__call__ is BaseHTTPMiddleware.__call__
    )


def may_detach(scope: Scope, loaded_app: Any) -> bool:
    """Whether nothing around this call would notice its end.

    Args:
        scope: as the endpoint sees it, with its admission dependencies released.
        loaded_app: the application as the server knows it.
    """
    if isinstance(loaded_app, ProxyHeadersMiddleware):
        loaded_app = loaded_app.app
    if loaded_app is not scope.get("app") or "app_root_path" in scope:
        return False  # wrapped, or mounted in another
    stack = scope.get("fastapi_function_astack")
    # Nothing public tells whether a stack has something to close.
    return stack is None or not getattr(stack, "_exit_callbacks", True)
