"""What is declared of a channel, apart from who may do what in it. ◇"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pongee.channels.stream import Stream

__all__ = ["PLAIN", "ChannelOptions", "Overflow", "stream_of"]

Overflow = Literal["disconnect", "drop_oldest", "latest_per_key"]
"""What happens when a client reads too slowly and its outbox is full.

``disconnect``: the client is cut without a close frame, which would wait behind the data; the cause
says 1013.
``drop_oldest``: the oldest waiting message is dropped and counted.
``latest_per_key``: a waiting message is replaced by a newer one with the same key; messages
without a key, or a full outbox, fall back to ``drop_oldest``.
"""


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a channel behaves.

    Attributes:
        history: publications that are kept; 0 is none.
        history_ttl: seconds that a publication is kept.
        history_meta_ttl: seconds that the top and the epoch are kept after the last use.
        presence: whether it is known who is there.
        join_leave: whether members are told who comes and goes.
        recover: whether a client that was away gets what it missed.
        positioned: whether a client is told when it missed something.
        cache: whether a client gets the newest publication when it subscribes.
        overflow: what a full outbox does with its messages.
        idempotency_window: seconds that an idempotency key is remembered.
    """

    history: int = 0
    history_ttl: float = 0.0
    history_meta_ttl: float = 30 * 86400.0
    presence: bool = False
    join_leave: bool = False
    recover: bool = False
    positioned: bool = False
    cache: bool = False
    overflow: Overflow = "disconnect"
    idempotency_window: float = 300.0


PLAIN = ChannelOptions()
"""A channel nobody declared: live delivery, and nothing else."""


def stream_of(options: ChannelOptions) -> Stream | None:
    """Return what a channel keeps, or `None`."""
    if not options.history:
        return None
    return Stream(options.history, options.history_ttl, options.history_meta_ttl)
