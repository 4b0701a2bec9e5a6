"""One-time tickets."""

from __future__ import annotations

import pytest

from pongee.errors import ConfigurationError, InvalidToken, Refused
from pongee.guards.tickets import Tickets
from pongee.guards.verdict import Identity

pytestmark = pytest.mark.anyio

ANN = Identity(user="ann")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_works_once() -> None:
    """The second use proves nothing."""
    tickets = Tickets()
    ticket = tickets.issue(ANN)

    assert tickets.redeem(ticket) is ANN
    with pytest.raises(InvalidToken):
        tickets.redeem(ticket)
    assert len(tickets) == 0


async def test_tickets_are_a_verifier() -> None:
    """`verify` redeems, so a policy can ask for tickets."""
    tickets = Tickets()
    ticket = tickets.issue(ANN)

    assert await tickets.verify(ticket) is ANN
    with pytest.raises(InvalidToken):
        await tickets.verify(ticket)


@pytest.mark.parametrize("forged", ["", "x" * 32, "ü", "\ud800"])
def test_a_ticket_never_issued_proves_nothing(forged: str) -> None:
    """Any text may be tried."""
    tickets = Tickets()
    tickets.issue(ANN)

    with pytest.raises(InvalidToken):
        tickets.redeem(forged)
    assert len(tickets) == 1


def test_a_ticket_expires() -> None:
    """At the end of its lifetime, to the moment, it proves nothing."""
    clock = Clock()
    tickets = Tickets(30, now=clock)
    first, second = tickets.issue(ANN), tickets.issue(ANN)

    clock.now += 29.9
    assert tickets.redeem(first) is ANN
    clock.now += 0.1
    with pytest.raises(InvalidToken) as caught:
        tickets.redeem(second)
    assert caught.value.why == "expired ticket"


def test_expired_tickets_leave_when_the_next_is_issued() -> None:
    """Memory holds the living ones only; no timer is needed."""
    clock = Clock()
    tickets = Tickets(30, now=clock)
    for _ in range(5):
        tickets.issue(ANN)
    clock.now += 15
    tickets.issue(ANN)

    clock.now += 15
    tickets.issue(ANN)

    assert len(tickets) == 2


def test_too_many_tickets_refuse_until_the_oldest_expires() -> None:
    """503 says when the next place is free."""
    clock = Clock()
    tickets = Tickets(30, capacity=2, now=clock)
    tickets.issue(ANN)
    clock.now += 10
    tickets.issue(ANN)

    with pytest.raises(Refused) as caught:
        tickets.issue(ANN)
    assert (caught.value.status, caught.value.retry_after) == (503, 20)

    clock.now += 20
    tickets.issue(ANN)


def test_tickets_are_all_different_and_not_kept() -> None:
    """Only digests stay in memory."""
    tickets = Tickets()
    issued = {tickets.issue(ANN) for _ in range(100)}

    assert len(issued) == 100
    assert all(ticket not in repr(vars(tickets)) for ticket in issued)


def test_a_bound_that_is_not_positive_stops_the_start() -> None:
    """A ticket without life, or room for none, is a mistake."""
    with pytest.raises(ConfigurationError, match="lifetime"):
        Tickets(0)
    with pytest.raises(ConfigurationError, match="capacity"):
        Tickets(capacity=0)
