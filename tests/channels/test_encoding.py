"""A published value in the format of each endpoint."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pongee.channels.encoding import Format, encode_any, to_json
from pongee.errors import UsageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Model(BaseModel):
    at: datetime


@dataclass
class Pair:
    a: int


@pytest.mark.parametrize(
    ("data", "form", "encoded"),
    [
        ("hé", "text", "hé"),
        ("hé", "bytes", "hé".encode()),
        ("hé", "json", '"hé"'),
        (b"\xff", "text", b"\xff"),
        (b"\xff", "bytes", b"\xff"),
        (b"abc", "json", '"abc"'),
        ({"a": 1}, "text", '{"a":1}'),
        ({"a": 1}, "bytes", '{"a":1}'),
        ({"a": 1}, "json", '{"a":1}'),
        (None, "text", "null"),
    ],
)
def test_text_and_bytes_travel_raw_where_they_can_and_the_rest_is_json(
    data: Any, form: Format, encoded: str | bytes
) -> None:
    """One table: what is published, who gets it, what arrives."""
    assert encode_any(data, form) == encoded


@settings(deadline=None)
@given(JSON)
def test_json_reads_back_as_it_was(data: Any) -> None:
    """Nothing is lost between two sides that both speak JSON."""
    assert json.loads(to_json(data)) == data


def test_models_dataclasses_and_dates_are_written() -> None:
    """What Pydantic can write needs no conversion."""
    data = [Model(at=datetime(2024, 1, 2, tzinfo=UTC)), Pair(1), {1}]

    assert to_json(data) == '[{"at":"2024-01-02T00:00:00Z"},{"a":1},[1]]'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_null(number: float) -> None:
    """A browser's parser would refuse the whole message."""
    assert to_json({"a": number}) == '{"a":null}'


def _circular() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "data", [object(), _circular(), _deep(), b"\xff", ["\ud800"], {"a": print}, math]
)
def test_what_cannot_be_written_is_a_usage_error_that_names_the_type(data: Any) -> None:
    """A bug of the caller, told at the call."""
    with pytest.raises(UsageError, match=f"^{type(data).__name__} cannot be written as JSON"):
        to_json(data)


@pytest.mark.parametrize(
    "form",
    [
        "text",
        "bytes",
        "json",
    ],
)
def test_text_that_is_not_unicode_is_a_usage_error(form: Format) -> None:
    """A lone surrogate has no UTF-8, so no frame can carry it."""
    with pytest.raises(UsageError):
        encode_any("\ud800", form)
