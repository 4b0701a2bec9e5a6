"""The codec: whatever the peer sends is a message or a `MessageError`, and nothing else."""

from __future__ import annotations

import enum
import ipaddress
import json
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ByteSize, Field, Json, JsonValue, SecretStr
from typing_extensions import TypedDict

from pongee.errors import ConfigurationError, MessageError, UsageError
from pongee.limits import MAX_ERRORS_TOLD
from pongee.sessions.inbound import Codec, error_reply


class Color(enum.Enum):
    RED = "red"
    ONE = 1


class Node(BaseModel):
    value: int = 0
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)] = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(max_length=5, pattern="^[a-z]+$")]


class Row(TypedDict, total=False):
    id: int


class Point(NamedTuple):
    x: float
    y: float


class UUIDLike:
    """A class that Pydantic knows nothing of."""


@dataclass
class Pair:
    a: int
    b: str | None = None


TYPES: list[Any] = [
    Any,
    JsonValue,
    None,
    bool,
    int,
    float,
    complex,
    Decimal,
    Annotated[Decimal, Field(gt=0, decimal_places=2, max_digits=5)],
    Annotated[float, Field(multiple_of=0.5)],
    date,
    datetime,
    time,
    timedelta,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Network,
    AnyUrl,
    ByteSize,
    SecretStr,
    Path,
    Color,
    Json[list[int]],
    Literal["a", 1, None],
    list[int],
    set[Any],
    frozenset[str],
    tuple[int, str],
    tuple[int, ...],
    dict[str, int],
    dict[int, bytes],
    dict[Any, Any],
    str | int,
    int | list[Any] | None,
    Annotated[str, Field(min_length=2)],
    Node,
    Annotated[Cat | Dog, Field(discriminator="kind")],
    Row,
    Point,
    Pair,
]
CODECS = [Codec[Any, Any](kind, kind) for kind in TYPES]
RAW: list[Codec[Any, Any]] = [Codec(str, str), Codec(bytes, bytes), Codec(str | bytes, str | bytes)]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["cat", "dog", "red", "a", "1", "NaN", "sNaN", "Infinity", "1e999", "-0"])
    | st.sampled_from(["2024-01-01", "12:00", "P1D", "::1", "http://[", "10GB", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["kind", "name", "lives", "value", "children", "id", "a", "b", "1"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(json.dumps)
FRAMES = st.one_of(
    st.binary(), st.text(alphabet=st.characters()), JSON, JSON.map(str.encode), st.just("")
)


@settings(deadline=None)
@given(st.sampled_from([*CODECS, *RAW]), FRAMES)
@example(CODECS[0], "[" * 100_000)
@example(CODECS[0], '{"a":' * 100_000)
@example(CODECS[0], "9" * 100_000)
@example(CODECS[TYPES.index(Node)], '{"children":[' * 50_000)
@example(CODECS[TYPES.index(Decimal)], '"sNaN"')
@example(CODECS[0], b"\xef\xbb\xbf{}")
@example(CODECS[0], '"\\ud800"')
@example(CODECS[0], '"\ud800"')
def test_any_frame_is_a_message_or_a_message_error(
    codec: Codec[Any, Any], frame: str | bytes
) -> None:
    """Nothing the peer sends can crash a handler; the answer can always be written."""
    try:
        codec.decode(frame)
        return
    except MessageError as raised:
        error = raised
    reply = json.loads(error_reply(error))
    assert (reply["type"], reply["code"]) == ("error", error.code)
    assert 1 <= len(reply["errors"]) <= MAX_ERRORS_TOLD
    for detail in reply["errors"]:
        assert set(detail) == {"type", "loc", "msg"}


@settings(deadline=None)
@given(st.binary(), st.text())
def test_raw_types_travel_as_they_are(data: bytes, text: str) -> None:
    """No copy, no conversion."""
    for codec, message in ((RAW[0], text), (RAW[1], data), (RAW[2], text), (RAW[2], data)):
        assert codec.decode(message) is message
        assert codec.encode(message) is message


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(-1e9, 1e9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=15,
    )
)
def test_json_message_reads_back_as_it_was_written(message: Any) -> None:
    """Both codecs without a type of their own agree with the standard library."""
    for codec in CODECS[:2]:
        written = codec.encode(message)
        assert json.loads(written) == message
        assert codec.decode(written) == message
        assert codec.decode(written.encode()) == message  # type: ignore[union-attr]


NODES = st.recursive(
    st.builds(Node, value=st.integers(-(2**40), 2**40)),
    lambda inner: st.builds(Node, value=st.integers(0, 9), children=st.lists(inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(NODES)
def test_model_reads_back_as_it_was_written(node: Node) -> None:
    """What one side sends as a model, the other receives as the same model."""
    codec = Codec[Node, Node](Node, Node)

    assert codec.decode(codec.encode(node)) == node


@pytest.mark.parametrize(
    ("kind", "form"),
    [(str, "text"), (bytes, "bytes"), (str | bytes, "json"), (Any, "json"), (Node, "json")],
)
def test_format_follows_the_outgoing_type(kind: Any, form: str) -> None:
    """What a publication is encoded as for this endpoint."""
    assert Codec[Any, Any](str, kind).format == form


@pytest.mark.parametrize(
    ("kind", "message", "wanted"),
    [
        (str, 1, r"wants str, got int"),
        (bytes, "a", r"wants bytes, got str"),
        (str | bytes, 1, r"wants str or bytes, got int"),
        (Node, {"value": "x"}, r"wants Node, got dict"),
        (list[int], ["x"], r"wants list, got list"),
        (Any, object(), r"object cannot be written as JSON"),
        (dict[str, Any], {"a": object()}, r"wants dict, got dict"),
        (list[Any], ["\ud800"], r"wants list, got list"),
    ],
)
def test_message_of_a_wrong_type_is_refused_with_what_was_wanted(
    kind: Any, message: Any, wanted: str
) -> None:
    """A bug of ours is told where it is."""
    with pytest.raises(UsageError, match=wanted):
        Codec[Any, Any](str, kind).encode(message)


def test_text_that_no_frame_can_carry_is_refused() -> None:
    """A lone surrogate has no UTF-8; the server would raise after we said yes."""
    with pytest.raises(UsageError):
        RAW[0].encode("\ud800")


@pytest.mark.parametrize("kind", [print, 5, UUIDLike])
def test_type_that_cannot_be_carried_is_refused_when_it_is_declared(kind: Any) -> None:
    """Told with what is allowed, before the program runs."""
    with pytest.raises(ConfigurationError, match=r"cannot carry (?s:.*)Allowed: str, bytes, Any"):
        Codec[Any, Any](kind, str)


@pytest.mark.parametrize("kind", ["Missing", list["Missing"]])  # type: ignore[name-defined] # noqa: F821
def test_type_whose_name_is_not_resolved_is_refused_when_it_is_declared(kind: Any) -> None:
    """Pydantic puts such a type off; the first message would find it unfinished."""
    with pytest.raises(ConfigurationError):
        Codec[Any, Any](kind, str)


def test_error_reply_never_repeats_the_message() -> None:
    """The peer knows what it sent, and it may be large."""
    codec = Codec[Any, Any](dict[str, int], str)

    with pytest.raises(MessageError) as caught:
        codec.decode(json.dumps({"n": "s3cr3t" * 100}))

    assert "s3cr3t" not in error_reply(caught.value)
    assert caught.value.__cause__ is None


def test_error_reply_stays_small_whatever_the_keys_are() -> None:
    """A long key, repeated in each error, must not make the answer larger than the message."""
    frame = json.dumps({"k" * 10_000: ["x"] * 20})

    with pytest.raises(MessageError) as caught:
        Codec[Any, Any](dict[str, list[int]], str).decode(frame)

    assert len(error_reply(caught.value)) <= 2 * len(frame)


@pytest.mark.parametrize(
    ("codec", "frame", "code"),
    [
        (RAW[0], b"", "text_expected"),
        (RAW[1], "", "binary_expected"),
        (CODECS[0], "", "invalid_json"),
        (CODECS[0], "{", "invalid_json"),
        (CODECS[TYPES.index(int)], "{}", "invalid_message"),
    ],
)
def test_code_tells_programs_what_is_wrong(
    codec: Codec[Any, Any], frame: str | bytes, code: str
) -> None:
    """Four codes, one for each way a frame can be of no use."""
    with pytest.raises(MessageError) as caught:
        codec.decode(frame)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{code}: ")
