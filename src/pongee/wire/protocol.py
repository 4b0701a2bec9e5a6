"""The class given to uvicorn's ``ws`` setting. ▲

A normal ASGI server protocol (spec 2.4): every Starlette or FastAPI WebSocket route works on it
unchanged. What it does that uvicorn's own do not:

* pings, and the time limit for pongs, do not depend on the application reading;
* a missing pong, and a write without progress, end in an abort, so a stalled peer is gone in time;
* a connection lost without a close frame is 1006;
* a handshake that is not finished in time is dropped;
* a flood of small messages gives way to others; pongs owed to a peer that does not read are one;
* query strings are left out of its log lines.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import Any, cast
from urllib.parse import quote

from uvicorn.config import Config
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from pongee.wire.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameParser,
    encode_close,
    encode_frame,
    may_travel,
    parse_close,
)
from pongee.wire.handshake import Handshake, refusal
from pongee.wire.ticker import Appointment, ticker_of

__all__ = ["WireProtocol"]

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from the first byte to accept or refusal being possible. Later: abort."""

CLOSE_TIMEOUT = 10.0
"""Seconds the peer may take to answer our close frame. Later: abort."""

WRITE_TIMEOUT = 10.0
"""Seconds the transport's buffer may be over its high-water mark and not shrink. Then: abort."""

QUEUE_HIGH = 32
"""Messages the application has not received. More: reading pauses, and no pong is missed."""

QUEUE_LOW = 8
"""Messages at which reading goes on."""

EARLY_HIGH = 64 * 1024
"""Bytes a peer may send before its handshake is answered. More: reading pauses."""

PER_TURN = 256
"""Messages taken from one connection per turn of the event loop."""

logger = logging.getLogger("uvicorn.error")

Event = dict[str, Any]


class WireProtocol(asyncio.Protocol):
    """One WebSocket connection, from the upgrade request on. Made by uvicorn's HTTP protocols."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._loop = _loop or asyncio.get_running_loop()
        self._ticker = ticker_of(self._loop)
        self._state = server_state
        self._app_state = app_state
        # The names by which applications find their way to an abort; see uvicorn's own.
        self.config = config
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.writable = asyncio.Event()
        self.writable.set()

        self._handshake: Handshake | None = Handshake()
        self._parser = FrameParser(config.ws_max_size)
        self._scope: Event = {}
        self._task: asyncio.Task[None] | None = None
        self._accepted = False
        self._refused = False
        self._denial: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._denial_body = b""
        self._close_sent = False
        self._application_closed = False
        self._lost = False
        self._told = False

        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._going_on = False
        self._owed_pong: bytes | None = None

        self._deadline: Appointment | None = None
        self._stall: Appointment | None = None
        self._ping: Appointment | None = None
        self._ping_payload: bytes | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection from uvicorn's HTTP protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._deadline = self._ticker.call_later(HANDSHAKE_TIMEOUT, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes: of the request first, of frames then. ▲"""
        if self._handshake is not None and not self._scope:
            self._handshake.feed(data)
            if self._handshake.response is not None:
                self._start()
            return
        self._take(data)

    def eof_received(self) -> bool:
        """End when the peer ends: half a WebSocket is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, and tell the application if it was not told."""
        self._lost = True
        self._state.connections.discard(self)
        for appointment in (self._deadline, self._stall, self._ping):
            if appointment is not None:
                appointment.cancel()
        self.writable.set()
        self._tell_end(1006)
        if self._handshake is not None and self._task is None and exc is None:
            self.transport.close()

    def pause_writing(self) -> None:
        """Stop writing: the buffer is over its high-water mark."""
        self.writable.clear()
        self._watch_buffer()

    def _watch_buffer(self) -> None:
        """Cut the connection unless the buffer has shrunk within `WRITE_TIMEOUT`."""
        size = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < size:
                self._watch_buffer()  # slow, but steady
            else:
                self._abort()

        self._stall = self._ticker.call_later(WRITE_TIMEOUT, look)

    def resume_writing(self) -> None:
        """Go on: the buffer has drained."""
        self.writable.set()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._owed_pong is not None and not self._close_sent:
            payload, self._owed_pong = self._owed_pong, None
            self._write(encode_frame(PONG, payload))

    def shutdown(self) -> None:
        """End because the server leaves: tell the application, then the peer. Called by uvicorn."""
        if self._accepted and not self._close_sent:
            self._tell_end(1012)
            self._send_close(1012, "")
            self.transport.close()
        elif not self._accepted and not self._refused:
            self._refuse(503, [], b"Server is leaving\n")
        else:
            self.transport.close()
        # A peer that does not read would keep the server waiting for its buffer.
        if self._stall is None:
            self._watch_buffer()

    # Handshake

    def _start(self) -> None:
        handshake = self._handshake
        if handshake is None or handshake.response is None:
            return
        response = handshake.response
        if response.status_code != 101:
            headers = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in response.headers.raw_items()
                if name.lower() not in ("content-length", "connection")
            ]
            self._refuse(response.status_code, headers, bytes(response.body or b""))
            return
        root = self._config.root_path
        scope = handshake.scope()
        self._scope = {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": root,
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
            **scope,
            "path": root + scope["path"],
            "raw_path": root.encode("ascii") + scope["raw_path"],
        }
        self._put({"type": "websocket.connect"})
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(self._task)

    async def _run(self) -> None:
        try:
            result = await self._config.loaded_app(self._scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except BaseException:
            logger.exception("Exception in ASGI application\n")
            self._finish(1011)
        else:
            if result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
            if not self._accepted and not self._refused and not self._lost:
                logger.error("The application ended without an answer to the handshake.")
            self._finish(1000)

    def _finish(self, code: int) -> None:
        """Leave nothing open once the application has ended."""
        if self._lost or self._refused:
            return
        if not self._accepted:
            self._refuse(500, [], b"Internal Server Error\n")
        elif not self._close_sent:
            self._begin_close(code, "")

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._refused = True
        self._cancel_deadline()
        if not self.transport.is_closing():
            self.transport.write(refusal(status, headers, body))
            self.transport.close()

    # From the peer

    def _take(self, data: bytes) -> None:
        """Parse what came, at most `PER_TURN` messages, and leave the rest for the next turn. ▲"""
        if self._told and self._close_sent and self._lost:
            return
        if not self._accepted:
            # Our answer to the handshake comes before any frame of ours: see `_accept`.
            self._parser.feed(data, 0)
            if self._parser.waiting > EARLY_HIGH:
                self._pause()
            return
        for opcode, payload in self._parser.feed(data, PER_TURN):
            if opcode == TEXT:
                self._message({"type": "websocket.receive", "text": payload})
            elif opcode == BINARY:
                self._message({"type": "websocket.receive", "bytes": payload})
            elif opcode == PING:
                self._pong(cast("bytes", payload))
            elif opcode == PONG:
                self._take_pong(cast("bytes", payload))
            elif opcode == CLOSE:
                self._take_close(cast("bytes", payload))
                return
        if self._parser.error is not None:
            self._fail(self._parser.error)
        elif self._parser.stopped_early:
            self._pause()
            self._resume()

    def _go_on(self) -> None:
        self._going_on = False
        if not self._lost:
            self._take(b"")
            self._resume()

    def _message(self, event: Event) -> None:
        if not self._close_sent:  # past its own close the application hears no more
            self._put(event)
            if len(self._events) >= QUEUE_HIGH:
                self._pause()

    def _pong(self, payload: bytes) -> None:
        if self._close_sent:
            return
        if self.writable.is_set():
            self._write(encode_frame(PONG, payload))
        else:
            self._owed_pong = payload  # only the latest has to be answered (section 5.5.3)

    def _take_pong(self, payload: bytes) -> None:
        if payload == self._ping_payload:
            self._ping_payload = None
            if self._ping is not None:
                self._ping.cancel()
            self._schedule_ping()

    def _take_close(self, payload: bytes) -> None:
        try:
            code, reason = parse_close(payload)
        except FrameError as error:
            self._fail(error)
            return
        self._tell_end(code, reason)
        self._send_close(code, "")
        self.transport.close()
        self._abort_later(CLOSE_TIMEOUT)

    def _fail(self, error: FrameError) -> None:
        """End because the peer broke the protocol (section 7.1.7)."""
        self._tell_end(error.code, error.reason)
        self._send_close(error.code, error.reason)
        self.transport.close()
        self._abort_later(CLOSE_TIMEOUT)

    # To the application

    def _put(self, event: Event) -> None:
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tell_end(self, code: int, reason: str | None = None) -> None:
        if self._told:
            return
        self._told = True
        event: Event = {"type": "websocket.disconnect", "code": code}
        if reason is not None:
            event["reason"] = reason
        self._put(event)

    async def _receive(self) -> Event:
        while not self._events:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if self._paused and len(self._events) <= QUEUE_LOW and not self._going_on:
            self._resume()
        return event

    # From the application

    async def _send(self, message: Event) -> None:
        """Take an ASGI message. ▲"""
        kind = message["type"]
        if self._accepted:
            if kind == "websocket.send":
                if not self.writable.is_set():
                    await self.writable.wait()
                if self._lost or self._close_sent:
                    if self._application_closed and not self._lost:
                        raise RuntimeError("'websocket.send' after 'websocket.close'")
                    raise ClientDisconnected
                self._send_message(message)
            elif kind == "websocket.close":
                self._application_closes(message)
            else:
                raise RuntimeError(f"expected 'websocket.send' or 'websocket.close', not '{kind}'")
        else:
            self._before_accept(kind, message)

    def _send_message(self, message: Event) -> None:
        data = message.get("bytes")
        if data is not None:
            self.transport.write(encode_frame(BINARY, data))
        else:
            text = message.get("text")
            if text is not None:
                self.transport.write(encode_frame(TEXT, text.encode()))

    def _application_closes(self, message: Event) -> None:
        if self._lost:
            raise ClientDisconnected
        if self._application_closed:
            raise RuntimeError("'websocket.close' was sent before")
        code = message.get("code", 1000)
        if code != 1005 and not may_travel(code):
            raise RuntimeError(f"close code {code} must not be sent")
        self._application_closed = True
        if not self._close_sent:
            self._begin_close(code, message.get("reason") or "")

    def _begin_close(self, code: int, reason: str) -> None:
        """Send our close frame and give the peer time to answer."""
        self._send_close(code, reason)
        self._tell_end(code, reason)
        self._resume()
        self._abort_later(CLOSE_TIMEOUT)

    def _before_accept(self, kind: str, message: Event) -> None:
        if self._lost:
            raise ClientDisconnected
        if kind == "websocket.http.response.body" and self._denial is not None:
            self._denial_body += message.get("body", b"")
            if not message.get("more_body", False):
                status, headers = self._denial
                self._refuse(status, headers, self._denial_body)
                self._tell_end(1006)
        elif self._refused or self._denial is not None:
            raise RuntimeError(f"unexpected '{kind}' after the handshake was refused")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._log("403")
            self._refuse(403, [], b"")
            self._tell_end(1006)
        elif kind == "websocket.http.response.start":
            status = message["status"]
            if not 100 <= status < 600:
                raise RuntimeError(f"invalid HTTP status {status}")
            self._log(str(status))
            self._denial = (status, list(message.get("headers", [])))
        else:
            raise RuntimeError(
                "expected 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start', not '{kind}'"
            )

    def _accept(self, message: Event) -> None:
        self._log("[accepted]")
        if self._handshake is None:
            raise RuntimeError("'websocket.accept' was sent before")
        headers = [*self._state.default_headers, *message.get("headers", [])]
        answer = self._handshake.accepted(headers, message.get("subprotocol"))
        self._handshake = None
        self._accepted = True
        self._cancel_deadline()
        self._write(answer)
        self._schedule_ping()
        if self._parser.waiting:
            self._take(b"")
            self._resume()

    # Small things

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _send_close(self, code: int, reason: str) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._cancel_ping()
            self._write(encode_close(code, reason))

    def _schedule_ping(self) -> None:
        interval = self._config.ws_ping_interval
        if interval and not self._close_sent:
            self._ping = self._ticker.call_later(interval, self._send_ping)

    def _send_ping(self) -> None:
        if self._close_sent or self.transport.is_closing():
            return
        if not self.writable.is_set():
            # The write deadline judges this peer; what was not asked cannot be answered.
            self._schedule_ping()
            return
        self._ping_payload = os.urandom(4)
        self._write(encode_frame(PING, self._ping_payload))
        timeout = self._config.ws_ping_timeout
        if timeout:
            self._ping = self._ticker.call_later(timeout, self._ping_is_late)
        else:
            self._schedule_ping()

    def _ping_is_late(self) -> None:
        if self._paused:
            # We are not reading, so we cannot know: ask again rather than blame the peer.
            self._schedule_ping()
            return
        self._tell_end(1006, None)
        self._send_close(1011, "keepalive ping timeout")
        self.transport.close()
        self._abort_later(0.5)

    def _cancel_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort_later(self, seconds: float) -> None:
        """Cut what a polite close leaves open: a buffer that does not drain."""
        self._cancel_deadline()
        if not self._lost:
            self._deadline = self._ticker.call_later(seconds, self._abort)

    def _abort(self) -> None:
        if not self._lost:
            self.transport.abort()

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._going_on and not self._lost:
            # Past our close messages are dropped, and the peer's answer must be read.
            if len(self._events) >= QUEUE_HIGH and not self._close_sent:
                return
            if self._parser.stopped_early:  # what is here comes before what is to come
                self._going_on = True
                self._loop.call_soon(self._go_on)
                return
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _log(self, outcome: str) -> None:
        # The path only: a query string may hold a token.
        path = quote(self._scope["path"])
        logger.info('%s - "WebSocket %s" %s', get_client_addr(self._scope), path, outcome)  # type: ignore[arg-type]
