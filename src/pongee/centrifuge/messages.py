"""Commands, replies and pushes of the Centrifuge protocol as structs. ◇

Both encodings, `centrifuge.json_codec` and `centrifuge.protobuf_codec`, read and write these.
Payloads are `msgspec.Raw`: on a JSON connection the JSON value itself, which travels through
untouched. A field that has a default is left out while it has it; those that SDKs rely on have
none. What we decline (deltas, filters, map and shared-poll subscriptions) is read only as far as it
takes to decline it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

from pongee.channels.publication import ClientInfo, Publication

__all__ = [
    "MAX_OFFSET",
    "NOTHING",
    "Command",
    "ConnectRequest",
    "ConnectResult",
    "Disconnected",
    "Empty",
    "Error",
    "HistoryRequest",
    "HistoryResult",
    "JoinOrLeave",
    "MalformedFrame",
    "Message",
    "PresenceRequest",
    "PresenceResult",
    "PresenceStatsResult",
    "PublishRequest",
    "Published",
    "Push",
    "RefreshRequest",
    "RefreshResult",
    "Reply",
    "RpcRequest",
    "RpcResult",
    "SendRequest",
    "StreamPosition",
    "SubRefreshRequest",
    "SubRefreshResult",
    "SubscribeRequest",
    "SubscribeResult",
    "Subscribed",
    "UnsubscribeRequest",
    "Unsubscribed",
    "WireInfo",
    "published",
    "raw",
    "wire_info",
]

NOTHING = Raw(b"")
"""A payload that is not there. No other empty `Raw` may be used: only this one is left out."""


MAX_OFFSET = 2**63 - 1
"""The protocol's offsets have 64 bits; no broker counts further than a signed integer can."""

# What the protocol's integers may be, where a client writes them.
_UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Offset = Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class MalformedFrame(ValueError):
    """What came is no command; the connection ends with 3501."""


def raw(data: bytes) -> Raw:
    """Wrap a payload, which may be nothing."""
    return Raw(data) if data else NOTHING


class _Wire(Struct, omit_defaults=True, gc=False):
    """A message: fields as in the protocol's schema."""


# Shared


class WireInfo(_Wire):
    """Who published, is present, came or left."""

    user: str
    client: str
    conn_info: Raw = NOTHING
    chan_info: Raw = NOTHING


class Published(_Wire):
    """A publication."""

    data: Raw
    info: WireInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None


class StreamPosition(_Wire):
    """A place in a stream."""

    offset: _Offset = 0
    epoch: str = ""


# Requests


class SubscribeRequest(_Wire):
    """Asks for a channel."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: _Offset = 0
    data: Raw = NOTHING
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: Empty | None = None
    flag: _Int64 = 0
    type: _Int32 = 0


class ConnectRequest(_Wire):
    """The first command."""

    token: str = ""
    data: Raw = NOTHING
    subs: dict[str, SubscribeRequest] | None = None
    name: str = ""
    version: str = ""
    headers: dict[str, str] | None = None


class UnsubscribeRequest(_Wire):
    """Leaves a channel."""

    channel: str = ""


class PublishRequest(_Wire):
    """Publishes."""

    channel: str = ""
    data: Raw = NOTHING
    type: _Int32 = 0


class PresenceRequest(_Wire):
    """Asks who is there, or how many."""

    channel: str = ""


class HistoryRequest(_Wire):
    """Asks for history."""

    channel: str = ""
    limit: _Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False


class SendRequest(_Wire):
    """A message that gets no reply."""

    data: Raw = NOTHING


class RpcRequest(_Wire):
    """Calls a method."""

    data: Raw = NOTHING
    method: str = ""


class RefreshRequest(_Wire):
    """Brings a new token for the connection."""

    token: str = ""


class SubRefreshRequest(_Wire):
    """Brings a new token for a subscription."""

    channel: str = ""
    token: str = ""
    type: _Int32 = 0


class Empty(_Wire):
    """A request or result without fields."""


class Command(_Wire):
    """What a client sends; the first request in the order of the protocol counts."""

    id: _UInt32 = 0
    connect: ConnectRequest | None = None
    ping: Empty | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None


# Results


class Error(_Wire):
    """Why a command was not carried out."""

    code: int
    message: str
    temporary: bool = False


class SubscribeResult(_Wire):
    """A subscription that began."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Published] | None = None
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw = NOTHING
    was_recovering: bool = False


class ConnectResult(_Wire):
    """A connection that began."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Raw = NOTHING
    subs: dict[str, SubscribeResult] | None = None
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class PresenceResult(_Wire):
    """Who is there."""

    presence: dict[str, WireInfo]


class PresenceStatsResult(_Wire):
    """How many are there."""

    num_clients: int
    num_users: int


class HistoryResult(_Wire):
    """A part of the history."""

    publications: list[Published]
    epoch: str
    offset: int


class RpcResult(_Wire):
    """What a method returned."""

    data: Raw = NOTHING


class RefreshResult(_Wire):
    """How long the connection may stay."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(_Wire):
    """How long the subscription may stay."""

    expires: bool = False
    ttl: int = 0


# Pushes


class JoinOrLeave(_Wire):
    """Somebody came, or left."""

    info: WireInfo


class Unsubscribed(_Wire):
    """The server ended a subscription."""

    code: int
    reason: str


class Message(_Wire):
    """A message to one connection, outside of channels."""

    data: Raw


class Subscribed(_Wire):
    """A server-side subscription began."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = NOTHING


class Disconnected(_Wire):
    """The connection is about to end; for transports without close frames."""

    code: int
    reason: str


class Push(_Wire):
    """What comes unasked; one field beside the channel is set."""

    channel: str = ""
    pub: Published | None = None
    join: JoinOrLeave | None = None
    leave: JoinOrLeave | None = None
    unsubscribe: Unsubscribed | None = None
    message: Message | None = None
    subscribe: Subscribed | None = None
    disconnect: Disconnected | None = None


class Reply(_Wire):
    """What the server sends: a result or an error with the command's id, a push, or a ping."""

    id: int = 0
    error: Error | None = None
    push: Push | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    ping: Empty | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


def published(publication: Publication) -> Published:
    """Turn a publication into the protocol's."""
    return Published(
        data=raw(publication.data),
        info=None if publication.info is None else wire_info(publication.info),
        offset=publication.offset,
        tags=publication.tags,
    )


def wire_info(info: ClientInfo) -> WireInfo:
    """Turn what is known of a client into the protocol's."""
    return WireInfo(
        user=info.user,
        client=info.client,
        conn_info=raw(info.conn_info),
        chan_info=raw(info.chan_info),
    )
