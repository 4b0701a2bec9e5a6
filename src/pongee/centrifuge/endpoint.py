"""The WebSocket route of the client protocol, from the handshake to a client that owns its link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from pongee.centrifuge.client import Client
from pongee.centrifuge.json_codec import JSON_FORMAT
from pongee.centrifuge.protobuf_codec import PROTOBUF_FORMAT
from pongee.centrifuge.service import JSON, PROTOBUF, Service
from pongee.errors import ConfigurationError
from pongee.guards.policy import public
from pongee.handlers.table import ConnectionSpec
from pongee.limits import Limits
from pongee.links.asgi import AsgiLink
from pongee.links.direct import DirectLink
from pongee.sessions.detach import may_detach
from pongee.sessions.handshake import Admission, admission_of
from pongee.sessions.inbound import Codec
from pongee.sessions.options import EndpointSpec
from pongee.wire.direct import EXTENSION

__all__ = ["connection_scope", "endpoint_spec", "link_limits", "websocket_endpoint"]

logger = logging.getLogger("pongee.channels")

SUBPROTOCOLS = ("centrifuge-protobuf", "centrifuge-json")

# What a dependency may look at; the rest of a scope would be most of what an idle client holds.
KEPT = (
    "asgi",
    "http_version",
    "scheme",
    "path",
    "raw_path",
    "root_path",
    "query_string",
    "headers",
    "client",
    "server",
    "app",
)


def endpoint_spec(spec: ConnectionSpec, path: str, name: str) -> EndpointSpec:
    """Describe a route of the client protocol for the guards in front of it."""

    async def handler() -> None:
        """Stand for the clients' own handlers."""

    return EndpointSpec(
        path=path,
        name=name,
        handler=handler,
        codec=Codec(str, str),
        auth=public,  # clients prove who they are in their first command
        origins=spec.origins,
        limits=link_limits(spec),
        heartbeat=None,
        overflow="disconnect",
        refuse="http",
        on_invalid=None,
        subprotocols=SUBPROTOCOLS,
        expiry_warning=0.0,
    )


def link_limits(spec: ConnectionSpec) -> Limits:
    """Return the bounds of a client's link."""
    limits = spec.limits
    return Limits(
        max_message_size=limits.max_message_size,
        outbox_messages=limits.outbox_messages,
        outbox_bytes=limits.outbox_bytes,
        write_deadline=limits.write_deadline,
        close_timeout=limits.close_timeout,
    )


def connection_scope(scope: Scope) -> dict[str, Any]:
    """Return what is kept of a handshake, for the dependencies of later events."""
    # As of a request: what an event depends on is what an HTTP route could depend on.
    return {"type": "http", **{name: scope[name] for name in KEPT if name in scope}}


def websocket_endpoint(
    spec: ConnectionSpec, service: Callable[[], Service]
) -> Callable[[WebSocket], Any]:
    """Make the endpoint of ``{prefix}/websocket``."""
    path = f"{spec.prefix}/websocket"
    described = endpoint_spec(spec, path, "client protocol")

    async def websocket_connection(websocket: WebSocket) -> None:
        await _serve(service(), described, websocket)

    websocket_connection.__pongee__ = described  # type: ignore[attr-defined]
    return websocket_connection


async def _serve(service: Service, described: EndpointSpec, websocket: WebSocket) -> None:
    admission = admission_of(websocket)
    if admission is None:
        raise ConfigurationError(
            f"{described.path}: call pongee.install(app) after the app is made"
        )
    admission.admit(described, websocket.scope)  # done already, unless added after the start
    offered = websocket.scope.get("subprotocols", [])
    chosen = described.choose_subprotocol(offered)
    try:
        await websocket.accept(subprotocol=chosen)
    except (OSError, WebSocketDisconnect):
        return
    in_protobuf = chosen == "centrifuge-protobuf" or _asks_for_protobuf(websocket)
    client = Client(
        service,
        PROTOBUF if in_protobuf else JSON,
        PROTOBUF_FORMAT if in_protobuf else JSON_FORMAT,
        connection_scope(websocket.scope),
        address=admission.client.ip,
        route=described.path,
        loop=asyncio.get_running_loop(),
    )
    await _run(client, described, admission, websocket)


def _asks_for_protobuf(websocket: WebSocket) -> bool:
    query = websocket.query_params
    return "protobuf" in (query.get("cf_protocol"), query.get("format"))


async def _run(
    client: Client, described: EndpointSpec, admission: Admission, websocket: WebSocket
) -> None:
    runtime = client.service.runtime
    direct = websocket.scope.get("extensions", {}).get(EXTENSION)
    if direct is None:
        link: AsgiLink | DirectLink = AsgiLink(
            websocket,
            client,
            limits=described.limits,
            overflow="disconnect",
            watch=runtime.watch,
            traits=admission.traits,
        )
    else:
        link = DirectLink(
            direct["connection"],
            client,
            limits=described.limits,
            overflow="disconnect",
            watch=runtime.watch,
        )
    client.open(link, admission.take_slot())
    if (
        isinstance(link, DirectLink)
        and runtime.detachable
        and may_detach(websocket.scope, admission.traits.app)
    ):
        link.detach()
        return
    try:
        await link.pump()
    except asyncio.CancelledError:
        logger.debug("%s: cancelled by the server; client %s", described.path, client.id)
    finally:
        client.leave()  # ignored if it has ended
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(client.ended())
