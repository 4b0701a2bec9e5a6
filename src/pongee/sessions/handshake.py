"""From the upgrade request to accept or refusal: the ASGI middleware in front of the application.

It does three things to WebSocket handshakes, and leaves HTTP alone:

* Guards that need nothing of the application (draining, origin, capacity) speak before anything
  of it runs.
* Refusals become what was declared: an HTTP response where the server can send one, or accept and
  a close frame for an endpoint with ``refuse="close"``. A route nobody declared is 404, not the
  403 that servers make of a close before accept.
* What only the outermost layer can see is noted for the link: the server's own ``send``.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pongee.codes import CloseCode, shorten_reason
from pongee.errors import Refused
from pongee.guards.capacity import Slot
from pongee.guards.client_ip import ClientAddress, resolve_client
from pongee.limits import LOGGED_PATH, LOGGED_REASON
from pongee.links.asgi import ServerTraits, traits_of
from pongee.sessions.options import EndpointSpec, Refusal
from pongee.sessions.runtime import Runtime
from pongee.sessions.upgrade import hint_at_upgrade
from pongee.telemetry import HandshakeRefused, one_line

__all__ = ["Admission", "HandshakeMiddleware", "admission_of", "refusal_response"]

logger = logging.getLogger("pongee.guards")

SCOPE_KEY = "pongee"
DENIAL = "websocket.http.response"


class Admission:
    """What is known of one handshake; found in the ASGI scope.

    Attributes:
        spec: the endpoint, once one is matched.
        client: the client's address and scheme as the trusted proxies tell them.
        slot: the place held for it in the process.
        traits: the server's.
        refusal: why it was refused, if so.
    """

    __slots__ = ("_runtime", "client", "refusal", "slot", "spec", "traits")

    def __init__(self, runtime: Runtime, client: ClientAddress, traits: ServerTraits) -> None:
        self._runtime = runtime
        self.client = client
        self.traits = traits
        self.spec: EndpointSpec | None = None
        self.slot: Slot | None = None
        self.refusal: Refused | None = None

    def admit(self, spec: EndpointSpec, scope: Scope) -> None:
        """Ask the guards that come before the application. Idempotent.

        Raises:
            Refused: the handshake may not proceed.
        """
        if self.spec is not None:
            return
        self.spec = spec
        if self._runtime.draining:
            raise Refused(
                503,
                "Server is leaving",
                code=CloseCode.SERVICE_RESTART,
                retry_after=self._runtime.capacity.caps.retry_after,
            )
        headers = Headers(scope=scope)
        origins, host = headers.getlist("origin"), headers.get("host")
        try:
            spec.origins.check(origins, scheme=self.client.scheme, host=host)
        except Refused:
            why = spec.origins.explain(origins, scheme=self.client.scheme, host=host)
            logger.info("%s", one_line(why)[:LOGGED_REASON])
            raise
        self.slot = self._runtime.capacity.reserve(self.client.ip)

    def take_slot(self) -> Slot:
        """Take the place over; whoever does releases it."""
        slot, self.slot = self.slot, None
        assert slot is not None  # noqa: S101 - admit reserves one or raises
        return slot

    def release(self) -> None:
        """Give the place back, unless it was taken over. Idempotent."""
        if self.slot is not None:
            self.slot.release()


def admission_of(connection: HTTPConnection) -> Admission | None:
    """Return what the middleware noted, or `None` where it is not installed."""
    admission = connection.scope.get(SCOPE_KEY)
    return admission if isinstance(admission, Admission) else None


def refusal_response(refused: Refused) -> Response:
    """Write a refusal as an HTTP response with a JSON body."""
    headers = {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1 asks for a challenge
    if refused.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(refused.retry_after))
    return JSONResponse({"detail": refused.detail}, refused.status, headers)


class HandshakeMiddleware:
    """Pure ASGI middleware; `Pongee.install` adds it.

    Args:
        app: the application.
        runtime: the process's shared parts.
        find: tells which of our endpoints a scope would reach, if any.
    """

    def __init__(
        self, app: ASGIApp, *, runtime: Runtime, find: Callable[[Scope], EndpointSpec | None]
    ) -> None:
        self.app = app
        self.runtime = runtime
        self.find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard a WebSocket handshake; pass anything else on."""
        if scope["type"] != "websocket":
            if scope["type"] == "http":
                send = hint_at_upgrade(scope, send, self.find)
            await self.app(scope, receive, send)
            return
        peer = scope.get("client")
        client = resolve_client(
            peer[0] if peer else None, scope["scheme"], scope["headers"], self.runtime.trusted
        )
        admission = Admission(self.runtime, client, traits_of(send))
        scope[SCOPE_KEY] = admission
        reply = _HandshakeReply(scope, send, admission, self.runtime)
        try:
            spec = self.find(scope)
            if spec is not None:
                admission.admit(spec, scope)
        except Refused as refused:
            # The peer has proved nothing yet, so it gets the cheap answer in any mode.
            admission.refusal = refused
            await receive()
            await reply.refuse_by_http(refused)
        else:
            await self.app(scope, receive, reply.send)
        finally:
            admission.release()


class _HandshakeReply:
    """The application's ``send``: as it is after accept, translated before."""

    __slots__ = (
        "_accepted",
        "_admission",
        "_body",
        "_denial",
        "_runtime",
        "_scope",
        "_send",
        "_status",
    )

    def __init__(self, scope: Scope, send: Send, admission: Admission, runtime: Runtime) -> None:
        self._scope = scope
        self._send = send
        self._admission = admission
        self._runtime = runtime
        self._accepted = False
        self._status = 0
        self._body = b""
        extensions = dict(scope.get("extensions") or {})
        self._denial = DENIAL in extensions
        # The application may refuse by HTTP on any server; where the server cannot, we translate.
        scope["extensions"] = {**extensions, DENIAL: {}}

    def send(self, message: Message) -> Awaitable[None]:
        if self._accepted:
            return self._send(message)
        return self._before_accept(message)

    async def refuse_by_http(self, refused: Refused) -> None:
        """Refuse with an HTTP response, whatever the endpoint's mode."""
        self._log(refused.status, refused.reason)
        await refusal_response(refused)(self._scope, _no_receive, self._deny)

    @property
    def _mode(self) -> Refusal:
        spec = self._admission.spec
        return "http" if spec is None else spec.refuse

    async def _before_accept(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
            await self._send(message)
        elif kind == "websocket.close":
            await self._refuse_by_close(message)
        elif self._mode == "close" and kind.startswith(DENIAL):
            await self._collect(message)
        else:
            if kind == DENIAL + ".start":
                self._log(message["status"], self._reason(_phrase(message["status"])))
            await self._deny(message)

    async def _refuse_by_close(self, message: Message) -> None:
        """Handle an application that closes before accept."""
        code, reason = message.get("code", 1000), message.get("reason") or ""
        if not _is_websocket_endpoint(self._scope.get("endpoint")):
            await self.refuse_by_http(Refused(404, "Not Found"))
        elif self._mode == "close":
            await self._accept_and_close(code, reason)
        else:
            await self.refuse_by_http(Refused(403, reason or "Forbidden"))

    async def _collect(self, message: Message) -> None:
        """Turn an HTTP refusal into accept and a close frame once it is complete."""
        if message["type"] == DENIAL + ".start":
            self._status = message["status"]
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            refusal = self._admission.refusal
            code = refusal.code if refusal is not None else _code_of(self._status)
            await self._accept_and_close(code, self._reason(_detail_of(self._body)))

    async def _accept_and_close(self, code: int, reason: str) -> None:
        self._accepted = True
        self._log(self._status or 403, reason)
        spec, offered = self._admission.spec, self._scope.get("subprotocols", [])
        chosen = None if spec is None else spec.choose_subprotocol(offered)
        await self._send({"type": "websocket.accept", "subprotocol": chosen})
        await self._send(
            {"type": "websocket.close", "code": int(code), "reason": shorten_reason(reason)}
        )

    async def _deny(self, message: Message) -> None:
        if self._denial:
            await self._send(message)
        elif message["type"] == DENIAL + ".start":
            # All such a server can say is 403 (ASGI: a close before accept).
            await self._send({"type": "websocket.close", "code": 1008, "reason": ""})

    def _reason(self, default: str) -> str:
        refusal = self._admission.refusal
        return default if refusal is None else refusal.reason

    def _log(self, status: int, reason: str) -> None:
        self._runtime.telemetry.emit(
            HandshakeRefused(
                route=quote(self._scope["path"])[:LOGGED_PATH],
                address=self._admission.client.ip,
                status=status,
                reason=reason,
            )
        )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _code_of(status: int) -> CloseCode:
    if status in (429, 503):
        return CloseCode.TRY_AGAIN_LATER
    return CloseCode.INTERNAL_ERROR if status >= 500 else CloseCode.POLICY_VIOLATION


def _detail_of(body: bytes) -> str:
    try:
        detail: Any = json.loads(body)["detail"]
    except (ValueError, LookupError, TypeError):
        return ""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return str(detail[0].get("msg", ""))
    return detail if isinstance(detail, str) else ""


def _is_websocket_endpoint(endpoint: Any) -> bool:
    """Whether routing ended at an endpoint; a mounted application that finds nothing is none."""
    return inspect.isroutine(endpoint) or inspect.isclass(endpoint)


async def _no_receive() -> Message:
    return {"type": "websocket.disconnect", "code": 1006}
