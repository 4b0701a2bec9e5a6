"""What the claims of a token mean: for a connection, and for a subscription. ◇"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pydantic_core

from pongee.errors import InvalidToken

__all__ = ["Grant", "connection_subs", "expiry_of", "info_of", "subscription_grant", "user_of"]


class Grant(NamedTuple):
    """What a subscription token allows.

    Attributes:
        expires_at: when the subscription has to be refreshed, in Unix seconds, or `None`.
        info: JSON about the client in this channel, or nothing.
    """

    expires_at: float | None
    info: bytes


def user_of(claims: Mapping[str, Any], claim: str = "sub") -> str:
    """Return the user's id, which `claim` names; ``""`` is anonymous.

    Raises:
        InvalidToken: it is no text.
    """
    user = claims.get(claim, "")
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)
    if not isinstance(user, str) or any("\ud800" <= char <= "\udfff" for char in user):
        raise InvalidToken(f"no usable {claim!r} claim")
    return user


def expiry_of(claims: Mapping[str, Any]) -> float | None:
    """Return when the connection or subscription expires: ``expire_at``, else ``exp``.

    An ``expire_at`` of 0 is never, though the token itself expires.

    Raises:
        InvalidToken: it is no number.
    """
    value = claims.get("expire_at")
    if value is None:
        value = claims.get("exp")
    elif value == 0:
        return None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidToken("expire_at is no number")
    return float(value)


def info_of(claims: Mapping[str, Any]) -> bytes:
    """Return the ``info`` claim, or ``b64info`` decoded, as JSON; nothing if there is neither.

    Raises:
        InvalidToken: it cannot be JSON, or ``b64info`` is no Base64.
    """
    info, encoded = claims.get("info"), claims.get("b64info")
    try:
        if info is None and encoded is not None:
            info = pydantic_core.from_json(base64.b64decode(str(encoded), validate=True))
            return pydantic_core.to_json(info, inf_nan_mode="null")
        return b"" if info is None else pydantic_core.to_json(info, inf_nan_mode="null")
    except (binascii.Error, ValueError):
        raise InvalidToken("info is no JSON, or b64info no JSON in Base64") from None


def connection_subs(claims: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the channels that a connection token subscribes to, with options for each.

    Raises:
        InvalidToken: ``channels`` is no list of texts, or ``subs`` no mapping of mappings.
    """
    channels, subs = claims.get("channels") or [], claims.get("subs") or {}
    if not isinstance(channels, list) or not isinstance(subs, dict):
        raise InvalidToken("channels is no list, or subs no mapping")
    if not all(isinstance(name, str) for name in [*channels, *subs]):
        raise InvalidToken("the name of a channel is no text")
    if not all(isinstance(options or {}, dict) for options in subs.values()):
        raise InvalidToken("the options of a channel are no mapping")
    found: dict[str, Mapping[str, Any]] = {name: {} for name in channels}
    found.update({name: options or {} for name, options in subs.items()})
    return found


def subscription_grant(
    claims: Mapping[str, Any], channel: str, user: str, claim: str = "sub"
) -> Grant:
    """Check that `claims` are for `channel` and `user`.

    Raises:
        InvalidToken: they are for others, or unusable.
    """
    if claims.get("channel") != channel:
        raise InvalidToken("for another channel")
    if user_of(claims, claim) != user:
        raise InvalidToken("for another user")
    return Grant(expiry_of(claims), info_of(claims))
