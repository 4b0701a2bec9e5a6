"""The exception tree, and what each error says."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import pongee.errors
from pongee.codes import CauseKind, CloseCause, CloseCode
from pongee.errors import (
    InvalidToken,
    MessageError,
    PongeeError,
    Refused,
    SessionClosed,
    UsageError,
)


def test_every_error_descends_from_one_base() -> None:
    """One `except` catches all that Pongee raises on purpose."""
    for name in pongee.errors.__all__:
        assert issubclass(getattr(pongee.errors, name), PongeeError)


def test_tree_at_the_top_of_the_file_is_complete() -> None:
    """The picture names each class once."""
    picture = inspect.getdoc(pongee.errors) or ""

    drawn = [line.strip("│├└─ ").split()[0] for line in picture.splitlines() if "──" in line]

    assert sorted(["PongeeError", *drawn]) == sorted(pongee.errors.__all__)


def test_usage_error_is_a_runtime_error() -> None:
    """Who catches what Python raises for the same mistakes catches ours."""
    assert issubclass(UsageError, RuntimeError)


def test_message_error_tells_what_is_wrong_and_copies_its_details() -> None:
    """The details are the caller's to change; the error keeps its own."""
    details: list[dict[str, Any]] = [{"type": "x", "loc": [], "msg": "one"}, {"msg": "two"}, {}]

    error = MessageError("invalid_message", details)
    details[0]["msg"] = "changed"

    assert str(error) == "invalid_message: one; two; "
    assert error.errors[0] == {"type": "x", "loc": [], "msg": "one"}


@pytest.mark.parametrize("status", [-1, 0, 101, 200, 302, 399, 600])
def test_refusal_needs_a_status_that_refuses(status: int) -> None:
    """The message says which are allowed."""
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status}"):
        Refused(status, "no")


def test_refusal_has_defaults_for_both_deliveries() -> None:
    """Status and JSON before accept, code and reason after it."""
    refused = Refused(403, "Not yours")

    assert (refused.status, refused.reason, refused.detail) == (403, "Not yours", "Not yours")
    assert (refused.code, type(refused.code)) == (CloseCode.POLICY_VIOLATION, int)
    assert refused.retry_after is None
    assert str(refused) == "403 Not yours"


@pytest.mark.parametrize("detail", [{"a": 1}, [], 0, ""])
def test_refusal_keeps_any_detail_that_is_given(detail: object) -> None:
    """Only `None` means the reason."""
    assert Refused(429, "Slow down", detail=detail).detail == detail


def test_invalid_token_and_session_closed_carry_why() -> None:
    """Programs read fields, people read the sentence."""
    cause = CloseCause(CauseKind.CONNECTION_LOST, CloseCode.ABNORMAL)

    assert (InvalidToken("expired").why, str(InvalidToken("expired"))) == ("expired", "expired")
    assert SessionClosed(cause).cause is cause
    assert str(SessionClosed(cause)) == "the session has ended: connection lost (1006)"
