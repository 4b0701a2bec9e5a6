"""One client's subscription to one channel, and how it begins without a hole or a repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pongee.brokers.base import Page
from pongee.centrifuge.codes import ErrorCode
from pongee.centrifuge.errors import error
from pongee.centrifuge.messages import SubscribeRequest, SubscribeResult, published
from pongee.channels.publication import ClientInfo, Position
from pongee.channels.recovery import Recovery, recover, recover_cache
from pongee.clock import Timer
from pongee.entries import Held
from pongee.errors import SessionClosed
from pongee.handlers.channel import Channel
from pongee.links.base import Outgoing

if TYPE_CHECKING:
    from pongee.centrifuge.client import Client

__all__ = ["LIVE_ONLY", "Entering", "Subscription", "Wish", "enter"]

REJECT_UNRECOVERED = 2
"""Bit of `SubscribeRequest.flag`: answer error 112 instead of ``recovered: false``."""


class Wish(NamedTuple):
    """What a subscriber asks for.

    Attributes:
        asked: where it stood, if it wants what it missed.
        join_leave: whether it wants to hear who comes and goes.
        reject: an error is better than a subscription that did not recover.
    """

    asked: Position | None
    join_leave: bool
    reject: bool = False

    @classmethod
    def of(cls, request: SubscribeRequest) -> Wish:
        """Read the wish of a client's request."""
        asked = Position(request.offset, request.epoch) if request.recover else None
        return cls(asked, request.join_leave, bool(request.flag & REJECT_UNRECOVERED))


LIVE_ONLY = Wish(None, join_leave=True)


class Subscription:
    """A channel that a client is in, or is just entering.

    Attributes:
        channel: the declaration.
        parameters: of the channel, out of its name.
        info: what others see of the client here.
        server_side: the server subscribed it.
        live: the client has been told; publications reach it.
        revoked: the application has ended it before it was live.
        told_join: others were told that it came.
        expiry: ends it, unless it is refreshed.
    """

    __slots__ = (
        "channel",
        "expiry",
        "info",
        "live",
        "parameters",
        "revoked",
        "server_side",
        "told_join",
    )

    def __init__(
        self,
        channel: Channel[Any],
        parameters: Mapping[str, str],
        info: ClientInfo,
        *,
        server: bool,
    ) -> None:
        self.channel = channel
        self.parameters = parameters
        self.info = info
        self.server_side = server
        self.live = False
        self.revoked = False
        self.told_join = False
        self.expiry: Timer | None = None

    def end(self, client: Client, name: str, *, lost: bool = False) -> None:
        """Leave the channel; nothing more of it reaches the client."""
        board, options = client.service.board, self.channel.options
        board.leave(name, client)
        if self.expiry is not None:
            self.expiry.cancel()
        if options.presence:
            board.attendance.disappear(name, self.info)
        if self.told_join:
            board.attendance.tell_leave(name, self.info, lost=lost)

    async def tell_unsubscribed(self, client: Client) -> None:
        """Call the channel's ``on_unsubscribe``."""
        await self.channel.tell("unsubscribe", client.scope, self.parameters, client.given())


class Entering:
    """A subscription that is ready to begin: what is published is held until `commit`."""

    __slots__ = ("_client", "_held", "_name", "_page", "_recovery", "_sub", "_wish")

    def __init__(
        self,
        client: Client,
        name: str,
        sub: Subscription,
        held: Held,
        wish: Wish,
        page: Page | None,
        recovery: Recovery | None,
    ) -> None:
        self._client = client
        self._name = name
        self._sub = sub
        self._held = held
        self._wish = wish
        self._page = page
        self._recovery = recovery

    def commit(self) -> tuple[SubscribeResult, list[Outgoing]]:
        """Begin. The caller sends the result, then the messages, before anything else happens.

        Raises:
            Gap: something was lost meanwhile.
        """
        page, recovery, options = self._page, self._recovery, self._sub.channel.options
        if page is None:
            rest = self._held.release(None)
            result = SubscribeResult(was_recovering=self._wish.asked is not None)
        else:
            rest = self._held.release(page.top)
            result = SubscribeResult(
                recoverable=options.recover,
                positioned=True,
                epoch=page.top.epoch,
                offset=page.top.offset,
                was_recovering=recovery is not None,
            )
            if recovery is not None and recovery.recovered:
                result.recovered = True
                result.offset = recovery.offset
                result.publications = [published(one) for one in recovery.publications] or None
        self._sub.live = True
        return result, rest

    def announce(self) -> None:
        """Tell the others, once the client has been told."""
        if self._sub.channel.options.join_leave and self._sub.live:
            board = self._client.service.board
            if self._wish.join_leave:
                board.hear_arrivals(self._name, self._client)
            self._sub.told_join = True
            board.attendance.tell_join(self._name, self._sub.info)


async def enter(client: Client, name: str, sub: Subscription, wish: Wish) -> Entering:
    """Enter the channel; the caller has checked that the client may.

    Raises:
        ClientError: 103, the application has ended it meanwhile; 105, it is in; 106, it is in too
            many; or 112, it wants no subscription that did not recover.
        BrokerUnavailable: nobody knows; it is not in.
        SessionClosed: the client left meanwhile.

    Cancellation: it is not in.
    """
    board, options = client.service.board, sub.channel.options
    tracked = options.recover or options.positioned or options.cache
    if name in client.subscriptions:  # the application may have subscribed it meanwhile
        raise error(ErrorCode.ALREADY_SUBSCRIBED)
    if len(client.subscriptions) >= client.service.spec.limits.max_subscriptions:
        raise error(ErrorCode.LIMIT_EXCEEDED)  # others were subscribed meanwhile
    client.subscriptions[name] = sub
    held = board.enter(name, client, options, positioned=tracked)
    page = recovery = None
    try:
        if tracked:
            page, recovery = await _read(client, name, sub, wish)
        else:
            await board.listen(name)
        if options.presence:
            await board.attendance.appear(name, sub.info)
        if client.cause is not None:
            raise SessionClosed(client.cause)  # meanwhile
        if sub.revoked:
            raise error(ErrorCode.PERMISSION_DENIED)
    except BaseException:
        client.subscriptions.pop(name, None)
        sub.end(client, name)
        raise
    return Entering(client, name, sub, held, wish, page, recovery)


async def _read(
    client: Client, name: str, sub: Subscription, wish: Wish
) -> tuple[Page, Recovery | None]:
    board, options, asked = client.service.board, sub.channel.options, wish.asked
    recovery: Recovery | None = None
    if options.cache:
        page = await board.read(name, options, limit=1, reverse=True)
        recovery = recover_cache(asked if asked and asked.offset else None, page)
    elif asked is not None and options.recover:
        limit = client.service.spec.limits.recovered_publications
        page = await board.read(name, options, since=asked, limit=limit + 1)
        recovery = recover(asked, page, limit)
    else:
        page = await board.read(name, options, limit=0)
        if asked is not None:
            recovery = Recovery(False, (), page.top.offset)
    if recovery is not None and not recovery.recovered and wish.reject and asked is not None:
        raise error(ErrorCode.UNRECOVERABLE_POSITION)
    return page, recovery
