"""The keys JWTs are verified with: one from the settings, or an issuer's, fetched from a URL.

`JWTVerifier` calls `check_algorithms` and `prepare_key` at start-up; where the issuer publishes its
keys, it asks a `KeySet` for each by its id. PyJWT's client fetches and parses the set (RFC 7517);
when to fetch is decided here, because its own cache would block a thread per handshake while the
issuer is slow, and would ask again for each token while it is away.

Promises: known keys are answered without a thread or a wait; one fetch at a time, in a thread, with
a timeout; an unknown key id (anyone can make one up) causes at most one fetch per `cooldown`, a
failed fetch at most one per `RETRY_PAUSE`, however many tokens come. Several tasks of one event
loop may ask at once. Cancelled: a fetch under way goes on in its thread and its keys are kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import jwt

from pongee.codes import CloseCode
from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.limits import RETRY_PAUSE

__all__ = ["KeySet", "check_algorithms", "prepare_key"]

SECRET_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
KEY_PAIR_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    | {"ES256", "ES256K", "ES384", "ES512", "EdDSA"}
)

logger = logging.getLogger("pongee.guards")


class KeySet:
    """Signing keys by key id.

    Args:
        url: the JWKS URL, http or https.
        timeout: seconds one network operation of a fetch may take.
        lifespan: seconds fetched keys are good for. A key the issuer withdrew is taken that long.
        cooldown: seconds between two fetches for unknown key ids. A new key may wait that long.
        now: a monotonic clock, in seconds.

    Raises:
        ConfigurationError: the URL is neither http nor https, or a number is not greater than 0.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        lifespan: float = 300.0,
        cooldown: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("timeout", timeout), ("lifespan", lifespan), ("cooldown", cooldown)):
            if not value > 0:
                raise ConfigurationError(f"KeySet({name}={value!r}): must be greater than 0")
        try:
            self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=timeout)
        except (jwt.PyJWTError, ValueError) as error:
            raise ConfigurationError(f"JWKS URL {url!r}: must be an http or https URL") from error
        self.url = url
        self.lifespan = lifespan
        self.cooldown = cooldown
        self._now = now
        self._lock = anyio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = -inf
        self._failed_at = -inf

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return the key with the id `kid`.

        Raises:
            InvalidToken: the issuer has no such signing key.
            Refused: 503, the keys cannot be had now.
        """
        if self._wants_fetch(kid):
            async with self._lock:
                # Who waited for the lock mostly finds the work done.
                if self._wants_fetch(kid):
                    await anyio.to_thread.run_sync(self._fetch)
        if not self._is_fresh():
            raise Refused(
                503,
                "Credentials cannot be verified now",
                code=CloseCode.TRY_AGAIN_LATER,
                retry_after=RETRY_PAUSE,
            )
        key = self._keys.get(kid)
        if key is None:
            raise InvalidToken("unknown key id")
        return key

    def _is_fresh(self) -> bool:
        return self._now() - self._fetched_at < self.lifespan

    def _wants_fetch(self, kid: str) -> bool:
        now = self._now()
        if self._is_fresh() and (kid in self._keys or now - self._fetched_at < self.cooldown):
            return False
        return now - self._failed_at >= RETRY_PAUSE

    def _fetch(self) -> None:
        """Replace the keys. Runs in a thread: it only rebinds attributes, the time stamp last."""
        try:
            keys = self._client.get_signing_keys(refresh=True)
        except Exception as error:
            # Broad on purpose: whatever a foreign server answers, it means "no keys now".
            self._failed_at = self._now()
            logger.warning(
                "JWKS %s: fetch failed: %s: %s", self._shown_url(), type(error).__name__, error
            )
            return
        self._keys = {key.key_id: key for key in reversed(keys) if key.key_id is not None}
        self._fetched_at = self._now()

    def _shown_url(self) -> str:
        parts = urlsplit(self.url)  # user info and query may be secrets
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_algorithms(algorithms: Sequence[str], jwks_url: str | None) -> tuple[str, ...]:
    """Return the algorithms as a tuple, if they may be used, and used together.

    Raises:
        ConfigurationError: none, an unknown one, secrets mixed with public keys, or secrets with a
            JWKS URL.
    """
    names = (algorithms,) if isinstance(algorithms, str) else tuple(algorithms)
    known = SECRET_ALGORITHMS | KEY_PAIR_ALGORITHMS
    if not names or not known.issuperset(names):
        raise ConfigurationError(
            f"JWT: algorithms={names!r}: allowed are {', '.join(sorted(known))}"
        )
    # Else an attacker could sign with HS256, using the public key as the secret (RFC 8725 2.1).
    if SECRET_ALGORITHMS.intersection(names) and not SECRET_ALGORITHMS.issuperset(names):
        raise ConfigurationError(
            f"JWT: algorithms={names!r} mixes secrets (HS…) with public keys: use one kind"
        )
    if jwks_url is not None and SECRET_ALGORITHMS.intersection(names):
        raise ConfigurationError(
            f"JWT: algorithms={names!r} with jwks_url: published keys are public keys; "
            "say which, such as algorithms=('RS256',)"
        )
    return names


def prepare_key(key: str | bytes, algorithms: Sequence[str]) -> Any:
    """Parse the key once, and refuse at start-up what would fail at each token.

    Raises:
        ConfigurationError: the key is too short or of another kind than the algorithms need.
    """
    prepared: Any = None
    jws = jwt.PyJWS()
    for name in algorithms:
        algorithm = jws.get_algorithm_by_name(name)
        try:
            prepared = algorithm.prepare_key(key)
            problem = algorithm.check_key_length(prepared)
        except Exception as error:
            # Broad on purpose: cryptography's errors differ by kind of key. Its text is left out
            # unless it is PyJWT's, which never shows the key.
            text = str(error) if isinstance(error, jwt.PyJWTError) else type(error).__name__
            problem = f"the key cannot be used for {name}: {text}"
        if problem:
            raise ConfigurationError(f"JWT: {problem} {_cure(name)}") from None
    return prepared


def _cure(algorithm: str) -> str:
    if algorithm in SECRET_ALGORITHMS:
        return "Make a secret with `openssl rand -hex 32`."
    return "Give the issuer's public key in PEM (-----BEGIN PUBLIC KEY-----)."
