"""One client: a connection that speaks the client protocol, from accept to the last handler. ▲

A client needs no task while nothing happens. A frame is decoded as it arrives; what becomes of its
commands is in `centrifuge.intake`, what each does in `centrifuge.commands`,
`centrifuge.subscription` and `centrifuge.connecting`, what is legal when in `centrifuge.rules`.

All methods are for the event loop's thread. A client ends once: the first `end` wins, whoever calls
it; from then on the registry and its channels do not know it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pydantic_core
from starlette.datastructures import Headers

from pongee.centrifuge import commands, connecting
from pongee.centrifuge.codes import DISCONNECTS, Disconnect, is_disconnect_code
from pongee.centrifuge.intake import Intake
from pongee.centrifuge.messages import (
    MalformedFrame,
    Message,
    Push,
    Reply,
    raw,
)
from pongee.centrifuge.rules import Phase
from pongee.centrifuge.service import PINGS, Codec, Service, new_client_id
from pongee.centrifuge.snapshot import ended_of, info_of
from pongee.centrifuge.subscription import Subscription
from pongee.channels.encoding import Format, to_json
from pongee.channels.publication import ClientInfo
from pongee.clock import Timer
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.errors import SessionClosed, UsageError
from pongee.guards.verdict import ANONYMOUS, Identity
from pongee.limits import HOOK_TIMEOUT
from pongee.links.base import Batch, Link, Outgoing
from pongee.registry import ConnectionInfo
from pongee.telemetry import SessionOpened, TransportAborted

__all__ = ["Client"]

logger = logging.getLogger("pongee.channels")


class Client:
    """A client that is connected with an SDK; handlers get it by naming it: ``client: Client``.

    Attributes:
        id: unique among all clients.
        identity: what the auth policy established.
        address: the client's IP address as the trusted proxies tell it.
        since: when it was accepted, in Unix seconds.
        name: of the SDK, as it says.
        version: of the application, as it says.
        state: the application's own notes.
    """

    __slots__ = (
        "__weakref__",
        "_appointments",
        "_codec",
        "_conn_info",
        "_ending",
        "_expiry",
        "_intake",
        "_pinged",
        "_slot",
        "address",
        "cause",
        "deliver",
        "format",
        "greeted",
        "id",
        "identity",
        "link",
        "loop",
        "name",
        "phase",
        "received",
        "route",
        "scope",
        "service",
        "session",
        "since",
        "state",
        "subscriptions",
        "version",
        "wanted",
    )

    def __init__(
        self,
        service: Service,
        codec: Codec,
        form: Format,
        scope: dict[str, Any],
        *,
        address: str | None,
        route: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.id = new_client_id()
        self.service = service
        self.scope = scope
        self.address = address
        self.route = route
        self.loop = loop
        self.since = service.runtime.clock.time()
        self.identity: Identity = ANONYMOUS
        self.name = ""
        self.version = ""
        self._conn_info = b""
        self.state: Any = None
        self.phase = Phase.OPEN
        self.greeted = False  # whether on_connect has been called and let it in
        self.cause: CloseCause | None = None
        self.format = form
        self.session = ""  # names it on transports without a connection of their own
        self.wanted: list[str] = []
        self.subscriptions: dict[str, Subscription] = {}
        self._codec = codec
        self.link: Link
        self._slot: Any = None
        self._intake = Intake(self)
        self._ending: asyncio.Task[None] | None = None
        self._pinged = False
        self.received = 0
        self._appointments: Timer | None = None  # connect, ping or pong: one at a time
        self._expiry: Timer | None = None

    def __repr__(self) -> str:
        return f"<Client {self.id} user={self.user!r} {self.phase.name.lower()}>"

    # Who

    @property
    def user(self) -> str | None:
        """The user's id, or `None` for one who is anonymous."""
        return self.identity.user

    @property
    def headers(self) -> Headers:
        """Headers of the handshake."""
        return Headers(raw=self.scope["headers"])

    @property
    def channels(self) -> list[str]:
        """Channels it is subscribed to."""
        return [name for name, sub in self.subscriptions.items() if sub.live]

    @property
    def conn_info(self) -> bytes:
        """JSON that others see of it; from the token's ``info``, or set in ``on_connect``.

        Set it to anything JSON can write, or to JSON as bytes.

        Raises:
            UsageError: it is no JSON.
        """
        return self._conn_info

    @conn_info.setter
    def conn_info(self, value: Any) -> None:
        if isinstance(value, bytes) and value:
            try:
                value = pydantic_core.from_json(value)
            except ValueError as error:
                raise UsageError(f"conn_info is no JSON: {error}") from None
        self._conn_info = b"" if value in (b"", None) else to_json(value).encode()

    def info_in(self, chan_info: bytes = b"") -> ClientInfo:
        """What others see of it."""
        return ClientInfo(self.user or "", self.id, self._conn_info, chan_info)

    # The application's commands

    async def send(self, data: Any) -> None:
        """Send a message outside of any channel; the SDK's ``message`` event.

        Raises:
            UsageError: `data` cannot be written as JSON.
            SessionClosed: it is gone.
        """
        if self.cause is not None:
            raise SessionClosed(self.cause)
        self.push(Push(message=Message(raw(to_json(data).encode()))))

    async def subscribe(self, channel: str) -> None:
        """Subscribe it to `channel` from the server's side. Twice is once.

        Raises:
            UsageError: no such channel is declared, or it has too many.
            SessionClosed: it is gone.
        """
        if self.phase is Phase.CONNECTING:
            self.wanted.append(channel)  # in the reply to connect
        else:
            await commands.subscribe_by_server(self, channel)

    async def unsubscribe(self, channel: str, code: int = 2000, reason: str = "") -> None:
        """End its subscription to `channel`. Harmless when there is none.

        Args:
            channel: its name.
            code: 2000 to 2999; from 2500 on, the SDK subscribes again.
            reason: one line; by default the code's.

        Raises:
            UsageError: a code that may not be used.
        """
        commands.unsubscribe_by_server(self, channel, code, reason)

    def disconnect(self, code: int | None = None, reason: str | None = None) -> None:
        """End the connection, without waiting.

        Args:
            code: 3000 to 4999, by default 3503: the SDK does not come back.
            reason: one line; by default the code's.

        Raises:
            UsageError: a code that may not be used.
        """
        code = Disconnect.FORCE_DISCONNECT if code is None else code
        if not is_disconnect_code(code):
            raise UsageError(f"disconnect code {code}: 3000 to 4999 may be used")
        self.end(code, reason or "", CauseKind.DISCONNECTED)

    def refresh(self, expires_at: float | None) -> None:
        """Let it stay until `expires_at`, in Unix seconds; `None` is for ever."""
        connecting.set_expiry(self, expires_at)

    # Beginning

    def open(self, link: Link, slot: Any) -> None:
        """Give it its link and its place; from here on it is owned."""
        self.link = link
        self._slot = slot
        self.deliver: Callable[[Batch], None] = link.deliver  # the hub's, with nothing in between
        runtime = self.service.runtime
        runtime.unfinished[self] = link
        if runtime.draining:
            self.leave()
            return
        self._appointments = runtime.wheel.call_later(
            self.service.spec.limits.connect_timeout, self._stale
        )

    def claim_user(self, user: str) -> None:
        """Count it for `user`.

        Raises:
            Refused: the user has too many connections.
        """
        if self._slot is not None:
            self._slot.claim_user(user)

    def ready(self) -> None:
        """Learn that the connect command is answered."""
        runtime, spec = self.service.runtime, self.service.spec
        self.phase = Phase.READY
        runtime.registry.add(self)
        runtime.telemetry.emit(SessionOpened(self.id, self.route, self.user, self.address))
        # Somewhere in the second half of an interval, so that pings spread out.
        first = spec.ping_interval * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._appoint(first, self._ping)

    def refuse(self) -> None:
        """Learn that the connect command was answered with an error: wait for its departure."""
        self.phase = Phase.REFUSED
        self._intake.drop()
        self._appoint(self.service.spec.limits.refused_timeout, self._overstayed)

    def _appoint(self, delay: float, callback: Callable[[], None]) -> None:
        if self._appointments is not None:
            self._appointments.cancel()
        self._appointments = self.service.runtime.wheel.call_later(delay, callback)

    def _stale(self) -> None:
        self.end(Disconnect.STALE, cause=CauseKind.IDLE)

    def _overstayed(self) -> None:
        self.end(CloseCode.NORMAL, "connect was refused")

    # Pings

    def note_pong(self) -> None:
        """Learn that the last ping was answered."""
        self._pinged = False

    def _ping(self) -> None:
        spec = self.service.spec
        self._pinged = True
        self.link.push(PINGS[self.format])
        self._appoint(spec.pong_timeout, self._look_for_pong)

    def _look_for_pong(self) -> None:
        spec = self.service.spec
        if self._pinged:
            self.end(Disconnect.NO_PONG, cause=CauseKind.CONNECTION_LOST)
        else:
            self._appoint(spec.ping_interval - spec.pong_timeout, self._ping)

    # Reading

    def on_message(self, data: str | bytes) -> None:
        """Take a frame of commands. ▲"""
        if self.phase in (Phase.CLOSED, Phase.REFUSED):
            return
        self.received += 1
        size = len(data)
        if size > self.service.spec.limits.max_message_size:
            self.end(CloseCode.MESSAGE_TOO_BIG, "message too big", CauseKind.BAD_INPUT)
            return
        try:
            received = self._codec.decode(data)
        except MalformedFrame as error:
            logger.info("%s, client %s: malformed frame: %s", self.route, self.id, error)
            self.end(Disconnect.BAD_REQUEST, cause=CauseKind.BAD_INPUT)
            return
        if len(received) > self.service.spec.limits.waiting_commands:
            self.end(Disconnect.TOO_MANY_REQUESTS, cause=CauseKind.TOO_MANY)
        for command in received:
            self._intake.take(command)

    # Writing

    def answer(self, reply: Reply) -> None:
        """Send a reply to a command. ▲"""
        self._intake.answered(reply.id)
        if self.cause is None:
            self.link.push(Outgoing(self._codec.encode(reply)))

    def push(self, push: Push) -> None:
        """Send what nobody asked for."""
        if self.cause is None:
            self.link.push(Outgoing(self._codec.encode(Reply(push=push))))

    def deliver_held(self, messages: list[Outgoing]) -> None:
        """Send what was published while it subscribed."""
        if messages and self.cause is None:
            self.link.deliver(Batch(messages))

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Run what follows from a command, beside the next ones; it outlives the connection."""
        task = self.loop.create_task(self._tell("a client's handler", job))
        self.service.runtime.endings.add(task)
        task.add_done_callback(self.service.runtime.endings.discard)

    def arm_expiry(self, delay: float, callback: Callable[[], None]) -> None:
        """Call `callback` after `delay` seconds, instead of what was armed before."""
        self.disarm_expiry()
        self._expiry = self.service.runtime.wheel.call_later(delay, callback)

    def disarm_expiry(self) -> None:
        """Call nothing."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def log_crash(self, where: str) -> None:
        """Log the exception that is being handled."""
        logger.exception("%s, client %s: %s raised", self.route, self.id, where)

    # The end

    def on_gap(self, channel: str) -> None:
        """Learn from the switchboard that a publication was lost."""
        commands.lose_position(self, channel)

    def on_lost(self, cause: CloseCause) -> None:
        """Learn from the link that the peer is gone."""
        self._end(cause)

    def on_stalled(self, why: str) -> None:
        """Learn from the link that the peer reads too slowly."""
        self._end(CloseCause(CauseKind.TOO_SLOW, Disconnect.SLOW, "slow"), at_once=why != FULL)

    def leave(self) -> None:
        """End, because the process leaves: the SDK comes back, to another one."""
        self.end(Disconnect.SHUTDOWN, cause=CauseKind.DRAINING)

    def end(self, code: int, reason: str = "", cause: CauseKind = CauseKind.CLOSED) -> None:
        """End the connection, once; later calls are ignored. Never raises, never waits.

        Args:
            code: a disconnect code, or a WebSocket close code.
            reason: by default the code's.
            cause: why, for our own side.
        """
        known = DISCONNECTS.get(code, "") if 3000 <= code <= 3999 else ""  # type: ignore[call-overload]
        self._end(CloseCause(cause, code, reason or known or "closed"))

    def _end(self, cause: CloseCause, *, at_once: bool = False) -> None:
        if self.cause is not None:
            return
        self.cause = cause
        ready = self.phase is Phase.READY
        self.phase = Phase.CLOSED
        runtime = self.service.runtime
        runtime.registry.remove(self)
        for timer in (self._appointments, self._expiry):
            if timer is not None:
                timer.cancel()
        self._intake.drop()
        left = [(name, sub) for name, sub in self.subscriptions.items() if sub.live]
        for name, sub in self.subscriptions.items():
            sub.end(self, name, lost=_is_lost(cause))
        self.subscriptions = {}
        self._intake.cancel()
        ending = self._ending = self.loop.create_task(self._wind_up(cause, left, ready, at_once))
        runtime.endings.add(ending)
        ending.add_done_callback(self._finish)

    async def ended(self) -> None:
        """Wait until the last handler has run; the client has ended."""
        assert self._ending is not None  # noqa: S101 - the caller has ended it
        await asyncio.wait([self._ending])

    def _finish(self, ending: asyncio.Task[None]) -> None:
        if self._slot is not None:
            self.link.when_gone(self._slot.release)
        self.service.runtime.endings.discard(ending)
        self.service.runtime.finish(self)

    async def _wind_up(
        self,
        cause: CloseCause,
        left: list[tuple[str, Subscription]],
        ready: bool,
        at_once: bool,
    ) -> None:
        link = self.link
        if cause.kind is CauseKind.TOO_SLOW:
            link.drop_waiting()
        if at_once:
            possible = link.abort()
            self.service.runtime.telemetry.emit(
                TransportAborted(self.id, self.route, cause.reason, possible)
            )
        else:
            await link.close(cause.code if cause.code not in (1005, 1006) else 1000, cause.reason)
        link.stop_reading()
        for name, sub in left:
            await self._tell(name, sub.tell_unsubscribed(self))
        if ready or self.greeted:
            await self._tell(
                "on_disconnect",
                self.service.hook("disconnect", self.scope, {"client": self, "cause": cause}),
            )
        if ready:
            self.service.runtime.telemetry.emit(ended_of(self, cause))

    async def _tell(self, where: str, telling: Any) -> None:
        try:
            async with self.service.runtime.wheel.timeout(HOOK_TIMEOUT):
                await telling
        except (Exception, asyncio.CancelledError):
            logger.exception("%s: a handler of a client's departure raised", where)

    # Snapshots

    def info(self) -> ConnectionInfo:
        """Take the registry's snapshot of this connection."""
        return info_of(self)

    def given(self, **more: Any) -> Mapping[str, Any]:
        """What a handler of this client may name."""
        return {"client": self, **more}


FULL = "outbox full"


def _is_lost(cause: CloseCause) -> bool:
    """Whether the user may be back in a moment: nobody said goodbye."""
    if cause.kind is CauseKind.CLIENT_CLOSED:
        # SDKs for JavaScript say goodbye with a close frame that holds no code.
        goodbyes = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)
        return cause.code not in goodbyes
    return cause.kind in (CauseKind.CONNECTION_LOST, CauseKind.TOO_SLOW, CauseKind.DRAINING)
