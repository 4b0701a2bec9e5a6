"""The ASGI side of a connection: its messages, and the application's task. ▲

One lives as long as the application's call. It is the connection's receiver until the application
takes the connection over in direct mode (`pongee.wire.direct`), and then only waits to be dropped.
ASGI's WebSocket messages are those of spec 2.4, denial response included.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import ClientDisconnected

from pongee.wire import bounds
from pongee.wire.direct import DirectReceiver
from pongee.wire.frames import BINARY, TEXT, encode_compressed, encode_frame, may_travel
from pongee.wire.wheel import Timer, wheel_of

if TYPE_CHECKING:
    from pongee.wire.protocol import WireProtocol

__all__ = ["AsgiSide"]

logger = logging.getLogger("uvicorn.error")

Event = dict[str, Any]


class AsgiSide:
    """Messages between one connection and one ASGI call.

    Attributes:
        transport, config, writable: where applications and the layer above look for an abort, the
            ping settings and flow control; uvicorn's own classes have them too.
    """

    def __init__(self, connection: WireProtocol, scope: Event) -> None:
        self.connection = connection
        self.transport = connection.transport
        self.config = connection.config
        self.writable = asyncio.Event()
        self.writable.set()
        self._loop = connection.loop
        self.scope = scope
        self._events: deque[Event] = deque([{"type": "websocket.connect"}])
        self._bytes = 0
        self._end: Event | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._denial: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._denial_body = b""
        self._closed = False
        self._taken = False
        self._stall: Timer | None = None

    async def run(self) -> None:
        """Call the application, and leave nothing open once it has ended."""
        connection = self.connection
        try:
            result = await connection.config.loaded_app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            logger.exception("Exception in ASGI application\n")
            if not self._taken:
                self._finish(1011)
        else:
            if result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
            if connection.unanswered:
                logger.error("The application ended without an answer to the handshake.")
            if not self._taken:
                self._finish(1000)

    def _finish(self, code: int) -> None:
        if self.connection.unanswered:
            self.connection.refuse(500, [], b"Internal Server Error\n")
        else:
            self.connection.send_close(code, "")

    def hand_over(self, receiver: DirectReceiver) -> None:
        """Give up the connection, with what the application has not received."""
        self._taken = True
        self._cancel_stall()
        self.writable.set()  # whoever waits to send or to receive learns that it is too late
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        for event in self._events:
            if event["type"] == "websocket.receive":
                text = event.get("text")
                receiver.on_message(event["bytes"] if text is None else text)
        self._events.clear()
        if self._end is not None:
            receiver.on_end(self._end["code"], self._end.get("reason"))

    # What the connection tells (wire.direct.DirectReceiver)

    def on_message(self, data: str | bytes) -> None:
        """Queue a message. ▲"""
        kind = "text" if type(data) is str else "bytes"
        self._put({"type": "websocket.receive", kind: data})
        self._bytes += len(data)
        if len(self._events) >= bounds.QUEUE_HIGH or self._bytes >= bounds.QUEUE_BYTES:
            self.connection.pause_reading()

    def on_end(self, code: int, reason: str | None) -> None:
        """Queue the disconnect."""
        event: Event = {"type": "websocket.disconnect", "code": code}
        if reason is not None:
            event["reason"] = reason
        self._end = event
        self._put(event)

    def on_lost(self) -> None:
        """Let nobody wait for a buffer that is gone."""
        self._cancel_stall()
        self.writable.set()

    def on_write_paused(self) -> None:
        """Make senders wait, and cut the connection if the buffer does not shrink."""
        self.writable.clear()
        self._watch_buffer()

    def on_write_resumed(self) -> None:
        """Let senders go on."""
        self.writable.set()
        self._cancel_stall()

    def _watch_buffer(self) -> None:
        """Cut the connection unless the buffer has shrunk within the write timeout."""
        size = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < size:
                self._watch_buffer()  # slow, but steady
            else:
                self.connection.abort()

        self._cancel_stall()
        self._stall = wheel_of(self._loop).call_later(bounds.WRITE_TIMEOUT, look)

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # What the application calls

    async def receive(self) -> Event:
        """Return the next event; past the disconnect, that again. ▲"""
        events = self._events
        while not events:
            if self._taken:
                raise RuntimeError("'receive' after the connection was taken over")
            if self._end is not None:
                return dict(self._end)
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # what it was woken for is for another
                raise
        event = events.popleft()
        if events or self._end is not None:
            self._wake()
        if self._bytes and event["type"] == "websocket.receive":
            text = event.get("text")
            self._bytes -= len(event["bytes"] if text is None else text)
        if (
            self.connection.held
            and len(events) <= bounds.QUEUE_LOW
            and self._bytes < bounds.QUEUE_BYTES
        ):
            self.connection.resume_reading()
        return event

    async def send(self, message: Event) -> None:
        """Take an ASGI message. ▲"""
        kind = message["type"]
        connection = self.connection
        if not connection.accepted:
            self._before_accept(kind, message)
        elif kind == "websocket.send":
            if not self.writable.is_set():
                await self.writable.wait()
            if self._taken:
                raise RuntimeError("'send' after the connection was taken over")
            if connection.ended:
                if self._closed and not connection.lost:
                    raise RuntimeError("'websocket.send' after 'websocket.close'")
                raise ClientDisconnected
            self._send_message(message)
        elif kind == "websocket.close":
            self._close(message)
        else:
            raise RuntimeError(f"expected 'websocket.send' or 'websocket.close', not '{kind}'")

    def _send_message(self, message: Event) -> None:
        data = message.get("bytes")
        opcode, payload = BINARY, data
        if payload is None:
            text = message.get("text")
            if text is None:
                return
            opcode, payload = TEXT, text.encode()
        bits = self.connection.window_bits
        if bits and len(payload) >= bounds.COMPRESS_FROM:
            self.transport.write(encode_compressed(opcode, payload, bits))
        else:
            self.transport.write(encode_frame(opcode, payload))

    def _close(self, message: Event) -> None:
        if self.connection.lost:
            raise ClientDisconnected
        if self._closed:
            raise RuntimeError("'websocket.close' was sent before")
        code = message.get("code", 1000)
        if code != 1005 and not may_travel(code):
            raise RuntimeError(f"close code {code} must not be sent")
        self._closed = True
        self.connection.send_close(code, message.get("reason") or "")

    def _before_accept(self, kind: str, message: Event) -> None:
        connection = self.connection
        if connection.lost:
            raise ClientDisconnected
        if kind == "websocket.http.response.body" and self._denial and not connection.refused:
            self._denial_body += message.get("body", b"")
            if not message.get("more_body", False):
                connection.refuse(*self._denial, self._denial_body)
        elif connection.refused or self._denial is not None:
            raise RuntimeError(f"unexpected '{kind}' after the handshake was refused")
        elif kind == "websocket.accept":
            connection.accept(message.get("subprotocol"), message.get("headers", []))
        elif kind == "websocket.close":
            connection.log("403")
            connection.refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            status = message["status"]
            if not 100 <= status < 600:
                raise RuntimeError(f"invalid HTTP status {status}")
            connection.log(str(status))
            self._denial = (status, list(message.get("headers", [])))
        else:
            raise RuntimeError(
                "expected 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start', not '{kind}'"
            )
