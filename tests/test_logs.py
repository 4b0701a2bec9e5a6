"""Tokens stay out of servers' logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypercorn.config import Config
from hypercorn.logging import AccessLogAtoms
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pongee.logs import SERVER_LOGGERS, Redaction, install_redaction

SECRET = "s3cr3t"


def _line(message: Any, *args: Any, level: int = logging.INFO) -> str:
    """Write a line as a server does, through the filter."""
    record = logging.LogRecord("server", level, __file__, 1, message, args, None)
    assert Redaction().filter(record)
    return record.getMessage()


def test_uvicorn_lines_lose_the_query_and_nothing_else() -> None:
    """The access line of HTTP, the line of a WebSocket, and what follows them."""
    client, path = "127.0.0.1:5", f"/ws/chat?token={SECRET}&a=b"

    assert _line('%s - "%s %s HTTP/%s" %d', client, "GET", path, "1.1", 200) == (
        '127.0.0.1:5 - "GET /ws/chat?[redacted] HTTP/1.1" 200'
    )
    assert _line('%s - "WebSocket %s" [accepted]', client, path) == (
        '127.0.0.1:5 - "WebSocket /ws/chat?[redacted]" [accepted]'
    )
    assert _line('%s - "WebSocket %s" %d', client, path, 403).endswith('/chat?[redacted]" 403')


def test_uvicorn_access_arguments_stay_what_its_formatter_unpacks() -> None:
    """The formatter of uvicorn takes the five arguments apart."""
    args = ("127.0.0.1:5", "GET", f"/?token={SECRET}", "1.1", 200)
    record = logging.LogRecord("uvicorn.access", 20, __file__, 1, "%s %s %s %s %d", args, None)

    Redaction().filter(record)

    assert record.args == ("127.0.0.1:5", "GET", "/?[redacted]", "1.1", 200)


def test_query_with_a_quote_in_it_is_redacted_to_its_end() -> None:
    """An apostrophe may stand in a query as it is (RFC 3986 section 3.4)."""
    assert SECRET not in _line('"WebSocket %s" 403', f"/ws?name=O'Hara&token={SECRET}")


def test_line_that_is_finished_already_is_redacted() -> None:
    """Servers written in Rust hand over whole lines."""
    line = _line(f'[INFO] 127.0.0.1 - "GET /ws?token={SECRET} HTTP/1.1" 101')

    assert line == '[INFO] 127.0.0.1 - "GET /ws?[redacted] HTTP/1.1" 101'


def test_arguments_by_name_are_redacted() -> None:
    """Both hypercorn and granian give their access loggers a mapping, with formats users choose."""
    atoms = {"h": "127.0.0.1", "R": f"GET /ws?token={SECRET} 1.1", "s": "101"}

    line = _line('%(h)s "%(R)s" %(s)s', atoms)

    assert line == '127.0.0.1 "GET /ws?[redacted] 1.1" 101'


SCOPE: Any = {
    "type": "websocket",
    "scheme": "ws",
    "path": "/ws",
    "query_string": f"token={SECRET}".encode(),
    "headers": [
        (b"authorization", f"Bearer {SECRET}".encode()),
        (b"cookie", f"session={SECRET}".encode()),
        (b"sec-websocket-protocol", f"bearer, {SECRET}".encode()),
        (b"user-agent", b"browser"),
    ],
    "client": ("192.0.2.1", 5),
    "http_version": "1.1",
}


@pytest.mark.parametrize(
    "form",
    [
        Config().access_log_format,
        "%(R)s",
        "%(Uq)s",
        "%(q)s",
        *(
            pytest.param(
                f"%({{{header}}}i)s",
            )
            for header in ("authorization", "Cookie", "sec-websocket-protocol")
        ),
    ],
)
def test_access_lines_of_hypercorn_hide_credentials_whatever_the_format(form: str) -> None:
    """What a user's format may name is redacted; what is not known stays a dash."""
    line = _line(f"%(h)s %(unknown)s %(a)s {form}", AccessLogAtoms(SCOPE, None, 0.1))

    assert line.startswith("192.0.2.1:5 - browser ")
    assert SECRET not in line


def test_access_lines_of_granian_hide_the_query() -> None:
    """Its fields are a plain dictionary, with the query by itself."""
    fields = {"addr": "192.0.2.1", "path": "/ws", "query_string": f"token={SECRET}", "status": 101}

    line = _line("%(addr)s %(path)s?%(query_string)s %(status)d", fields)

    assert line.startswith("192.0.2.1 /ws?")
    assert SECRET not in line


def test_query_that_is_joined_by_the_format_is_redacted_and_the_line_still_works() -> None:
    """The question mark may be in the format and the secret in an argument."""
    line = _line("GET %s?%s done", "/ws", f"token={SECRET}")

    assert SECRET not in line
    assert line.startswith("GET /ws?")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", f"Bearer {SECRET}"),
        ("authorization", f"Basic {SECRET}"),
        ("Cookie", f"a=b; session={SECRET}"),
        ("Set-Cookie", f"session={SECRET}"),
        ("Sec-WebSocket-Protocol", f"bearer, {SECRET}"),
        ("X-Api-Key", SECRET),
        ("Proxy-Authorization", SECRET),
        ("Referer", f"https://a.example/?token={SECRET}"),
    ],
)
def test_websockets_debug_lines_hide_credentials(name: str, value: str) -> None:
    """At DEBUG the package writes every header, one a line."""
    line = _line("< %s: %s", name, value, level=logging.DEBUG)

    assert SECRET not in line
    assert line.startswith(f"< {name}: ")
    assert line.endswith("[redacted]")


@pytest.mark.parametrize("name", ["Host", "Upgrade", "Sec-WebSocket-Key", "User-Agent"])
def test_websockets_debug_lines_keep_other_headers(name: str) -> None:
    """What helps to find a fault stays."""
    assert _line("< %s: %s", name, "value", level=logging.DEBUG) == f"< {name}: value"


def test_websockets_request_line_loses_its_query() -> None:
    """Path and version stay."""
    assert _line("< GET %s HTTP/1.1", f"/ws?token={SECRET}") == "< GET /ws?[redacted] HTTP/1.1"


@pytest.mark.parametrize("direction", ["<", ">"])
@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (f"TEXT '{SECRET} and more' [15 bytes]", "[15 bytes]"),
        ("TEXT '' [0 bytes]", "[0 bytes]"),
        ("BINARY 73 33 63 72 33 74 [6 bytes]", "[6 bytes]"),
        (f"BINARY '{SECRET}' [text, 6 bytes, continued]", "[text, 6 bytes, continued]"),
        (f"CONT '{SECRET}' [text, 6 bytes]", "[text, 6 bytes]"),
        (f"PING '{SECRET}' [text, 6 bytes]", "[text, 6 bytes]"),
        ("PONG 73 33 [binary, 2 bytes]", "[binary, 2 bytes]"),
    ],
)
def test_websockets_frames_keep_kind_and_size_only(direction: str, frame: str, size: str) -> None:
    """The first message may be a token."""
    kind = frame.partition(" ")[0]

    line = _line(f"{direction} %s", frame, level=logging.DEBUG)

    assert line.split()[:2] == [direction, kind]
    assert "'" not in line
    assert " 73" not in line
    assert SECRET not in line
    assert line.endswith(size)


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("= connection is %s", ("OPEN",)),
        ("< %s", ("CLOSE 1000 (OK) [2 bytes]",)),
        ("% sent keepalive ping", ()),
        ("> [body] (%d bytes)", (7,)),
        ("Started server process [%d]", (7,)),
        ("is it 100% sure? yes", ()),
    ],
)
def test_other_lines_are_left_alone(message: str, args: tuple[Any, ...]) -> None:
    """A line without a secret comes out as it went in."""
    assert _line(message, *args) == (message % args if args else message)


@pytest.mark.parametrize("message", ["Invalid UTF-8 sequence received", "opening handshake failed"])
def test_lines_about_what_a_peer_did_lose_the_traceback(message: str) -> None:
    """A stranger's mistake is one line, not a page."""
    try:
        raise ValueError
    except ValueError:
        record = logging.LogRecord("s", 40, __file__, 1, message, (), sys.exc_info())

    assert Redaction().filter(record)
    assert record.exc_info is None
    assert record.exc_text is None


def test_false_alarm_after_a_refusal_is_dropped() -> None:
    """It comes from uvicorn after every handshake that was refused with a response."""
    message = "ASGI callable returned without completing handshake."
    record = logging.LogRecord("s", 40, __file__, 1, message, (), None)

    assert not Redaction().filter(record)


@settings(deadline=None)
@given(
    st.one_of(st.text(), st.integers(), st.none(), st.binary()),
    st.one_of(
        st.none(),
        st.dictionaries(st.text(), st.text()),
        st.lists(st.one_of(st.text(), st.none(), st.floats(), st.binary())).map(tuple),
    ),
)
def test_odd_records_never_raise(message: Any, args: Any) -> None:
    """A filter that raises would break the server it listens to."""
    record = logging.LogRecord("s", 10, __file__, 1, message, None, None)
    record.args = args

    assert Redaction().filter(record) in (True, False)


@settings(deadline=None)
@given(st.text(alphabet="%sd?=& /<>'\"a", max_size=30), st.text(alphabet="?=&a", max_size=8))
@example("?%s", "")
def test_line_that_could_be_written_can_still_be_written(message: str, argument: str) -> None:
    """Redaction takes nothing out of a format that its arguments need."""
    try:
        message % (argument,)
    except (TypeError, ValueError):
        return
    assert isinstance(_line(message, argument), str)


@pytest.fixture
def _clean_loggers() -> Iterator[None]:
    kept = {name: list(logging.getLogger(name).filters) for name in SERVER_LOGGERS}
    for name in SERVER_LOGGERS:
        logging.getLogger(name).filters.clear()
    yield
    for name, filters in kept.items():
        logging.getLogger(name).filters[:] = filters


@pytest.mark.usefixtures("_clean_loggers")
def test_filter_is_installed_once_on_every_server_logger() -> None:
    """However many applications start in one process."""
    install_redaction()
    install_redaction()

    for name in SERVER_LOGGERS:
        assert [type(each) for each in logging.getLogger(name).filters] == [Redaction]
