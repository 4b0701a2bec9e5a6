"""Live connections by id and by user.

Entries are added when a session opens and removed the moment it ends, whatever way it ends: the
registry never shows a connection that is known to be gone. Cheap to ask; not for use from other
threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Connected", "ConnectionInfo", "Registry"]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A snapshot of one connection.

    Attributes:
        id: unique in this process's life.
        user: the user's id, or `None`.
        address: the client's address as the trusted proxies tell it.
        since: when it was accepted, in Unix seconds.
        route: the path pattern, such as ``/ws/chat/{room_id}``.
        received: messages from the peer.
        sent: messages to the peer.
        waiting: messages in the outbox.
        dropped: messages dropped because the peer reads too slowly.
    """

    id: str
    user: str | None
    address: str | None
    since: float
    route: str
    received: int
    sent: int
    waiting: int
    dropped: int


class Connected(Protocol):
    """What the registry holds."""

    @property
    def id(self) -> str:
        """Unique id."""

    @property
    def user(self) -> str | None:
        """User's id."""

    @property
    def route(self) -> str:
        """Path pattern."""

    def info(self) -> ConnectionInfo:
        """Take a snapshot."""

    def disconnect(self, code: int | None = None, reason: str | None = None) -> None:
        """End it, with a code of its own kind by default."""

    def leave(self) -> None:
        """End it, because the process leaves."""


class Registry:
    """Who is connected to this process."""

    def __init__(self) -> None:
        self._by_id: dict[str, Connected] = {}
        self._by_user: dict[str, dict[str, Connected]] = {}

    def __len__(self) -> int:
        """Connections now."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Connected]:
        """Iterate over the connections of this moment."""
        return iter(tuple(self._by_id.values()))

    def add(self, connection: Connected) -> None:
        """Enter a connection."""
        self._by_id[connection.id] = connection
        if connection.user is not None:
            self._by_user.setdefault(connection.user, {})[connection.id] = connection

    def remove(self, connection: Connected) -> None:
        """Strike a connection out. Idempotent."""
        if self._by_id.pop(connection.id, None) is None or connection.user is None:
            return
        own = self._by_user.get(connection.user)
        if own is not None:
            own.pop(connection.id, None)
            if not own:
                del self._by_user[connection.user]

    def get(self, connection_id: str) -> Connected | None:
        """Find by id."""
        return self._by_id.get(connection_id)

    def of_user(self, user: str) -> tuple[Connected, ...]:
        """Find by user."""
        return tuple(self._by_user.get(user, {}).values())

    def users(self) -> dict[str, int]:
        """Users connected, and with how many connections."""
        return {user: len(own) for user, own in self._by_user.items()}

    def snapshot(self) -> list[ConnectionInfo]:
        """Everybody, oldest first."""
        return [connection.info() for connection in self]
