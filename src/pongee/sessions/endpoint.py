"""An endpoint on FastAPI's own router, from resolved parameters to a supervised session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount, WebSocketRoute
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from pongee.codes import CloseCode
from pongee.errors import ConfigurationError, InvalidToken, Refused, UsageError
from pongee.guards.policy import Pending
from pongee.guards.verdict import Identity
from pongee.links.asgi import AsgiLink
from pongee.links.direct import DirectLink
from pongee.sessions.declare import (
    IDENTITY,
    HandlerShape,
    check_cookies,
    check_lifetimes,
    released_early,
)
from pongee.sessions.detach import may_detach
from pongee.sessions.handshake import Admission, admission_of
from pongee.sessions.options import EndpointSpec, Heartbeat
from pongee.sessions.runtime import Runtime
from pongee.sessions.session import Session
from pongee.sessions.supervisor import supervise, supervise_detached
from pongee.telemetry import HandshakeRefused
from pongee.wire.direct import EXTENSION

__all__ = ["EndpointTable", "make_endpoint", "spec_of"]

logger = logging.getLogger("pongee")


def make_endpoint(
    spec: EndpointSpec, shape: HandlerShape, runtime: Callable[[], Runtime]
) -> Callable[..., Any]:
    """Make the coroutine function that FastAPI calls with what it has resolved."""

    async def endpoint(**values: Any) -> None:
        websocket: WebSocket = values[shape.websocket]
        if not shape.wants_websocket:
            del values[shape.websocket]
        proof = values.pop(IDENTITY)
        await _serve(spec, shape, runtime(), websocket, proof, values)

    endpoint.__name__ = endpoint.__qualname__ = spec.name.rpartition(".")[2]
    endpoint.__module__ = spec.handler.__module__
    endpoint.__doc__ = spec.handler.__doc__
    endpoint.__signature__ = shape.signature  # type: ignore[attr-defined]
    endpoint.__pongee__ = spec  # type: ignore[attr-defined]
    return endpoint


def spec_of(endpoint: Any) -> EndpointSpec | None:
    """Return the declaration behind a FastAPI endpoint, if it is one of ours."""
    spec = getattr(endpoint, "__pongee__", None)
    return spec if isinstance(spec, EndpointSpec) else None


class EndpointTable:
    """The WebSocket routes of an application, in its own order of matching.

    The guards speak before the application runs, so they have to know which endpoint a handshake
    will reach.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes: list[tuple[BaseRoute, EndpointSpec | None]] = []
        for context in iter_route_contexts(list(routes)):
            route = context._effective_route
            if isinstance(route, WebSocketRoute | Mount):
                self._routes.append((route, spec_of(getattr(route, "endpoint", None))))

    def find(self, scope: Scope) -> EndpointSpec | None:
        """Tell which endpoint of ours `scope` reaches; `None` if another route or none."""
        for route, spec in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return spec
        return None

    def check(self) -> None:
        """Check what only FastAPI's finished routes can tell.

        Raises:
            ConfigurationError: a dependency that cannot work on a WebSocket.
        """
        for route, spec in self._routes:
            if spec is None or not isinstance(route, APIWebSocketRoute):
                continue
            name = f"{route.path} ({spec.name})"
            check_lifetimes(route.dependant, name)
            check_cookies(route.dependant, name, checked=spec.origins.checks)
            for early in released_early(route.dependant):
                logger.info(
                    "%s: %s is released before each session goes live; Depends(%s, "
                    'scope="function") keeps it open as long as the handler',
                    name,
                    early,
                    early,
                )


async def _serve(
    spec: EndpointSpec,
    shape: HandlerShape,
    runtime: Runtime,
    websocket: WebSocket,
    proof: Any,
    values: dict[str, Any],
) -> None:
    admission = admission_of(websocket)
    if admission is None:
        raise ConfigurationError(f"{spec.path}: call pongee.install(app) after the app is made")
    # Done already, unless the route was added after the start.
    admission.admit(spec, websocket.scope)
    assert admission.slot is not None  # noqa: S101 - admit reserves one or raises
    identity = proof if isinstance(proof, Pending) else _identity(spec, proof)
    if isinstance(identity, Identity) and identity.user is not None:
        admission.slot.claim_user(identity.user)
    await _release_admission(websocket)
    try:
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(subprotocol=spec.choose_subprotocol(offered))
        if isinstance(identity, Pending):
            identity = await _first_message(identity, admission, websocket, runtime)
    except (OSError, WebSocketDisconnect):
        return  # the client left meanwhile: there is no session
    except Refused as refused:
        runtime.telemetry.emit(
            HandshakeRefused(spec.path, admission.client.ip, refused.status, refused.reason)
        )
        await _close_quietly(websocket, refused.code, refused.reason)
        return
    except Exception:
        logger.exception("%s: the first message could not be verified", spec.path)
        await _close_quietly(websocket, CloseCode.INTERNAL_ERROR, "internal error")
        return
    route = getattr(websocket.scope.get("route"), "path", spec.path)
    session: Session[Any, Any] = Session(
        websocket,
        spec,
        runtime,
        identity=identity,
        address=admission.client.ip,
        route=route,
        heartbeat=_heartbeat(spec, runtime, pings=admission.traits.pings),
        # Asking costs a system call on Python 3.11: once here, for all that the session starts.
        loop=asyncio.get_running_loop(),
    )
    values[shape.session] = session
    slot = admission.take_slot()
    direct = websocket.scope.get("extensions", {}).get(EXTENSION)
    if direct is None:
        asgi_link = AsgiLink(
            websocket,
            session,
            limits=spec.limits,
            overflow=spec.overflow,
            watch=runtime.watch,
            traits=admission.traits,
        )
        session.attach(asgi_link)
        await supervise(session, asgi_link, spec, runtime, values, slot)
        return
    link = DirectLink(
        direct["connection"],
        session,
        limits=spec.limits,
        overflow=spec.overflow,
        watch=runtime.watch,
    )
    session.attach(link)
    if runtime.detachable and may_detach(websocket.scope, admission.traits.app):
        supervise_detached(session, link, spec, runtime, values, slot)
    else:
        await supervise(session, link, spec, runtime, values, slot)


def _identity(spec: EndpointSpec, proof: Any) -> Identity:
    if isinstance(proof, Identity):
        return proof
    if proof is None:
        raise Refused(401, "Not authenticated")
    if isinstance(proof, str):
        return Identity(user=proof)
    raise UsageError(
        f"{spec.path}: the auth policy returns an Identity or a user's id (str), not "
        f"{type(proof).__name__}"
    )


def _heartbeat(spec: EndpointSpec, runtime: Runtime, *, pings: bool) -> Heartbeat | None:
    """Protocol pings where the server sends them, else messages that a script can see."""
    if spec.heartbeat != "auto":
        return spec.heartbeat
    return None if pings else Heartbeat(interval=runtime.ping_interval)


async def _release_admission(websocket: WebSocket) -> None:
    """Finish the dependencies of the handshake: nothing of it is held while the session lives."""
    stack = websocket.scope.get("fastapi_inner_astack")
    if isinstance(stack, AsyncExitStack):
        await stack.aclose()


async def _first_message(
    pending: Pending, admission: Admission, websocket: WebSocket, runtime: Runtime
) -> Identity:
    try:
        async with runtime.wheel.timeout(pending.source.timeout):
            event = await websocket.receive()
    except TimeoutError:
        raise Refused(401, "authentication timeout") from None
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code") or CloseCode.ABNORMAL)
    token = pending.source.parse(event.get("text") or event.get("bytes") or "")
    try:
        identity = await pending.policy.verify(token or "")
    except InvalidToken:
        raise Refused(pending.policy.status, pending.policy.reason) from None
    if identity.user is not None and admission.slot is not None:
        admission.slot.claim_user(identity.user)
    return identity


async def _close_quietly(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        await websocket.close(code, reason)
    except (OSError, WebSocketDisconnect):
        return
