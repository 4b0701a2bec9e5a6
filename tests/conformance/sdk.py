"""What the tests need of an SDK, whichever it is: commands, and events to wait for."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pongee.testing import eventually

__all__ = ["WITHIN", "GetToken", "Kit", "SdkClient", "SdkError"]

WITHIN = 15.0
"""Seconds that any wait may take; all are far shorter on a machine with nothing else to do."""

GetToken = Callable[[str | None], str | None]
"""Makes a token for a channel, or for the connection (`None`); `None` refuses for good."""


class SdkError(Exception):
    """A command of the SDK failed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class SdkClient(abc.ABC):
    """One client of an SDK.

    Attributes:
        events: all so far, each with ``on`` and the members of the protocol's names;
            ``server_side`` tells the client's own from those of its subscription objects.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    @abc.abstractmethod
    async def do(self, name: str, **args: Any) -> Any:
        """Run a command of the SDK's.

        Raises:
            SdkError: it failed.
        """

    async def connect(self) -> dict[str, Any]:
        """Connect; returns the ``connected`` event."""
        before = len(self.all("connected"))
        await self.do("connect")
        return await self.wait("connected", count=before + 1)

    async def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        """Subscribe; returns the ``subscribed`` event."""
        await self.do("subscribe", channel=channel, **options)
        return await self.wait("subscribed", channel=channel)

    def all(self, on: str, **like: Any) -> list[dict[str, Any]]:
        """Return the events called `on` with these members."""
        wanted = {"on": on, **like}
        return [one for one in self.events if wanted.items() <= _flat(one).items()]

    def heard(self, channel: str) -> list[Any]:
        """Return the payloads of the publications in `channel`, in the order of arrival."""
        return [one["data"] for one in self.all("publication", channel=channel)]

    async def wait(self, on: str, *, count: int = 1, **like: Any) -> dict[str, Any]:
        """Wait for the event called `on` with these members, the `count`-th of them."""
        try:
            await eventually(lambda: len(self.all(on, **like)) >= count, within=WITHIN)
        except AssertionError:
            raise AssertionError(f"no {on} {like} ({count}); came: {self.events}") from None
        return self.all(on, **like)[count - 1]


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out what cannot be compared as items of a set: payloads."""
    return {name: one for name, one in event.items() if not isinstance(one, dict | list)}


class Kit(Protocol):
    """An SDK in one encoding."""

    async def client(
        self,
        url: str,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        data: Any = None,
    ) -> SdkClient:
        """Make a client; it is gone when the test ends."""


KitFactory = Callable[[str], AbstractAsyncContextManager[Kit]]
