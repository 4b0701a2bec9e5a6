"""`Pongee`: the object users hold."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI
from fastapi.exception_handlers import (
    websocket_request_validation_exception_handler as fastapi_validation_handler,
)
from fastapi.exceptions import WebSocketRequestValidationError
from fastapi.params import Depends
from fastapi.routing import iter_route_contexts
from fastapi.security.base import SecurityBase

from pongee.app_channels import ChannelFace
from pongee.brokers.choose import MakeBroker, choose_broker
from pongee.clock import Clock
from pongee.errors import ConfigurationError, Refused
from pongee.guards.client_ip import TrustedProxies
from pongee.guards.origin import OriginPolicy
from pongee.handlers.signature import handler_name
from pongee.health import make_health
from pongee.limits import Caps, Limits
from pongee.links.base import Overflow
from pongee.logs import install_redaction
from pongee.metrics import make_metrics
from pongee.node import Node
from pongee.registry import ConnectionInfo
from pongee.server_api import make_router
from pongee.sessions.declare import read_handler
from pongee.sessions.detach import keeps_nothing
from pongee.sessions.endpoint import EndpointTable, make_endpoint
from pongee.sessions.handshake import HandshakeMiddleware
from pongee.sessions.inbound import Codec
from pongee.sessions.options import EndpointSpec, Heartbeat, OnInvalid, Refusal
from pongee.sessions.refusals import answer_invalid_handshake, answer_refused
from pongee.sessions.session import Session
from pongee.settings import Settings, load_settings
from pongee.telemetry import Event, Telemetry

__all__ = ["Pongee"]

logger = logging.getLogger("pongee")

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])
OnDrain = TypeVar("OnDrain", bound=Callable[[], Awaitable[None]])
OnConnect = TypeVar("OnConnect", bound=Callable[[Session[Any, Any]], Awaitable[None]])


class Pongee(ChannelFace):
    """The real-time layer of one FastAPI application.

    Args:
        settings: by default those of the environment (``PONGEE_*``).
        limits: bounds of a session, for endpoints that set none of their own.
        caps: bounds of the process; by default the settings' ``max_connections``.
        clock: where time comes from; tests give `pongee.testing.ManualClock`.
        broker: makes a broker of your own, given the clock and a timer wheel; by default the
            settings say which.

    Attributes:
        settings: in force.
        router: where endpoints are added that name no other; `install` includes it.
        health: ``/healthz`` and ``/readyz``, for ``app.include_router(pongee.health)``.
        metrics: ``/metrics`` for Prometheus, likewise; whoever may ask sees how many are connected.

    Raises:
        ConfigurationError: a setting that is not allowed.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        limits: Limits | None = None,
        caps: Caps | None = None,
        clock: Clock | None = None,
        broker: MakeBroker | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self.limits = limits or Limits(max_message_size=self.settings.max_message_size)
        self.router = APIRouter(lifespan=self.lifespan)
        self._origins = OriginPolicy(self.settings.allowed_origins)
        address, prefix = self.settings.broker.get_secret_value(), self.settings.broker_prefix
        self._node = Node(
            caps=caps or Caps(max_connections=self.settings.max_connections),
            trusted=TrustedProxies(
                self.settings.trusted_proxies, header=self.settings.forwarding_header
            ),
            ping_interval=self.settings.ping_interval,
            broker=broker or partial(choose_broker, address, prefix),
            buffer=self.settings.broker_buffer,
            clock=clock,
        )
        self.health = make_health(self._node)
        self.metrics = make_metrics(self._node)
        self._app: FastAPI | None = None
        self._table: EndpointTable | None = None
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    # Declaring

    def endpoint(
        self,
        path: str,
        *,
        auth: Any = None,
        origins: Sequence[str] | OriginPolicy | None = None,
        heartbeat: Heartbeat | Literal["auto"] | None = "auto",
        limits: Limits | None = None,
        overflow: Overflow = "disconnect",
        refuse: Refusal = "http",
        on_invalid: OnInvalid | None = None,
        subprotocols: Sequence[str] = (),
        expiry_warning: float = 30.0,
        dependencies: Sequence[Depends] = (),
        router: APIRouter | None = None,
        name: str | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a WebSocket endpoint with a typed session.

        Args:
            path: as in FastAPI, with path parameters.
            auth: the policy: `public`, a `JWTBearer` or other `TokenPolicy`, or any FastAPI
                dependency that returns an `Identity` or a user's id, and raises `Refused` or
                ``HTTPException``; `None` is a refusal. Required.
            origins: allowed beside the server's own origin; by default the settings'.
            heartbeat: messages that show liveness, and an idle timeout; by default none where the
                server looks after pings and pongs (uvicorn), else one every ``ping_interval``
                of the settings. `None` is none.
            limits: by default the application's.
            overflow: what happens to a client that reads too slowly.
            refuse: how a refusal is delivered: ``"http"`` before accept, or ``"close"``, accept
                and a close frame, which a browser's script can read.
            on_invalid: the answer to a message that cannot be used.
            subprotocols: that the endpoint speaks, in order of preference.
            expiry_warning: seconds before its token expires that a client is warned.
            dependencies: as in FastAPI; released before the session goes live.
            router: where the route is added; by default `Pongee.router`, which `install` includes.
            name: of the route; by default the handler's.

        Raises:
            ConfigurationError: at the declaration, when it cannot work.
        """

        def declare(handler: Handler) -> Handler:
            if auth is None:
                raise ConfigurationError(
                    f"{path} ({handler_name(handler)}) declares no auth "
                    "policy. Say who may connect: auth=JWTBearer(...), auth=<a FastAPI "
                    "dependency>, or auth=public for everybody"
                )
            shape = read_handler(handler, path, auth)
            policy: Any = auth.dependency if isinstance(auth, Depends) else auth
            spec = EndpointSpec(
                path=path,
                name=handler_name(handler),
                handler=handler,
                codec=Codec(shape.incoming, shape.outgoing),
                auth=policy,
                origins=self._origin_policy(origins),
                limits=limits or self.limits,
                heartbeat=heartbeat,
                overflow=overflow,
                refuse=refuse,
                on_invalid=on_invalid,
                subprotocols=tuple(subprotocols),
                expiry_warning=expiry_warning,
            )
            _check_spec(spec)
            (router or self.router).add_api_websocket_route(
                path,
                make_endpoint(spec, shape, lambda: self._node.runtime),
                name=name or handler_name(handler).rpartition(".")[2],
                dependencies=list(dependencies),
            )
            return handler

        return declare

    def on_connect(self, hook: OnConnect) -> OnConnect:
        """Call `hook(session)` when a session has opened, before its handler runs.

        A hook that raises ends the session with 1011. Usable as a decorator.
        """
        self._node.runtime.on_connect.append(_checked_hook(hook))
        return hook

    def on_disconnect(self, hook: OnConnect) -> OnConnect:
        """Call `hook(session)` once for every session whose ``on_connect`` hooks began.

        It runs after the handler has ended, whatever way the session ended; `session.close_cause`
        tells. A hook that raises is logged. Usable as a decorator.
        """
        self._node.runtime.on_disconnect.append(_checked_hook(hook))
        return hook

    def on_drain(self, hook: OnDrain) -> OnDrain:
        """Call `hook()` when the process begins to leave, before the first session is told.

        Hooks run one after the other, and all of them within a few seconds; one that raises is
        logged. Usable as a decorator.
        """
        self._node.on_drain.append(_checked_hook(hook, takes="nothing"))
        return hook

    def listen(self, listener: Callable[[Event], None]) -> Callable[[Event], None]:
        """Call `listener` with every telemetry event. Usable as a decorator."""
        return self.telemetry.listen(listener)

    # Installing

    def install(self, app: FastAPI) -> None:
        """Add routes, middleware, exception handlers and start-up checks to `app`. Call it once.

        Raises:
            ConfigurationError: installed already.
        """
        if self._app is not None:
            raise ConfigurationError("install(app) was called before; a Pongee serves one app")
        middleware: list[Any] = list(app.user_middleware)
        if any(entry.cls is HandshakeMiddleware for entry in middleware):
            raise ConfigurationError("this application has another Pongee; one serves all of it")
        self._app = app
        app.state.pongee = self
        included = {id(context.original_route) for context in iter_route_contexts(app.routes)}
        if not any(id(route) in included for route in self.router.routes):
            app.include_router(self.router)
        if self.settings.api_key is not None:
            app.include_router(make_router(self._node, self.settings.api_key))
        app.add_middleware(HandshakeMiddleware, runtime=self._node.runtime, find=self._find)
        app.add_exception_handler(Refused, answer_refused)
        current: Any = app.exception_handlers.get(WebSocketRequestValidationError)
        if current in (None, fastapi_validation_handler):
            app.add_exception_handler(WebSocketRequestValidationError, answer_invalid_handshake)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Check the declarations and run the layer.

        `install` arranges for it; give it to ``FastAPI(lifespan=…)`` or enter it in your own
        lifespan if you like: entered twice it runs once.

        Raises:
            ConfigurationError: a declaration that cannot work.
        """
        self._running += 1
        try:
            if self._running == 1:
                self._start()
                await self._node.start()
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                await self._node.stop()
                self._table = None

    def _start(self) -> None:
        if self._app is None:
            raise ConfigurationError(
                "pongee.install(app) was not called; call it after the routes are declared"
            )
        install_redaction()
        self._table = EndpointTable(self._app.routes)
        self._table.check()
        self._node.declared.check()
        self._loop = asyncio.get_running_loop()
        self._node.runtime.draining = False
        self._node.runtime.detachable = keeps_nothing(self._app, HandshakeMiddleware)

    def _find(self, scope: Any) -> EndpointSpec | None:
        if self._table is None:
            # Mounted in another application, or in a test without lifespan: there is nobody to
            # tell us of the start, nor of the end.
            logger.info("started without a lifespan: nothing will be drained at the end")
            self._start()
            self._node.start_soon()
        return None if self._table is None else self._table.find(scope)

    # Acting

    async def drain(
        self, window: float | None = None, *, deadline: float | None = None, delay: float = 0.0
    ) -> None:
        """Refuse new handshakes and end every session with 1012.

        Args:
            window: seconds over which the closes are spread; `None` is the settings'.
            deadline: seconds from the first close on after which what is left is cut; `None` waits
                for each session's own close timeout.
            delay: seconds before all that, in which handshakes are refused, ``/readyz`` says 503,
                and sessions go on.
        """
        window = self.settings.drain_window if window is None else window
        await self._node.drain(window, deadline, delay=delay)

    # Looking

    @property
    def telemetry(self) -> Telemetry:
        """Where events go."""
        return self._node.telemetry

    @property
    def draining(self) -> bool:
        """Whether the process is leaving."""
        return self._node.runtime.draining

    def connections(self) -> list[ConnectionInfo]:
        """Who is connected to this process, oldest first."""
        return self._node.registry.snapshot()

    def connections_of(self, user: str) -> list[ConnectionInfo]:
        """Which connections `user` has to this process."""
        return [connection.info() for connection in self._node.registry.of_user(user)]

    def local_channels(self) -> dict[str, int]:
        """Channels with members on this process, and how many."""
        return self._node.board.hub.channels()


def _check_spec(spec: EndpointSpec) -> None:
    for name, value, allowed in (
        ("overflow", spec.overflow, ("disconnect", "drop_oldest", "latest_per_key")),
        ("refuse", spec.refuse, ("http", "close")),
    ):
        if value not in allowed:
            raise ConfigurationError(f"{spec.path}: {name}={value!r}; allowed: {allowed}")
    if isinstance(spec.auth, SecurityBase):
        raise ConfigurationError(
            f"{spec.path}: auth={type(spec.auth).__name__}() only takes a token out of the request "
            "and verifies nothing; use JWTBearer(...), or a dependency that verifies what it took"
        )
    if not callable(spec.auth):
        raise ConfigurationError(
            f"{spec.path}: auth={spec.auth!r} is no policy; allowed: public, JWTBearer(...), a "
            "TokenPolicy, or a FastAPI dependency"
        )
    for source in getattr(spec.auth, "sources", ()):
        if getattr(source, "needs_origin_check", False) and not spec.origins.checks:
            raise ConfigurationError(
                f"{spec.path}: a token from a cookie needs an origin check, or any site could use "
                "your users' cookies; take origins='*' away or name the allowed origins"
            )


def _checked_hook(hook: Any, takes: str = "the session") -> Any:
    if not inspect.iscoroutinefunction(hook):
        raise ConfigurationError(f"{hook!r}: a hook is an `async def` that takes {takes}")
    return hook
