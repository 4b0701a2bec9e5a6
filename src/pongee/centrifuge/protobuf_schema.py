"""The protocol's messages and field numbers, and the Protobuf classes made from them. ◇

The classes live in a pool of their own: a client library in the same process may bring generated
classes with the protocol's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message as ProtobufMessage
from google.protobuf.message_factory import GetMessageClass
from msgspec import Struct

from pongee.centrifuge.messages import (
    Command,
    ConnectRequest,
    ConnectResult,
    Disconnected,
    Empty,
    Error,
    HistoryRequest,
    HistoryResult,
    JoinOrLeave,
    Message,
    PresenceRequest,
    PresenceResult,
    PresenceStatsResult,
    Published,
    PublishRequest,
    Push,
    RefreshRequest,
    RefreshResult,
    Reply,
    RpcRequest,
    RpcResult,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubRefreshResult,
    Subscribed,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribed,
    UnsubscribeRequest,
    WireInfo,
)

__all__ = ["CLASSES", "SCHEMA", "Field", "Kind", "ListOf", "MapOf"]


class ListOf(NamedTuple):
    """A repeated field."""

    item: type[Struct]


class MapOf(NamedTuple):
    """A map with text keys."""

    value: str | type[Struct]


Kind: TypeAlias = str | type[Struct] | ListOf | MapOf
"""What a field holds: a scalar type of Protobuf by name, a message, or several of them."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    kind: Kind


SCHEMA: dict[type[Struct], dict[str, Field]] = {
    Command: {
        "id": Field(1, "uint32"),
        "connect": Field(4, ConnectRequest),
        "subscribe": Field(5, SubscribeRequest),
        "unsubscribe": Field(6, UnsubscribeRequest),
        "publish": Field(7, PublishRequest),
        "presence": Field(8, PresenceRequest),
        "presence_stats": Field(9, PresenceRequest),
        "history": Field(10, HistoryRequest),
        "ping": Field(11, Empty),
        "send": Field(12, SendRequest),
        "rpc": Field(13, RpcRequest),
        "refresh": Field(14, RefreshRequest),
        "sub_refresh": Field(15, SubRefreshRequest),
    },
    Reply: {
        "id": Field(1, "uint32"),
        "error": Field(2, Error),
        "push": Field(4, Push),
        "connect": Field(5, ConnectResult),
        "subscribe": Field(6, SubscribeResult),
        "unsubscribe": Field(7, Empty),
        "publish": Field(8, Empty),
        "presence": Field(9, PresenceResult),
        "presence_stats": Field(10, PresenceStatsResult),
        "history": Field(11, HistoryResult),
        "ping": Field(12, Empty),
        "rpc": Field(13, RpcResult),
        "refresh": Field(14, RefreshResult),
        "sub_refresh": Field(15, SubRefreshResult),
    },
    Error: {
        "code": Field(1, "uint32"),
        "message": Field(2, "string"),
        "temporary": Field(3, "bool"),
    },
    ConnectRequest: {
        "token": Field(1, "string"),
        "data": Field(2, "bytes"),
        "subs": Field(3, MapOf(SubscribeRequest)),
        "name": Field(4, "string"),
        "version": Field(5, "string"),
        "headers": Field(6, MapOf("string")),
    },
    ConnectResult: {
        "client": Field(1, "string"),
        "version": Field(2, "string"),
        "expires": Field(3, "bool"),
        "ttl": Field(4, "uint32"),
        "data": Field(5, "bytes"),
        "subs": Field(6, MapOf(SubscribeResult)),
        "ping": Field(7, "uint32"),
        "pong": Field(8, "bool"),
        "session": Field(9, "string"),
        "node": Field(10, "string"),
    },
    SubscribeRequest: {
        "channel": Field(1, "string"),
        "token": Field(2, "string"),
        "recover": Field(3, "bool"),
        "epoch": Field(6, "string"),
        "offset": Field(7, "uint64"),
        "data": Field(8, "bytes"),
        "positioned": Field(9, "bool"),
        "recoverable": Field(10, "bool"),
        "join_leave": Field(11, "bool"),
        "delta": Field(12, "string"),
        # A filter, which we decline: only that there is one is read.
        "tf": Field(13, Empty),
        "flag": Field(14, "int64"),
        "type": Field(15, "int32"),
    },
    SubscribeResult: {
        "expires": Field(1, "bool"),
        "ttl": Field(2, "uint32"),
        "recoverable": Field(3, "bool"),
        "epoch": Field(6, "string"),
        "publications": Field(7, ListOf(Published)),
        "recovered": Field(8, "bool"),
        "offset": Field(9, "uint64"),
        "positioned": Field(10, "bool"),
        "data": Field(11, "bytes"),
        "was_recovering": Field(12, "bool"),
    },
    UnsubscribeRequest: {"channel": Field(1, "string")},
    PublishRequest: {
        "channel": Field(1, "string"),
        "data": Field(2, "bytes"),
        "type": Field(3, "int32"),
    },
    PresenceRequest: {"channel": Field(1, "string")},
    PresenceResult: {"presence": Field(1, MapOf(WireInfo))},
    PresenceStatsResult: {
        "num_clients": Field(1, "uint32"),
        "num_users": Field(2, "uint32"),
    },
    HistoryRequest: {
        "channel": Field(1, "string"),
        "limit": Field(7, "int32"),
        "since": Field(8, StreamPosition),
        "reverse": Field(9, "bool"),
    },
    StreamPosition: {
        "offset": Field(1, "uint64"),
        "epoch": Field(2, "string"),
    },
    HistoryResult: {
        "publications": Field(1, ListOf(Published)),
        "epoch": Field(2, "string"),
        "offset": Field(3, "uint64"),
    },
    RpcRequest: {
        "data": Field(1, "bytes"),
        "method": Field(2, "string"),
    },
    RpcResult: {"data": Field(1, "bytes")},
    SendRequest: {"data": Field(1, "bytes")},
    RefreshRequest: {"token": Field(1, "string")},
    RefreshResult: {
        "client": Field(1, "string"),
        "version": Field(2, "string"),
        "expires": Field(3, "bool"),
        "ttl": Field(4, "uint32"),
    },
    SubRefreshRequest: {
        "channel": Field(1, "string"),
        "token": Field(2, "string"),
        "type": Field(3, "int32"),
    },
    SubRefreshResult: {
        "expires": Field(1, "bool"),
        "ttl": Field(2, "uint32"),
    },
    Empty: {},
    WireInfo: {
        "user": Field(1, "string"),
        "client": Field(2, "string"),
        "conn_info": Field(3, "bytes"),
        "chan_info": Field(4, "bytes"),
    },
    Published: {
        "data": Field(4, "bytes"),
        "info": Field(5, WireInfo),
        "offset": Field(6, "uint64"),
        "tags": Field(7, MapOf("string")),
    },
    Push: {
        "channel": Field(2, "string"),
        "pub": Field(4, Published),
        "join": Field(5, JoinOrLeave),
        "leave": Field(6, JoinOrLeave),
        "unsubscribe": Field(7, Unsubscribed),
        "message": Field(8, Message),
        "subscribe": Field(9, Subscribed),
        "disconnect": Field(11, Disconnected),
    },
    JoinOrLeave: {"info": Field(1, WireInfo)},
    Unsubscribed: {
        "code": Field(2, "uint32"),
        "reason": Field(3, "string"),
    },
    Message: {"data": Field(1, "bytes")},
    Subscribed: {
        "recoverable": Field(1, "bool"),
        "epoch": Field(4, "string"),
        "offset": Field(5, "uint64"),
        "positioned": Field(6, "bool"),
        "data": Field(7, "bytes"),
    },
    Disconnected: {
        "code": Field(1, "uint32"),
        "reason": Field(2, "string"),
    },
}
"""The fields of each message, in the order of the protocol's schema, as far as we speak it."""

_PACKAGE = "pongee.centrifuge"

_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


def _file() -> FileDescriptorProto:
    # In "proto3" texts must be UTF-8, and a scalar that is 0 or empty is not written.
    return FileDescriptorProto(
        name="pongee/centrifuge.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[_message(struct, fields) for struct, fields in SCHEMA.items()],
    )


def _message(struct: type[Struct], fields: dict[str, Field]) -> DescriptorProto:
    return DescriptorProto(
        name=struct.__name__,
        field=[_field(struct, name, field) for name, field in fields.items()],
        nested_type=list(_entries(fields)),
    )


def _field(struct: type[Struct], name: str, field: Field) -> FieldDescriptorProto:
    match field.kind:
        case ListOf(item):
            return _descriptor(name, field.number, item, repeated=True)
        case MapOf():
            entry = f"{struct.__name__}.{_entry_name(name)}"
            return _descriptor(name, field.number, entry, repeated=True)
        case kind:
            return _descriptor(name, field.number, kind)


def _entries(fields: dict[str, Field]) -> Iterator[DescriptorProto]:
    # A map is a list of pairs on the wire.
    for name, field in fields.items():
        if isinstance(field.kind, MapOf):
            pair = [_descriptor("key", 1, "string"), _descriptor("value", 2, field.kind.value)]
            entry = DescriptorProto(name=_entry_name(name), field=pair)
            entry.options.map_entry = True
            yield entry


def _entry_name(field_name: str) -> str:
    return f"{field_name.capitalize()}Entry"


def _descriptor(
    name: str, number: int, kind: str | type[Struct], *, repeated: bool = False
) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    descriptor = FieldDescriptorProto(name=name, number=number, label=label)
    if isinstance(kind, str) and kind in _SCALARS:
        descriptor.type = _SCALARS[kind]
    else:
        message = kind if isinstance(kind, str) else kind.__name__
        descriptor.type = FieldDescriptorProto.TYPE_MESSAGE
        descriptor.type_name = f".{_PACKAGE}.{message}"
    return descriptor


def _classes() -> dict[type[Struct], type[ProtobufMessage]]:
    pool = DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        struct: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{struct.__name__}"))
        for struct in SCHEMA
    }


CLASSES: dict[type[Struct], type[ProtobufMessage]] = _classes()
"""The Protobuf class of each struct."""
