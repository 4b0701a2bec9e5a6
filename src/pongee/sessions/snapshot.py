"""What can be known of a session at a moment: its counters, and whether it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from pongee.codes import CloseCause

__all__ = ["Closed", "SessionStatistics"]


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

    __slots__ = ("_cause", "_wait")

    def __init__(self, cause: CloseCause | None, wait: Callable[[], Awaitable[CloseCause]]) -> None:
        self._cause = cause
        self._wait = wait

    def __bool__(self) -> bool:
        """Whether it has ended."""
        return self._cause is not None

    def __await__(self) -> Generator[Any, None, CloseCause]:
        """Wait for the end; returns the cause. Any number of tasks may wait."""
        return self._wait().__await__()
