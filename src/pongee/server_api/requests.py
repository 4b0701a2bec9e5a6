"""Requests of the server API as structs. ◇

Unknown fields are ignored, and a field that is ``null`` is not there, as clients of other languages
send it. What we decline is read only as far as it takes to decline it.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from pongee.centrifuge.messages import StreamPosition

__all__ = [
    "BatchRequest",
    "BroadcastRequest",
    "ChannelRequest",
    "ChannelsRequest",
    "CustomDisconnect",
    "DisconnectRequest",
    "HistoryRequest",
    "InfoRequest",
    "MessageRequest",
    "PublishRequest",
    "RefreshRequest",
    "SubscribeRequest",
    "TargetRequest",
    "UnsubscribeRequest",
]

_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class MessageRequest(Struct):
    """What is published; `b64data`, where it is given, counts instead of `data`."""

    data: Raw = Raw(b"")
    b64data: str | None = None
    tags: dict[str, str] | None = None
    skip_history: bool | None = None
    idempotency_key: str | None = None
    delta: Any = None
    version: Any = None


class PublishRequest(MessageRequest):
    """To one channel."""

    channel: str = ""


class BroadcastRequest(MessageRequest):
    """To many channels."""

    channels: list[str] = []


class TargetRequest(Struct):
    """Which connections are meant: those that fit everything that is given."""

    user: str | None = None
    client: str | None = None
    session: str | None = None


class SubscribeRequest(TargetRequest):
    """Subscribes clients."""

    channel: str = ""
    info: Any = None
    b64info: Any = None
    data: Any = None
    b64data: Any = None
    recover_since: Any = None
    override: Any = None


class UnsubscribeRequest(TargetRequest):
    """Ends subscriptions."""

    channel: str = ""


class CustomDisconnect(Struct):
    """A close code and its reason; 0 and nothing are the defaults."""

    code: int = 0
    reason: str = ""


class DisconnectRequest(TargetRequest):
    """Ends connections; `whitelist` is who may stay."""

    disconnect: CustomDisconnect | None = None
    whitelist: list[str] | None = None


class RefreshRequest(TargetRequest):
    """Says until when clients may stay."""

    expired: bool | None = None
    expire_at: _Int64 | None = None


class ChannelRequest(Struct):
    """Asks about one channel."""

    channel: str = ""


class HistoryRequest(ChannelRequest):
    """Asks for history: without a limit, for the position only."""

    limit: _Int32 | None = None
    since: StreamPosition | None = None
    reverse: bool | None = None


class ChannelsRequest(Struct):
    """Asks for the channels with members."""

    pattern: str | None = None


class InfoRequest(Struct):
    """Asks about the process."""


class BatchRequest(Struct):
    """Many commands, each under its method's name."""

    commands: list[dict[str, Raw]] = []
    parallel: bool | None = None
