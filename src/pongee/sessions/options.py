"""What an endpoint declares, checked once. ◇"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pongee.errors import ConfigurationError, MessageError
from pongee.guards.origin import OriginPolicy
from pongee.limits import Limits
from pongee.links.base import Overflow
from pongee.sessions.inbound import Codec

__all__ = ["EndpointSpec", "Heartbeat", "OnInvalid", "Refusal"]

Refusal = Literal["http", "close"]
"""How a refusal is delivered: an HTTP response before accept, or accept and a close frame."""

OnInvalid = str | Callable[[MessageError], Any]
"""The answer to a message that cannot be used: a text, or a function of the error that returns the
answer (text, bytes, or anything JSON can write), or `None` for the default answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Liveness that the peer's program can see, unlike a protocol ping.

    Args:
        interval: seconds between two heartbeat messages; `None` sends none.
        message: makes the message from the wall-clock time in Unix seconds; by default
            ``{"type": "heartbeat", "timestamp": <seconds>}`` as JSON text.
        idle_timeout: seconds without any message from the peer after which the session ends with
            4408; `None` is never. Protocol pongs do not count: they answer the server, not us.

    Raises:
        ConfigurationError: a time that is not greater than 0.
    """

    interval: float | None = 30.0
    message: Callable[[float], Any] = field(
        default=lambda now: {"type": "heartbeat", "timestamp": now}
    )
    idle_timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("interval", "idle_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(
                    f"Heartbeat({name}={value!r}): seconds greater than 0, or None"
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class EndpointSpec:
    """One declared endpoint.

    Attributes:
        path: as declared, without a router's prefix.
        name: the handler's, for messages to developers.
        handler: the user's coroutine function.
        codec: compiled from its ``Session[In, Out]``.
        auth: the policy, a FastAPI dependency.
    """

    path: str
    name: str
    handler: Callable[..., Any]
    codec: Codec[Any, Any]
    auth: Callable[..., Any]
    origins: OriginPolicy
    limits: Limits
    heartbeat: Heartbeat | Literal["auto"] | None
    overflow: Overflow
    refuse: Refusal
    on_invalid: OnInvalid | None
    subprotocols: Sequence[str]
    expiry_warning: float

    def choose_subprotocol(self, offered: Sequence[str]) -> str | None:
        """Choose one of those the client offered that the endpoint speaks, or `None`.

        A browser that offered some fails the connection when none is chosen, so a refusal by close
        frame needs one too. A token among the offers is never chosen.
        """
        sources = getattr(self.auth, "sources", ())
        bearers = (getattr(source, "subprotocol", None) for source in sources)
        spoken = (*self.subprotocols, *(name for name in bearers if name))
        return next((name for name in spoken if name in offered), None)
