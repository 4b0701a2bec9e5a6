"""What a command means in the state a connection is in. ◇▲

The protocol's order of things, apart from how it is carried out: only ``connect`` before the
connection is ready, nothing after it was refused, one request a command, ids that can be told
apart. An illegal command ends the connection with 3501, which SDKs take as final: it is a bug of
the client's.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from pongee.centrifuge.messages import Command

__all__ = ["Phase", "Ruling", "judge", "request_of"]

# In the order in which the first one counts.
REQUESTS = (
    "connect",
    "ping",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
)

NEEDS_CHANNEL = frozenset(
    {"subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history"}
)


class Phase(Enum):
    """Where a connection is."""

    OPEN = "accepted; nothing has come"
    CONNECTING = "connect is being answered"
    READY = "connected"
    REFUSED = "connect was answered with an error"
    CLOSED = "over"


class Ruling(Enum):
    """What is to be done with a command."""

    RUN = "run it, in order"
    PONG = "note the pong"
    IGNORE = "drop it"
    ILLEGAL = "end the connection: bad request"
    SAME_ID = "answer bad request: its id is in use"


def request_of(command: Command) -> tuple[str, Any]:
    """Return the name of the request that counts, and the request; ``""`` if there is none. ▲"""
    for name in REQUESTS:
        request = getattr(command, name)
        if request is not None:
            return name, request
    return "", None


def judge(phase: Phase, command: Command, name: str, request: Any, ids: set[int]) -> Ruling:
    """Rule on one command. ▲

    Args:
        phase: of the connection.
        command: as it came.
        name: of its request.
        request: that counts.
        ids: of the commands that have not been answered.
    """
    if phase in (Phase.CLOSED, Phase.REFUSED):
        return Ruling.IGNORE
    if name == "connect":
        return Ruling.RUN if phase is Phase.OPEN and command.id > 0 else Ruling.ILLEGAL
    if phase is Phase.OPEN:
        return Ruling.ILLEGAL
    if not name:
        return Ruling.ILLEGAL if command.id else Ruling.PONG
    if name == "send":
        return Ruling.RUN
    if command.id <= 0 or (name in NEEDS_CHANNEL and not request.channel):
        return Ruling.ILLEGAL
    return Ruling.SAME_ID if command.id in ids else Ruling.RUN
