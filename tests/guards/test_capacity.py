"""How many sessions may be open at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.codes import CloseCode
from pongee.errors import Refused, UsageError
from pongee.guards.capacity import Capacity, CapacityStatistics, Slot
from pongee.limits import Caps


def test_a_full_process_refuses_until_a_slot_is_released() -> None:
    """503 with a retry hint and the close code that means: later."""
    capacity = Capacity(Caps(max_connections=1, retry_after=7))
    slot = capacity.reserve(None)

    with pytest.raises(Refused) as caught:
        capacity.reserve(None)
    assert (caught.value.status, caught.value.reason) == (503, "Server is full")
    assert (caught.value.code, caught.value.retry_after) == (CloseCode.TRY_AGAIN_LATER, 7)

    slot.release()
    capacity.reserve(None)


def test_one_address_is_capped_and_others_are_not() -> None:
    """429 for the address that has its share; a client without address is never over it."""
    capacity = Capacity(Caps(max_connections_per_address=1))
    capacity.reserve("192.0.2.1")

    with pytest.raises(Refused) as caught:
        capacity.reserve("192.0.2.1")
    assert (caught.value.status, caught.value.retry_after) == (429, 5.0)
    assert caught.value.code == CloseCode.POLICY_VIOLATION

    capacity.reserve("192.0.2.2")
    capacity.reserve(None)
    capacity.reserve(None)


def test_ipv6_addresses_of_one_network_count_together() -> None:
    """A customer picks among 2**64 addresses, so the /64 is what is counted."""
    capacity = Capacity(Caps(max_connections_per_address=1))
    capacity.reserve("2001:db8:0:1::1")

    with pytest.raises(Refused):
        capacity.reserve("2001:db8:0:1:ffff::2")
    capacity.reserve("2001:db8:0:2::1")


def test_mapped_ipv4_addresses_and_names_count_one_by_one() -> None:
    """What is no IPv6 network is not grouped."""
    capacity = Capacity(Caps(max_connections_per_address=1))

    for address in ("::ffff:192.0.2.1", "::ffff:192.0.2.2", "testclient", "other"):
        capacity.reserve(address)

    assert capacity.statistics().addresses == 4


def test_one_user_is_capped_over_all_addresses() -> None:
    """429 for the user that has its share; the slot stays, to be released as always."""
    capacity = Capacity(Caps(max_connections_per_user=1))
    capacity.reserve("192.0.2.1").claim_user("ann")
    second = capacity.reserve("192.0.2.2")

    with pytest.raises(Refused) as caught:
        second.claim_user("ann")
    assert (caught.value.status, caught.value.retry_after) == (429, 5.0)
    assert capacity.connections == 2

    second.release()
    assert capacity.statistics() == CapacityStatistics(1, 1, 1, 1)


def test_claiming_the_same_user_again_counts_once() -> None:
    """A refreshed token names the same user."""
    capacity = Capacity(Caps(max_connections_per_user=1))
    slot = capacity.reserve(None)

    slot.claim_user("ann")
    slot.claim_user("ann")
    slot.release()

    assert capacity.statistics().users == 0


def test_claiming_another_user_is_a_wrong_call() -> None:
    """A session never changes its user, and the first stays counted."""
    slot = Capacity(Caps()).reserve(None)
    slot.claim_user("ann")

    with pytest.raises(UsageError):
        slot.claim_user("bob")


def test_claiming_after_release_counts_nothing() -> None:
    """The client may leave while its token is being verified."""
    capacity = Capacity(Caps())
    slot = capacity.reserve(None)
    slot.release()

    slot.claim_user("ann")

    assert capacity.statistics().users == 0


def test_releasing_twice_gives_back_once() -> None:
    """Every path that ends a session may release its slot."""
    capacity = Capacity(Caps())
    slot, _other = capacity.reserve("192.0.2.1"), capacity.reserve("192.0.2.1")

    slot.release()
    slot.release()

    assert capacity.statistics() == CapacityStatistics(1, 1, 0, 0)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "claim", "release"]), st.integers(0, 9)), max_size=60
)


@given(_STEPS)
def test_counts_hold_for_any_order_of_calls(steps: list[tuple[str, int]]) -> None:
    """No cap is ever passed, and when all are gone nothing is left."""
    capacity = Capacity(
        Caps(max_connections=5, max_connections_per_address=2, max_connections_per_user=2)
    )
    slots: list[Slot] = []

    for step, number in steps:
        try:
            if step == "reserve":
                slots.append(capacity.reserve(f"192.0.2.{number % 3}"))
            elif slots and step == "claim":
                slots[number % len(slots)].claim_user(f"user {number % 2}")
            elif slots:
                slots.pop(number % len(slots)).release()
        except (Refused, UsageError):
            pass
        assert capacity.connections == len(slots) <= 5

    for slot in slots:
        slot.release()
    assert capacity.statistics() == CapacityStatistics(0, 0, 0, capacity.statistics().refused)
