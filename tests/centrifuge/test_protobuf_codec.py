"""Protobuf, against the classes and the framing of another implementation."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from pongee.centrifuge import messages
from pongee.centrifuge.messages import (
    Command,
    ConnectRequest,
    ConnectResult,
    Empty,
    HistoryResult,
    MalformedFrame,
    PresenceResult,
    PresenceStatsResult,
    Published,
    Push,
    RefreshResult,
    Reply,
    RpcRequest,
    RpcResult,
    SubRefreshResult,
    SubscribeRequest,
    SubscribeResult,
    raw,
)
from pongee.centrifuge.protobuf_codec import (
    PING,
    PROTOBUF_FORMAT,
    decode,
    encode,
    encode_publication,
    join,
)
from pongee.centrifuge.protobuf_schema import CLASSES, SCHEMA
from pongee.channels.publication import ClientInfo, Publication
from tests.centrifuge.strategies import ANY_PAYLOADS, plain, structs, tried

THEIRS: Any = importlib.import_module("centrifuge.protocol.client_pb2")
SDK: Any = importlib.import_module("centrifuge.codecs")._ProtobufCodec

# The protocol's names of what is called otherwise here.
NAMES = {
    "Disconnected": "Disconnect",
    "Empty": "PingRequest",
    "JoinOrLeave": "Join",
    "Published": "Publication",
    "RpcRequest": "RPCRequest",
    "RpcResult": "RPCResult",
    "Subscribed": "Subscribe",
    "Unsubscribed": "Unsubscribe",
    "WireInfo": "ClientInfo",
}
# Younger than the SDK's classes.
NEW = {
    ("SubscribeRequest", "type"): 15,
    ("PublishRequest", "type"): 3,
    ("SubRefreshRequest", "type"): 3,
}

REQUESTS = [name for name in SCHEMA[Command] if name != "id"]
RESULTS = [name for name in SCHEMA[Reply] if name not in ("id", "push")]
PUSHES = [name for name in SCHEMA[Push] if name != "channel"]


def seen(value: Any) -> Any:
    """What a Protobuf client should see of a struct."""
    return plain(value, bytes)


def listed(message: Any) -> Any:
    """What a Protobuf message holds, by way of its own descriptors."""
    found = {}
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            found[field.name] = value
        elif kind.GetOptions().map_entry:
            nested = kind.fields_by_name["value"].message_type is not None
            found[field.name] = {k: listed(v) if nested else v for k, v in dict(value).items()}
        elif hasattr(value, "ListFields"):
            found[field.name] = listed(value)
        else:
            found[field.name] = [listed(item) for item in value]
    return found


def frame(*serialized: bytes) -> bytes:
    """Put messages behind their lengths, the other implementation's way."""
    varint = importlib.import_module("centrifuge.codecs")._varint_encode
    return b"".join(varint(len(message)) + message for message in serialized)


def parsed(encoded: bytes) -> Any:
    """Read one reply with the other implementation's classes."""
    size, start = importlib.import_module("centrifuge.codecs")._varint_decode(encoded, 0)
    assert start + size == len(encoded)
    return THEIRS.Reply.FromString(encoded[start:])


# The schema


def test_every_struct_and_every_field_is_in_the_schema() -> None:
    """A field that was forgotten there would be lost without a word."""
    wire = {
        value
        for value in vars(messages).values()
        if isinstance(value, type)
        and issubclass(value, messages._Wire)
        and value is not messages._Wire
    }
    assert set(SCHEMA) == wire
    for struct, fields in SCHEMA.items():
        assert set(fields) == set(struct.__struct_fields__), struct


@pytest.mark.parametrize("struct", SCHEMA, ids=lambda struct: struct.__name__)
def test_numbers_and_types_are_those_of_another_implementation(struct: type[Struct]) -> None:
    theirs = THEIRS.DESCRIPTOR.message_types_by_name[NAMES.get(struct.__name__, struct.__name__)]
    ours: Any = CLASSES[struct].DESCRIPTOR

    for field in ours.fields:
        if (struct.__name__, field.name) in NEW:
            assert field.number == NEW[struct.__name__, field.name]
            continue
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type) == (other.number, other.type)
        assert (field.is_repeated, field.has_presence) == (other.is_repeated, other.has_presence)


# Commands


@pytest.mark.parametrize("name", REQUESTS)
@given(data=st.data())
@tried(40)
def test_a_command_of_another_implementation_is_read_in_full(
    name: str, data: st.DataObject
) -> None:
    command = data.draw(structs(Command, ANY_PAYLOADS, without={"type"}, only={"id", name}))
    theirs = THEIRS.Command(**seen(command)).SerializeToString()

    assert decode(frame(theirs)) == [command]


@given(st.lists(structs(Command, ANY_PAYLOADS, without={"type"}), min_size=1, max_size=3))
@tried(40)
def test_commands_come_out_in_the_order_they_went_in(commands: list[Command]) -> None:
    """With any number of requests in each; which of them counts is decided elsewhere."""
    theirs = [THEIRS.Command(**seen(command)).SerializeToString() for command in commands]

    assert decode(frame(*theirs)) == commands


def test_the_sdk_frames_its_commands_as_we_read_them() -> None:
    commands = [
        {"id": 1, "connect": {"token": "t" * 200}},
        {},
        {"id": 2, "subscribe": {"channel": "a"}},
    ]

    assert decode(SDK.encode_commands(commands)) == [
        Command(id=1, connect=ConnectRequest(token="t" * 200)),
        Command(),
        Command(id=2, subscribe=SubscribeRequest(channel="a")),
    ]


def test_what_the_sdks_classes_do_not_know_yet() -> None:
    """The kind of a subscription, field 15, is read so that it can be declined."""
    assert decode(b"\x04\x2a\x02\x78\x01") == [Command(subscribe=SubscribeRequest(type=1))]
    assert decode(b"\x04\x3a\x02\x18\x01") == [Command(publish=messages.PublishRequest(type=1))]
    refresh = messages.SubRefreshRequest(type=2)
    assert decode(b"\x04\x7a\x02\x18\x02") == [Command(sub_refresh=refresh)]


@pytest.mark.parametrize("node", [{}, {"op": "and", "nodes": [{"key": "a", "cmp": "ex"}]}])
def test_of_a_filter_only_that_it_is_there(node: dict[str, Any]) -> None:
    theirs = THEIRS.Command(subscribe={"channel": "a", "tf": node}).SerializeToString()

    [command] = decode(frame(theirs))

    assert command.subscribe == SubscribeRequest(channel="a", tf=Empty())


def test_a_message_of_no_bytes_is_a_pong() -> None:
    assert decode(PING) == [Command()]
    assert decode(PING * 3) == [Command()] * 3


def test_unknown_fields_are_ignored() -> None:
    """Of any wire type, outside and inside of requests, and known ones of another type."""
    unknown = b"\xa0\x06\x01\xaa\x06\x01x\xa5\x06\0\0\0\0\xa1\x06\0\0\0\0\0\0\0\0"
    rpc = b"\x12\x01m" + unknown
    command = b"\x08\x05" + unknown + b"\x6a" + bytes([len(rpc)]) + rpc
    assert decode(frame(command)) == [Command(id=5, rpc=RpcRequest(method="m"))]
    assert decode(frame(b"\x0a\x01x")) == [Command()]


def test_an_empty_payload_is_no_payload() -> None:
    """Nothing else may stand for one: an empty `Raw` would be written as broken JSON."""
    [command] = decode(frame(b"\x6a\x02\x0a\x00"))

    assert command.rpc is not None
    assert command.rpc.data is messages.NOTHING


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        "",
        "{}",
        "\0",
        b"\x80",
        b"\x05",
        b"\x03\x08\x01",
        b"\x02\x08\x01\x02\x08",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80\x80\x80\x80\x80\x00",
        b"\x80" * 100_000,
        b"\xff\xff\xff\xff\x7f\x08\x01",
        b"\x01\x08",
        b"\x02\x08\x80",
        b"\x02\x6a\x05",
        b"\x01\x07",
        b"\x02\x00\x01",
        b"\x05\x6a\x03\x12\x01\xff",
        b"\x06\x6a\x04\x12\x02\xc0\x80",
        b"\x07\x6a\x05\x12\x03\xed\xa0\x80",
        b'{"id":1}',
        frame(b"\x0b" * 20_000),
        frame(b"\x2a\x0b\x38\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
    ],
)
def test_malformed(malformed: str | bytes) -> None:
    """Empty, text, cut short, lengths that lie, no Protobuf, no UTF-8, offsets beyond all."""
    with pytest.raises(MalformedFrame):
        decode(malformed)


def test_a_length_may_be_written_longer_than_needed() -> None:
    """As other readers of varints take it."""
    assert decode(b"\x82\x80\x80\x80\x00\x08\x01") == [Command(id=1)]
    assert decode(b"\x80\x00") == [Command()]


@given(st.binary())
@tried()
def test_random_bytes_are_commands_or_malformed(noise: bytes) -> None:
    try:
        commands = decode(noise)
    except MalformedFrame:
        return
    assert all(isinstance(command, Command) for command in commands)


@given(structs(Command, ANY_PAYLOADS, without={"type"}), st.data())
@tried(60)
def test_damaged_commands_are_commands_or_malformed(command: Command, data: st.DataObject) -> None:
    whole = bytearray(frame(THEIRS.Command(**seen(command)).SerializeToString()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        commands = decode(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    except MalformedFrame:
        return
    assert all(isinstance(command, Command) for command in commands)


def test_a_length_that_lies_takes_no_memory() -> None:
    """Ten MiB are announced, three bytes come."""
    lie = b"\x80\x80\x80\x05" + b"abc"
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            decode(lie)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


# Replies


@pytest.mark.parametrize("name", RESULTS)
@given(data=st.data())
@tried(40)
def test_another_implementation_reads_a_reply_in_full(name: str, data: st.DataObject) -> None:
    reply = data.draw(structs(Reply, ANY_PAYLOADS, only={"id", name}))

    assert listed(parsed(encode(reply))) == seen(reply)


@pytest.mark.parametrize("name", PUSHES)
@given(data=st.data())
@tried(40)
def test_another_implementation_reads_a_push_in_full(name: str, data: st.DataObject) -> None:
    reply = Reply(push=data.draw(structs(Push, ANY_PAYLOADS, only={"channel", name})))

    assert listed(parsed(encode(reply))) == seen(reply)


@pytest.mark.parametrize("struct", SCHEMA, ids=lambda struct: struct.__name__)
@given(data=st.data())
@tried(20)
def test_each_message_is_what_the_other_classes_make_of_it(
    struct: type[Struct], data: st.DataObject
) -> None:
    """Class by class, there and back, with every field that both have."""
    value = data.draw(structs(struct, ANY_PAYLOADS, without={"type"}))
    theirs = getattr(THEIRS, NAMES.get(struct.__name__, struct.__name__))(**seen(value))

    ours = CLASSES[struct].FromString(theirs.SerializeToString())

    assert listed(ours) == seen(value)
    assert type(theirs).FromString(ours.SerializeToString()) == theirs


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("connect", ConnectResult("", "")),
        ("subscribe", SubscribeResult()),
        ("unsubscribe", Empty()),
        ("publish", Empty()),
        ("presence", PresenceResult({})),
        ("presence_stats", PresenceStatsResult(0, 0)),
        ("history", HistoryResult([], "", 0)),
        ("ping", Empty()),
        ("rpc", RpcResult()),
        ("refresh", RefreshResult()),
        ("sub_refresh", SubRefreshResult()),
    ],
)
def test_a_result_is_there_although_it_is_empty(name: str, result: Any) -> None:
    """SDKs take it without asking whether it is there."""
    reply = parsed(encode(msgspec.structs.replace(Reply(id=1), **{name: result})))

    assert reply.HasField(name)
    assert reply.ByteSize() == 4


def test_an_empty_entry_of_a_map_and_of_a_list_is_there() -> None:
    result = ConnectResult(
        "c", "v", subs={"a": SubscribeResult(publications=[Published(raw(b""))])}
    )

    reply = parsed(encode(Reply(id=1, connect=result)))

    assert listed(reply)["connect"]["subs"] == {"a": {"publications": [{}]}}


def test_an_empty_reply_is_a_ping() -> None:
    assert encode(Reply()) == PING == b"\0"


@pytest.mark.parametrize("size", [1, 100, 127, 128, 16_383, 16_384, 70_000, 3_000_000])
def test_lengths_of_every_form_are_read_by_the_sdk(size: int) -> None:
    replies = [Reply(id=1, rpc=RpcResult(raw(b"x" * size))), Reply(), Reply(id=2, publish=Empty())]

    first, ping, last = SDK.decode_replies(join([encode(reply) for reply in replies]))

    assert first["id"] == 1
    assert (ping, last) == ({}, {"id": 2, "publish": {}})


@pytest.mark.parametrize("size", [1, 119, 120, 127, 128, 16_384, 70_000])
def test_lengths_of_every_form_are_read_by_us(size: int) -> None:
    command = Command(id=1, rpc=RpcRequest(data=raw(b"\xff" * size)))

    assert decode(frame(THEIRS.Command(**seen(command)).SerializeToString())) == [command]


# Publications


@given(
    st.text(),
    st.builds(
        Publication,
        st.binary(),
        offset=st.integers(0, 2**63 - 1),
        info=st.none() | st.builds(ClientInfo, st.text(), st.text(), st.binary(), st.binary()),
        tags=st.none() | st.dictionaries(st.text(), st.text()),
        binary=st.booleans(),
        key=st.none() | st.text(),
        epoch=st.text(),
    ),
)
@tried()
def test_a_publication_is_read_in_full(channel: str, publication: Publication) -> None:
    """Bytes too, and line breaks; its key and its epoch stay here."""
    push = parsed(encode_publication(channel, publication)).push

    assert (push.channel, push.HasField("pub")) == (channel, True)
    pub = push.pub
    assert (pub.data, pub.offset) == (publication.data, publication.offset)
    assert dict(pub.tags) == (publication.tags or {})
    assert pub.HasField("info") is (publication.info is not None)
    if info := publication.info:
        assert (pub.info.user, pub.info.client) == (info.user, info.client)
        assert (pub.info.conn_info, pub.info.chan_info) == (info.conn_info, info.chan_info)
    assert not pub.ListFields() or {f.name for f, _ in pub.ListFields()} <= {
        "data",
        "info",
        "offset",
        "tags",
    }


def test_the_format_has_its_name() -> None:
    """The hub's members and the WebSocket subprotocol call it so."""
    assert PROTOBUF_FORMAT == "centrifuge-protobuf"


WITHOUT_C = """
from google.protobuf.internal import api_implementation
from pongee.centrifuge.messages import *
from pongee.centrifuge.protobuf_codec import decode, encode

assert api_implementation.Type() == "python"
assert decode(b"\\x04\\x08\\x01\\x22\\x00") == [Command(id=1, connect=ConnectRequest())]
subs = {"a": SubscribeResult(publications=[Published(raw(b"1"))])}
print(encode(Reply(id=1, connect=ConnectResult("c", "v", subs=subs))).hex())
print(encode(Reply(id=1, unsubscribe=Empty())).hex())
print(encode(Reply(id=1, presence=PresenceResult({"c": WireInfo("", "")}))).hex())
for broken in (b"\\x01\\x08", b"\\x05\\x6a\\x03\\x12\\x01\\xff", b"\\x01\\x07"):
    try:
        decode(broken)
    except MalformedFrame:
        continue
    raise AssertionError(broken)
"""


def test_it_also_works_where_protobuf_has_no_compiled_part() -> None:
    """As on Alpine Linux or PyPy."""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_C],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    subs = {"a": SubscribeResult(publications=[Published(raw(b"1"))])}
    replies = [
        Reply(id=1, connect=ConnectResult("c", "v", subs=subs)),
        Reply(id=1, unsubscribe=Empty()),
        Reply(id=1, presence=PresenceResult({"c": messages.WireInfo("", "")})),
    ]
    assert done.stderr == ""
    assert done.stdout.split() == [encode(reply).hex() for reply in replies]
