"""Bounds that cannot work are refused where they are written."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import pytest

from pongee.errors import ConfigurationError
from pongee.limits import Caps, Limits

FIELDS = [(kind, field.name) for kind in (Limits, Caps) for field in dataclasses.fields(kind)]
OPTIONAL = {
    "messages_per_second",
    "message_burst",
    "bytes_per_second",
    "byte_burst",
    "max_connections_per_user",
    "max_connections_per_address",
}


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan])
def test_bound_that_is_not_positive_names_field_and_value(
    kind: type[Limits | Caps], name: str, value: float
) -> None:
    """The message can be found in the code it complains about."""
    given: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError) as caught:
        kind(**given)
    assert str(caught.value) == f"{kind.__name__}({name}={value!r}): must be greater than 0"


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in FIELDS if n in OPTIONAL])
def test_bound_that_may_be_off_takes_none(kind: type[Limits | Caps], name: str) -> None:
    """`None` is no limit."""
    given: dict[str, Any] = {name: None}
    assert getattr(kind(**given), name) is None


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in FIELDS if n not in OPTIONAL])
def test_bound_that_must_be_on_refuses_none(kind: type[Limits | Caps], name: str) -> None:
    """A queue without a bound is found out at start-up, not by the first slow client."""
    given: dict[str, Any] = {name: None}
    with pytest.raises(ConfigurationError, match=name):
        kind(**given)


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_bound_is_explained(kind: type[Limits | Caps], name: str) -> None:
    """Each field says its unit and what happens when it is hit."""
    assert f"\n    {name}: " in (inspect.getdoc(kind) or "")


def test_bounds_do_not_change() -> None:
    """Limits are shared by every session of an endpoint."""
    limits = Limits()
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.max_errors = 5  # type: ignore[misc]
