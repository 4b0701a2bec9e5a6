"""Who may connect: policies that ask for a token, and what verifies it.

A policy is a FastAPI dependency: an async callable that returns an `Identity`, or a `Pending` where
the proof comes with the first message, or raises `Refused`. `TokenPolicy` joins token sources with
a verifier; `public` lets everybody in and says so. The endpoint calls a policy during admission,
and `TokenPolicy.verify` again for a first message and for each refresh.

Promises: whatever is wrong with a token, the peer learns the same status and reason, and the log
learns why; no token is written to the log or kept.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.token import FirstMessage, TokenSource
from pongee.guards.verdict import ANONYMOUS, Identity
from pongee.limits import STATIC_TOKEN_SIZE, TOKEN_SIZE

__all__ = ["AnyOf", "Pending", "StaticTokens", "TokenPolicy", "Verifier", "public"]

logger = logging.getLogger("pongee.guards")


class Verifier(Protocol):
    """What can tell whose a token is."""

    async def verify(self, token: str) -> Identity:
        """Return whom `token` proves.

        Raises:
            InvalidToken: it proves nothing.
            Refused: it cannot be verified now, such as 503 while a key server is away.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """Not an identity yet: the token comes with the first message after accept.

    Attributes:
        policy: verifies the token.
        source: parses the message, and says how long to wait for it.
    """

    policy: TokenPolicy
    source: FirstMessage


class TokenPolicy:
    """Lets in whoever shows a valid token.

    Args:
        verifier: says whose the token is: `JWTVerifier`, `Tickets`, `StaticTokens`, `AnyOf`, or
            anything with ``async def verify(token) -> Identity`` that raises `InvalidToken`.
        sources: where to look, in this order. The first token found decides. A `FirstMessage` is
            waited for only if no other source has one.
        status: HTTP status of a refusal.
        reason: one line for the peer, the same for every kind of bad token.

    Raises:
        ConfigurationError: no source, or `status` is no refusal.
    """

    def __init__(
        self,
        verifier: Verifier,
        *sources: TokenSource,
        status: int = 401,
        reason: str = "Invalid credentials",
    ) -> None:
        if not sources:
            raise ConfigurationError(
                f"{type(self).__name__} has no token source: give at least one, such as "
                "HeaderToken() for devices, CookieToken(name) or FirstMessage() for browsers"
            )
        if not 400 <= status <= 599:
            raise ConfigurationError(
                f"{type(self).__name__}(status={status!r}): must be from 400 to 599"
            )
        self.verifier = verifier
        self.sources = sources
        self.status = status
        self.reason = reason

    async def __call__(self, connection: HTTPConnection) -> Identity | Pending:
        """Find and verify the token of a handshake.

        Raises:
            Refused: no token or a bad one (`status`), or it cannot be verified now (503).
        """
        for source in self.sources:
            token = source.extract(connection)
            if token is not None:
                return await self._verify_or_refuse(token, source)
        for source in self.sources:
            if isinstance(source, FirstMessage):
                return Pending(self, source)
        logger.info("refused: no token in %s", ", ".join(type(s).__name__ for s in self.sources))
        raise Refused(self.status, self.reason)

    async def verify(self, token: str) -> Identity:
        """Verify a token that did not come with the handshake: first message, or refresh.

        Raises:
            InvalidToken: it proves nothing.
            Refused: it cannot be verified now.
        """
        if len(token) > TOKEN_SIZE:
            raise InvalidToken(f"over {TOKEN_SIZE} characters")
        return await self.verifier.verify(token)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Return what `token` says, or `None` where the verifier reads no claims.

        Unlike `verify` it asks for no user: the tokens of a channel's subscription may have none.

        Raises:
            InvalidToken: it proves nothing.
            Refused: it cannot be verified now.
        """
        read = getattr(self.verifier, "read", None)
        if read is None:
            return None
        if len(token) > TOKEN_SIZE:
            raise InvalidToken(f"over {TOKEN_SIZE} characters")
        found: Mapping[str, Any] = await read(token)
        return found

    async def _verify_or_refuse(self, token: str, source: TokenSource) -> Identity:
        try:
            return await self.verify(token)
        except InvalidToken as error:
            logger.info("refused: token in %s: %s", type(source).__name__, error.why)
            # From None: a handler of `Refused` must not find out more than the peer may know.
            raise Refused(self.status, self.reason) from None


class StaticTokens:
    """A verifier for a few tokens from the settings, one per device or partner.

    The user is ``static:1`` for the first token, ``static:2`` for the second: a name made from the
    token, even by a hash, would help whoever reads the log to guess it.

    Args:
        tokens: each at least 8 characters.

    Raises:
        ConfigurationError: a token is too short.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        tokens = (tokens,) if isinstance(tokens, str) else tuple(tokens)
        for position, token in enumerate(tokens, 1):
            if len(token) < STATIC_TOKEN_SIZE:
                raise ConfigurationError(
                    f"static token {position} has {len(token)} characters: it needs at least "
                    f"{STATIC_TOKEN_SIZE}; `openssl rand -hex 16` makes a good one"
                )
        self._digests = [_digest(token) for token in tokens]

    async def verify(self, token: str) -> Identity:
        """Return the identity that belongs to `token`.

        Raises:
            InvalidToken: it is none of them.
        """
        came = _digest(token)
        position = 0
        # All of them, equal or not, in equal time; equal-sized digests also hide the length.
        for index, digest in enumerate(self._digests, 1):
            if hmac.compare_digest(came, digest):
                position = index
        if not position:
            raise InvalidToken("no such static token")
        return Identity(user=f"static:{position}")


class AnyOf:
    """A verifier that asks several in order and takes the first yes.

    Args:
        verifiers: such as ``Tickets()`` and ``StaticTokens([...])``.

    Raises:
        ConfigurationError: no verifier.
    """

    def __init__(self, *verifiers: Verifier) -> None:
        if not verifiers:
            raise ConfigurationError("AnyOf() needs at least one verifier")
        self.verifiers = verifiers

    async def verify(self, token: str) -> Identity:
        """Return the first identity a verifier gives.

        Raises:
            InvalidToken: every verifier says no.
            Refused: no verifier says yes, and one could not answer now.
        """
        unable: Refused | None = None
        whys = []
        for verifier in self.verifiers:
            try:
                return await verifier.verify(token)
            except InvalidToken as error:
                whys.append(error.why)
            except Refused as error:
                unable = error
        raise unable or InvalidToken("; ".join(whys))


async def public() -> Identity:
    """Let everybody in, on purpose: the policy of an endpoint that needs no proof."""
    return ANONYMOUS


def _digest(token: str) -> bytes:
    # A lone surrogate cannot be in a valid token, but must not raise.
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
