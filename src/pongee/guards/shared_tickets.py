"""One-time tickets that any process of an application redeems.

Nothing is kept for a ticket until it is used: it is signed, and says itself whom it proves and
until when. That it works once is seen to by whoever knows of all processes: the broker.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt

from pongee.errors import BrokerUnavailable, ConfigurationError, InvalidToken, Refused
from pongee.guards.verdict import Identity
from pongee.limits import MIN_SECRET_BYTES

__all__ = ["SharedTickets"]

_AUDIENCE = "pongee:ticket"
"""Tells a ticket from other tokens that were signed with the same secret."""


class SharedTickets:
    """Issues and redeems one-time tickets, on any process of the application.

    A ticket is a JWT (RFC 7519), so that it is text of any source; it holds the user and the
    claims, which its bearer can read.

    Args:
        secret: HS256 key of all processes, at least 32 bytes.
        once: `Pongee.once`.
        lifetime: seconds a ticket is good for; whole ones, as the clock is read in them.

    Raises:
        ConfigurationError: a short secret, or a `lifetime` below 1.
    """

    def __init__(
        self, secret: str, once: Callable[[str, float], Awaitable[bool]], lifetime: int = 30
    ) -> None:
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"SharedTickets(secret): at least {MIN_SECRET_BYTES} bytes, such as "
                "`openssl rand -hex 32` prints"
            )
        if lifetime < 1:
            raise ConfigurationError(f"SharedTickets(lifetime={lifetime!r}): at least 1 second")
        self.lifetime = lifetime
        self._secret = secret
        self._once = once

    def issue(self, identity: Identity) -> str:
        """Make a ticket that proves `identity` once.

        Raises:
            TypeError: its claims are no JSON.
        """
        content: dict[str, Any] = {
            "aud": _AUDIENCE,
            "exp": int(time.time()) + self.lifetime,
            "jti": secrets.token_urlsafe(16),
            "user": identity.user,
            "until": identity.expires_at,
            "claims": dict(identity.claims),
        }
        return jwt.encode(content, self._secret, "HS256")

    async def verify(self, token: str) -> Identity:
        """Use a ticket up.

        Raises:
            InvalidToken: none of ours, used before, or expired.
            Refused: 503, nobody knows whether it was used: the broker cannot be reached.
        """
        try:
            content = jwt.decode(
                token,
                self._secret,
                ["HS256"],
                audience=_AUDIENCE,
                options={"require": ["exp", "jti", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("expired ticket") from None
        except jwt.InvalidTokenError:
            raise InvalidToken("no ticket") from None
        try:
            first = await self._once(f"ticket:{content['jti']}", 2.0 * self.lifetime)
        except BrokerUnavailable:
            raise Refused(503, "Tickets cannot be checked now") from None
        if not first:
            raise InvalidToken("used ticket")
        return Identity(content["user"], content["until"], content["claims"])
