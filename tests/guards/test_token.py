"""Where a token comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError
from pongee.guards.token import (
    CookieToken,
    FirstMessage,
    HeaderToken,
    QueryToken,
    SubprotocolToken,
    TokenSource,
)


def connection(
    *headers: tuple[str, str], query: str = "", subprotocols: tuple[str, ...] = ()
) -> HTTPConnection:
    return HTTPConnection(
        {
            "type": "websocket",
            "path": "/",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "query_string": query.encode("latin-1"),
            "subprotocols": list(subprotocols),
        }
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("Bearerabc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_a_header_token_follows_its_scheme(value: str, expected: str | None) -> None:
    """The scheme is compared in any case; another one is no token."""
    assert HeaderToken().extract(connection(("authorization", value))) == expected


def test_a_header_without_scheme_is_the_token() -> None:
    """API keys have a header of their own."""
    source = HeaderToken("X-API-Key", scheme=None)

    assert source.extract(connection(("x-api-key", " abc "))) == "abc"
    assert source.extract(connection(("x-api-key", ""))) is None


def test_a_header_given_twice_is_no_token() -> None:
    """A proxy and we might each read another one."""
    headers = [("authorization", "Bearer a"), ("authorization", "Bearer a")]

    assert HeaderToken().extract(connection(*headers)) is None
    assert HeaderToken().extract(connection()) is None


def test_a_cookie_token_needs_an_origin() -> None:
    """The origin check judges only what was sent; a browser always sends one."""
    cookie = ("cookie", "theme=dark; session=abc")

    assert CookieToken("session").extract(connection(cookie, ("origin", "https://a"))) == "abc"
    assert CookieToken("session").extract(connection(cookie)) is None
    assert CookieToken("other").extract(connection(cookie, ("origin", "https://a"))) is None


def test_only_cookies_are_sent_by_the_browser_itself() -> None:
    """The endpoint must check origins where a source says so."""
    others: list[TokenSource] = [HeaderToken(), SubprotocolToken(), QueryToken(), FirstMessage()]

    assert CookieToken("a").needs_origin_check
    assert not any(source.needs_origin_check for source in others)


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (("bearer", "abc"), "abc"),
        (("chat", "bearer", "abc", "v2"), "abc"),
        (("bearer",), None),
        (("abc", "bearer"), None),
        (("bearer", "a", "bearer", "b"), None),
        (("Bearer", "abc"), None),
        ((), None),
    ],
)
def test_a_subprotocol_token_follows_its_name(
    offered: tuple[str, ...], expected: str | None
) -> None:
    """The token is the entry right after the name, which must be there once."""
    source = SubprotocolToken()

    assert source.extract(connection(subprotocols=offered)) == expected
    assert source.subprotocol == "bearer"


def test_a_plain_http_request_has_no_subprotocol_token() -> None:
    """Only a WebSocket's scope lists subprotocols."""
    plain = HTTPConnection({"type": "http", "headers": []})

    assert SubprotocolToken().extract(plain) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("token=abc", "abc"),
        ("x=1&token=a%2Eb", "a.b"),
        ("token=", None),
        ("token=a&token=b", None),
        ("x=1", None),
        ("token=%ff%00", "\ufffd\x00"),
        ("", None),
    ],
)
def test_a_query_token_is_there_once(query: str, expected: str | None) -> None:
    """An empty or repeated parameter is no token."""
    assert QueryToken().extract(connection(query=query)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("abc.def-_", "abc.def-_"),
        (b" abc\n", "abc"),
        ('{"token": "abc"}', "abc"),
        (b'{"token": "abc", "more": [1]}', "abc"),
        ("", None),
        ("  ", None),
        ("hello there", None),
        ("{}", None),
        ('{"token": ""}', None),
        ('{"token": 1}', None),
        ('{"token": null}', None),
        ('{"token": "\\ud800"}', None),
        ('{"token": "abc"', None),
        ("{" * 5000, None),
        ('{"a":' * 2000, None),
        ('{"token": ' + "9" * 9000 + "}", None),
        (b"\xff\xfe", None),
        ("a" * 16_385, None),
        (b"{" + b" " * 16_384, None),
    ],
)
def test_a_first_message_is_a_token_or_json_with_one(
    data: str | bytes, expected: str | None
) -> None:
    """Anything else, or anything too long, holds no token and raises nothing."""
    assert FirstMessage().parse(data) == expected


def test_a_first_message_is_not_part_of_the_handshake() -> None:
    """Before accept there is nothing to extract; the deadline is in seconds."""
    source = FirstMessage(timeout=3)

    assert source.extract(connection(("authorization", "Bearer abc"))) is None  # type: ignore[func-returns-value]
    assert source.timeout == 3


def test_a_source_that_cannot_work_stops_the_start() -> None:
    """A subprotocol with a space, or a deadline of nothing, is a mistake."""
    with pytest.raises(ConfigurationError, match="my token"):
        SubprotocolToken("my token")
    with pytest.raises(ConfigurationError, match="timeout=0"):
        FirstMessage(timeout=0)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_no_first_message_raises(data: str | bytes) -> None:
    """Whatever comes, the answer is a token or none."""
    token = FirstMessage().parse(data)
    assert token is None or token

    token = FirstMessage().parse(b'{"token": ' + data if isinstance(data, bytes) else data)
    assert token is None or token


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "cookie", "origin"]),
            st.text(st.characters(max_codepoint=255), max_size=30),
        ),
        max_size=4,
    ),
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.lists(st.sampled_from(["bearer", "a", ""]), max_size=4),
)
def test_no_handshake_makes_a_source_raise(
    headers: list[tuple[str, str]], query: str, offered: list[str]
) -> None:
    """Extraction gives a token that is not empty, or none."""
    handshake = connection(*headers, query=query, subprotocols=tuple(offered))
    sources: list[TokenSource] = [HeaderToken(), CookieToken(""), SubprotocolToken(), QueryToken()]

    for source in sources:
        token = source.extract(handshake)
        assert token is None or token
