"""Between the broker and this process's members: who is subscribed, present, and at which position.

One switchboard per process; it is the broker's `Sink`. What the broker brings goes to the hub,
which hands it to the members. Here it is checked for gaps, once for all members of a channel: they
all get the same sequence, so that one position per channel is enough. After a gap every member that
was promised to be told is told, and the others go on.

A member that has to know its position enters in three steps, with the broker's answers in between:

1. `enter`: it is in the hub, and what is published from now on is held for it;
2. `read`: the stream's top, and what the member missed, are read;
3. `Held.release`: what was held and is beyond the top comes back, and from then on publications go
   to the member itself; those that the broker's history showed before the broker brought them are
   left out. The caller writes its reply in the same step, so that nothing is lost, doubled or out
   of order.

Not for use from other threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pongee.brokers.base import Broker, Page, Stream
from pongee.brokers.errands import Errands
from pongee.channels.encoding import Format
from pongee.channels.options import PLAIN, ChannelOptions
from pongee.channels.publication import ClientInfo, Position, Presence, Publication, encode_plain
from pongee.clock import Timer, TimerWheel
from pongee.hub import Hub, Subscriber
from pongee.limits import HELD_MESSAGES, LEAVE_DELAY, PRESENCE_REFRESH, PRESENCE_TTL
from pongee.links.base import Batch, Outgoing

__all__ = ["Gap", "Held", "Member", "Switchboard", "stream_of"]

Encode = Callable[[str, Any], str | bytes]

_TOO_MUCH = -1  # in place of a number of breaks: more was published than is held


class Gap(Exception):
    """Something was lost between the history and what came live: the member has to start again."""


class Member(Subscriber, Protocol):
    """Who is subscribed."""

    def on_gap(self, channel: str) -> None:
        """Learn that a publication was lost; called only if it entered with a position."""


class _Entry:
    """What this process knows of one channel that it has members in."""

    __slots__ = ("asked", "breaks", "listened", "members", "options", "position", "proven")

    def __init__(self, options: ChannelOptions) -> None:
        self.options = options
        # Members, and whether each was promised to be told of gaps.
        self.members: dict[Member, bool] = {}
        # Of what was handed over last; until something was, of the oldest history that was read.
        self.position: Position | None = None
        self.proven = False  # whether something was
        self.breaks = 0  # how often the sequence was broken
        self.asked = False  # whether the broker was asked to hand the channel over
        self.listened = False  # whether it does


class Held:
    """What is published to a member that is still subscribing."""

    __slots__ = ("_board", "_breaks", "_channel", "_entry", "_member", "_messages")

    def __init__(self, board: Switchboard, channel: str, entry: _Entry, member: Member) -> None:
        self._board = board
        self._channel = channel
        self._entry = entry
        self._member = member
        self._breaks = entry.breaks
        self._messages: list[Outgoing] = []

    def take(self, batch: Batch) -> None:
        """Hold a turn's publications."""
        self._messages += batch.messages
        if len(self._messages) > HELD_MESSAGES:
            self._messages.clear()
            self._breaks = _TOO_MUCH

    def release(self, top: Position | None) -> list[Outgoing]:
        """End holding; returns what came after `top`, in order.

        Args:
            top: the position up to which the member is told otherwise; `None` is no position.

        Raises:
            Gap: it does not follow on `top`; the member is still in the channel.
        """
        self._board.hub.redirect(self._channel, self._member)
        if self._breaks == _TOO_MUCH:
            raise Gap
        if top is None:
            return self._messages
        entry, position = self._entry, self._entry.position
        assert position is not None  # noqa: S101 - its history has been read
        if self._breaks != entry.breaks or position.epoch != top.epoch:
            raise Gap
        rest = _after(top.offset, self._messages)
        end = top.offset + sum(message.offset > 0 for message in rest)
        if not entry.proven or position.offset < end:
            self._wait_for(end)
        elif position.offset > end:  # they rise by one, so one after the top is missing
            raise Gap
        return rest

    def _wait_for(self, offset: int) -> None:
        """Keep from the member what comes late: it has been told everything up to `offset`."""
        hub, channel, member = self._board.hub, self._channel, self._member

        def pass_on(batch: Batch) -> None:
            news = _after(offset, batch.messages)
            if news:
                member.deliver(batch if len(news) == len(batch.messages) else Batch(news))
            if any(message.offset > offset for message in news):
                hub.redirect(channel, member)

        hub.unsubscribe(channel, member)
        hub.subscribe(channel, member, pass_on)


def _after(offset: int, messages: list[Outgoing]) -> list[Outgoing]:
    """Leave out what is up to `offset`; what has none, because it was not kept, stays."""
    return [message for message in messages if not message.offset or message.offset > offset]


class Switchboard:
    """Channels of this process, between its broker and its hub.

    Args:
        broker: carries channels; started by `start`.
        wheel: for leases and late farewells.
        encoders: write a publication or a `Presence` for the client protocol's formats.
        node: names this process.
    """

    def __init__(
        self,
        broker: Broker,
        wheel: TimerWheel,
        encoders: dict[Format, Encode] | None = None,
        node: str = "",
    ) -> None:
        self.broker = broker
        self.node = node or secrets.token_hex(8)
        self.hub = Hub(encode=self._encode)
        self._arrivals = Hub(encode=self._encode)  # joins and leaves, for those who want them
        self._encoders = encoders or {}
        self._wheel = wheel
        self._entries: dict[str, _Entry] = {}
        self._present: dict[str, dict[str, ClientInfo]] = {}
        self._departing: dict[tuple[str, str], dict[str, tuple[Timer, ClientInfo]]] = {}
        self._errands = Errands()
        self._refresher: Timer | None = None
        self._started = False

    async def start(self) -> None:
        """Begin. Idempotent."""
        if not self._started:
            self._started = True
            await self.broker.start(self, self.node)

    async def stop(self) -> None:
        """Finish what is under way, and end the broker. Idempotent."""
        if self._started:
            self._started = False
            await self._errands.finish()
            await self.broker.stop()
            self._refresher = None

    # Publishing

    async def publish(
        self,
        channel: str,
        publication: Publication,
        options: ChannelOptions = PLAIN,
        *,
        idempotency_key: str | None = None,
    ) -> Position:
        """Publish; see `Broker.publish`. ▲"""
        if not self._started:
            await self.start()
        return await self.broker.publish(
            channel,
            publication,
            stream_of(options),
            idempotency_key=idempotency_key,
            idempotency_window=options.idempotency_window,
        )

    # Members

    def enter(
        self, channel: str, member: Member, options: ChannelOptions, *, positioned: bool
    ) -> Held:
        """Let `member` in; what is published is held until `Held.release`."""
        entry = self._enter(channel, member, options, positioned)
        held = Held(self, channel, entry, member)
        self.hub.subscribe(channel, member, held.take)
        return held

    async def enter_live(
        self, channel: str, member: Member, options: ChannelOptions, info: ClientInfo
    ) -> None:
        """Let `member` in for what is published from now on, and be present.

        Raises:
            BrokerUnavailable: it is not in.
        """
        self._enter(channel, member, options, positioned=False)
        self.hub.subscribe(channel, member)
        try:
            await self.listen(channel)
            if options.presence:
                await self.appear(channel, info)
        except BaseException:
            self.leave(channel, member)
            self.disappear(channel, info)
            raise
        if options.join_leave:
            self.tell_join(channel, info)

    def leave_live(
        self,
        channel: str,
        member: Member,
        options: ChannelOptions,
        info: ClientInfo,
        *,
        lost: bool = False,
    ) -> None:
        """Let a member go that came by `enter_live`."""
        self.leave(channel, member)
        if options.presence:
            self.disappear(channel, info)
        if options.join_leave:
            self.tell_leave(channel, info, lost=lost)

    def _enter(
        self, channel: str, member: Member, options: ChannelOptions, positioned: bool
    ) -> _Entry:
        entry = self._entries.get(channel)
        if entry is None:
            entry = self._entries[channel] = _Entry(options)
        entry.members[member] = positioned
        return entry

    async def listen(self, channel: str) -> None:
        """See that the broker hands `channel` over, while it has members.

        Raises:
            BrokerUnavailable: it could not be arranged.
        """
        if not self._started:
            await self.start()
        entry = self._entries.get(channel)
        if entry is not None and not entry.listened:
            entry.asked = True
            await self._errands.run((channel, ""), partial(self._listen, channel, entry))

    async def _listen(self, channel: str, entry: _Entry) -> None:
        if not entry.listened:
            await self.broker.subscribe(channel)
            entry.listened = True

    async def read(
        self,
        channel: str,
        options: ChannelOptions,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """Read the stream of a channel that a member has entered; see `Broker.history`."""
        await self.listen(channel)
        stream = stream_of(options)
        assert stream is not None  # noqa: S101 - positions need a stream, checked when declared
        entry = self._entries.get(channel)
        before = None if entry is None else entry.position
        page = await self.broker.history(channel, stream, since=since, limit=limit, reverse=reverse)
        if entry is None:
            return page  # the member left while the broker was asked to listen
        now, top = entry.position, page.top
        if now is None:
            entry.position = top
        elif now.epoch != top.epoch:
            if now is before:  # nothing was published since the stream began anew
                self._tell_gap(channel, entry)
                entry.position, entry.proven = top, False
        elif not entry.proven and top.offset < now.offset:
            entry.position = top
        return page

    def hear_arrivals(self, channel: str, member: Member) -> None:
        """Tell `member` who comes and goes."""
        self._arrivals.subscribe(channel, member)

    def leave(self, channel: str, member: Member) -> None:
        """Let `member` go; nothing more reaches it. Harmless when it is not in."""
        self.hub.unsubscribe(channel, member)
        self._arrivals.unsubscribe(channel, member)
        entry = self._entries.get(channel)
        if entry is None or entry.members.pop(member, None) is None or entry.members:
            return
        if entry.asked:
            self._errands.add((channel, ""), partial(self._listen_no_more, channel))
        else:
            del self._entries[channel]

    async def _listen_no_more(self, channel: str) -> None:
        entry = self._entries.get(channel)
        if entry is not None and not entry.members:  # nobody came meanwhile
            del self._entries[channel]
            await self.broker.unsubscribe(channel)

    # Presence

    async def appear(self, channel: str, info: ClientInfo) -> None:
        """Enter `info` among those present; renewed until `disappear`.

        Raises:
            BrokerUnavailable: it may or may not be entered.
        """
        # Before the answer, and in turn: whoever leaves meanwhile, or left just now and is back,
        # must be found as it is.
        self._present.setdefault(channel, {})[info.client] = info
        renew = partial(self.broker.add_presence, channel, info, PRESENCE_TTL)
        await self._errands.run((channel, info.client), renew)
        if self._refresher is None:
            self._refresher = self._wheel.call_later(PRESENCE_REFRESH, self._renew)

    def disappear(self, channel: str, info: ClientInfo) -> None:
        """Strike `info` out, soon."""
        here = self._present.get(channel)
        if here is not None and here.pop(info.client, None) is not None:
            if not here:
                del self._present[channel]
            strike = partial(self.broker.remove_presence, channel, info.client, info.user)
            self._errands.add((channel, info.client), strike)

    def tell_join(self, channel: str, info: ClientInfo) -> None:
        """Tell the channel's members that `info` came."""
        self._errands.add((channel, info.client), partial(self.broker.join, channel, info))

    def tell_leave(self, channel: str, info: ClientInfo, *, lost: bool = False) -> None:
        """Tell the channel's members that `info` left.

        Args:
            channel: its name.
            info: who.
            lost: the connection broke, and may be back in a moment. The farewell is told when the
                user has come back, or after `LEAVE_DELAY`: users do not flicker.
        """
        if not lost or not info.user:
            self._errands.add((channel, info.client), partial(self.broker.leave, channel, info))
            return
        timer = self._wheel.call_later(
            LEAVE_DELAY, lambda: self._tell_late(channel, info.user, info.client)
        )
        departing = self._departing.setdefault((channel, info.user), {})
        departing[info.client] = (timer, info)

    def _tell_late(self, channel: str, user: str, client: str) -> None:
        departing = self._departing.get((channel, user), {})
        if client in departing:
            timer, info = departing.pop(client)
            timer.cancel()
            self._errands.add((channel, info.client), partial(self.broker.leave, channel, info))
        if not departing:
            self._departing.pop((channel, user), None)

    def _renew(self) -> None:
        self._refresher = None
        for channel, infos in self._present.items():
            for info in infos.values():
                renew = partial(self.broker.add_presence, channel, info, PRESENCE_TTL)
                self._errands.add((channel, info.client), renew)
        if self._present:
            self._refresher = self._wheel.call_later(PRESENCE_REFRESH, self._renew)

    # What the broker tells (brokers.base.Sink)

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Hand over to the members, unless it came before; see whether one is missing. ▲"""
        entry = self._entries.get(channel)
        # What was under way for members of before says nothing of where the stream is.
        if entry is None or not entry.listened:
            return
        offset = publication.offset
        if offset:
            before = entry.position
            if before is not None and before.epoch == publication.epoch:
                if offset <= before.offset and entry.proven:
                    return  # a late duplicate
                if offset > before.offset + 1:
                    self._tell_gap(channel, entry)
            elif before is not None:
                self._tell_gap(channel, entry)
            entry.position, entry.proven = publication.position, True
        self.hub.publish(
            channel,
            publication,
            publication.key,
            offset=offset,
            overflow=entry.options.overflow if entry.options is not PLAIN else None,
        )

    def _tell_gap(self, channel: str, entry: _Entry) -> None:
        entry.breaks += 1
        for member, positioned in list(entry.members.items()):
            if positioned:
                member.on_gap(channel)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Tell those who want to know; then say the farewells that waited for this user."""
        self._arrivals.publish(channel, Presence(info, left=False))
        for client in tuple(self._departing.get((channel, info.user), ())):
            if client != info.client:
                self._tell_late(channel, info.user, client)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell those who want to know."""
        self._arrivals.publish(channel, Presence(info, left=True))

    def on_control(self, data: bytes) -> None:
        """Nothing is sent yet."""

    def on_link(self, up: bool) -> None:
        """Nothing is done yet."""

    def _encode(self, channel: str, message: Any, form: Format) -> str | bytes:
        encode = self._encoders.get(form)
        return encode_plain(message, form) if encode is None else encode(channel, message)


def stream_of(options: ChannelOptions) -> Stream | None:
    """Return what a channel keeps, or `None`."""
    if not options.history:
        return None
    return Stream(options.history, options.history_ttl, options.history_meta_ttl)
