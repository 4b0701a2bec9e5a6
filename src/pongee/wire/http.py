"""HTTP for uvicorn, with limits: ``uvicorn app:app --http pongee.wire.http:HeadProtocol``.

`HeadProtocol` stands on uvicorn's class for httptools, `H11HeadProtocol` on the one for h11;
uvicorn makes one for each connection. What they do that uvicorn's own do not:

* a request's head has a deadline that bytes do not extend, and a silent connection has it too;
* a head over a limit of `pongee.wire.head` is answered at once, while it still arrives;
* what the parsers let through against RFC 9112 and RFC 6455 is answered 400, 405 or 505;
* an answer that refuses is not lost to a reset, and waits its turn behind requests before it;
* an upgrade request goes to `WireProtocol` as it was parsed, with the bytes that came behind it.

Keep-alive, pipelining and bodies are uvicorn's business. Any WebSocket class of uvicorn's works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import h11
import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from pongee.wire.handshake import Headers, Refusal, Request, refusal
from pongee.wire.head import (
    HEAD_SIZE,
    TARGET_SIZE,
    judge_head,
    judge_part,
    judge_size,
    judge_text,
    origin_form,
    upgrade_of,
)
from pongee.wire.wheel import Timer, wheel_of

__all__ = ["H11HeadProtocol", "HeadProtocol"]

HEAD_TIMEOUT = 10.0
"""Seconds for a head, from the connection's first moment or the first byte of a later head. Then:
408 if a part of it has come, and close."""

LINGER_TIMEOUT = 2.0
"""Seconds a refused peer gets to take the answer and to close. Then: abort."""

LINGER_SIZE = 1024 * 1024
"""Bytes read from a refused peer, and dropped. More: reading stops. Closing with bytes unread would
make TCP throw the answer away (RFC 9112 section 9.6)."""

_INVALID = "Invalid HTTP request received."
_LATE = Refusal(408, "The request head was not complete in time")
_PIPELINED = Refusal(400, "A WebSocket handshake must wait for the answers before it")


class _Guarded(asyncio.Protocol):
    """What both classes share: the deadline, and the way to refuse. Stands before uvicorn's class.

    Attributes:
        head_timeout: seconds, for tests to shorten in a subclass.
        linger_timeout: the same.
    """

    head_timeout = HEAD_TIMEOUT
    linger_timeout = LINGER_TIMEOUT

    # Of uvicorn's class.
    config: Config
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    app_state: dict[str, Any]
    ws_protocol_class: type[asyncio.Protocol] | None
    headers: Headers
    connections: Any
    cycle: Any
    logger: Any
    _unset_keepalive_if_required: Callable[[], None]

    # Our own, as they are at first: nothing to set up for each connection.
    _timer: Timer | None = None
    _deaf = False
    _discarded = 0
    _owed: Refusal | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the clock runs from here."""
        super().connection_made(transport)
        self._set_timer(self.head_timeout, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nothing stays set."""
        self._cancel_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End because the server leaves. Called by uvicorn."""
        if self._deaf and self._owed is None:
            self.transport.close()
            return
        super().shutdown()  # type: ignore[misc]
        if self.transport.is_closing():
            # TLS waits half a minute for a peer that does not answer its farewell.
            self._set_timer(self.linger_timeout, self.transport.abort)

    # The deadline

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = wheel_of(self.loop).call_later(delay, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_begun(self) -> bool:
        """Whether a part of a head has come."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """A head has begun and is not complete."""
        self._unset_keepalive_if_required()
        if self._timer is None:
            self._set_timer(self.head_timeout, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            # The rest may have come: we have not looked.
            self._set_timer(self.head_timeout, self._late)
        elif self._head_begun():
            self.logger.info("A request head was not complete in time.")
            self._refuse(_LATE)
        else:
            self.transport.close()
            self._set_timer(self.linger_timeout, self.transport.abort)

    # Refusing

    def send_400_response(self, msg: str) -> None:
        """Refuse with the verdict on the head, or else for `msg`. Called by uvicorn's class."""
        self._refuse(self._verdict() or Refusal(400, msg))

    def _verdict(self) -> Refusal | None:
        raise NotImplementedError

    def _busy(self) -> bool:
        """Whether a request is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, verdict: Refusal) -> None:
        """Answer, in turn, and read no more requests."""
        self._deaf = True
        self._cancel_timer()
        if self._busy() and self._head_begun():
            self._owed = verdict
            self.flow.pause_reading()
        else:
            self._answer(verdict)

    def on_response_complete(self) -> None:
        """Go on after an answer. Called by uvicorn's class."""
        super().on_response_complete()  # type: ignore[misc]
        if self._timer is not None:
            # The next head is on its way: the deadline holds for it, not the keep-alive.
            self._unset_keepalive_if_required()
        if self._owed is not None and not self._busy():
            self._answer(self._owed)

    def _answer(self, verdict: Refusal) -> None:
        self._owed = None
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self._busy():
            # The request's body went wrong: its application has nobody to talk to any more.
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
            if self.cycle.response_started or self._is_queued():
                self.transport.abort()
                return
        told = self.server_state.default_headers + verdict.headers
        self.transport.write(refusal(verdict.status, told, verdict.why.encode() + b"\n"))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timer(self.linger_timeout, self.transport.abort)

    def _is_queued(self) -> bool:
        """Whether requests before the latest are not answered yet."""
        return False

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > LINGER_SIZE:
            self.flow.pause_reading()

    # Upgrading

    def _get_upgrade(self) -> bytes | None:
        return upgrade_of(self.headers)

    def _hand_over(self, request: Request, rest: bytes) -> bool:
        """Give the connection to the WebSocket class, if that takes a request as it was parsed."""
        made: Any = self.ws_protocol_class
        if not hasattr(made, "upgrade"):
            return False
        self.connections.discard(self)
        protocol = made(
            config=self.config,
            server_state=self.server_state,
            app_state=self.app_state,
            _loop=self.loop,
        )
        protocol.upgrade(self.transport, request, rest)
        return True

    def _pass_on(self, rest: bytes) -> None:
        """Give what came behind an upgrade request to a WebSocket class of uvicorn's."""
        if rest and not self.transport.is_closing():
            cast("asyncio.Protocol", self.transport.get_protocol()).data_received(rest)


class _Refused(Exception):
    """Stops the parser; the verdict is kept beside it."""


class HeadProtocol(_Guarded, HttpToolsProtocol):
    """uvicorn's HTTP on httptools, guarded. ▲"""

    url = b""
    _in_body = False  # from the end of a head to the end of its request
    _size = 0  # bytes since that, or since the last piece of a body
    _most = 0  # the same at the latest: no head that ends now is larger
    _websocket = False
    _judged: Refusal | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came. ▲"""
        if self._deaf:
            self._discard(data)
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._size = self._most = self._size + len(data)
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                if self._websocket:
                    self._upgrade(bytes(rest))
                    return
                # Ignored, as RFC 9110 section 7.8 allows: what follows is HTTP.
                self._unsupported_upgrade_warning()
            except httptools.HttpParserError:
                self.logger.warning(_INVALID)
                self.send_400_response(_INVALID)
                return
            else:
                break
        if self._size or self.scope is not self.cycle.scope:
            self._look()

    def _look(self) -> None:
        """Look at a head that is not complete, or at a trailer that does not end."""
        verdict = judge_part(self.url, self.headers or [], self._size)
        if verdict is not None:
            self.logger.warning(_INVALID)
            self._refuse(verdict)
        elif not self._in_body:
            self._go_on()

    def on_headers_complete(self) -> None:
        """Judge the head, then call the application. Called by the parser. ▲"""
        parser = self.parser
        websocket = self._websocket = parser.should_upgrade() and super()._should_upgrade()
        method, version = parser.get_method(), parser.get_http_version()
        verdict = judge_head(method, self.url, version, self.headers, websocket=websocket)
        if verdict is None and self._most > TARGET_SIZE:
            verdict = judge_size(self.url, self.headers)
        if verdict is None and websocket and self._busy():
            verdict = _PIPELINED
        if verdict is not None:
            self._judged = verdict
            raise _Refused
        super().on_headers_complete()
        self._size = 0
        self._in_body = True
        if self._timer is not None:
            self._cancel_timer()
        if not websocket:
            # A trailer is not to slip in among the headers that the application was given.
            self.headers = []

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body. Called by the parser. ▲"""
        self._size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request. Called by the parser. ▲"""
        super().on_message_complete()
        self._size = 0
        self._in_body = False

    def _head_begun(self) -> bool:
        # uvicorn makes a scope at a head's first byte, and a cycle with it at its end.
        scope = self.scope
        return scope is not None and (self.cycle is None or scope is not self.cycle.scope)

    def _verdict(self) -> Refusal | None:
        return self._judged

    def _is_queued(self) -> bool:
        return bool(self.pipeline)

    def _should_upgrade(self) -> bool:
        return self._websocket

    def _upgrade(self, rest: bytes) -> None:
        method = self.parser.get_method()
        headers = [(name, value.strip()) for name, value in self.headers]
        # Without its parser, which knows it, this object goes as soon as the transport lets go.
        self.parser = None  # type: ignore[assignment]
        request = Request(method, origin_form(self.url), "1.1", headers)
        if not self._hand_over(request, rest):
            self.handle_websocket_upgrade()
            self._pass_on(rest)


class _Heads(h11.Connection):
    """h11's parser, with a verdict on each head before uvicorn sees it.

    Attributes:
        heads: how many were complete.
        refusal: the verdict on the last, if bad.
    """

    def __init__(self, limit: int, *, websocket: bool) -> None:
        super().__init__(h11.SERVER, limit)
        self.heads = 0
        self.refusal: Refusal | None = None
        self._websocket = websocket

    def next_event(self) -> Any:
        """Return what h11 finds; raises as h11 does."""
        if self.their_state is not h11.IDLE:
            return super().next_event()
        # h11 unfolds in silence, and looks at a size only while the end has not come.
        text = self.trailing_data[0]
        self.refusal = judge_text(text) if text else None
        if self.refusal is None:
            event = super().next_event()
            if not isinstance(event, h11.Request):
                return event
            self.heads += 1
            self.refusal = self._judge(event)
            if self.refusal is None:
                return event
        raise h11.RemoteProtocolError(self.refusal.why, error_status_hint=self.refusal.status)

    def _judge(self, event: h11.Request) -> Refusal | None:
        headers = list(event.headers)
        version = event.http_version.decode("ascii")
        websocket = self._websocket and upgrade_of(headers) == b"websocket"
        return judge_head(event.method, event.target, version, headers, websocket=websocket)


class H11HeadProtocol(_Guarded, H11Protocol):
    """uvicorn's HTTP on h11, guarded."""

    conn: _Heads
    _seen = 0  # complete heads

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        limit = config.h11_max_incomplete_event_size or HEAD_SIZE
        self.conn = _Heads(limit, websocket=self._should_upgrade_to_ws())

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._deaf:
            self._discard(data)
        else:
            super().data_received(data)

    def handle_events(self) -> None:
        """Go through what was parsed; then see to the deadline of the next head."""
        super().handle_events()
        if self._deaf:
            return
        if self._seen != self.conn.heads:
            self._seen = self.conn.heads
            self._cancel_timer()
        if self._head_begun():
            self._go_on()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over. Called by uvicorn's class."""
        rest = self.conn.trailing_data[0]
        request = Request(event.method, origin_form(event.target), "1.1", self.headers)
        if not self._hand_over(request, rest):
            super().handle_websocket_upgrade(event)
            self._pass_on(rest)

    def _head_begun(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _verdict(self) -> Refusal | None:
        return self.conn.refusal
