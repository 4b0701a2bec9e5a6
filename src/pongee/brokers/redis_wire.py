"""One connection to a Redis server that many use at once, without waiting for each other.

What is asked in one turn of the event loop goes out in one write, and answers are matched in their
order. So nobody who stops waiting can get them out of step: the answer still comes, and is dropped.

redis-py connects, logs in, writes commands and knows the server's errors. Then its connection's
transport is ours: each message would cost a task's step and a stream's, and more than all the rest
that is done for it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import hiredis
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse

from pongee.errors import BrokerUnavailable
from pongee.limits import BROKER_TIMEOUT, REDIS_SECOND_LOOK, REDIS_UNSENT, REDIS_WAITING

__all__ = ["Commands", "Ears", "told"]

logger = logging.getLogger("pongee.brokers")

Argument = str | bytes | int

_Waiting = tuple[float, "asyncio.Future[Any]", tuple[bytes, bytes] | None]
"""Until when, who, and which acknowledgement of what."""


def told(error: Exception) -> str:
    """What the server said, with its code, in one line; or what is wrong with its certificate."""
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message.rstrip(".")
            return (
                f"the server's certificate is refused ({why}): it must be in date, be for the "
                "host in the address, and be signed by one in the file that ?ssl_ca_certs= names"
            )
    code = getattr(error, "status_code", None)
    text = " ".join(str(error).split())[:200]
    return f"{code} {text}" if code and not text.startswith(code) else text


class _Wire(asyncio.Protocol):
    """What both kinds of connection have in common.

    Args:
        connection: not connected yet.
        name: of the server, for errors.
        ended: is told once why the connection is of no use any more, unless it was closed by us.
    """

    def __init__(
        self, connection: AbstractConnection, name: str, ended: Callable[[str], None]
    ) -> None:
        self.name = name
        self._connection = connection
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._dialled: asyncio.WriteTransport | None = None
        connection.redis_connect_func = self._log_in
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._reader = hiredis.Reader(InvalidResponse, BaseParser.parse_error)
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._over: str | None = "not connected"

    async def open(self) -> None:
        """Connect and log in; raises what redis-py raises."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        writer = self._connection._writer
        assert writer is not None  # noqa: S101 - it is connected
        self._transport = transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(self)
        self._over = None
        self._heard = self._loop.time()

    async def _log_in(self, connection: AbstractConnection) -> None:
        # When this fails, redis-py closes the connection in order and forgets it: under TLS, that
        # waits for a server that hangs. So it is remembered, to be cut.
        writer = connection._writer
        self._dialled = None if writer is None else writer.transport
        await connection.on_connect()

    def cut(self) -> None:
        """End it; whoever waits gets `BrokerUnavailable`. Idempotent."""
        self._fail(f"{self.name}: the connection was closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dialled is not None:
            # Not in order: a server that hangs would never take what is still to be sent.
            self._dialled.abort()
            self._connection._close()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Cut it, and wait for its end."""
        self.cut()
        if self._transport is not None:
            await asyncio.wait([self._gone], timeout=BROKER_TIMEOUT)

    # What the transport tells. ▲

    def data_received(self, data: bytes) -> None:
        """Take the answers that are complete."""
        self._heard = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                self._take(answer)
        except Exception as error:
            logger.exception("a connection to %s", self.name)
            self._lost(f"{self.name}: {type(error).__name__}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that it is over."""
        if not self._gone.done():
            self._gone.set_result(None)
        self._lost(f"{self.name}: {told(exc) if exc else 'Connection closed by server.'}")

    def _queue(self, parts: Iterable[bytes], *kinds: tuple[bytes, bytes] | None) -> Any:
        """Send a command, and return the future of its last answer."""
        if self._over is not None:
            raise BrokerUnavailable(self._over)
        assert self._transport is not None  # noqa: S101 - it is connected
        unwritten = self._unsent_bytes + self._transport.get_write_buffer_size()
        if len(self._waiting) >= REDIS_WAITING or unwritten >= REDIS_UNSENT:
            raise BrokerUnavailable(f"{self.name}: too much waits for its answer")
        if not self._unsent:
            self._loop.call_soon(self._send)
        for part in parts:
            self._unsent.append(part)
            self._unsent_bytes += len(part)
        until = self._loop.time() + BROKER_TIMEOUT
        if not self._waiting:
            self._heard = until - BROKER_TIMEOUT
        for kind in kinds:
            future: asyncio.Future[Any] = self._loop.create_future()
            self._waiting.append((until, future, kind))
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._watch)
        return future

    def _send(self) -> None:
        batch, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        if batch and self._over is None and self._transport is not None:
            self._transport.write(b"".join(batch))

    def _take(self, answer: Any) -> None:
        raise NotImplementedError

    def _answer(self, answer: Any) -> None:
        """Give `answer` to who has waited longest."""
        _, future, _ = self._waiting.popleft()
        if not future.done():  # else nobody waits any more
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _watch(self, second: bool = False) -> None:
        """Let go of who has waited too long; the connection is lost if nothing at all comes."""
        self._timer = None
        if not self._waiting:
            return
        now = self._loop.time()
        if now < self._waiting[0][0]:
            self._timer = self._loop.call_at(self._waiting[0][0], self._watch)
        elif not second:
            # It may have been us who did not look: then answers are taken before the next look.
            self._timer = self._loop.call_later(REDIS_SECOND_LOOK, self._watch, True)
        elif now - self._heard >= BROKER_TIMEOUT:
            self._lost(f"{self.name}: no answer within {BROKER_TIMEOUT:g} s")
        else:
            self._let_go(now)
            self._timer = self._loop.call_later(REDIS_SECOND_LOOK, self._watch, True)

    def _let_go(self, now: float) -> None:
        for until, future, _ in self._waiting:
            if until > now:
                break
            _refuse(future, f"{self.name}: no answer within {BROKER_TIMEOUT:g} s")

    def _lost(self, reason: str) -> None:
        if self._over is None:
            self._fail(reason)
            self._ended(reason)

    def _fail(self, reason: str) -> None:
        self._over = self._over or reason
        waiting, self._waiting = self._waiting, deque()
        self._unsent.clear()
        for _, future, _ in waiting:
            _refuse(future, reason)


def _refuse(future: asyncio.Future[Any], reason: str) -> None:
    if not future.done():
        future.set_exception(BrokerUnavailable(reason))
        future.exception()  # so that nobody need look; whoever waits gets it all the same


class Commands(_Wire):
    """A connection for commands, of which each has one answer."""

    def ask(self, *command: Argument) -> asyncio.Future[Any]:
        """Send `command`; the future gets its answer, or `RedisError` from the server.

        Cancellation: the answer is dropped when it comes, others get theirs.

        Raises:
            BrokerUnavailable: at once or from the future.
        """
        future: asyncio.Future[Any] = self._queue(self._connection.pack_command(*command), None)
        return future

    def _take(self, answer: Any) -> None:
        if self._waiting:
            self._answer(answer)
        else:
            self._lost(f"{self.name}: an answer that nobody asked for")


class Ears(_Wire):
    """A connection that subscribes.

    Args:
        connection: not connected yet.
        name: of the server, for errors.
        ended: as for every wire.
        hear: takes a subject and a message.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        name: str,
        ended: Callable[[str], None],
        hear: Callable[[bytes, bytes], None],
    ) -> None:
        super().__init__(connection, name, ended)
        self._hear = hear

    def change(self, verb: str, *subjects: bytes) -> asyncio.Future[Any]:
        """Subscribe or unsubscribe; the future ends when the server has done the last of them.

        Args:
            verb: ``SUBSCRIBE`` or ``UNSUBSCRIBE``; with S before them for those of one shard.
            subjects: one or more.

        Raises:
            BrokerUnavailable: at once or from the future.
        """
        kind = verb.lower().encode()
        parts = self._connection.pack_command(verb, *subjects)
        future: asyncio.Future[Any] = self._queue(parts, *((kind, one) for one in subjects))
        return future

    def _take(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            # Which of the subjects it is about is not said, so that the order is lost.
            self._lost(f"{self.name}: {told(answer)}")
            return
        kind, subject, what = answer
        if kind in (b"message", b"smessage"):
            self._hear(subject, what)
        elif self._waiting and self._waiting[0][2] == (kind, subject):
            self._answer(None)
        else:
            self._lost(f"{self.name}: {kind.decode()} that was not asked for")
