"""How many sessions may be open at once: in the process, per client address, per user. ◇

The endpoint reserves a `Slot` before accept, claims the user for it once the user is known (which
may be after accept, where the first message brings the token), and releases it when the session
is over. The bounds are those of `limits.Caps`.

Promises: a refused reservation or claim counts nothing; a release gives everything back, once;
nothing is kept of an address or a user without a session. One event loop calls it; no call waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from pongee.codes import CloseCode
from pongee.errors import Refused, UsageError
from pongee.limits import Caps

__all__ = ["Capacity", "CapacityStatistics", "Slot"]

IPV6_HOST_BITS = 64
"""Bits of an IPv6 address its owner picks at will (RFC 4291 section 2.5.1, RFC 6177 section 2): one
customer has 2**64 addresses, so what is counted is the /64 they share."""


@dataclass(frozen=True, slots=True)
class CapacityStatistics:
    """What is in use at one moment.

    Attributes:
        connections: slots reserved and not yet released.
        addresses: different client addresses among them (IPv6: different /64 networks).
        users: different users among them.
        refused: reservations and claims refused since the start.
    """

    connections: int
    addresses: int
    users: int
    refused: int


class Capacity:
    """Counts the sessions of one process and refuses those over the caps.

    Args:
        caps: the bounds, and the seconds told to a client that was turned away.
    """

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self._connections = 0
        self._refused = 0
        self._addresses: dict[str, int] = {}
        self._users: dict[str, int] = {}

    def reserve(self, address: str | None) -> Slot:
        """Take a place for one session.

        Args:
            address: the client's address; `None` (a Unix socket, say) counts for the process only.

        Returns:
            The place. Whoever gets it must release it.

        Raises:
            Refused: 503 if the process is full, 429 if the address has too many.
        """
        caps = self.caps
        if self._connections >= caps.max_connections:
            # 1013 is the code that tells a client to come back later (IANA registry).
            raise self._refuse(503, "Server is full", CloseCode.TRY_AGAIN_LATER)
        key = None if address is None else _address_key(address)
        if key is not None and _is_full(self._addresses, key, caps.max_connections_per_address):
            raise self._refuse(429, "Too many connections from this address")
        self._connections += 1
        if key is not None:
            self._addresses[key] = self._addresses.get(key, 0) + 1
        return Slot(self, key)

    @property
    def connections(self) -> int:
        """Slots reserved and not yet released."""
        return self._connections

    def statistics(self) -> CapacityStatistics:
        """Count what is in use now."""
        return CapacityStatistics(
            self._connections, len(self._addresses), len(self._users), self._refused
        )

    def _enter(self, user: str) -> None:
        if _is_full(self._users, user, self.caps.max_connections_per_user):
            raise self._refuse(429, "Too many connections of this user")
        self._users[user] = self._users.get(user, 0) + 1

    def _leave(self, address: str | None, user: str | None) -> None:
        self._connections -= 1
        _decrease(self._addresses, address)
        _decrease(self._users, user)

    def _refuse(
        self, status: int, reason: str, code: CloseCode = CloseCode.POLICY_VIOLATION
    ) -> Refused:
        self._refused += 1
        return Refused(status, reason, code=code, retry_after=self.caps.retry_after)


class Slot:
    """One session's place. Made by `Capacity.reserve`."""

    __slots__ = ("_address", "_capacity", "_released", "_user")

    def __init__(self, capacity: Capacity, address: str | None) -> None:
        self._capacity = capacity
        self._address = address
        self._user: str | None = None
        self._released = False

    def claim_user(self, user: str) -> None:
        """Count this session for `user`. Again for the same user: nothing happens.

        After a release nothing happens either: the client left while its token was being verified.

        Raises:
            Refused: 429, the user has too many. The slot stays reserved; release it as always.
            UsageError: the slot already counts for another user.
        """
        if self._released or user == self._user:
            return
        if self._user is not None:
            raise UsageError("a session cannot change its user; open a new one")
        self._capacity._enter(user)
        self._user = user

    def release(self) -> None:
        """Give the place back. May be called more than once."""
        if not self._released:
            self._released = True
            self._capacity._leave(self._address, self._user)


@lru_cache(maxsize=4096)
def _address_key(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a name, as test clients give
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        network = int(parsed) >> IPV6_HOST_BITS << IPV6_HOST_BITS
        return f"{IPv6Address(network)}/{128 - IPV6_HOST_BITS}"
    return address


def _is_full(counts: dict[str, int], key: str, cap: int | None) -> bool:
    return cap is not None and counts.get(key, 0) >= cap


def _decrease(counts: dict[str, int], key: str | None) -> None:
    if key is None:
        return
    if counts[key] == 1:
        del counts[key]  # else every address ever seen would stay in memory
    else:
        counts[key] -= 1
