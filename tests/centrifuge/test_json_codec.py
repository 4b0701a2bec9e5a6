"""JSON, against `json` and the members that SDKs rely on."""

from __future__ import annotations

import importlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from pongee.centrifuge.json_codec import (
    JSON_FORMAT,
    PING,
    decode,
    encode,
    encode_publication,
    join,
)
from pongee.centrifuge.messages import (
    NOTHING,
    Command,
    ConnectRequest,
    ConnectResult,
    Disconnected,
    Empty,
    Error,
    HistoryResult,
    JoinOrLeave,
    MalformedFrame,
    Message,
    PresenceResult,
    PresenceStatsResult,
    Published,
    Push,
    RefreshResult,
    Reply,
    RpcResult,
    SendRequest,
    SubRefreshResult,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribed,
    WireInfo,
    published,
    raw,
)
from pongee.centrifuge.protobuf_schema import SCHEMA
from pongee.channels.publication import ClientInfo, Publication
from pongee.errors import UsageError
from tests.centrifuge.strategies import JSON_PAYLOADS, plain, structs, tried

SDK: Any = importlib.import_module("centrifuge.codecs")._JsonCodec

# Members that are written even when they are zero. The first block is the protocol's table; the
# rest has no meaning without its member.
ALWAYS: dict[type[Struct], tuple[str, ...]] = {
    WireInfo: ("user", "client"),
    PresenceResult: ("presence",),
    PresenceStatsResult: ("num_clients", "num_users"),
    HistoryResult: ("publications", "epoch", "offset"),
    Error: ("code", "message"),
    Unsubscribed: ("code", "reason"),
    Disconnected: ("code", "reason"),
    ConnectResult: ("client", "version"),
    Published: ("data",),
    Message: ("data",),
}

REQUESTS = [name for name in SCHEMA[Command] if name != "id"]
RESULTS = [name for name in SCHEMA[Reply] if name not in ("id", "push")]
PUSHES = [name for name in SCHEMA[Push] if name != "channel"]


def seen(value: Any) -> Any:
    """What a JSON client should see of a struct."""
    return plain(value, json.loads, ALWAYS)


def line(value: Any) -> str:
    """Write a struct as a client would, which writes no line breaks either."""
    return json.dumps(seen(value), ensure_ascii=False)


# Commands


@pytest.mark.parametrize("name", REQUESTS)
@given(data=st.data())
@tried(40)
def test_a_command_is_read_in_full(name: str, data: st.DataObject) -> None:
    command = data.draw(structs(Command, JSON_PAYLOADS, only={"id", name}))

    for frame in (line(command), line(command).encode()):
        [read] = decode(frame)
        assert seen(read) == seen(command)


@given(
    st.lists(structs(Command, JSON_PAYLOADS), min_size=1, max_size=3), st.sampled_from(["", "\n"])
)
@tried(40)
def test_commands_come_out_in_the_order_they_went_in(commands: list[Command], end: str) -> None:
    """With any number of requests in each; which of them counts is decided elsewhere."""
    read = decode("\n".join(line(command) for command in commands) + end)

    assert [seen(command) for command in read] == [seen(command) for command in commands]


def test_the_sdk_frames_its_commands_as_we_read_them() -> None:
    commands = [{"id": 1, "connect": {"token": "t"}}, {}, {"id": 2, "subscribe": {"channel": "a"}}]

    assert decode(SDK.encode_commands(commands)) == [
        Command(id=1, connect=ConnectRequest(token="t")),
        Command(),
        Command(id=2, subscribe=SubscribeRequest(channel="a")),
    ]


@pytest.mark.parametrize("pong", ["{}", b"{}", " { } ", "{}\n", '{"unknown":[1]}', '{"rpc":null}'])
def test_an_object_without_members_is_a_pong(pong: str | bytes) -> None:
    """Of those that are known, and not `null`."""
    assert decode(pong) == [Command()]


def test_unknown_members_are_ignored_everywhere() -> None:
    [command] = decode('{"id":1,"x":{"y":[]},"send":{"data":1,"z":null},"method":3}')

    assert command == Command(id=1, send=SendRequest(data=Raw(b"1")))


@pytest.mark.parametrize(
    "payload",
    [
        "null",
        "0",
        "-1.5e+7",
        '""',
        '"\\ud83e\\udd86 é\\n"',
        "[]",
        "{}",
        '{"a": [1,  2]}',
        "1" * 400,
    ],
)
def test_a_payload_stays_as_it_came(payload: str) -> None:
    """Its numbers and blanks too: it is not parsed and written again."""
    [command] = decode(f'{{"send":{{"data":{payload}}}}}')

    assert command.send is not None
    assert bytes(command.send.data).decode() == payload


@pytest.mark.parametrize("node", ["{}", '{"op":"and","nodes":[{"key":"a","cmp":"ex"}]}'])
def test_of_a_filter_only_that_it_is_there(node: str) -> None:
    [command] = decode(f'{{"subscribe":{{"channel":"a","tf":{node}}}}}')

    assert command.subscribe == SubscribeRequest(channel="a", tf=Empty())


def test_no_payload_is_nothing() -> None:
    [command] = decode('{"send":{}}')

    assert command.send is not None
    assert command.send.data is NOTHING


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        " ",
        "\n",
        " \n\t\n",
        b"",
        b"\xff",
        b'{"rpc":{"method":"\xff"}}',
        b'{"rpc":{"data":"\xed\xa0\x80"}}',
        "\ufeff{}",
        "null",
        "1",
        '"{}"',
        "[]",
        "[{}]",
        "{",
        "{}}",
        "{}{}",
        "{},{}",
        "{}\n{",
        "\0",
        '{"id":"1"}',
        '{"id":true}',
        '{"id":1.5}',
        '{"id":-1}',
        '{"id":4294967296}',
        f'{{"id":{"1" * 5_000}}}',
        '{"id":null}',
        '{"connect":[]}',
        '{"connect":{"token":1}}',
        '{"connect":{"headers":{"a":1}}}',
        '{"connect":{"subs":{"a":1}}}',
        '{"subscribe":{"channel":null}}',
        '{"subscribe":{"recover":1}}',
        '{"subscribe":{"offset":-1}}',
        '{"subscribe":{"offset":9223372036854775808}}',
        '{"subscribe":{"flag":1e400}}',
        '{"subscribe":{"tf":[]}}',
        '{"history":{"limit":2147483648}}',
        '{"send":{"data":}}',
        '{"send":{"data":NaN}}',
        '{"send":{"data":01}}',
        '{"send":{"data":"a\tb"}}',
        '{"send":{"data":"\\x41"}}',
        '{"send":{"data":"\\ud800"}}',
        '{"rpc":{"method":"\\ud800"}}',
        '{"rpc":{"method":"\ud800"}}',
        '{"send":{"data":[1,]}}',
        '{"send":{"data":{\n}}}',
        '{"send":{"data":"a\nb"}}',
        f'{{"send":{{"data":{DEEP}}}}}',
        f'{{"unknown":{DEEP}}}',
        f'{{"subscribe":{{"tf":{DEEP}}}}}',
        DEEP,
        '{"a":' * 100_000,
    ],
    ids=lambda frame: repr(frame[:40]),
)
def test_malformed(malformed: str | bytes) -> None:
    """Nothing, no JSON, no UTF-8, other types, line breaks in a line, and bombs."""
    with pytest.raises(MalformedFrame) as caught:
        decode(malformed)
    assert len(str(caught.value)) < 200


def test_what_is_wrong_is_told_without_the_payload() -> None:
    """The message goes to logs."""
    with pytest.raises(MalformedFrame) as caught:
        decode('{"id":1,"connect":{"token":{"secret":"5ecret"}}}')
    assert str(caught.value) == "Expected `str`, got `object` - at `$.connect.token`"

    with pytest.raises(MalformedFrame) as caught:
        decode('{"id":1,"connect":{"token":"5ecret"')
    assert str(caught.value) == "not JSON"


@given(st.text() | st.binary() | st.text('{}[]",:\n 0e.-\\undtrueidsenddata'))
@tried()
def test_noise_is_commands_or_malformed(noise: str | bytes) -> None:
    try:
        commands = decode(noise)
    except MalformedFrame:
        return
    assert all(isinstance(command, Command) for command in commands)


@given(structs(Command, JSON_PAYLOADS), st.data())
@tried(60)
def test_damaged_commands_are_commands_or_malformed(command: Command, data: st.DataObject) -> None:
    whole = bytearray(line(command).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        commands = decode(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    except MalformedFrame:
        return
    assert all(isinstance(command, Command) for command in commands)


@given(
    st.text('{}[]",: 0123e.+-\\/bfnrtu\r\ttruefalsn\x1f\x7f\u2028é')
    | JSON_PAYLOADS.map(lambda payload: payload.decode())
)
@tried(300)
def test_what_passes_as_a_payload_is_json_on_one_line(payload: str) -> None:
    """It is written to other clients as it is, and one of them drops its connection otherwise."""
    try:
        [command] = decode(f'{{"send":{{"data":{payload}}}}}')
    except MalformedFrame:
        return
    if command.send is not None and command.send.data is not NOTHING:
        kept = bytes(command.send.data).decode()
        json.loads(kept)
        assert "\n" not in kept


# Replies


@pytest.mark.parametrize("name", RESULTS)
@given(data=st.data())
@tried(40)
def test_a_reply_says_what_is_in_it(name: str, data: st.DataObject) -> None:
    reply = data.draw(structs(Reply, JSON_PAYLOADS, only={"id", name}))

    written = encode(reply)

    assert json.loads(written) == seen(reply)
    assert "\n" not in written


@pytest.mark.parametrize("name", PUSHES)
@given(data=st.data())
@tried(40)
def test_a_push_says_what_is_in_it(name: str, data: st.DataObject) -> None:
    reply = Reply(push=data.draw(structs(Push, JSON_PAYLOADS, only={"channel", name})))

    written = encode(reply)

    assert json.loads(written) == seen(reply)
    assert "\n" not in written


ANYONE = WireInfo("", "")


@pytest.mark.parametrize(
    ("name", "result", "written"),
    [
        ("error", Error(0, ""), '{"code":0,"message":""}'),
        ("connect", ConnectResult("", ""), '{"client":"","version":""}'),
        ("connect", ConnectResult("c", "v", subs={"a": SubscribeResult()}), None),
        ("subscribe", SubscribeResult(), "{}"),
        ("unsubscribe", Empty(), "{}"),
        ("publish", Empty(), "{}"),
        ("presence", PresenceResult({}), '{"presence":{}}'),
        ("presence", PresenceResult({"a": ANYONE}), '{"presence":{"a":{"user":"","client":""}}}'),
        ("presence_stats", PresenceStatsResult(0, 0), '{"num_clients":0,"num_users":0}'),
        ("history", HistoryResult([], "", 0), '{"publications":[],"epoch":"","offset":0}'),
        ("ping", Empty(), "{}"),
        ("rpc", RpcResult(), "{}"),
        ("refresh", RefreshResult(), "{}"),
        ("sub_refresh", SubRefreshResult(), "{}"),
    ],
)
def test_members_that_are_always_written(name: str, result: Any, written: str | None) -> None:
    """The result itself too, and an entry of a map that is empty."""
    if written is None:
        written = '{"client":"c","version":"v","subs":{"a":{}}}'
    reply = msgspec.structs.replace(Reply(id=1), **{name: result})

    assert encode(reply) == f'{{"id":1,"{name}":{written}}}'


@pytest.mark.parametrize(
    ("name", "push", "written"),
    [
        ("unsubscribe", Unsubscribed(0, ""), '{"code":0,"reason":""}'),
        ("disconnect", Disconnected(0, ""), '{"code":0,"reason":""}'),
        ("join", JoinOrLeave(ANYONE), '{"info":{"user":"","client":""}}'),
        ("leave", JoinOrLeave(ANYONE), '{"info":{"user":"","client":""}}'),
    ],
)
def test_members_of_pushes_that_are_always_written(name: str, push: Any, written: str) -> None:
    reply = Reply(push=msgspec.structs.replace(Push(channel="a"), **{name: push}))

    assert encode(reply) == f'{{"push":{{"channel":"a","{name}":{written}}}}}'


def test_an_empty_reply_is_a_ping() -> None:
    assert encode(Reply()) == PING == "{}"


def test_the_sdk_reads_joined_replies() -> None:
    replies = [Reply(id=1, rpc=RpcResult(raw(b'"\\n"'))), Reply(), Reply(id=2, publish=Empty())]

    assert SDK.decode_replies(join([encode(reply) for reply in replies])) == [
        {"id": 1, "rpc": {"data": "\n"}},
        {},
        {"id": 2, "publish": {}},
    ]


# Publications


@given(
    st.text(),
    st.builds(
        Publication,
        JSON_PAYLOADS,
        offset=st.integers(0, 2**63 - 1),
        info=st.none()
        | st.builds(
            ClientInfo,
            st.text(),
            st.text(),
            st.just(b"") | JSON_PAYLOADS,
            st.just(b"") | JSON_PAYLOADS,
        ),
        tags=st.none() | st.dictionaries(st.text(), st.text(), min_size=1),
        key=st.none() | st.text(),
        epoch=st.text(),
    ),
)
@tried()
def test_a_publication_is_written_like_any_push(channel: str, publication: Publication) -> None:
    """Although by a shorter way, for most of them; its key and its epoch stay here."""
    written = encode_publication(channel, publication)

    pub = published(publication)
    assert json.loads(written) == {"push": {"channel": channel, "pub": seen(pub)}}
    assert "\n" not in written
    if channel:
        assert json.loads(written) == json.loads(encode(Reply(push=Push(channel=channel, pub=pub))))


def test_bytes_cannot_be_published_to_json_clients() -> None:
    """Whoever subscribes with JSON is closed instead, with 3506."""
    with pytest.raises(UsageError, match="publish JSON"):
        encode_publication("a", Publication(b"\xff", binary=True))


def test_the_format_has_its_name() -> None:
    """The hub's members and the WebSocket subprotocol call it so."""
    assert JSON_FORMAT == "centrifuge-json"
