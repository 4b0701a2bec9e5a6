"""What all clients of one process share."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pongee.centrifuge import json_codec, protobuf_codec
from pongee.centrifuge.messages import Command, JoinOrLeave, Push, Reply, wire_info
from pongee.channels.encoding import Format
from pongee.channels.publication import Presence
from pongee.handlers.table import ConnectionSpec, Declared
from pongee.links.base import Outgoing
from pongee.sessions.runtime import Runtime
from pongee.switchboard import Encode, Switchboard

__all__ = ["ENCODERS", "JSON", "PINGS", "PROTOBUF", "Codec", "Service", "new_client_id"]

logger = logging.getLogger("pongee.channels")


class Codec(Protocol):
    """One of the two encodings."""

    def decode(self, frame: str | bytes) -> list[Command]:
        """Read the commands of a frame."""

    def encode(self, reply: Reply) -> Any:
        """Write one reply."""

    def encode_publication(self, channel: str, publication: Any) -> Any:
        """Write the push of a publication."""


JSON: Any = json_codec
PROTOBUF: Any = protobuf_codec


def _encoder(codec: Any) -> Encode:
    def encode(channel: str, message: Any) -> str | bytes:
        if isinstance(message, Presence):
            told = JoinOrLeave(wire_info(message.info))
            push = Push(channel, leave=told) if message.left else Push(channel, join=told)
            return codec.encode(Reply(push=push))  # type: ignore[no-any-return]
        return codec.encode_publication(channel, message)  # type: ignore[no-any-return]

    return encode


ENCODERS: dict[Format, Encode] = {
    json_codec.JSON_FORMAT: _encoder(JSON),
    protobuf_codec.PROTOBUF_FORMAT: _encoder(PROTOBUF),
}
"""What the switchboard needs to write for clients."""

PINGS: dict[Format, Outgoing] = {
    json_codec.JSON_FORMAT: Outgoing(json_codec.PING),
    protobuf_codec.PROTOBUF_FORMAT: Outgoing(protobuf_codec.PING),
}
"""The same for everybody: written as a frame once."""


Forward = Callable[[str, str, bytes, bool], Awaitable[bool]]
"""Node, session, commands, and whether they are in Protobuf."""


@dataclass(eq=False)
class Service:
    """The shared parts, and what the application declared.

    Attributes:
        runtime: clock, timers, registry, capacity: shared with the sessions.
        board: channels of this process.
        declared: channels, methods, connection.
        node: names this process, for clients of transports without a connection of their own.
        sessions: those clients, by the secret that addresses them.
        forward: sends commands to the node that has such a client; returns whether there is one.
    """

    runtime: Runtime
    board: Switchboard
    declared: Declared
    node: str
    sessions: dict[str, Any] = field(default_factory=dict)
    forward: Forward | None = None

    @property
    def spec(self) -> ConnectionSpec:
        """Who may connect; declared before any client comes."""
        assert self.declared.connection is not None  # noqa: S101 - routes exist only with it
        return self.declared.connection

    def take(self, session: str, data: bytes, binary: bool) -> bool:
        """Hand commands to a client of this node.

        Returns:
            False if its stream has another encoding; a client that has gone is no error, as the
            end of its stream tells it.
        """
        client = self.sessions.get(session)
        if client is None:
            return True
        if (client.format == protobuf_codec.PROTOBUF_FORMAT) is not binary:
            return False
        client.on_message(data if binary else data.decode())
        return True

    async def hook(
        self, name: str, scope: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[bool, Any]:
        """Call a handler of the connection; returns whether there is one, and what it returned."""
        handler = self.spec.handlers.get(name)
        if handler is None:
            return False, None
        return True, await handler(scope, {}, given)


def new_client_id() -> str:
    """Make an id that no other client anywhere has."""
    return str(uuid.uuid4())
