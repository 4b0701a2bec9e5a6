"""Owns one session from accept to the last hook.

The server's own task for the connection runs `supervise`: it reads, while the handler runs as a
task beside it. On our own wire, `supervise_detached` lets that task end, and the handler's is all
that is left. Whatever ends the session, the same steps follow, in this order:

1. jobs are cancelled; the handler is cancelled, or gets a grace period where that loses nothing;
2. what waits to be sent and the close frame go out, within the close timeout;
3. the handler and the jobs are awaited;
4. ``on_disconnect`` hooks run, once for every session whose ``on_connect`` hooks began.

These steps run in a task of their own, so that a server which cancels the connection's task at
shutdown cannot stop them half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from fastapi.exceptions import HTTPException, WebSocketException

from pongee.codes import CauseKind, CloseCause, CloseCode, may_be_sent
from pongee.errors import BrokerUnavailable, Refused, SessionClosed
from pongee.guards.capacity import Slot
from pongee.limits import HOOK_TIMEOUT, STUBBORN_TIMEOUT
from pongee.links.base import Link
from pongee.links.direct import DirectLink
from pongee.sessions.options import EndpointSpec
from pongee.sessions.runtime import Runtime
from pongee.sessions.session import Session
from pongee.telemetry import HandlerCrashed, SessionEnded, SessionOpened, TransportAborted

__all__ = ["supervise", "supervise_detached"]

logger = logging.getLogger("pongee.sessions")

_PEER_GONE = frozenset(
    {CauseKind.CLIENT_CLOSED, CauseKind.CONNECTION_LOST, CauseKind.DRAINING, CauseKind.RETURNED}
)


async def supervise(
    session: Session[Any, Any],
    link: Link,
    spec: EndpointSpec,
    runtime: Runtime,
    values: dict[str, Any],
    slot: Slot,
) -> None:
    """Run the endpoint's handler with `values` until the session has ended and is cleaned up.

    Cancellation: a server that cancels the connection's task is shutting down. The session ends
    with 1012, and this returns once it is cleaned up: raising would only print a traceback.
    """
    owner = _Owner(session, link, spec, runtime, slot)
    owner.start(values)
    try:
        await link.pump()
    except asyncio.CancelledError:
        logger.debug("%s: cancelled by the server; session %s", session.route, session.id)
    finally:
        # Ignored if the session has ended, as it has unless the server cancelled us.
        session.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(owner.wind_up())


def supervise_detached(
    session: Session[Any, Any],
    link: DirectLink,
    spec: EndpointSpec,
    runtime: Runtime,
    values: dict[str, Any],
    slot: Slot,
) -> None:
    """Do the same, and return at once: nothing waits while the session lives but its handler."""
    owner = _Owner(session, link, spec, runtime, slot)
    session.ending = owner.wind_up
    owner.start(values)
    link.detach()


class _Owner:
    """What one session's life needs from its first moment to its last hook."""

    __slots__ = (
        "_finished",
        "_handler",
        "_hooked",
        "_link",
        "_runtime",
        "_session",
        "_slot",
        "_spec",
    )

    def __init__(
        self,
        session: Session[Any, Any],
        link: Link,
        spec: EndpointSpec,
        runtime: Runtime,
        slot: Slot,
    ) -> None:
        self._session = session
        self._link = link
        self._spec = spec
        self._runtime = runtime
        self._slot = slot
        self._hooked = False
        self._handler: asyncio.Task[None]

    def start(self, values: dict[str, Any]) -> None:
        """Enter the session everywhere and start its handler."""
        session, runtime = self._session, self._runtime
        runtime.unfinished[self] = self._link
        runtime.registry.add(session)
        runtime.telemetry.emit(
            SessionOpened(session.id, session.route, session.user, session.address)
        )
        body = self._spec.handler(**values) if not runtime.on_connect else self._handle(values)
        self._handler = session.loop.create_task(body, name=self._spec.name)
        self._handler.add_done_callback(self._handler_done)
        if runtime.draining:
            session.leave()  # its handshake began before the process decided to leave
        else:
            session._timers.start(session.identity.expires_at)

    async def _handle(self, values: dict[str, Any]) -> None:
        for hook in self._runtime.on_connect:
            self._hooked = True
            await hook(self._session)
            if self._session.close_cause is not None:
                return  # the hook, or the client meanwhile, has ended it
        await self._spec.handler(**values)

    def _handler_done(self, task: asyncio.Task[None]) -> None:
        session = self._session
        if task.cancelled():
            session.end(CloseCause(CauseKind.CRASHED, CloseCode.INTERNAL_ERROR, "cancelled"))
            return
        error = _essence(task.exception())
        cause = _cause_of(error)
        if error is not None and cause.kind is CauseKind.CRASHED:
            self._runtime.telemetry.emit(HandlerCrashed(session.id, session.route, error))
        session.end(cause)

    def wind_up(self) -> asyncio.Task[None]:
        """Start what follows the end of the session; call it once."""
        ending = self._session.loop.create_task(self._wind_up())
        self._runtime.endings.add(ending)
        ending.add_done_callback(self._finish)
        return ending

    def _finish(self, ending: asyncio.Task[None]) -> None:
        self._link.when_gone(self._slot.release)  # the caps bound sockets, not sessions alone
        self._runtime.endings.discard(ending)
        self._runtime.finish(self)

    async def _wind_up(self) -> None:
        session, handler, runtime = self._session, self._handler, self._runtime
        cause = session.close_cause
        assert cause is not None  # noqa: S101 - the caller has ended it
        jobs = session.jobs
        for job in jobs:
            job.cancel()
        grace = _grace(session, self._spec, cause)
        if grace is None:
            handler.cancel()
        await self._close_link(cause)
        session.on_link_closed()
        if grace is not None and not handler.done():
            await _wait(runtime, {handler}, grace)
            handler.cancel()
        stubborn = await _wait(runtime, {handler, *jobs}, STUBBORN_TIMEOUT)
        for task in stubborn:
            logger.error("%s: %s goes on although it was cancelled", session.route, task.get_name())
        if self._hooked or not runtime.on_connect:
            await _run_hooks(session, runtime)
        self._tell_end(cause)

    def _tell_end(self, cause: CloseCause) -> None:
        session = self._session
        numbers = session.statistics()
        self._runtime.telemetry.emit(
            SessionEnded(
                session=session.id,
                route=session.route,
                user=session.user,
                address=session.address,
                cause=cause,
                duration=self._runtime.clock.time() - session.since,
                received=numbers.received_messages,
                sent=numbers.sent_messages,
                dropped=numbers.dropped_messages,
            )
        )

    async def _close_link(self, cause: CloseCause) -> None:
        session, link, limits = self._session, self._link, self._spec.limits
        if cause.kind is CauseKind.TOO_SLOW:
            # A close frame would wait behind the very data that does not drain.
            link.drop_waiting()
            possible = link.abort()
            self._runtime.telemetry.emit(
                TransportAborted(session.id, session.route, cause.reason, possible)
            )
            return
        if cause.kind is CauseKind.DRAINING and link.lost:
            # The server is closing it and would wait without limit for a peer that does not read.
            link.abort_after(limits.close_timeout)
            return
        code = cause.code if may_be_sent(cause.code) else CloseCode.INTERNAL_ERROR
        await link.close(code, cause.reason)


def _cause_of(error: BaseException | None) -> CloseCause:
    match error:
        case None:
            return CloseCause(CauseKind.RETURNED, CloseCode.NORMAL)
        case SessionClosed():
            return error.cause
        case WebSocketException():
            return CloseCause(CauseKind.CLOSED, error.code, error.reason)
        case Refused():
            return CloseCause(CauseKind.REFUSED, error.code, error.reason)
        case HTTPException() if error.status_code < 500:
            return CloseCause(CauseKind.REFUSED, CloseCode.POLICY_VIOLATION, str(error.detail))
        case BrokerUnavailable():
            logger.warning("a session ended, because the broker cannot be reached: %s", error)
            return CloseCause(CauseKind.CLOSED, CloseCode.TRY_AGAIN_LATER, "try again later")
    return CloseCause(CauseKind.CRASHED, CloseCode.INTERNAL_ERROR, "internal error")


def _essence(error: BaseException | None) -> BaseException | None:
    """Look into a task group's error: one that holds only `SessionClosed` is no crash."""
    while isinstance(error, BaseExceptionGroup):
        closed, others = error.split(SessionClosed)
        if others is not None or closed is None:
            return error
        error = closed.exceptions[0]
    return error


def _grace(session: Session[Any, Any], spec: EndpointSpec, cause: CloseCause) -> float | None:
    """Seconds before the handler is cancelled, or `None` for at once.

    A handler that reads gets to finish the messages that had arrived before the client left, or a
    client that sends and leaves would often not be heard. One that closed the session itself may
    tidy up for as long as closing may take.
    """
    if cause.kind is CauseKind.CLOSED:
        return spec.limits.close_timeout
    if cause.kind in _PEER_GONE and session._inbox.has_reader:
        return spec.limits.handler_grace
    return None


async def _wait(
    runtime: Runtime, tasks: set[asyncio.Task[Any]], seconds: float
) -> set[asyncio.Task[Any]]:
    """Wait for `tasks`, at most `seconds` by the injected clock; returns those still running."""
    pending = {task for task in tasks if not task.done()}
    if pending:
        # Most end as soon as they are cancelled, and a time limit costs more than they do.
        await asyncio.sleep(0)
        pending = {task for task in pending if not task.done()}
    if pending:
        try:
            async with runtime.wheel.timeout(seconds):
                await asyncio.wait(pending)
        except TimeoutError:
            pass
    return {task for task in pending if not task.done()}


async def _run_hooks(session: Session[Any, Any], runtime: Runtime) -> None:
    for hook in runtime.on_disconnect:
        try:
            async with runtime.wheel.timeout(HOOK_TIMEOUT):
                await hook(session)
        except (Exception, asyncio.CancelledError):
            # A hook that awaits a job which was cancelled gets its CancelledError.
            logger.exception("%s: an on_disconnect hook raised", session.route)
