"""The verdict on a request's head: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.wire.head import (
    HEAD_SIZE,
    HEADERS,
    TARGET_SIZE,
    judge_head,
    judge_part,
    judge_size,
    judge_text,
    origin_form,
    upgrade_of,
)

HOST = (b"host", b"example.test")
GOOD: dict[str, Any] = {
    "method": b"GET",
    "target": b"/room?a=b",
    "version": "1.1",
    "headers": [HOST],
    "websocket": False,
}
WEBSOCKET = GOOD | {"websocket": True}


def status(**head: Any) -> int | None:
    """Judge a complete head; returns the refusal's status."""
    verdict = judge_head(**head)
    return None if verdict is None else verdict.status


def test_a_plain_head_is_let_through() -> None:
    """Nothing is refused without a rule."""
    assert status(**GOOD) is None
    assert status(**WEBSOCKET) is None


@pytest.mark.parametrize(
    "target",
    [b"/", b"*", b"/a%20b?c=d&e=%00", b"http://example.test/a", b"//x", b"/a#b", b"/'\"<>"],
)
def test_targets_of_visible_ascii_are_let_through(target: bytes) -> None:
    """RFC 9112 section 3.2: origin, absolute and asterisk form."""
    assert status(**GOOD | {"target": target}) is None


@pytest.mark.parametrize(
    "target", [b"", b"room", b"example.test:80", b"/\xc3\xa9", b"/a b", b"/\x00", b"/\x7f", b"/a\n"]
)
def test_other_targets_are_malformed(target: bytes) -> None:
    """RFC 9112 section 3.2: an invalid request line is answered 400."""
    assert status(**GOOD | {"target": target}) == 400


@pytest.mark.parametrize("version", ["0.9", "2.0", "3.0", "1.2"])
def test_versions_we_do_not_speak_are_505(version: str) -> None:
    """RFC 9110 section 15.6.6."""
    assert status(**GOOD | {"version": version}) == 505


@pytest.mark.parametrize(
    ("version", "hosts", "expected"),
    [
        ("1.1", [], 400),
        ("1.1", [b"a", b"a"], 400),
        ("1.0", [], None),
        ("1.0", [b"a", b"b"], 400),
        ("1.1", [b""], None),
        ("1.1", [b"[::1]:8000"], None),
        ("1.1", [b"a:80 "], None),
        ("1.1", [b"a b"], 400),
        ("1.1", [b"a/b"], 400),
        ("1.1", [b"u@a"], 400),
        ("1.1", [b"\xc3\xa9"], 400),
    ],
)
def test_host_comes_once_and_is_well_formed(
    version: str, hosts: list[bytes], expected: int | None
) -> None:
    """RFC 9112 section 3.2: anything else is answered 400."""
    headers = [(b"accept", b"*/*"), *((b"host", host) for host in hosts)]
    assert status(**GOOD | {"version": version, "headers": headers}) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": b"POST"}, 405),
        ({"method": b"HEAD"}, 405),
        ({"version": "1.0"}, 505),
        ({"target": b"/a#b"}, 400),
        ({"headers": [HOST, (b"content-length", b"5")]}, 400),
        ({"headers": [HOST, (b"content-length", b"00")]}, None),
        ({"headers": [HOST, (b"content-length", b" 0 ")]}, None),
        ({"headers": [HOST, (b"transfer-encoding", b"chunked")]}, 400),
    ],
)
def test_a_websocket_is_asked_for_by_a_get_without_a_body(
    change: dict[str, Any], expected: int | None
) -> None:
    """RFC 6455 section 4.1; the same head without the upgrade is nobody's business here."""
    assert status(**WEBSOCKET | change) == expected
    assert status(**GOOD | change) is None


def test_a_method_that_is_not_allowed_names_the_one_that_is() -> None:
    """RFC 9110 section 15.5.6: a 405 has an Allow field."""
    verdict = judge_head(**WEBSOCKET | {"method": b"POST"})
    assert verdict is not None
    assert verdict.headers == [(b"allow", b"GET")]


def test_limits_of_a_complete_head_are_exact() -> None:
    """At the limit is within it."""
    assert judge_size(b"/" * TARGET_SIZE, [HOST]) is None
    assert judge_size(b"/" * (TARGET_SIZE + 1), [HOST]).status == 414  # type: ignore[union-attr]
    around = len(b"GET / HTTP/1.1\r\nx: \r\n\r\n")
    assert judge_size(b"/", [(b"x", b"v" * (HEAD_SIZE - around))]) is None
    too_large = judge_size(b"/", [(b"x", b"v" * (HEAD_SIZE - around + 1))])
    assert too_large is not None
    assert too_large.status == 431
    many = [HOST, *[(b"x", b"")] * (HEADERS - 1)]
    assert status(**GOOD | {"headers": many}) is None
    assert status(**GOOD | {"headers": [*many, (b"x", b"")]}) == 431


def test_limits_hold_while_the_head_arrives() -> None:
    """A target too long is 414 also where the whole head is too large."""
    assert judge_part(b"/", [], HEAD_SIZE) is None
    for verdict, expected in (
        (judge_part(b"/" * (TARGET_SIZE + 1), [], HEAD_SIZE + 1), 414),
        (judge_part(b"/", [], HEAD_SIZE + 1), 431),
        (judge_part(b"/", [HOST] * (HEADERS + 1), 10), 431),
    ):
        assert verdict is not None
        assert verdict.status == expected


START = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", None),
        (b"GET", None),
        (START + b"Host: a\r\n\r\n", None),
        (START + b"Host: a\r\n\r\nbody\n folded" + b"x" * HEAD_SIZE, None),
        (b"GET / HTTP/1.1\nHost: a\n\n x", None),
        (START + b"X: a\r\n b\r\n", 400),
        (START + b"X: a\r\n\tb\r\n\r\n", 400),
        (START + b" X: a\r\n\r\n", 400),
        (b"GET /" + b"a" * (TARGET_SIZE - 1), None),
        (b"GET /" + b"a" * TARGET_SIZE, 414),
        (b"GET /" + b"a" * (3 * HEAD_SIZE), 414),
        (b"G" * (TARGET_SIZE + 1), 414),
        (START + b"X: " + b"a" * HEAD_SIZE, 431),
        (START + b"X: " + b"a" * HEAD_SIZE + b"\r\n\r\n", 431),
        (START + b"X: a\r\n" * HEADERS + b"\r\n", None),
        (START + b"X: a\r\n" * (HEADERS + 1) + b"\r\n", 431),
        (START + b"X: a\r\n" * (HEADERS + 1), 431),
    ],
)
def test_the_text_of_a_head_is_judged_up_to_its_end(text: bytes, expected: int | None) -> None:
    """Limits, and no folding (RFC 9112 section 5.2); a body is left out of account."""
    verdict = judge_text(text)
    assert (None if verdict is None else verdict.status) == expected


@given(
    names=st.lists(st.from_regex(rb"[A-Za-z0-9-]{1,20}", fullmatch=True), max_size=250),
    value=st.from_regex(rb"[!-~]{0,400}", fullmatch=True),
    target=st.from_regex(rb"/[!-~]{0,100}", fullmatch=True),
)
def test_text_and_pieces_get_the_same_verdict(
    names: list[bytes], value: bytes, target: bytes
) -> None:
    """The limits mean the same for both parsers."""
    lines = b"".join(name + b": " + value + b"\r\n" for name in names)
    text = b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n"
    headers = [(name.lower(), value) for name in names]
    assert judge_text(text) == judge_size(target, headers)


@given(text=st.binary(max_size=300), cut=st.integers(0, 300))
def test_no_beginning_is_refused_of_a_text_that_is_let_through(text: bytes, cut: int) -> None:
    """More bytes never make a bad head good."""
    if judge_text(START + text) is None:
        assert judge_text((START + text)[:cut]) is None


@given(
    method=st.binary(max_size=10),
    target=st.binary(max_size=40),
    version=st.text(max_size=4),
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=10),
    websocket=st.booleans(),
)
def test_any_head_gets_a_verdict(
    method: bytes,
    target: bytes,
    version: str,
    headers: list[tuple[bytes, bytes]],
    websocket: bool,
) -> None:
    """Nothing raises, whatever a parser lets through; what passes has the form promised."""
    verdict = judge_head(method, target, version, headers, websocket=websocket)
    assert upgrade_of(headers) is None or headers
    if verdict is None:
        assert all(0x21 <= byte <= 0x7E for byte in target)
        assert origin_form(target).isascii()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")], b"websocket"),
        ([(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket")], b"websocket"),
        (
            [
                (b"connection", b"upgrade"),
                (b"connection", b"keep-alive"),
                (b"upgrade", b"h2c, websocket"),
            ],
            b"websocket",
        ),
        ([(b"connection", b"Upgrade"), (b"upgrade", b"h2c")], b"h2c"),
        ([(b"upgrade", b"websocket")], None),
        ([(b"connection", b"keep-alive"), (b"upgrade", b"websocket")], None),
        ([(b"connection", b"upgrade")], None),
        ([], None),
    ],
)
def test_an_upgrade_is_named_in_both_fields(
    lines: list[tuple[bytes, bytes]], expected: bytes | None
) -> None:
    """RFC 9110 sections 7.6.1 and 7.8: lists, without regard to case, on several lines."""
    assert upgrade_of(lines) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?b=http://c", b"/a?b=http://c"),
        (b"http://example.test/a?b", b"/a?b"),
        (b"http://example.test", b"/"),
        (b"http://example.test?b=/c", b"/?b=/c"),
        (b"*", b"/"),
    ],
)
def test_a_target_in_absolute_form_names_the_same_resource(target: bytes, expected: bytes) -> None:
    """RFC 9112 section 3.2.2: a server accepts it."""
    assert origin_form(target) == expected
