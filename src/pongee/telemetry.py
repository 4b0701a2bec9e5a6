"""Every event Pongee emits: name, fields, unit. Metrics and logs listen here.

An event is a frozen dataclass. `Telemetry.emit` calls each listener in turn, synchronously; a
listener must be quick, and one that raises is logged and does not disturb the connection. The
listener that writes the log is `log_event`. No event ever carries a token, a query string or the
content of a message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pongee.codes import CloseCause

__all__ = [
    "BrokerLink",
    "Event",
    "HandlerCrashed",
    "HandshakeRefused",
    "JobCrashed",
    "MessageRejected",
    "SessionEnded",
    "SessionOpened",
    "Telemetry",
    "TransportAborted",
    "log_event",
    "one_line",
]

logger = logging.getLogger("pongee")


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A handshake was accepted."""

    session: str
    route: str
    user: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session ended; `duration` is in seconds, `sent` and `received` count messages."""

    session: str
    route: str
    user: str | None
    address: str | None
    cause: CloseCause
    duration: float
    received: int
    sent: int
    dropped: int


@dataclass(frozen=True, slots=True)
class HandshakeRefused:
    """A handshake was refused; `why` is for the operator, `reason` was told to the peer."""

    route: str
    address: str | None
    status: int
    reason: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class MessageRejected:
    """An inbound message could not be used; `code` says why."""

    session: str
    route: str
    code: str


@dataclass(frozen=True, slots=True)
class HandlerCrashed:
    """An endpoint's handler raised; the session ends with 1011."""

    session: str
    route: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class JobCrashed:
    """A job started with ``session.spawn`` raised; the session ends with 1011."""

    session: str
    route: str
    job: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class TransportAborted:
    """A connection was cut without a close frame; `possible` is false where the server cannot."""

    session: str
    route: str
    why: str
    possible: bool


@dataclass(frozen=True, slots=True)
class BrokerLink:
    """The link to the broker broke, for `reason`, or is up again."""

    up: bool
    reason: str


Event = (
    SessionOpened
    | SessionEnded
    | HandshakeRefused
    | MessageRejected
    | HandlerCrashed
    | JobCrashed
    | TransportAborted
    | BrokerLink
)
Listener = Callable[[Event], None]


class Telemetry:
    """Where events go. One per process; not for use from other threads."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def listen(self, listener: Listener) -> Listener:
        """Call `listener` with every event from now on; usable as a decorator."""
        self._listeners.append(listener)
        return listener

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a telemetry listener raised")


def log_event(event: Event) -> None:
    """Write one line per event to the ``pongee`` logger; tracebacks only for the user's bugs."""
    match event:
        case SessionOpened() if not logger.isEnabledFor(logging.DEBUG):
            pass  # the two that come with every session: nothing is written out for nobody
        case SessionEnded() if not logger.isEnabledFor(logging.INFO):
            pass
        case SessionOpened():
            logger.debug(
                "%s opened: session %s, user %s, from %s",
                event.route,
                event.session,
                one_line(event.user),
                one_line(event.address),
            )
        case SessionEnded():
            logger.info(
                "%s ended: %s; session %s, user %s, from %s, %.3f s, in %d, out %d, dropped %d",
                event.route,
                one_line(event.cause),
                event.session,
                one_line(event.user),
                one_line(event.address),
                event.duration,
                event.received,
                event.sent,
                event.dropped,
            )
        case HandshakeRefused():
            logger.info(
                "%s refused: %d %s; from %s%s",
                event.route,
                event.status,
                one_line(event.reason),
                one_line(event.address),
                f" ({one_line(event.why)})" if event.why else "",
            )
        case MessageRejected():
            logger.debug(
                "%s rejected a message: %s; session %s", event.route, event.code, event.session
            )
        case HandlerCrashed():
            logger.error("%s crashed; session %s", event.route, event.session, exc_info=event.error)
        case JobCrashed():
            logger.error(
                "%s: job %s crashed; session %s",
                event.route,
                event.job,
                event.session,
                exc_info=event.error,
            )
        case TransportAborted():
            logger.info(
                "%s cut: %s; session %s%s",
                event.route,
                one_line(event.why),
                event.session,
                "" if event.possible else " (this server cannot abort: the socket lingers)",
            )
        case BrokerLink():
            level = logging.INFO if event.up else logging.WARNING
            state = "up" if event.up else f"down: {one_line(event.reason)}"
            logger.log(level, "the link to the broker is %s", state)


def one_line(value: object) -> str:
    """Escape what would let a peer or a user's id write lines of its own."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
