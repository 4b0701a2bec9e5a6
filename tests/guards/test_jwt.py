"""JSON Web Tokens as credentials."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.jwt import JWTBearer, JWTVerifier
from pongee.guards.token import QueryToken
from pongee.guards.verdict import Identity

from .conftest import Issuer

pytestmark = pytest.mark.anyio

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_000_000.0


def token(key: Any = SECRET, algorithm: Any = "HS256", kid: Any = None, **claims: Any) -> str:
    everything = {"sub": "ann", "exp": NOW + 60} | claims
    present = {name: value for name, value in everything.items() if value is not ...}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(present, key, algorithm, headers=headers)


def signed(payload: bytes, header: bytes = b'{"alg":"HS256"}') -> str:
    """Sign any bytes, for payloads and headers that an honest encoder would not make."""
    signing_input = b".".join(base64.urlsafe_b64encode(p).rstrip(b"=") for p in (header, payload))
    signature = jwt.PyJWS().get_algorithm_by_name("HS256").sign(signing_input, SECRET.encode())
    return (signing_input + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def verifier(key: str | bytes | None = SECRET, **options: Any) -> JWTVerifier:
    return JWTVerifier(key, now=lambda: NOW, **options)


async def why(token: str, **options: Any) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier(**options).verify(token)
    return caught.value.why


async def test_a_valid_token_gives_user_expiry_and_claims() -> None:
    """The identity runs out with the token."""
    identity = await verifier().verify(token(role="admin"))

    assert identity == Identity("ann", NOW + 60, {"sub": "ann", "exp": NOW + 60, "role": "admin"})


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_public_keys_verify_what_their_private_half_signed(
    algorithm: str, rsa_key: RSAPrivateKey, ec_key: EllipticCurvePrivateKey
) -> None:
    """RSA and elliptic curves, with the public key in PEM."""
    key = ec_key if algorithm == "ES256" else rsa_key
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    identity = await verifier(pem, algorithms=[algorithm]).verify(token(key, algorithm))

    assert identity.user == "ann"


async def test_a_public_key_used_as_a_secret_proves_nothing(rsa_key: RSAPrivateKey) -> None:
    """The algorithm is ours to choose, not the token's."""
    pem = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hmac = jwt.PyJWS().get_algorithm_by_name("HS256")
    body = b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=")
        for part in (b'{"alg":"HS256"}', json.dumps({"sub": "ann", "exp": NOW + 60}).encode())
    )
    signature = base64.urlsafe_b64encode(hmac.sign(body, pem)).rstrip(b"=")
    forged = (body + b"." + signature).decode()

    assert await why(forged, key=pem, algorithms=["RS256"]) == "algorithm not allowed"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS512", None, [], {}, 1])
async def test_another_algorithm_in_the_token_proves_nothing(alg: Any) -> None:
    """`none` above all, in any spelling, signed or not."""
    claims = json.dumps({"sub": "ann", "exp": NOW + 60}).encode()
    forged = signed(claims, json.dumps({"alg": alg}).encode())

    assert await why(forged) == "algorithm not allowed"
    assert await why(forged.rpartition(".")[0] + ".") == "algorithm not allowed"


async def test_a_changed_token_proves_nothing() -> None:
    """Another payload under the same signature, or another secret."""
    head, _, tail = token().split(".")
    payload = token(sub="root").split(".")[1]

    assert await why(f"{head}.{payload}.{tail}") == "signature does not match"
    assert await why(token("y" * 32)) == "signature does not match"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": NOW - 10}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -1e300}, "expired"),
        ({"exp": ...}, "never expires"),
        ({"exp": None}, "exp is no number"),
        ({"exp": True}, "exp is no number"),
        ({"exp": str(NOW + 60)}, "exp is no number"),
        ({"exp": [NOW + 60]}, "exp is no number"),
        ({"exp": math.nan}, "exp is no date"),
        ({"exp": math.inf}, "exp is no date"),
        ({"exp": 10**400}, "exp is no date"),
        ({"nbf": NOW + 11}, "not valid yet"),
        ({"nbf": "soon"}, "nbf is no number"),
        ({"iat": NOW + 11}, "issued in the future"),
        ({"iat": math.nan}, "iat is no date"),
        ({"sub": ...}, "no usable 'sub' claim"),
        ({"sub": None}, "no usable 'sub' claim"),
        ({"sub": ""}, "no usable 'sub' claim"),
        ({"sub": True}, "no usable 'sub' claim"),
        ({"sub": 1.5}, "no usable 'sub' claim"),
        ({"sub": ["ann"]}, "no usable 'sub' claim"),
        ({"sub": "\ud800"}, "no usable 'sub' claim"),
        ({"aud": "billing"}, "for another audience (see JWTBearer's audience)"),
    ],
)
async def test_a_signed_token_with_unusable_claims_proves_nothing(
    claims: dict[str, Any], expected: str
) -> None:
    """Issuers make mistakes as well; the log says which."""
    payload = {"sub": "ann", "exp": NOW + 60} | claims
    payload = {name: value for name, value in payload.items() if value is not ...}

    assert await why(signed(json.dumps(payload).encode())) == expected


async def test_the_leeway_allows_for_clocks_that_differ() -> None:
    """Within it a token is still, or already, valid; at its end it is not."""
    for claims in ({"exp": NOW - 9.9}, {"nbf": NOW + 10}, {"iat": NOW + 10}):
        assert (await verifier().verify(token(**claims))).user == "ann"
    for claims in ({"exp": NOW}, {"nbf": NOW + 0.1}, {"iat": NOW + 0.1}):
        assert await why(token(**claims), leeway=0)


async def test_time_is_that_of_the_clock_given() -> None:
    """A token of long ago is valid to a clock of long ago, and expires when that moves."""
    now = NOW
    moving = JWTVerifier(SECRET, now=lambda: now)
    old = token()
    await moving.verify(old)

    now += 70
    with pytest.raises(InvalidToken):
        await moving.verify(old)


async def test_a_token_without_expiry_is_allowed_only_on_request() -> None:
    """It cannot be taken back, so it has to be asked for."""
    identity = await verifier(require_exp=False).verify(token(exp=...))

    assert identity.expires_at is None


async def test_another_claim_may_name_the_user_and_numbers_become_strings() -> None:
    """Many issuers count their users."""
    assert (await verifier(user_claim="uid").verify(token(uid=42))).user == "42"
    assert (await verifier().verify(token(sub=7))).user == "7"


async def test_audience_and_issuer_must_be_those_asked_for() -> None:
    """A token for somebody else, or from somebody else, proves nothing here."""
    options: dict[str, Any] = {"audience": ["chat", "news"], "issuer": "https://id.example"}
    good = {"aud": "chat", "iss": "https://id.example"}

    assert (await verifier(**options).verify(token(**good))).user == "ann"
    assert await why(token(**good | {"aud": ["billing"]}), **options)
    assert await why(token(**good | {"iss": "https://evil.example"}), **options)
    assert await why(token(aud="chat"), **options)
    assert await why(token(iss="https://id.example"), **options)
    assert await why(signed(b'{"aud":"chat","iss":{},"exp":9e9,"sub":"a"}'), **options)


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "secret7",
        "ü.ü.ü",
        "\ud800",
        "\x00",
        "e30.e30.e30",
        signed(b"[" * 3000, b'{"alg":"HS256"}'),
        signed(b"1"),
        signed(b"null"),
        signed(b"\xff\xfe"),
        signed(b'{"exp":' + b"9" * 5000 + b"}"),
        signed(b'{"sub":"a","exp":9e9}', b"[" * 3000),
        signed(b'{"sub":"a","exp":9e9}', b'"HS256"'),
        signed(b'{"sub":"a","exp":9e9}', b'{"alg":"HS256","kid":{}}'),
        signed(b'{"sub":"a","exp":9e9}', b'{"alg":"HS256","crit":["x"]}'),
        signed(b'{"sub":"a","exp":9e9}', b'{"alg":"HS256","b64":false,"crit":["b64"]}'),
        signed(b'{"sub":"a","exp":9e9}', b'{"alg":"HS256","n":' + b"9" * 5000 + b"}"),
    ],
)
async def test_a_hostile_token_is_invalid_and_nothing_else(hostile: str, issuer: Issuer) -> None:
    """With a secret and with published keys, and without a request to the issuer."""
    reason = await why(hostile)
    assert reason
    assert "ü" not in reason

    published = JWTVerifier(jwks_url=issuer.url, algorithms=["RS256"])
    with pytest.raises(InvalidToken):
        await published.verify(hostile)
    assert issuer.requests == 0


@given(st.one_of(st.text(), st.lists(st.binary(max_size=20), min_size=3, max_size=3)))
def test_no_text_makes_the_verifier_raise_anything_else(text: str | list[bytes]) -> None:
    """Random text and random segments are invalid tokens."""
    if isinstance(text, list):
        text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in text)
    coroutine = verifier().verify(text)

    with pytest.raises(InvalidToken):
        coroutine.send(None)


async def test_published_keys_verify_tokens_by_key_id(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """The key is the one the token names; a token that names none proves nothing."""
    issuer.publish("k1", rsa_key)
    published = JWTVerifier(jwks_url=issuer.url, algorithms=["RS256"], now=lambda: NOW)

    assert (await published.verify(token(rsa_key, "RS256", kid="k1"))).user == "ann"
    for bad in (token(rsa_key, "RS256"), token(rsa_key, "RS256", kid="k2")):
        with pytest.raises(InvalidToken):
            await published.verify(bad)
    assert issuer.requests == 1


async def test_a_published_key_is_used_with_its_own_algorithm_only(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """RFC 8725 section 3.1: each key is for one algorithm."""
    issuer.publish("k1", rsa_key)
    published = JWTVerifier(jwks_url=issuer.url, algorithms=["RS256", "RS512"], now=lambda: NOW)

    with pytest.raises(InvalidToken) as caught:
        await published.verify(token(rsa_key, "RS512", kid="k1"))
    assert caught.value.why == "algorithm not allowed"


async def test_an_issuer_that_is_away_is_not_the_tokens_fault(
    issuer: Issuer, rsa_key: RSAPrivateKey
) -> None:
    """503, through the policy as well, so that a client comes back."""
    issuer.status = 500
    policy = JWTBearer(jwks_url=issuer.url, algorithms=["RS256"], sources=[QueryToken()])
    query = f"token={token(rsa_key, 'RS256', kid='k1')}".encode()

    with pytest.raises(Refused) as caught:
        await policy(HTTPConnection({"type": "websocket", "headers": [], "query_string": query}))

    assert caught.value.status == 503


async def test_a_bearer_policy_lets_a_valid_token_in() -> None:
    """`JWTBearer(secret)` reads the Authorization header and refuses with 401."""
    policy = JWTBearer(SECRET, now=lambda: NOW)

    def handshake(authorization: str) -> HTTPConnection:
        headers = [(b"authorization", authorization.encode())]
        return HTTPConnection({"type": "websocket", "headers": headers, "query_string": b""})

    identity = await policy(handshake(f"Bearer {token()}"))
    assert isinstance(identity, Identity)
    assert identity.user == "ann"
    with pytest.raises(Refused) as caught:
        await policy(handshake(f"Bearer {token('y' * 32)}"))
    assert (caught.value.status, caught.value.reason) == (401, "Invalid credentials")


def test_keys_that_cannot_work_stop_the_start() -> None:
    """None, two, too short, or a leeway that is no time."""
    url = "https://issuer.example/jwks.json"
    with pytest.raises(ConfigurationError, match="needed"):
        JWTVerifier()
    with pytest.raises(ConfigurationError, match="not both"):
        JWTVerifier("x", jwks_url=url, algorithms=["RS256"])
    with pytest.raises(ConfigurationError, match="openssl"):
        JWTBearer("secret")
    with pytest.raises(ConfigurationError, match="HS256"):
        JWTBearer(jwks_url=url)
    with pytest.raises(ConfigurationError, match="leeway"):
        JWTBearer(SECRET, leeway=-1)
