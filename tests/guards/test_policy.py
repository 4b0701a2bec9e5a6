"""Who may connect."""

from __future__ import annotations

import inspect
import logging
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.dependencies.utils import get_dependant
from starlette.requests import HTTPConnection

from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.policy import AnyOf, Pending, StaticTokens, TokenPolicy, public
from pongee.guards.token import FirstMessage, HeaderToken, QueryToken
from pongee.guards.verdict import ANONYMOUS, Identity

pytestmark = pytest.mark.anyio

SECRET = "s3cret-token-of-ann"
TOKENS = StaticTokens([SECRET, "another-token"])


class Unable:
    async def verify(self, token: str) -> Identity:
        raise Refused(503, "Credentials cannot be verified now")


def connection(authorization: str | None = None, query: str = "") -> HTTPConnection:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return HTTPConnection(
        {"type": "websocket", "path": "/", "headers": headers, "query_string": query.encode()}
    )


async def test_a_valid_token_in_any_of_the_sources_gives_the_identity() -> None:
    """Sources are asked in order until one has a token."""
    policy = TokenPolicy(TOKENS, HeaderToken(), QueryToken())
    handshake = connection(query=f"token={SECRET}")

    identity = await policy(handshake)

    assert identity == Identity(user="static:1")


async def test_the_first_token_found_decides() -> None:
    """A bad token is not made good by another place that has a good one."""
    policy = TokenPolicy(TOKENS, HeaderToken(), QueryToken())
    handshake = connection("Bearer wrong-token", query=f"token={SECRET}")

    with pytest.raises(Refused):
        await policy(handshake)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong-token", "Bearer " + "x" * 10_000])
async def test_no_token_and_bad_ones_are_refused_alike(authorization: str | None) -> None:
    """The peer cannot tell what was wrong; status and reason are the policy's."""
    policy = TokenPolicy(TOKENS, HeaderToken(), status=403, reason="No entry")

    with pytest.raises(Refused) as caught:
        await policy(connection(authorization))

    assert (caught.value.status, caught.value.reason) == (403, "No entry")
    assert caught.value.__cause__ is None


async def test_the_log_says_why_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """An operator learns the reason; nobody learns a token."""
    policy = TokenPolicy(TOKENS, HeaderToken())

    with caplog.at_level(logging.DEBUG, "pongee.guards"):
        for authorization in (None, "Bearer almost-right"):
            with pytest.raises(Refused):
                await policy(connection(authorization))

    assert "no token in HeaderToken" in caplog.text
    assert "HeaderToken: no such static token" in caplog.text
    assert "almost-right" not in caplog.text


async def test_a_first_message_is_waited_for_only_without_another_token() -> None:
    """A handshake without token is pending; one with a bad token is refused."""
    source = FirstMessage()
    policy = TokenPolicy(TOKENS, source, HeaderToken())

    assert await policy(connection()) == Pending(policy, source)
    assert await policy(connection(f"Bearer {SECRET}")) == Identity(user="static:1")
    with pytest.raises(Refused):
        await policy(connection("Bearer wrong-token"))


async def test_a_later_token_is_verified_like_the_first() -> None:
    """First messages and refreshes go the same way, with the same bound on size."""
    policy = TokenPolicy(TOKENS, FirstMessage())

    assert await policy.verify(SECRET) == Identity(user="static:1")
    for bad in ("wrong-token", "x" * 8193):
        with pytest.raises(InvalidToken):
            await policy.verify(bad)


async def test_a_verifier_that_cannot_answer_is_not_a_bad_token() -> None:
    """A refusal of the verifier reaches the peer as it is."""
    with pytest.raises(Refused) as caught:
        await TokenPolicy(Unable(), HeaderToken())(connection("Bearer abc"))

    assert caught.value.status == 503


def test_a_policy_that_cannot_work_stops_the_start() -> None:
    """No place to look, or a status that admits, is a mistake."""
    with pytest.raises(ConfigurationError, match="HeaderToken"):
        TokenPolicy(TOKENS)
    with pytest.raises(ConfigurationError, match="status=200"):
        TokenPolicy(TOKENS, HeaderToken(), status=200)


async def test_policies_are_fastapi_dependencies() -> None:
    """FastAPI finds the connection parameter and nothing it would take from the request."""
    app = FastAPI()
    policy = TokenPolicy(TOKENS, HeaderToken())

    @app.get("/")
    async def route(who: Annotated[Identity, Depends(policy)]) -> None: ...

    dependant = get_dependant(path="/", call=policy)
    assert dependant.http_connection_param_name == "connection"
    assert not dependant.query_params
    assert not inspect.signature(public).parameters


async def test_public_lets_everybody_in() -> None:
    """It is a policy, so that letting everybody in is written down."""
    assert await public() is ANONYMOUS


async def test_static_tokens_tell_who_by_position_only() -> None:
    """The user's name says nothing about the token."""
    assert (await TOKENS.verify(SECRET)).user == "static:1"
    assert (await TOKENS.verify("another-token")).user == "static:2"


@pytest.mark.parametrize("token", ["", SECRET[:-1], SECRET + "x", "é" * 9, "\ud800"])
async def test_any_other_text_is_no_static_token(token: str) -> None:
    """Parts, extensions and odd characters prove nothing and raise nothing else."""
    with pytest.raises(InvalidToken):
        await TOKENS.verify(token)
    with pytest.raises(InvalidToken):
        await StaticTokens([]).verify(token)


async def test_a_single_static_token_may_be_given_as_a_string() -> None:
    """A string is one token, not a sequence of letters."""
    assert await StaticTokens(SECRET).verify(SECRET) == Identity(user="static:1")


def test_a_short_static_token_stops_the_start_without_being_shown() -> None:
    """The message names the position and the cure, not the token."""
    with pytest.raises(ConfigurationError, match="static token 2 has 7 characters") as caught:
        StaticTokens([SECRET, "hunter2"])
    assert "hunter2" not in str(caught.value)


async def test_any_of_takes_the_first_yes() -> None:
    """Order matters only among those that say yes; a later one may still say it."""
    both = AnyOf(StaticTokens(["other-token"]), Unable(), TOKENS)

    assert await both.verify(SECRET) == Identity(user="static:1")


async def test_any_of_is_invalid_only_if_all_say_so() -> None:
    """One that could not answer leaves the question open."""
    with pytest.raises(InvalidToken):
        await AnyOf(TOKENS, StaticTokens(["other-token"])).verify("wrong-token")
    with pytest.raises(Refused):
        await AnyOf(Unable(), TOKENS).verify("wrong-token")
    with pytest.raises(ConfigurationError):
        AnyOf()
