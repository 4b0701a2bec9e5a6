"""Close codes and causes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.codes import (
    CODES,
    REASON_BYTES,
    CauseKind,
    CloseCause,
    CloseCode,
    may_be_sent,
    shorten_reason,
)


def test_every_code_is_in_the_table_with_its_meaning() -> None:
    """The documentation is made from the table: no code is missing, none is unexplained."""
    assert set(CODES) == set(CloseCode)
    assert list(CODES) == sorted(CODES)
    assert all(info.meaning for info in CODES.values())


@pytest.mark.parametrize("code", CloseCode)
def test_code_that_never_travels_is_marked_so(code: CloseCode) -> None:
    """The table and the rule of RFC 6455 say the same."""
    assert CODES[code].sent == may_be_sent(code)


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        (-1, False),
        (0, False),
        (999, False),
        (1000, True),
        (1003, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1007, True),
        (1014, True),
        (1015, False),
        (1016, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
        (65536, False),
    ],
)
def test_codes_that_may_be_sent_are_those_of_the_rfc(code: int, allowed: bool) -> None:
    """RFC 6455 section 7.4: reserved and unassigned codes stay off the wire."""
    assert may_be_sent(code) is allowed


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_reason_is_cut_to_what_a_close_frame_holds_and_never_inside_a_character(
    reason: str,
) -> None:
    """What comes out is valid UTF-8 of at most 123 bytes, and the longest such beginning."""
    written = reason.encode("utf-8", "replace").decode()

    short = shorten_reason(reason)

    size = len(short.encode())
    assert size <= REASON_BYTES == 123
    assert written.startswith(short)
    if short != written:
        assert size + len(written[len(short)].encode()) > REASON_BYTES


@pytest.mark.parametrize(
    ("reason", "size"), [("x" * 123, 123), ("x" * 124, 123), ("é" * 62, 122), ("🧵" * 31, 120)]
)
def test_reason_at_the_bound_keeps_whole_characters(reason: str, size: int) -> None:
    """One byte more than fits costs one character, not half of one."""
    assert len(shorten_reason(reason).encode()) == size


@pytest.mark.parametrize("kind", CauseKind)
def test_cause_says_who_ended_the_session(kind: CauseKind) -> None:
    """The client, the network, and the server for all the rest."""
    expected = {
        CauseKind.CLIENT_CLOSED: "client",
        CauseKind.BAD_INPUT: "client",
        CauseKind.CONNECTION_LOST: "network",
    }
    assert CloseCause(kind, 1000).by == expected.get(kind, "server")


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        (CloseCause(CauseKind.CLIENT_CLOSED, CloseCode.NORMAL), "client closed (1000)"),
        (CloseCause(CauseKind.DISCONNECTED, 4403, "banned"), "disconnected by the application"),
        (CloseCause(CauseKind.CLIENT_CLOSED, 1000, "a\nb"), r"client closed (1000 'a\nb')"),
    ],
)
def test_cause_reads_as_one_line(cause: CloseCause, line: str) -> None:
    """A peer's reason cannot begin a new line of the log."""
    assert str(cause).startswith(line)
    assert len(str(cause).splitlines()) == 1
