"""What was declared: channels by pattern, methods by name, and who may connect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pongee.channels.options import PLAIN, ChannelOptions
from pongee.errors import ConfigurationError
from pongee.guards.origin import OriginPolicy
from pongee.handlers.channel import Channel
from pongee.handlers.event import EventHandler
from pongee.handlers.rpc import Method
from pongee.limits import ClientLimits

__all__ = ["ConnectionSpec", "Declared"]


@dataclass(kw_only=True)
class ConnectionSpec:
    """Who may connect with a client SDK, and how such a connection behaves.

    Attributes:
        auth: the policy.
        anonymous: whether a client without a token may connect.
        prefix: of the routes.
        ping_interval: seconds between two pings.
        pong_timeout: seconds a pong may take.
        personal: the pattern of the channel each user is subscribed to, with ``{user}``, or `None`.
        emulated_headers: names, in lower case, of headers that a client may bring in its connect
            command, because a browser cannot send them.
        policy: `auth`, where it is a FastAPI dependency.
        handlers: of ``connect``, ``refresh`` and ``disconnect``.
    """

    auth: Callable[..., Any]
    anonymous: bool
    prefix: str
    ping_interval: float
    pong_timeout: float
    personal: str | None
    emulated_headers: frozenset[str]
    policy: EventHandler | None
    origins: OriginPolicy
    limits: ClientLimits
    handlers: dict[str, EventHandler] = field(default_factory=dict)


class Declared:
    """The channels, methods and connection of one application."""

    def __init__(self) -> None:
        self.channels: list[Channel[Any]] = []
        self.methods: dict[str, Method] = {}
        self.connection: ConnectionSpec | None = None

    def add_channel(self, channel: Channel[Any]) -> None:
        """Enter a channel.

        Raises:
            ConfigurationError: a name could belong to it and to another.
        """
        for other in self.channels:
            example = channel.pattern.overlaps(other.pattern)
            if example is not None:
                raise ConfigurationError(
                    f"channels {other.pattern.text!r} and {channel.pattern.text!r} overlap: "
                    f"{example!r} could be either; give them different beginnings"
                )
        self.channels.append(channel)

    def add_method(self, method: Method) -> None:
        """Enter a method.

        Raises:
            ConfigurationError: there is one of this name.
        """
        if method.name in self.methods:
            raise ConfigurationError(f"rpc {method.name!r} is declared twice")
        self.methods[method.name] = method

    def check(self) -> None:
        """Check that clients can reach what was declared.

        Raises:
            ConfigurationError: nobody said who may connect, or the users' own channel is none.
        """
        personal = None if self.connection is None else self.connection.personal
        if personal is not None and self.find(personal.replace("{user}", "user")) is None:
            raise ConfigurationError(
                f"personal_channel={personal!r}: no declared channel has such a name; declare "
                f"pongee.channel({personal!r}, …)"
            )
        if self.connection is None and (self.methods or any(map(_is_for_clients, self.channels))):
            raise ConfigurationError(
                "channels or RPC methods are declared for clients, but nobody said who may "
                "connect: pongee.connection(auth=JWTBearer(...)), or auth=public for everybody"
            )

    def find(self, name: str) -> tuple[Channel[Any], dict[str, str]] | None:
        """Find the channel that `name` belongs to, and its parameters. ▲"""
        for channel in self.channels:
            parameters = channel.pattern.match(name)
            if parameters is not None:
                return channel, parameters
        return None

    def options_of(self, name: str) -> ChannelOptions:
        """Return how the channel `name` behaves."""
        found = self.find(name)
        return PLAIN if found is None else found[0].options


def _is_for_clients(channel: Channel[Any]) -> bool:
    return channel.handles("subscribe") or channel.handles("publish") or channel.is_open
