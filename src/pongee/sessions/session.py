"""What a handler holds: iterate, send, subscribe, spawn, close. ▲

A session is owned by `sessions.supervisor`, which reads for it, cancels what it started and closes
it. Here is its state and its public face. It ends once: the first `Session.end` wins, whoever
calls it, and from then on the registry does not know it, its channels have forgotten it, and
sending raises `SessionClosed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.websockets import WebSocket

from pongee.channels.encoding import Format
from pongee.channels.names import check_channel
from pongee.codes import CauseKind, CloseCause, CloseCode, may_be_sent
from pongee.errors import MessageError, SessionClosed, UsageError
from pongee.guards.rate import Window, buckets_of
from pongee.guards.verdict import Identity
from pongee.limits import MESSAGES_PER_TURN
from pongee.links.base import Batch, Link, Outgoing
from pongee.registry import ConnectionInfo
from pongee.sessions import membership
from pongee.sessions.inbound import answer_to
from pongee.sessions.inbox import Inbox
from pongee.sessions.jobs import Jobs
from pongee.sessions.options import EndpointSpec, Heartbeat
from pongee.sessions.renewal import renew
from pongee.sessions.runtime import Runtime
from pongee.sessions.snapshot import Closed, SessionStatistics, info_of, statistics_of
from pongee.sessions.timers import SessionTimers
from pongee.telemetry import JobCrashed, MessageRejected

__all__ = ["Session"]

LEAVING = CloseCause(CauseKind.DRAINING, CloseCode.SERVICE_RESTART, "server is leaving")

In = TypeVar("In")
Out = TypeVar("Out")


class Session(Generic[In, Out]):
    """A live, typed, guarded WebSocket connection.

    Handlers get one by naming it: ``session: Session[In, Out]``. `In` and `Out` are ``str``,
    ``bytes``, or anything Pydantic validates, which then travels as JSON.

    Attributes:
        id: unique in this process.
        route: the path pattern.
        address: the client's IP address as the trusted proxies tell it.
        client: the socket's own peer, which may be a proxy; `address` is the client.
        headers: of the handshake.
        subprotocols: that the client offered.
        since: when it was accepted, in Unix seconds.
        state: the handler's own notes.
        loop: the event loop it lives on.
        ending: called once when it has ended; the supervisor's.
    """

    __slots__ = (
        "__weakref__",
        "_bucket",
        "_byte_bucket",
        "_cause",
        "_channels",
        "_close_done",
        "_create_future",
        "_decode",
        "_encode",
        "_enders",
        "_errors",
        "_identity",
        "_inbox",
        "_iterating",
        "_jobs",
        "_link",
        "_link_closed",
        "_max_size",
        "_now",
        "_received",
        "_rejected",
        "_runtime",
        "_spec",
        "_streak",
        "_timers",
        "_waiter",
        "address",
        "client",
        "deliver",
        "ending",
        "headers",
        "id",
        "last_heard",
        "loop",
        "route",
        "since",
        "state",
        "subprotocols",
    )

    def __init__(
        self,
        websocket: WebSocket,
        spec: EndpointSpec,
        runtime: Runtime,
        *,
        identity: Identity,
        address: str | None,
        route: str,
        heartbeat: Heartbeat | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.id = runtime.new_id()
        self.route = route
        self.address = address
        self.since = runtime.clock.time()
        self.state = SimpleNamespace()
        # Not the WebSocket itself: its scope would be most of what an idle session holds.
        self.headers = Headers(raw=websocket.scope["headers"])
        self.client = websocket.client
        self.subprotocols: list[str] = list(websocket.scope.get("subprotocols", ()))
        self.ending: Callable[[], Any] | None = None
        self._spec = spec
        self._runtime = runtime
        self._identity = identity
        self._link: Link
        self._cause: CloseCause | None = None
        self._enders: list[asyncio.Future[None]] | None = None  # see `snapshot.Closed`
        self._link_closed = False
        self._close_done: asyncio.Event | None = None
        self._channels: set[str] = set()
        self._jobs: Jobs | None = None

        limits = spec.limits
        self._inbox = Inbox(limits, runtime.wheel, self._end_unread, f"{route}, session {self.id}")
        self._streak = 0
        self._waiter: asyncio.Future[str | bytes | None] | None = None
        self._iterating = False
        self._received = 0
        self._rejected = 0
        self._max_size = limits.max_message_size
        self._decode = spec.codec.decode
        self._encode = spec.codec.encode
        self._errors: Window | None = None
        self.loop = loop
        self._create_future = loop.create_future
        self._now = runtime.clock.monotonic
        self.last_heard = self._now()
        self._bucket, self._byte_bucket = buckets_of(limits, self.last_heard)
        self._timers = SessionTimers(self, spec, runtime, heartbeat)

    def attach(self, link: Link) -> None:
        """Give the session its link, before anything else happens."""
        self._link = link
        self._inbox.attach(link)
        self.deliver: Callable[[Batch], None] = link.deliver  # the hub's, with nothing in between

    def __repr__(self) -> str:
        state = "open" if self._cause is None else str(self._cause)
        return f"<Session {self.id} {self.route} user={self.user!r} {state}>"

    # Who

    @property
    def user(self) -> str | None:
        """The user's id as the auth policy established it, or `None` on a public endpoint."""
        return self._identity.user

    @property
    def identity(self) -> Identity:
        """All that the auth policy established: user, expiry, claims."""
        return self._identity

    async def refresh(self, token: str) -> Identity:
        """Prove again who this is, and stay for as long as the new token lasts.

        Raises:
            InvalidToken: the token proves nothing, or proves to be another user; the session goes
                on with what it had.
            SessionClosed: the session ended meanwhile.
            UsageError: the endpoint's auth policy knows no tokens.
        """
        return await renew(self, token)

    # Reading

    def __aiter__(self) -> AsyncIterator[In]:
        """Iterate over messages; ends when the session has ended.

        Invalid messages are answered and skipped. What had arrived before the peer left is still
        delivered, for `Limits.handler_grace` seconds.

        Raises:
            UsageError: a second iterator is active at the same time.
        """
        return self

    async def __anext__(self) -> In:
        """Return the next message. ▲"""
        if self._iterating:
            raise UsageError(
                "two tasks read from one session at once, so that each would get a part of the "
                "messages; read in one place and hand the messages on, for example by a queue"
            )
        self._iterating = True
        inbox = self._inbox
        if not inbox.has_reader:
            inbox.begin_reading()
        try:
            while True:
                if inbox.messages:
                    self._streak += 1
                    if self._streak >= MESSAGES_PER_TURN:
                        self._streak = 0
                        await asyncio.sleep(0)
                    data = inbox.take()
                elif self._cause is not None:
                    raise StopAsyncIteration
                else:
                    self._streak = 0
                    waiter = self._waiter = self._create_future()
                    try:
                        handed = await waiter
                    except asyncio.CancelledError:
                        self._keep(waiter)
                        raise
                    if handed is None:
                        continue  # it has ended
                    data = handed
                try:
                    return self._decode(data)  # type: ignore[no-any-return]
                except MessageError as error:
                    await self._reject(error)
        finally:
            self._iterating = False
            self._waiter = None

    def _keep(self, waiter: asyncio.Future[str | bytes | None]) -> None:
        """Put a message back that was handed to a reader who was cancelled in that very turn."""
        data = waiter.result() if waiter.done() and not waiter.cancelled() else None
        if data is not None:
            self._inbox.put_back(data)

    async def receive(self) -> In:
        """Return the next message.

        Raises:
            SessionClosed: the session has ended and everything that had arrived was taken.
            UsageError: another task is reading at the same time.

        Cancellation: loses no message.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise SessionClosed(self._cause_or_lost()) from None

    async def _reject(self, error: MessageError) -> None:
        self._rejected += 1
        self._runtime.telemetry.emit(MessageRejected(self.id, self.route, error.code))
        if self._errors is None:
            self._errors = Window(self._spec.limits.max_errors, self._spec.limits.error_window)
        if self._errors.hit(self._runtime.clock.monotonic()):
            self.end(CloseCause(CauseKind.TOO_MANY, CloseCode.POLICY_VIOLATION, "too many errors"))
        elif self._cause is None:
            await self._link.send(Outgoing(answer_to(error, self._spec.on_invalid)))

    # Writing

    async def send(self, message: Out, *, key: str | None = None) -> None:
        """Send one message. ▲

        Args:
            message: checked against `Out` before anything is sent.
            key: what ``latest_per_key`` compares.

        Raises:
            UsageError: `message` is not an `Out`; nothing was sent.
            SessionClosed: the session has ended.

        Delivery: in the order of calls, from any number of tasks; before what was published to one
        of its channels in the same turn of the event loop. Under ``disconnect`` it waits
        while the client's outbox is over its bound; under the other policies it never waits.
        Cancellation: the message may still be sent.
        """
        if self._cause is not None:
            raise SessionClosed(self._cause)
        data = self._encode(message)
        if self._link.send_now(data):
            self._streak += 1
            if self._streak >= MESSAGES_PER_TURN:  # a handler that only sends gives way too
                self._streak = 0
                await asyncio.sleep(0)
            return
        await self._link.send(Outgoing(data, key))
        if self._link.lost:
            raise SessionClosed(self._cause_or_lost())

    @property
    def format(self) -> Format:
        """How messages to it are encoded."""
        return self._spec.codec.format

    def push(self, data: str | bytes) -> None:
        """Send encoded data without waiting; ignored after the end."""
        self._link.push(Outgoing(data))

    # Channels and jobs

    async def subscribe(self, channel: str) -> None:
        """Receive what is published to `channel`, in this endpoint's format. Twice is once.

        Raises:
            UsageError: the name is not allowed, or this session has too many subscriptions.
            SessionClosed: the session has ended.
        """
        if self._cause is not None:
            raise SessionClosed(self._cause)
        check_channel(channel)
        if channel in self._channels:
            return
        limit = self._spec.limits.max_subscriptions
        if len(self._channels) >= limit:
            raise UsageError(f"a session may subscribe to at most {limit} channels")
        await membership.enter(self, channel)
        if self._cause is not None:
            membership.leave(self, channel)  # it ended meanwhile
            raise SessionClosed(self._cause)

    async def unsubscribe(self, channel: str) -> None:
        """Receive no more from `channel`. Harmless when not subscribed."""
        if channel in self._channels:
            self._channels.discard(channel)
            membership.leave(self, channel)

    def spawn(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `job` beside the handler; it is cancelled when the session ends.

        A job that raises is logged and ends the session with 1011.

        Returns:
            The task; it may be awaited or cancelled.

        Raises:
            UsageError: too many jobs.
            SessionClosed: the session has ended; `job` was not started.
        """
        if self._cause is not None:
            job.close()
            raise SessionClosed(self._cause)
        if self._jobs is None:
            self._jobs = Jobs(self.loop, self._spec.limits.max_jobs, self._job_crashed)
        return self._jobs.start(job)

    def _job_crashed(self, name: str, error: BaseException) -> None:
        self._runtime.telemetry.emit(JobCrashed(self.id, self.route, name, error))
        self.end(CloseCause(CauseKind.CRASHED, CloseCode.INTERNAL_ERROR, "internal error"))

    @property
    def jobs(self) -> frozenset[asyncio.Task[Any]]:
        """The jobs that are running."""
        return frozenset() if self._jobs is None else frozenset(self._jobs.tasks)

    # The end

    @property
    def closed(self) -> Closed:
        """True once the session has ended; ``await session.closed`` waits and returns the cause."""
        return Closed(self)

    @property
    def close_cause(self) -> CloseCause | None:
        """Who ended the session and why; `None` while it is open."""
        return self._cause

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End the session: send what waits, then a close frame.

        Idempotent, and harmless after the connection was lost.

        Args:
            code: 1000 to 1014 or 3000 to 4999, as RFC 6455 section 7.4 allows.
            reason: cut to 123 bytes of UTF-8.

        Raises:
            UsageError: a code that must not travel in a close frame; nothing was closed.

        Cancellation: the session still closes.
        """
        if not may_be_sent(code):
            raise UsageError(f"close code {code} must not be sent; 1000 to 1014, 3000 to 4999 may")
        self.end(CloseCause(CauseKind.CLOSED, code, reason))
        if not self._link_closed:
            if self._close_done is None:
                self._close_done = asyncio.Event()
            await self._close_done.wait()

    def disconnect(self, code: int | None = None, reason: str | None = None) -> None:
        """End the session from outside its handler, without waiting; by default with 4403."""
        code = CloseCode.DISCONNECTED if code is None else code
        self.end(CloseCause(CauseKind.DISCONNECTED, code, reason or "disconnected"))

    def leave(self) -> None:
        """End the session because the process leaves."""
        self.end(LEAVING)

    def on_gap(self, channel: str) -> None:
        """Do nothing: a session has no position in a channel."""

    def end(self, cause: CloseCause) -> None:
        """End the session, once; later causes are ignored. Never raises, never waits."""
        if self._cause is not None:
            return
        self._cause = cause
        self._runtime.registry.remove(self)
        for channel in self._channels:
            membership.leave(self, channel)
        self._channels.clear()
        self._timers.cancel()
        self._inbox.close()
        for ender in tuple(self._enders or ()):
            if not ender.done():
                ender.set_result(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._link.stop_reading()
        if self.ending is not None:
            self.ending()

    def _cause_or_lost(self) -> CloseCause:
        return self._cause or CloseCause(CauseKind.CONNECTION_LOST, CloseCode.ABNORMAL)

    # What the link tells (links.base.Receiver)

    def on_message(self, data: str | bytes) -> None:
        """Take a message from the link into the inbox. ▲"""
        if self._cause is not None:
            return
        if isinstance(data, bytes) or data.isascii():
            size = len(data)
        else:
            size = len(data.encode("utf-8", "surrogatepass"))
        if size > self._max_size:
            self.end(CloseCause(CauseKind.BAD_INPUT, CloseCode.MESSAGE_TOO_BIG, "message too big"))
            return
        self._received += 1
        now = self.last_heard = self._now()
        if self._bucket is not None and not self._bucket.take(1, now):
            self._end_too_many("too many messages")
            return
        if self._byte_bucket is not None and not self._byte_bucket.take(size, now):
            self._end_too_many("too many bytes")
            return
        waiter = self._waiter
        if waiter is not None:
            # The handler waits, so that nothing is before this one: it goes to it directly.
            self._waiter = None
            if not waiter.done():
                waiter.set_result(data)
                return
        self._inbox.put(data)

    def on_lost(self, cause: CloseCause) -> None:
        """Learn from the link that the peer is gone."""
        self.end(cause)

    def on_stalled(self, why: str) -> None:
        """Learn from the link that the peer reads too slowly."""
        self.end(CloseCause(CauseKind.TOO_SLOW, CloseCode.TRY_AGAIN_LATER, f"too slow: {why}"))

    def _end_too_many(self, why: str) -> None:
        self.end(CloseCause(CauseKind.TOO_MANY, CloseCode.POLICY_VIOLATION, why))

    def _end_unread(self) -> None:
        self._end_too_many("too many unread messages")

    def on_link_closed(self) -> None:
        """Learn from the supervisor that the close frame is out, or cannot be sent."""
        self._link_closed = True
        if self._close_done is not None:
            self._close_done.set()

    # Snapshots

    def info(self) -> ConnectionInfo:
        """Take the registry's snapshot of this connection."""
        return info_of(self)

    def statistics(self) -> SessionStatistics:
        """Counters, immutable and cheap to take."""
        return statistics_of(self)
