"""Names of channels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.channels.names import check_channel
from pongee.errors import UsageError
from pongee.limits import MAX_CHANNEL_LENGTH


@pytest.mark.parametrize("name", ["a", "room 1", "Prices:€/$", "комната", "x" * MAX_CHANNEL_LENGTH])
def test_printable_name_within_the_bound_is_returned_as_it_is(name: str) -> None:
    """Any alphabet, spaces and punctuation."""
    assert check_channel(name) is name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "not empty"),
        (None, "not None"),
        (b"room", "not b'room'"),
        (7, "not 7"),
        ("x" * (MAX_CHANNEL_LENGTH + 1), "at most 255 characters, not 256"),
        ("a\nb", r"unlike 'a\nb'"),
        ("a\x00", "control characters"),
        ("\ud800", "control characters"),
    ],
)
def test_other_name_is_refused_with_what_is_allowed(name: Any, why: str) -> None:
    """The message shows what came, escaped."""
    with pytest.raises(UsageError) as caught:
        check_channel(name)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_name_is_either_returned_or_refused(name: str) -> None:
    """What passes is printable, encodable and short; nothing else is raised."""
    try:
        check_channel(name)
    except UsageError:
        return
    assert 0 < len(name) <= MAX_CHANNEL_LENGTH
    assert name.isprintable()
    name.encode()
