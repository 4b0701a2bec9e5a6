"""One-time tickets of many processes."""

from __future__ import annotations

import asyncio
import time

import jwt
import pytest

from pongee import BrokerUnavailable, ConfigurationError, InvalidToken, Pongee, Refused, Settings
from pongee.guards.shared_tickets import SharedTickets
from pongee.guards.verdict import Identity

pytestmark = pytest.mark.anyio

SECRET = "a secret of thirty-two bytes or more"
ANN = Identity("ann", 1e10, {"role": "admin"})


async def test_ticket_works_once_whoever_redeems_it() -> None:
    """And proves what it was issued for."""
    pongee = Pongee(Settings())
    one, other = SharedTickets(SECRET, pongee.once), SharedTickets(SECRET, pongee.once)
    ticket = one.issue(ANN)
    found = await other.verify(ticket)
    assert (found.user, found.expires_at, found.claims) == ("ann", 1e10, {"role": "admin"})
    for tickets in (one, other):
        with pytest.raises(InvalidToken, match="used"):
            await tickets.verify(ticket)


async def test_of_many_at_once_one_is_let_in() -> None:
    """Exactly one."""
    pongee = Pongee(Settings())
    tickets = SharedTickets(SECRET, pongee.once)
    ticket = tickets.issue(Identity("ann"))
    tries = (tickets.verify(ticket) for _ in range(20))
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(answer, Identity) for answer in answers) == 1


def _signed(secret: str = SECRET, **changed: object) -> str:
    content = {"aud": "pongee:ticket", "exp": time.time() + 60, "jti": "1", "user": "eve"}
    content |= {"until": None, "claims": {}}
    kept = {name: value for name, value in (content | changed).items() if value != ""}
    return jwt.encode(kept, secret, "HS256")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x" * 100,
        "a.b.c",
        _signed("another secret of thirty-two bytes"),
        _signed(exp=time.time() - 1),
        _signed(aud="somebody"),
        _signed(aud=""),
        _signed(exp=""),
        _signed(jti=""),
        jwt.encode({"sub": "eve", "exp": time.time() + 60}, SECRET, "HS256"),
    ],
)
async def test_what_proves_nothing(token: str) -> None:
    """Other secrets, other tokens of the same secret, too late, nonsense."""
    with pytest.raises(InvalidToken):
        await SharedTickets(SECRET, Pongee(Settings()).once).verify(token)


async def test_nobody_knows_whether_it_was_used() -> None:
    """Then nobody is let in: 503."""

    async def away(name: str, ttl: float) -> bool:
        raise BrokerUnavailable("redis")

    tickets = SharedTickets(SECRET, away)
    with pytest.raises(Refused) as caught:
        await tickets.verify(tickets.issue(ANN))
    assert caught.value.status == 503


def test_bad_declarations() -> None:
    """Short secrets, no time."""
    once = Pongee(Settings()).once
    with pytest.raises(ConfigurationError, match="32 bytes"):
        SharedTickets("short", once)
    with pytest.raises(ConfigurationError, match="at least 1"):
        SharedTickets(SECRET, once, lifetime=0)
