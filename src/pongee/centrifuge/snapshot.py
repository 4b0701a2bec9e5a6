"""What can be known of a client at a moment, and what is told when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pongee.codes import CloseCause
from pongee.registry import ConnectionInfo
from pongee.telemetry import SessionEnded

if TYPE_CHECKING:
    from pongee.centrifuge.client import Client

__all__ = ["ended_of", "info_of"]


def info_of(client: Client) -> ConnectionInfo:
    """Take the registry's snapshot of `client`."""
    numbers = client.link.statistics()
    return ConnectionInfo(
        id=client.id,
        user=client.user,
        address=client.address,
        since=client.since,
        route=client.route,
        received=client.received,
        sent=numbers.sent_messages,
        waiting=numbers.outbox_messages,
        dropped=numbers.dropped_messages,
    )


def ended_of(client: Client, cause: CloseCause) -> SessionEnded:
    """Make the event of `client`'s end."""
    numbers = client.link.statistics()
    return SessionEnded(
        session=client.id,
        route=client.route,
        user=client.user,
        address=client.address,
        cause=cause,
        duration=client.service.runtime.clock.time() - client.since,
        received=client.received,
        sent=numbers.sent_messages,
        dropped=numbers.dropped_messages,
    )
