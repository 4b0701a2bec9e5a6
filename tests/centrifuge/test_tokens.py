"""What claims mean, and which mean nothing."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee import InvalidToken
from pongee.centrifuge.tokens import (
    Grant,
    connection_subs,
    expiry_of,
    info_of,
    subscription_grant,
    user_of,
)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("claims", "user"),
    [({}, ""), ({"sub": ""}, ""), ({"sub": "ann"}, "ann"), ({"sub": 42}, "42"), ({"sub": 0}, "0")],
)
def test_user(claims: dict[str, Any], user: str) -> None:
    """A text; back ends that write numbers are understood."""
    assert user_of(claims) == user


@pytest.mark.parametrize("sub", [None, True, 1.5, ["ann"], {"id": 1}, "\ud800"])
def test_user_that_is_none(sub: Any) -> None:
    """What cannot be written in a frame, or would mean two things."""
    with pytest.raises(InvalidToken):
        user_of({"sub": sub})


@pytest.mark.parametrize(
    ("claims", "expires_at"),
    [
        ({}, None),
        ({"exp": 10}, 10.0),
        ({"exp": 10, "expire_at": 20}, 20.0),
        ({"exp": 10, "expire_at": 0}, None),
        ({"exp": 10, "expire_at": None}, 10.0),
        ({"expire_at": 20.5}, 20.5),
    ],
)
def test_expiry(claims: dict[str, Any], expires_at: float | None) -> None:
    """That of the connection, before that of the token; 0 is never."""
    assert expiry_of(claims) == expires_at


@pytest.mark.parametrize("value", ["20", True, [], math.inf, -math.inf, math.nan])
def test_expiry_that_is_none(value: Any) -> None:
    """No moment."""
    with pytest.raises(InvalidToken):
        expiry_of({"expire_at": value})


@pytest.mark.parametrize(
    ("claims", "info"),
    [
        ({}, b""),
        ({"info": None}, b""),
        ({"info": {"a": [1, "é"]}}, '{"a":[1,"é"]}'.encode()),
        ({"info": 0}, b"0"),
        ({"info": False}, b"false"),
        ({"b64info": _b64('{"a":\n1}')}, b'{"a":1}'),
        ({"info": 1, "b64info": _b64("2")}, b"1"),
        ({"info": math.nan}, b"null"),
        ({"b64info": _b64("NaN")}, b"null"),
    ],
)
def test_info(claims: dict[str, Any], info: bytes) -> None:
    """JSON on one line, which every client can read."""
    assert info_of(claims) == info


@pytest.mark.parametrize(
    "claims", [{"info": "\ud800"}, {"b64info": "%"}, {"b64info": _b64("{")}, {"b64info": 5}]
)
def test_info_that_is_none(claims: dict[str, Any]) -> None:
    """Neither Base64, nor JSON, nor text."""
    with pytest.raises(InvalidToken):
        info_of(claims)


def test_channels_of_a_connection() -> None:
    """A list, a mapping with options, or both."""
    assert connection_subs({}) == {}
    assert connection_subs({"channels": None, "subs": None}) == {}
    claims = {"channels": ["a", "b"], "subs": {"b": {"info": 1}, "c": None}}
    assert connection_subs(claims) == {"a": {}, "b": {"info": 1}, "c": {}}


@pytest.mark.parametrize(
    "claims",
    [
        {"channels": "a"},
        {"channels": {"a": {}}},
        {"channels": ["a", 1]},
        {"subs": ["a"]},
        {"subs": {"a": 5}},
        {"subs": {"a": ["info"]}},
        {"subs": 1},
    ],
)
def test_channels_that_are_none(claims: dict[str, Any]) -> None:
    """The back end meant something else."""
    with pytest.raises(InvalidToken):
        connection_subs(claims)


def test_grant() -> None:
    """For this channel and this user; anonymous ones need no ``sub``."""
    claims = {"channel": "c", "sub": "ann", "exp": 10, "info": {"x": 1}}
    assert subscription_grant(claims, "c", "ann") == Grant(10.0, b'{"x":1}')
    assert subscription_grant({"channel": "c"}, "c", "") == Grant(None, b"")
    for channel, user in (("d", "ann"), ("c", "bob"), ("c", "")):
        with pytest.raises(InvalidToken, match="another"):
            subscription_grant(claims, channel, user)
    with pytest.raises(InvalidToken, match="another channel"):
        subscription_grant({"sub": "ann"}, "c", "ann")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "expire_at", "info", "b64info", "channels", "subs"]),
        _anything,
    )
)
def test_whatever_is_claimed_means_something_or_nothing(claims: dict[str, Any]) -> None:
    """No other exception; and what comes out can be sent."""
    for read in (user_of, expiry_of, info_of, connection_subs):
        try:
            found = read(claims)
        except InvalidToken:
            continue
        if isinstance(found, bytes) and found:
            json.loads(found, parse_constant=pytest.fail)
            assert b"\n" not in found
