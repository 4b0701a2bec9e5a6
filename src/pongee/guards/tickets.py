"""One-time tickets: a credential short-lived enough to stand in a URL. ◇

A browser cannot set headers on a WebSocket, and a JWT in a query string lives on in logs and
histories. So an ordinary HTTP route, guarded as the application guards all its routes, issues a
ticket, and the page opens its socket with that: it works once, for some seconds. A `Tickets` is a
verifier like any other, so ``TokenPolicy(tickets, QueryToken("ticket"))`` is all it takes.

Promises: a ticket is redeemed at most once; only its SHA-256 is kept, so memory holds nothing that
opens a socket; at most `capacity` tickets are alive. No timer runs: expired tickets leave when the
next one is issued. Tickets live in one process: with several, issue and redeem on the same one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from hashlib import sha256

from pongee.codes import CloseCode
from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.verdict import Identity

__all__ = ["Tickets"]

TICKET_BYTES = 24
"""Random bytes in a ticket: 192 bits cannot be guessed, and 32 characters of base64url need no
padding, so a ticket is also a valid subprotocol name."""


class Tickets:
    """Issues and redeems one-time tickets.

    Args:
        lifetime: seconds a ticket is good for; enough for one page to open one socket.
        capacity: tickets alive at once. More: 503. An issuing route should limit each user's rate,
            or one user can take them all.
        now: a monotonic clock, in seconds.

    Raises:
        ConfigurationError: `lifetime` or `capacity` is not greater than 0.
    """

    def __init__(
        self,
        lifetime: float = 30.0,
        *,
        capacity: int = 10_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("lifetime", lifetime), ("capacity", capacity)):
            if not value > 0:
                raise ConfigurationError(f"Tickets({name}={value!r}): must be greater than 0")
        self.lifetime = lifetime
        self.capacity = capacity
        self._now = now
        # Digest -> (deadline, identity). One lifetime for all, so the oldest expire first and
        # pruning looks only at the front.
        self._tickets: dict[bytes, tuple[float, Identity]] = {}

    def __len__(self) -> int:
        """Tickets held: those alive, and those expired but not yet pruned."""
        return len(self._tickets)

    def issue(self, identity: Identity) -> str:
        """Make a ticket that proves `identity` once.

        Raises:
            Refused: 503, `capacity` tickets are alive; ``retry_after`` says when the next expires.
        """
        now = self._now()
        self._prune(now)
        if len(self._tickets) >= self.capacity:
            deadline, _ = next(iter(self._tickets.values()))
            raise Refused(
                503,
                "Too many tickets",
                code=CloseCode.TRY_AGAIN_LATER,
                retry_after=max(deadline - now, 0.0),
            )
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        self._tickets[_digest(ticket)] = (now + self.lifetime, identity)
        return ticket

    def redeem(self, ticket: str) -> Identity:
        """Use a ticket up.

        Raises:
            InvalidToken: never issued, used before, or expired.
        """
        deadline, identity = self._tickets.pop(_digest(ticket), (None, None))
        if deadline is None or identity is None:
            raise InvalidToken("unknown or used ticket")
        if self._now() >= deadline:
            raise InvalidToken("expired ticket")
        return identity

    async def verify(self, token: str) -> Identity:
        """Redeem `token`: what makes a `Tickets` a verifier.

        Raises:
            InvalidToken: never issued, used before, or expired.
        """
        return self.redeem(token)

    def _prune(self, now: float) -> None:
        while self._tickets:
            digest, (deadline, _) = next(iter(self._tickets.items()))
            if now < deadline:
                return
            del self._tickets[digest]


def _digest(ticket: str) -> bytes:
    # A lone surrogate is no character of any ticket, but hashing it must not raise.
    return sha256(ticket.encode("utf-8", "surrogatepass")).digest()
