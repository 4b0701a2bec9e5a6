"""JSON Web Tokens as credentials (RFC 7519), verified with PyJWT.

`JWTVerifier` says whose a token is; `JWTBearer` is the policy most endpoints want. Which algorithms
and which key are allowed is fixed at start-up, never read from the token (RFC 8725 section 3.1):
``none`` cannot be configured, secrets and public keys cannot be mixed, and a short secret stops the
start.

Promises: `verify` returns an `Identity` or raises `InvalidToken`, or `Refused` (503) while the keys
of a JWKS URL cannot be had; no token, however hostile, makes it raise anything else. PyJWT checks
signature, audience and issuer; the moments (``exp``, ``nbf``, ``iat``) are checked here, against a
clock that tests can move.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt

from pongee.errors import ConfigurationError, InvalidToken
from pongee.guards.jwt_keys import KeySet, check_algorithms, prepare_key
from pongee.guards.policy import TokenPolicy
from pongee.guards.token import HeaderToken, TokenSource
from pongee.guards.verdict import Identity

__all__ = ["JWTBearer", "JWTVerifier"]

# PyJWT reads the real clock, so its checks of moments are off; its `sub` check refuses numbers,
# which many issuers send.
_OPTIONS: jwt.types.Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "enforce_minimum_key_length": True,
}

# Our words for PyJWT's errors, most special first: some of its messages repeat what the token said,
# which would let anyone write into our log.
_WHYS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.InvalidSignatureError, "signature does not match"),
    (jwt.InvalidAlgorithmError, "algorithm not allowed"),
    (jwt.InvalidAudienceError, "for another audience (see JWTBearer's audience)"),
    (jwt.InvalidIssuerError, "from another issuer"),
    (jwt.MissingRequiredClaimError, "lacks the audience or issuer asked for"),
    (jwt.DecodeError, "not a JWT"),
    (jwt.InvalidKeyError, "the issuer's key is unfit for the algorithm"),
)


class JWTVerifier:
    """Says whose a JWT is.

    Args:
        key: the secret (HS*), or the issuer's public key in PEM (the others).
        algorithms: those allowed.
        jwks_url: instead of `key`, where the issuer publishes its keys. See `KeySet`.
        audience: whom the token must be for, one of these. `None` refuses tokens that are for
            somebody (that have an ``aud``), since that is not us.
        issuer: who must have made the token, one of these; `None` is anyone with the key.
        leeway: seconds the issuer's clock may differ from ours.
        user_claim: the claim that names the user: a string, or an integer, which is made one.
        require_exp: whether a token must expire. One that does not is good until the key changes.
        now: the wall clock, in Unix seconds.

    Raises:
        ConfigurationError: no key or two, an unknown algorithm, secrets mixed with public keys, or
            a key that is too short or unfit.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        *,
        algorithms: Sequence[str] = ("HS256",),
        jwks_url: str | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 10.0,
        user_claim: str = "sub",
        require_exp: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.algorithms = check_algorithms(algorithms, jwks_url)
        if (key is None) == (jwks_url is None):
            raise ConfigurationError(
                "JWT: give either key (a secret, or a public key in PEM) or jwks_url, "
                + ("not both" if key is not None else "one of them is needed")
            )
        if not leeway >= 0:
            raise ConfigurationError(f"JWT: leeway={leeway!r}: must be 0 or more seconds")
        self._key = None if key is None else prepare_key(key, self.algorithms)
        self._key_set = None if jwks_url is None else KeySet(jwks_url)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self.user_claim = user_claim
        self._require_exp = require_exp
        self._now = now

    async def verify(self, token: str) -> Identity:
        """Return whom `token` proves, and until when.

        Raises:
            InvalidToken: it proves nothing; `why` says what is wrong with it.
            Refused: 503, the issuer's keys cannot be had now.
        """
        claims = await self.read(token)
        return Identity(self._user(claims), _moment(claims, "exp"), claims)

    async def read(self, token: str) -> dict[str, Any]:
        """Return the claims of `token`, of which those of time, issuer and audience are checked.

        Raises:
            InvalidToken: it proves nothing; `why` says what is wrong with it.
            Refused: 503, the issuer's keys cannot be had now.
        """
        if not token.isascii():  # base64url and dots (RFC 7515 section 7.1)
            raise InvalidToken("not a JWT")
        key = (
            self._key if self._key_set is None else await self._published_key(self._key_set, token)
        )
        claims = self._decode(token, key)
        self._check_moments(claims)
        return claims

    async def _published_key(self, key_set: KeySet, token: str) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise InvalidToken(_why(error)) from None
        # Before the key is looked for: a token we would refuse anyhow must not cause a fetch.
        if header.get("alg") not in self.algorithms:
            raise InvalidToken("algorithm not allowed")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise InvalidToken("no key id")
        return await key_set.key(kid)

    def _decode(self, token: str, key: Any) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=self.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidToken(_why(error)) from None

    def _check_moments(self, claims: Mapping[str, Any]) -> None:
        now = self._now()
        expires_at = _moment(claims, "exp")
        if expires_at is None and self._require_exp:
            raise InvalidToken("never expires")
        # RFC 7519 section 4.1.4: not accepted "on or after" exp; a small leeway is allowed.
        if expires_at is not None and now - self._leeway >= expires_at:
            raise InvalidToken("expired", expired=True)
        for name in ("nbf", "iat"):  # sections 4.1.5 and 4.1.6
            moment = _moment(claims, name)
            if moment is not None and now + self._leeway < moment:
                raise InvalidToken("not valid yet" if name == "nbf" else "issued in the future")

    def _user(self, claims: Mapping[str, Any]) -> str:
        value = claims.get(self.user_claim)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        # A lone surrogate ("\ud800" in JSON) is a string that nothing could send or store.
        if not isinstance(value, str) or not value or any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidToken(f"no usable {self.user_claim!r} claim")
        return value


class JWTBearer(TokenPolicy):
    """Lets in whoever shows a valid JWT: ``auth=JWTBearer(secret)``.

    Args:
        key: see `JWTVerifier`, as for all the arguments but the last three.
        algorithms: those allowed.
        jwks_url: where the issuer publishes its keys, instead of `key`.
        audience: whom the token must be for.
        issuer: who must have made it.
        leeway: seconds.
        user_claim: the claim that names the user.
        require_exp: whether a token must expire.
        now: the wall clock, in Unix seconds.
        sources: where to look for the token, in this order.
        status: HTTP status of a refusal.
        reason: one line for the peer.

    Raises:
        ConfigurationError: the keys, algorithms or sources cannot work.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        *,
        algorithms: Sequence[str] = ("HS256",),
        jwks_url: str | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 10.0,
        user_claim: str = "sub",
        require_exp: bool = True,
        now: Callable[[], float] = time.time,
        sources: Sequence[TokenSource] = (HeaderToken(),),
        status: int = 401,
        reason: str = "Invalid credentials",
    ) -> None:
        verifier = JWTVerifier(
            key,
            algorithms=algorithms,
            jwks_url=jwks_url,
            audience=audience,
            issuer=issuer,
            leeway=leeway,
            user_claim=user_claim,
            require_exp=require_exp,
            now=now,
        )
        super().__init__(verifier, *sources, status=status, reason=reason)


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """Read a NumericDate (RFC 7519 section 2): Unix seconds, possibly with a fraction."""
    value = claims.get(name)
    if name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"{name} is no number")
    try:
        moment = float(value)
    except OverflowError:  # JSON has integers of any length
        moment = math.inf
    if not math.isfinite(moment):
        raise InvalidToken(f"{name} is no date")
    return moment


def _why(error: Exception) -> str:
    return next((why for kind, why in _WHYS if isinstance(error, kind)), "not a JWT")
