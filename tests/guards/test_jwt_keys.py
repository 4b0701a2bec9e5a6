"""The keys JWTs are verified with."""

from __future__ import annotations

import logging

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.jwt_keys import KeySet, check_algorithms, prepare_key

from .conftest import Issuer

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pem(key: RSAPrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("names", [(), ("none",), ("HS256", "none"), ("hs256",), ("RS1",)])
def test_an_unknown_algorithm_stops_the_start(names: tuple[str, ...]) -> None:
    """`none` is unknown on purpose; the message lists what is allowed."""
    with pytest.raises(ConfigurationError, match="allowed are ES256"):
        check_algorithms(names, None)


def test_secrets_mixed_with_public_keys_stop_the_start() -> None:
    """Else a token signed with the public key as its secret would be valid."""
    with pytest.raises(ConfigurationError, match="mixes secrets"):
        check_algorithms(["RS256", "HS256"], None)
    with pytest.raises(ConfigurationError, match="published keys are public keys"):
        check_algorithms(["HS256"], "https://issuer.example/jwks.json")


def test_algorithms_that_go_together_are_kept_in_order() -> None:
    """A string is one algorithm."""
    assert check_algorithms(["RS512", "RS256"], None) == ("RS512", "RS256")
    assert check_algorithms("HS256", None) == ("HS256",)


@pytest.mark.parametrize(("name", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_shorter_than_its_hash_stops_the_start(name: str, size: int) -> None:
    """RFC 7518 section 3.2; the message shows the cure and not the secret."""
    assert prepare_key("x" * size, [name]) == b"x" * size

    for short in ("", "hunter2" + "x" * (size - 8)):
        with pytest.raises(ConfigurationError, match="openssl rand -hex 32") as caught:
            prepare_key(short, [name])
        assert "hunter2" not in str(caught.value)


def test_a_key_of_another_kind_stops_the_start(
    rsa_key: RSAPrivateKey, ec_key: EllipticCurvePrivateKey
) -> None:
    """A public key is no secret, a secret is no public key, and one key is of one kind."""
    weak = generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the point of the test
    unusable: list[tuple[str | bytes, list[str]]] = [
        (pem(rsa_key), ["HS256"]),
        (pem(rsa_key), ["ES256"]),
        (pem(ec_key), ["RS256"]),
        (pem(ec_key), ["ES256", "RS256"]),
        (pem(ec_key), ["ES384"]),
        (pem(weak), ["RS256"]),
        ("x" * 40, ["RS256"]),
        ("x" * 40, ["ES256"]),
        ("-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----", ["EdDSA"]),
    ]
    for key, names in unusable:
        with pytest.raises(ConfigurationError):
            prepare_key(key, names)


async def test_a_known_key_is_fetched_once(issuer: Issuer, rsa_key: RSAPrivateKey) -> None:
    """Later tokens, and those that come during the fetch, cause no request."""
    issuer.publish("k1", rsa_key)
    keys = KeySet(issuer.url)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(keys.key, "k1")

    assert (await keys.key("k1")).key_id == "k1"
    assert issuer.requests == 1


async def test_forged_key_ids_cannot_hammer_the_issuer(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """Unknown ids cause one request per cooldown, and a new key is found after it."""
    issuer.publish("k1", rsa_key)
    clock = Clock()
    keys = KeySet(issuer.url, cooldown=30, now=clock)

    for number in range(100):
        with pytest.raises(InvalidToken):
            await keys.key(f"forged {number}")
    assert issuer.requests == 1

    issuer.publish("k2", rsa_key)
    clock.now += 30
    assert (await keys.key("k2")).key_id == "k2"
    assert issuer.requests == 2


async def test_keys_are_fetched_again_after_their_lifespan(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """A key the issuer withdrew is forgotten."""
    issuer.publish("k1", rsa_key)
    issuer.publish("k2", rsa_key)
    clock = Clock()
    keys = KeySet(issuer.url, lifespan=300, now=clock)
    await keys.key("k1")

    del issuer.keys[0]
    clock.now += 300

    with pytest.raises(InvalidToken):
        await keys.key("k1")
    assert issuer.requests == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (302, b""),
        (200, b"<html>"),
        (200, b"\xff"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": 1}'),
        (200, b'{"keys": [{"kty": "RSA", "kid": "k1", "alg": []}]}'),
        (200, b"[" * 100_000),
    ],
)
async def test_an_issuer_that_is_away_means_503_and_a_pause(
    issuer: Issuer,
    rsa_key: RSAPrivateKey,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
) -> None:
    """It is not the token's fault; one line is logged, and asking goes on after a pause."""
    clock = Clock()
    issuer.status, issuer.body = status, body
    keys = KeySet(issuer.url, now=clock)

    with caplog.at_level(logging.WARNING, "pongee.guards"):
        for _ in range(10):
            with pytest.raises(Refused) as caught:
                await keys.key("k1")
            assert (caught.value.status, caught.value.retry_after) == (503, 5.0)
    assert issuer.requests == len(caplog.records) == 1
    assert issuer.url in caplog.text

    issuer.status, issuer.body = 200, None
    issuer.publish("k1", rsa_key)
    clock.now += 5
    assert (await keys.key("k1")).key_id == "k1"


async def test_known_keys_outlive_a_failed_fetch(issuer: Issuer, rsa_key: RSAPrivateKey) -> None:
    """A forged id while the issuer is away harms nobody who has a good token."""
    issuer.publish("k1", rsa_key)
    clock = Clock()
    keys = KeySet(issuer.url, now=clock)
    await keys.key("k1")
    issuer.status = 500
    clock.now += 60

    with pytest.raises(InvalidToken):
        await keys.key("forged")

    assert (await keys.key("k1")).key_id == "k1"


async def test_keys_that_are_not_for_signing_are_not_used(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """RFC 7517 section 4.2: a key for encryption proves nothing."""
    issuer.publish("k1", rsa_key)
    issuer.publish("enc", rsa_key)
    issuer.keys[1]["use"] = "enc"

    with pytest.raises(InvalidToken):
        await KeySet(issuer.url).key("enc")


async def test_secrets_in_the_url_stay_out_of_the_log(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """User info and query are left out of the line."""
    issuer.status = 500
    url = issuer.url.replace("http://", "http://me:hunter2@") + "?key=hunter2"

    with pytest.raises(Refused):
        await KeySet(url).key("k1")

    assert "/jwks.json" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("url", ["file:///etc/passwd", "issuer.example/jwks", "", "http://["])
def test_a_url_that_is_not_http_stops_the_start(url: str) -> None:
    """The message names the URL."""
    with pytest.raises(ConfigurationError, match="http or https"):
        KeySet(url)


def test_a_bound_that_is_not_positive_stops_the_start() -> None:
    """The message names the setting and the value."""
    with pytest.raises(ConfigurationError, match="lifespan=0"):
        KeySet("https://issuer.example/jwks.json", lifespan=0)
