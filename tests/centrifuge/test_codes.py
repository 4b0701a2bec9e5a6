"""The tables of codes, against the protocol's own and a client's rule."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any

import pytest

from pongee.centrifuge.codes import (
    DISCONNECTS,
    ERRORS,
    UNSUBSCRIBES,
    Disconnect,
    ErrorCode,
    UnsubscribeCode,
    comes_back,
    is_disconnect_code,
    is_unsubscribe_code,
)

SDK: Any = importlib.import_module("centrifuge")

# 113 belongs to map subscriptions, which are declined.
ERROR_CODES = set(range(100, 113))
TEMPORARY = {100, 111}
UNSUBSCRIBE_CODES = {2000, 2500, 2501, 2502}
DISCONNECT_CODES = {3000, 3001, 3004, 3005, 3006, *range(3008, 3015), *range(3500, 3510)}

BORDERS = {
    1000: True,
    2999: True,
    3000: True,
    3499: True,
    3500: False,
    3999: False,
    4000: True,
    4499: True,
    4500: False,
    4999: False,
    5000: True,
}


def test_every_code_of_the_protocol_is_in_its_table_and_no_other() -> None:
    """A code without a reason could not be sent."""
    assert {int(code) for code in ErrorCode} == {int(code) for code in ERRORS} == ERROR_CODES
    assert (
        {int(code) for code in UnsubscribeCode}
        == {int(code) for code in UNSUBSCRIBES}
        == UNSUBSCRIBE_CODES
    )
    assert (
        {int(code) for code in Disconnect}
        == {int(code) for code in DISCONNECTS}
        == DISCONNECT_CODES
    )


def test_a_client_may_try_again_after_the_temporary_errors() -> None:
    assert {int(code) for code, info in ERRORS.items() if info.temporary} == TEMPORARY


@pytest.mark.parametrize(
    "text",
    [*(info.message for info in ERRORS.values()), *UNSUBSCRIBES.values(), *DISCONNECTS.values()],
)
def test_a_reason_fits_a_close_frame_and_is_no_json(text: str) -> None:
    """SDKs index it, and the JavaScript one reads JSON as an older form of advice."""
    assert 0 < len(text.encode()) <= 123
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.parametrize(("code", "back"), BORDERS.items())
def test_who_comes_back(code: int, back: bool) -> None:
    assert comes_back(code) is back


class Recorder:
    """Stands where the SDK's client would, for the one thing that its rule decides."""

    def __init__(self) -> None:
        self.reconnect: bool | None = None

    async def _disconnect(self, _code: int, _reason: str, reconnect: bool) -> None:
        self.reconnect = reconnect


@pytest.mark.parametrize("code", sorted({*BORDERS, *DISCONNECT_CODES}))
def test_the_python_sdk_has_the_same_rule(code: int) -> None:
    """What we expect of clients is what one of them does."""
    recorder = Recorder()

    asyncio.run(SDK.Client._process_disconnect(recorder, {"code": code, "reason": "a reason"}))

    assert recorder.reconnect is comes_back(code)


@pytest.mark.parametrize(
    ("code", "ends_connection", "ends_subscription"),
    [
        (1999, False, False),
        (2000, False, True),
        (2999, False, True),
        (3000, True, False),
        (4999, True, False),
        (5000, False, False),
    ],
)
def test_what_a_code_may_end(code: int, ends_connection: bool, ends_subscription: bool) -> None:
    assert is_disconnect_code(code) is ends_connection
    assert is_unsubscribe_code(code) is ends_subscription
