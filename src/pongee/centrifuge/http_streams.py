"""The fallback where WebSockets are blocked: a long HTTP response down, small requests up.

``{prefix}/http_stream`` and ``{prefix}/sse`` carry replies and pushes; ``/emulation`` brings the
client's further commands, addressed by the secret ``session`` that its connect reply told it. The
same guards stand in front as before a WebSocket: draining, origin, capacity. Other origins that are
allowed get the CORS headers a browser asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pongee.centrifuge.client import Client
from pongee.centrifuge.endpoint import connection_scope, link_limits
from pongee.centrifuge.json_codec import JSON_FORMAT
from pongee.centrifuge.messages import Disconnected, Push, Reply
from pongee.centrifuge.protobuf_codec import PROTOBUF_FORMAT
from pongee.centrifuge.service import JSON, PROTOBUF, Service
from pongee.centrifuge.stream_link import Frame, StreamLink
from pongee.codes import CloseCode
from pongee.errors import BrokerUnavailable, Refused
from pongee.guards.capacity import Slot
from pongee.guards.client_ip import resolve_client
from pongee.handlers.table import ConnectionSpec
from pongee.links.asgi import traits_of
from pongee.sessions.handshake import refusal_response

__all__ = ["stream_routes"]

NOT_ASCII = re.compile(r"[^\x00-\x7f]")
BINARY = "application/octet-stream"
SESSION_BYTES = 24  # 192 random bits

NO_CACHE = (b"cache-control", b"private, no-cache, no-store, must-revalidate, max-age=0")
# A proxy must not gather what is meant to flow, nor a middleware compress it.
UNBUFFERED = [NO_CACHE, (b"x-accel-buffering", b"no"), (b"content-encoding", b"identity")]


class EmulationRequest(msgspec.Struct):
    """A client's further commands: for which process, which client, and one frame of them."""

    node: str
    session: str
    data: str


def _emulation_class() -> Any:
    kinds = FieldDescriptorProto
    message = DescriptorProto(name="EmulationRequest")
    for number, (name, kind) in enumerate(
        (("node", kinds.TYPE_STRING), ("session", kinds.TYPE_STRING), ("data", kinds.TYPE_BYTES)), 1
    ):
        message.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = DescriptorPool()
    file = FileDescriptorProto(
        name="pongee/emulation.proto", package="pongee", syntax="proto3", message_type=[message]
    )
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("pongee.EmulationRequest"))


_EmulationMessage = _emulation_class()


def stream_routes(spec: ConnectionSpec, service: Callable[[], Service]) -> list[Route]:
    """Make the three routes."""
    return [
        Route(f"{spec.prefix}/http_stream", _Stream(spec, service, sse=False)),
        Route(f"{spec.prefix}/sse", _Stream(spec, service, sse=True)),
        Route("/emulation", _Emulation(spec, service)),
    ]


@dataclass
class _Guarded:
    """An ASGI application behind the guards that a WebSocket meets.

    Attributes:
        spec: who may connect.
        service: the process's shared parts.
    """

    spec: ConnectionSpec
    service: Callable[[], Service]
    methods: ClassVar[tuple[str, ...]] = ("POST", "OPTIONS")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        headers: list[tuple[bytes, bytes]] = []
        try:
            address = self._admit(scope, headers)
            if request.method == "OPTIONS":
                response: Response | None = Response(status_code=204)
                headers += [
                    (b"access-control-allow-methods", ", ".join(self.methods).encode()),
                    (b"access-control-allow-headers", b"content-type"),
                    (b"access-control-max-age", b"600"),
                ]
            elif request.method not in self.methods:
                response = Response(status_code=405, headers={"Allow": ", ".join(self.methods)})
            else:
                response = await self.answer(request, send, address, headers)
        except Refused as refused:
            response = refusal_response(refused)
        except ClientDisconnect:
            return  # it left while it was still asking
        if response is not None:
            response.raw_headers += headers
            await response(scope, receive, send)

    async def answer(
        self, request: Request, send: Send, address: str | None, cors: list[tuple[bytes, bytes]]
    ) -> Response | None:
        """Answer a request that may proceed; `None`: it is answered.

        Raises:
            Refused: it may not.
        """
        raise NotImplementedError

    def _admit(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Check the origin; returns the client's address, and adds the headers a browser needs."""
        runtime, peer = self.service().runtime, scope.get("client")
        client = resolve_client(
            peer[0] if peer else None, scope["scheme"], scope["headers"], runtime.trusted
        )
        asked = Headers(scope=scope)
        origins = asked.getlist("origin")
        self.spec.origins.check(origins, scheme=client.scheme, host=asked.get("host"))
        if origins:
            headers += [
                (b"access-control-allow-origin", origins[0].encode("latin-1")),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"Origin"),
            ]
        return client.ip

    async def _body(self, request: Request) -> bytes | None:
        """Read the body; `None`: it is too large."""
        body, most = bytearray(), self.spec.limits.max_message_size
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                return None
        return bytes(body)


@dataclass
class _Stream(_Guarded):
    """``http_stream`` and ``sse``."""

    sse: bool

    @property
    def methods(self) -> tuple[str, ...]:  # type: ignore[override]
        """GET is for server-sent events."""
        return ("GET", "POST", "OPTIONS") if self.sse else ("POST", "OPTIONS")

    async def answer(
        self, request: Request, send: Send, address: str | None, cors: list[tuple[bytes, bytes]]
    ) -> Response | None:
        """Take the first commands, and stream."""
        if request.method == "GET":
            first: bytes | None = request.query_params.get("cf_connect", "").encode()
        else:
            first = await self._body(request)
        if first is None or len(first) > self.spec.limits.max_message_size:
            return _problem(413, "too large")
        if not first:
            return _problem(400, "the connect command is missing")
        service = self.service()
        if service.runtime.draining:
            raise Refused(503, "Server is leaving", code=CloseCode.SERVICE_RESTART, retry_after=1)
        slot = service.runtime.capacity.reserve(address)
        binary = not self.sse and _is_binary(request)
        await self._stream(service, request, send, first, binary, slot, address, cors)
        return None

    async def _stream(
        self,
        service: Service,
        request: Request,
        send: Send,
        first: bytes,
        binary: bool,
        slot: Slot,
        address: str | None,
        cors: list[tuple[bytes, bytes]],
    ) -> None:
        codec = PROTOBUF if binary else JSON
        client = Client(
            service,
            codec,
            PROTOBUF_FORMAT if binary else JSON_FORMAT,
            connection_scope(request.scope),
            address=address,
            route=request.url.path,
            loop=asyncio.get_running_loop(),
        )
        client.session = secrets.token_urlsafe(SESSION_BYTES)
        kind = b"text/event-stream" if self.sse else b"application/json"
        headers = [(b"content-type", BINARY.encode() if binary else kind), *UNBUFFERED, *cors]
        link = StreamLink(
            client,
            request.receive,
            send,
            start={"type": "http.response.start", "status": 200, "headers": headers},
            first=b"\r\n" if self.sse else b"",
            frame=_frame(self.sse, binary),
            farewell=lambda code, reason: codec.encode(
                Reply(push=Push(disconnect=Disconnected(code, reason)))
            ),
            limits=link_limits(self.spec),
            watch=service.runtime.watch,
            traits=traits_of(send),
        )
        service.sessions[client.session] = client
        try:
            client.open(link, slot)
            client.on_message(first if binary else first.decode("utf-8", "replace"))
            await link.pump()
        finally:
            service.sessions.pop(client.session, None)
            client.leave()  # ignored if it has ended
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(client.ended())


class _Emulation(_Guarded):
    """``/emulation``."""

    async def answer(
        self, request: Request, send: Send, address: str | None, cors: list[tuple[bytes, bytes]]
    ) -> Response | None:
        """Hand a frame of commands to the client it is for."""
        body = await self._body(request)
        if body is None:
            return _problem(413, "too large")
        binary = _is_binary(request)
        try:
            node, session, data = _read(body, binary)
        except (ValueError, DecodeError):
            return _problem(400, "malformed")
        service = self.service()
        if node == service.node:
            if not service.take(session, data, binary):
                return _problem(400, "another encoding than the stream's")
            return Response(status_code=204)
        try:
            found = await service.forward(node, session, data, binary) if service.forward else False
        except BrokerUnavailable:
            return _problem(503, "the client's node cannot be reached")
        return Response(status_code=204) if found else _problem(404, "no such node")


def _read(body: bytes, binary: bool) -> tuple[str, str, bytes]:
    if not binary:
        wanted = msgspec.json.decode(body, type=EmulationRequest)
        return wanted.node, wanted.session, wanted.data.encode()
    message = _EmulationMessage.FromString(body)
    return message.node, message.session, message.data


def _is_binary(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == BINARY


def _frame(sse: bool, binary: bool) -> Frame:
    if binary:
        return lambda data: data if isinstance(data, bytes) else data.encode()
    # JSON in ASCII: old clients decode each piece of a stream by itself, and a piece may end
    # inside a character wherever a proxy likes.
    start, end = ("data: ", "\n\n") if sse else ("", "\n")
    return lambda data: f"{start}{_ascii(data)}{end}".encode()


def _ascii(data: str | bytes) -> str:
    # Outside of its strings JSON is ASCII, so that escaping needs no parsing.
    text = data if isinstance(data, str) else data.decode()
    return text if text.isascii() else NOT_ASCII.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000  # a surrogate pair (RFC 8259 section 7)
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def _problem(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)
