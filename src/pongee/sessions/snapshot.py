"""What can be known of a session at a moment: its counters, and whether it has ended."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pongee.codes import CloseCause
from pongee.registry import ConnectionInfo

if TYPE_CHECKING:
    from pongee.sessions.session import Session

__all__ = ["Closed", "SessionStatistics", "info_of", "statistics_of"]


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """Counters of one session.

    Attributes:
        received_messages: from the peer, valid or not.
        rejected_messages: of those, how many could not be used.
        unread_messages: received and not yet taken by the handler.
        discarded_messages: received and thrown away, as the handler never reads.
        sent_messages: written to the server.
        waiting_messages: in the outbox.
        waiting_bytes: in the outbox.
        dropped_messages: lost to ``drop_oldest``, or with the connection.
        replaced_messages: superseded under ``latest_per_key``.
        jobs: running jobs started with ``spawn``.
        channels: subscriptions.
    """

    received_messages: int
    rejected_messages: int
    unread_messages: int
    discarded_messages: int
    sent_messages: int
    waiting_messages: int
    waiting_bytes: int
    dropped_messages: int
    replaced_messages: int
    jobs: int
    channels: int


class Closed:
    """Whether a session has ended: true or false, and can be awaited for the cause."""

    __slots__ = ("_session",)

    def __init__(self, session: Session[Any, Any]) -> None:
        self._session = session

    def __bool__(self) -> bool:
        """Whether it has ended."""
        return self._session.close_cause is not None

    def __await__(self) -> Generator[Any, None, CloseCause]:
        """Wait for the end; returns the cause. Any number of tasks may wait."""
        return self._wait().__await__()

    async def _wait(self) -> CloseCause:
        session = self._session
        if session.close_cause is None:
            # One future for each who waits: sharing one would need a shield against cancellation.
            ender = session.loop.create_future()
            if session._enders is None:
                session._enders = []
            session._enders.append(ender)
            try:
                await ender
            finally:
                session._enders.remove(ender)
        return session._cause_or_lost()


def info_of(session: Session[Any, Any]) -> ConnectionInfo:
    """Take the registry's snapshot of `session`."""
    numbers = session._link.statistics()
    return ConnectionInfo(
        id=session.id,
        user=session.user,
        address=session.address,
        since=session.since,
        route=session.route,
        received=session._received,
        sent=numbers.sent_messages,
        waiting=numbers.outbox_messages,
        dropped=numbers.dropped_messages,
    )


def statistics_of(session: Session[Any, Any]) -> SessionStatistics:
    """Take the counters of `session`."""
    numbers = session._link.statistics()
    return SessionStatistics(
        received_messages=session._received,
        rejected_messages=session._rejected,
        unread_messages=len(session._inbox),
        discarded_messages=session._inbox.discarded,
        sent_messages=numbers.sent_messages,
        waiting_messages=numbers.outbox_messages,
        waiting_bytes=numbers.outbox_bytes,
        dropped_messages=numbers.dropped_messages,
        replaced_messages=numbers.replaced_messages,
        jobs=len(session.jobs),
        channels=len(session._channels),
    )
