"""Owns one session from accept to the last hook.

The server's own task for the connection runs `supervise`: it reads, while the handler runs as a
task beside it. Whatever ends the session, the same steps follow, in this order:

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
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import HTTPException, WebSocketException

from pongee.codes import CauseKind, CloseCause, CloseCode, may_be_sent
from pongee.errors import Refused, SessionClosed
from pongee.limits import HOOK_TIMEOUT, STUBBORN_TIMEOUT
from pongee.links.base import Link
from pongee.sessions.options import EndpointSpec
from pongee.sessions.runtime import Hook, Runtime
from pongee.sessions.session import Session
from pongee.telemetry import HandlerCrashed, SessionEnded, SessionOpened, TransportAborted

__all__ = ["supervise"]

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
) -> None:
    """Run the endpoint's handler with `values` until the session has ended and is cleaned up.

    Cancellation: a server that cancels the connection's task is shutting down. The session ends
    with 1012, and this returns once it is cleaned up: raising would only print a traceback.
    """
    finished = asyncio.get_running_loop().create_future()
    runtime.unfinished[finished] = link
    runtime.registry.add(session)
    runtime.telemetry.emit(SessionOpened(session.id, session.route, session.user, session.address))
    hooked = _Hooked()
    task = asyncio.get_running_loop().create_task(
        _handle(session, spec, values, runtime.on_connect, hooked), name=spec.name
    )
    task.add_done_callback(lambda done: _handler_done(session, runtime, done))
    if runtime.draining:
        session.end(_leaving())  # its handshake began before the process decided to leave
    try:
        session._timers.start(session.identity.expires_at)
        await link.pump()
    except asyncio.CancelledError:
        logger.debug("%s: cancelled by the server; session %s", session.route, session.id)
    finally:
        # Ignored if the session has ended, as it has unless the server cancelled us.
        session.end(_leaving())
        ending = asyncio.get_running_loop().create_task(
            _wind_up(session, link, spec, runtime, task, hooked)
        )
        runtime.endings.add(ending)
        ending.add_done_callback(lambda done: _finish(runtime, done, finished))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ending)


def _leaving() -> CloseCause:
    return CloseCause(CauseKind.DRAINING, CloseCode.SERVICE_RESTART, "server is leaving")


def _finish(runtime: Runtime, ending: asyncio.Task[None], finished: asyncio.Future[None]) -> None:
    runtime.endings.discard(ending)
    runtime.unfinished.pop(finished, None)
    if not finished.done():
        finished.set_result(None)


class _Hooked:
    """Whether the ``on_connect`` hooks began."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began = False


async def _handle(
    session: Session[Any, Any],
    spec: EndpointSpec,
    values: dict[str, Any],
    on_connect: Iterable[Hook],
    hooked: _Hooked,
) -> None:
    for hook in on_connect:
        hooked.began = True
        await hook(session)
        if session.close_cause is not None:
            return  # the hook, or the client meanwhile, has ended it
    await spec.handler(**values)


def _handler_done(session: Session[Any, Any], runtime: Runtime, task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else _essence(task.exception())
    match error:
        case None if task.cancelled():
            cause = CloseCause(CauseKind.CRASHED, CloseCode.INTERNAL_ERROR, "cancelled")
        case None:
            cause = CloseCause(CauseKind.RETURNED, CloseCode.NORMAL)
        case SessionClosed():
            cause = error.cause
        case WebSocketException():
            cause = CloseCause(CauseKind.CLOSED, error.code, error.reason)
        case Refused():
            cause = CloseCause(CauseKind.REFUSED, error.code, error.reason)
        case HTTPException() if error.status_code < 500:
            cause = CloseCause(CauseKind.REFUSED, CloseCode.POLICY_VIOLATION, str(error.detail))
        case _:
            runtime.telemetry.emit(HandlerCrashed(session.id, session.route, error))
            cause = CloseCause(CauseKind.CRASHED, CloseCode.INTERNAL_ERROR, "internal error")
    session.end(cause)


def _essence(error: BaseException | None) -> BaseException | None:
    """Look into a task group's error: one that holds only `SessionClosed` is no crash."""
    while isinstance(error, BaseExceptionGroup):
        closed, others = error.split(SessionClosed)
        if others is not None or closed is None:
            return error
        error = closed.exceptions[0]
    return error


async def _wind_up(
    session: Session[Any, Any],
    link: Link,
    spec: EndpointSpec,
    runtime: Runtime,
    handler: asyncio.Task[None],
    hooked: _Hooked,
) -> None:
    cause = session.close_cause
    assert cause is not None  # noqa: S101 - the caller has ended it
    jobs = set(session._jobs)
    for job in jobs:
        job.cancel()
    grace = _grace(session, spec, cause)
    if grace is None:
        handler.cancel()
    await _close_link(session, link, spec, runtime, cause)
    session.on_link_closed()
    if grace is not None and not handler.done():
        await _wait(runtime, {handler}, grace)
        handler.cancel()
    stubborn = await _wait(runtime, {handler, *jobs}, STUBBORN_TIMEOUT)
    for task in stubborn:
        logger.error("%s: %s goes on although it was cancelled", session.route, task.get_name())
    if hooked.began or not runtime.on_connect:
        await _run_hooks(session, runtime)
    numbers = session.statistics()
    runtime.telemetry.emit(
        SessionEnded(
            session=session.id,
            route=session.route,
            user=session.user,
            address=session.address,
            cause=cause,
            duration=runtime.clock.time() - session.since,
            received=numbers.received_messages,
            sent=numbers.sent_messages,
            dropped=numbers.dropped_messages,
        )
    )


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


async def _close_link(
    session: Session[Any, Any],
    link: Link,
    spec: EndpointSpec,
    runtime: Runtime,
    cause: CloseCause,
) -> None:
    if cause.kind is CauseKind.TOO_SLOW:
        # A close frame would wait behind the very data that does not drain.
        link.drop_waiting()
        possible = link.abort()
        runtime.telemetry.emit(TransportAborted(session.id, session.route, cause.reason, possible))
        return
    if cause.kind is CauseKind.DRAINING and link.lost:
        # The server is closing it and would wait without limit for a peer that does not read.
        link.abort_after(spec.limits.close_timeout)
        return
    code = cause.code if may_be_sent(cause.code) else CloseCode.INTERNAL_ERROR
    await link.close(code, cause.reason)


async def _wait(
    runtime: Runtime, tasks: set[asyncio.Task[Any]], seconds: float
) -> set[asyncio.Task[Any]]:
    """Wait for `tasks`, at most `seconds` by the injected clock; returns those still running."""
    pending = {task for task in tasks if not task.done()}
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
