"""The class given to uvicorn's ``ws`` setting.

A normal ASGI server protocol (spec 2.4): every Starlette or FastAPI WebSocket route works on it
unchanged. What it does that uvicorn's own do not:

* pings, and the time limit for pongs, do not depend on the application reading;
* a missing pong, and a write without progress, end in an abort, so a stalled peer is gone in time;
* a connection lost without a close frame is 1006;
* a handshake that is not finished in time is dropped;
* a flood of small messages gives way to others; pongs owed to a peer that does not read are one;
* query strings are left out of its log lines;
* an application may take frames by plain calls and let its task end: `pongee.wire.direct`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import quote

from uvicorn.config import Config
from uvicorn.protocols.utils import get_client_addr, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from pongee.wire import bounds
from pongee.wire.asgi import AsgiSide
from pongee.wire.connection import Connection, State
from pongee.wire.direct import EXTENSION, DirectReceiver
from pongee.wire.handshake import Accepted, Refusal, Request, accept, judge, read_request, refusal
from pongee.wire.head import HEAD_SIZE
from pongee.wire.wheel import wheel_of

__all__ = ["WireProtocol"]

logger = logging.getLogger("uvicorn.error")


class WireProtocol(Connection):
    """One WebSocket connection, from the upgrade request on. Made by uvicorn's HTTP protocols."""

    __slots__ = ("_app_state", "_asgi", "_head", "_server", "_verdict", "accepted", "refused")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        super().__init__(config, _loop or asyncio.get_running_loop())
        self._server = server_state
        self._app_state: dict[str, Any] | None = app_state
        self._head = b""
        self._asgi: AsgiSide | None = None
        self._verdict: Accepted | None = None
        self.accepted = False
        self.refused = False

    # Taking over from the HTTP protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection whose request comes by `data_received`, as from uvicorn's own."""
        self.transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)  # type: ignore[arg-type]
        self._deadline = wheel_of(self.loop).call_later(bounds.HANDSHAKE_TIMEOUT, self.abort)

    def upgrade(self, transport: asyncio.Transport, request: Request, rest: bytes) -> None:
        """Take over a connection with its request, and with what came behind that."""
        self.connection_made(transport)
        transport.set_protocol(self)
        self._begin(request, rest)

    def _take_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            head, rest = self._head[: end + 4], self._head[end + 4 :]
            self._begin(read_request(head), rest)
        elif len(self._head) > HEAD_SIZE:
            self.refuse(431, [], b"Request head too large\n")

    def _begin(self, request: Request, rest: bytes) -> None:
        self._head = b""
        self._state = State.ASKED
        if self.transport.get_write_buffer_size() > bounds.UNREAD_ANSWER:
            # Of an earlier request on this connection. That its buffer is full was told to the HTTP
            # protocol and will not be told again.
            self.refuse(400, [], b"Read the answers to the requests before this one\n")
            return
        verdict = judge(request, deflate=self.config.ws_per_message_deflate)
        if isinstance(verdict, Refusal):
            self.refuse(verdict.status, verdict.headers, verdict.why.encode() + b"\n")
            return
        self._verdict = verdict
        state, self._app_state = self._app_state or {}, None
        asgi = self._asgi = AsgiSide(self, self._scope(request, state))
        self._set_receiver(asgi)
        context = contextvars.Context() if self.config.reset_contextvars else None
        task = self.loop.create_task(asgi.run(), context=context)
        task.add_done_callback(self._call_ended)
        self._server.tasks.add(task)
        if rest:
            self.data_received(rest)

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._server.tasks.discard(task)
        self._asgi = None

    def _scope(self, request: Request, state: dict[str, Any]) -> dict[str, Any]:
        root = self.config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": root,
            "state": state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: {"connection": self}},
            **request.scope(root),
        }

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, and tell the receiver if it was not told."""
        self._server.connections.discard(self)
        Connection.connection_lost(self, exc)
        if self._asgi is not None:
            self._asgi.on_lost()

    def shutdown(self) -> None:
        """End because the server leaves: tell the receiver, then the peer. Called by uvicorn."""
        if self.unanswered:
            self.refuse(503, [], b"Server is leaving\n")
        elif self._state is State.OPEN:
            self._tell_end(1012, None)
            self._close_frame(1012, "")
            self._leave()
        elif not self.lost:
            self._leave()

    # Answering the handshake

    @property
    def unanswered(self) -> bool:
        """Whether the peer still waits for an answer to its handshake."""
        return self._state in (State.HEAD, State.ASKED) and not self.refused

    @property
    def ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._state is not State.OPEN

    def accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer 101, and open the connection."""
        self.log("[accepted]")
        accepted = self._verdict
        assert accepted is not None  # noqa: S101 - judged before the application was called
        told = [*self._server.default_headers, *headers]
        answer = accept(accepted, told, subprotocol)
        self._verdict = None
        self.accepted = True
        if accepted.deflate is not None:
            self._parser.deflate = accepted.deflate
            self.window_bits = accepted.deflate.window_bits
        self._open(answer)

    def refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer with an HTTP response, and close."""
        answer = refusal(status, headers, body)  # raises for a header that must not be sent
        self.refused = True
        self._cancel_deadline()
        if not self.transport.is_closing():
            self.transport.write(answer)
        self._leave()
        self._tell_end(1006, None)

    def attach(self, receiver: DirectReceiver) -> None:
        """Take the connection over: see `pongee.wire.direct`.

        Raises:
            RuntimeError: not accepted yet, or taken over before.
        """
        asgi = self._asgi
        if asgi is None:
            raise RuntimeError("the connection was taken over before")
        if not self.accepted:
            raise RuntimeError("a connection is taken over after 'websocket.accept'")
        self._asgi = None
        self._set_receiver(receiver)
        self.resume_reading()  # the pause was the other side's; the receiver may ask for its own
        asgi.hand_over(receiver)
        if not self.can_write:
            receiver.on_write_paused()

    def log(self, outcome: str) -> None:
        """Log how the handshake ended. The path only: a query string may hold a token."""
        if self._asgi is not None and logger.isEnabledFor(logging.INFO):
            scope = self._asgi.scope
            logger.info(
                '%s - "WebSocket %s" %s',
                get_client_addr(scope),  # type: ignore[arg-type]
                quote(scope["path"]),
                outcome,
            )
