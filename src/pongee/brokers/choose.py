"""Which broker an address means. Brokers that need a package of their own load on first use."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import SecretStr

from pongee.brokers.base import Broker
from pongee.brokers.memory import MemoryBroker
from pongee.clock import Clock, TimerWheel
from pongee.errors import ConfigurationError

__all__ = [
    "EMBEDDED",
    "MakeBroker",
    "check_address",
    "choose_broker",
    "is_shared",
    "without_password",
]

EMBEDDED = "nats://embedded"
"""A NATS server that ``pongee serve`` starts for its own processes."""

MakeBroker = Callable[[Clock, TimerWheel], Broker]
"""Makes a broker on the application's time."""

_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel")
_NATS = ("nats", "tls")


def check_address(address: str) -> str:
    """Return the scheme of `address`.

    Raises:
        ValueError: there is no such broker; tells what is allowed, and no secret.
    """
    scheme, found, rest = address.partition("://")
    if found and (scheme in (*_REDIS, *_NATS) if rest else scheme == "memory"):
        return scheme
    raise ValueError(
        f"{scheme if found else '…'}:// is no broker; allowed: memory://, redis://host:6379/0 (and "
        "rediss://, unix://, redis+cluster://, redis+sentinel://host:26379/name), "
        "nats://host:4222 (and tls://)"
    )


def without_password(address: object) -> object:
    """Return `address` without what stands before its ``@``, for people to read."""
    if isinstance(address, SecretStr):
        address = address.get_secret_value()
    return re.sub("//.*@", "//…@", address) if isinstance(address, str) else address


def is_shared(address: str) -> bool:
    """Whether several processes can be one application with this broker."""
    return check_address(address) != "memory"


def choose_broker(address: str, prefix: str, clock: Clock, wheel: TimerWheel) -> Broker:
    """Make the broker that `address` means.

    Args:
        address: such as ``memory://`` or ``redis://localhost:6379/0``.
        prefix: begins the names of everything that is kept there.
        clock: time, for a broker of this process.
        wheel: timers, likewise.

    Raises:
        ConfigurationError: there is no such broker, or its package is not installed.
    """
    try:
        scheme = check_address(address)
    except ValueError as error:
        raise ConfigurationError(f"broker: {error}") from None
    if scheme == "memory":
        return MemoryBroker(clock, wheel)
    if address == EMBEDDED:
        raise ConfigurationError(
            f"the broker {EMBEDDED} is started by `pongee serve APP`, which has to be told of it "
            f"by --broker {EMBEDDED} or PONGEE_BROKER={EMBEDDED}; elsewhere give the address of a "
            "NATS server, such as nats://localhost:4222"
        )
    extra = "redis" if scheme in _REDIS else "nats"
    try:
        if extra == "redis":
            from pongee.brokers.redis import RedisBroker

            return RedisBroker(address, prefix=prefix)
        from pongee.brokers.nats import NatsBroker

        return NatsBroker(address, prefix=prefix)
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] not in (extra, "hiredis"):
            raise
        raise ConfigurationError(
            f"the broker {scheme}://… needs a package that is not installed: "
            f"pip install 'pongee[{extra}]'"
        ) from None
