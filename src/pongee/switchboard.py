"""Between the broker and this process's members: who is subscribed, present, and at which position.

One switchboard per process; it is the broker's `Sink`. What the broker brings goes to the hub,
which hands it to the members. Here it is checked for gaps, once for all members of a channel: they
all get the same sequence, so that one position per channel is enough. What did not come is read
from the history (`pongee.repair`); where that is gone, every member that was promised to be told is
told, and the others go on.

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

import asyncio
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from pongee.attendance import Attendance
from pongee.brokers.base import Broker, Page
from pongee.brokers.errands import Errands
from pongee.brokers.waiting import WaitingRoom
from pongee.channels.encoding import Format
from pongee.channels.options import PLAIN, ChannelOptions, stream_of
from pongee.channels.publication import ClientInfo, Position, Presence, Publication, encode_plain
from pongee.clock import Timer, TimerWheel
from pongee.entries import Entry, Held, Member
from pongee.errors import BrokerUnavailable
from pongee.hub import Hub
from pongee.limits import POSITION_CHECK, SWEEP_REST, SWEEP_STEP
from pongee.repair import Repair

__all__ = ["Switchboard"]


Encode = Callable[[str, Any], str | bytes]


class Switchboard:
    """Channels of this process, between its broker and its hub.

    Args:
        broker: carries channels; started by `start`.
        wheel: for leases and late farewells.
        encoders: write a publication or a `Presence` for the client protocol's formats.
        node: names this process.
        buffer: bytes of publications that may wait for a broken link; 0 fails them at once.

    Attributes:
        attendance: who of this process is present.
        on_link_changed: called at every change of the broker's link, with whether it is up.
        take_control: called with what another node, or this one, has sent.
    """

    def __init__(
        self,
        broker: Broker,
        wheel: TimerWheel,
        encoders: dict[Format, Encode] | None = None,
        node: str = "",
        buffer: int = 0,
    ) -> None:
        self.broker = broker
        self.node = node or secrets.token_hex(8)
        self.hub = Hub(encode=self._encode)
        self._arrivals = Hub(encode=self._encode)  # joins and leaves, for those who want them
        self._encoders = encoders or {}
        self._wheel = wheel
        self._entries: dict[str, Entry] = {}
        self._errands = Errands()
        self.attendance = Attendance(broker, self._errands, wheel)
        self._repair = Repair(
            broker, self._errands, wheel, hand_over=self._hand_over, take=self.on_publication
        )
        self._waiting = WaitingRoom(buffer, wheel)
        self._checker: Timer | None = None
        self._starting = asyncio.Lock()
        self._started = False
        self._stopped = False
        self._greeted: set[tuple[str, str]] = set()  # sessions that others were told of
        self.on_link_changed: Callable[[bool], None] = lambda up: None
        self.take_control: Callable[[bytes], None] = lambda data: None

    async def start(self) -> None:
        """Begin. Idempotent.

        Raises:
            ConfigurationError: the broker can never be reached as it is configured.
        """
        async with self._starting:
            self._stopped = False
            if not self._started:
                await self.broker.start(self, self.node)
                self._started = True
                if not self.broker.reliable:
                    self._checker = self._wheel.call_later(POSITION_CHECK, self._check)

    async def _start_lately(self) -> None:
        """Begin for whoever needs the broker before, or without, a start."""
        if self._stopped:
            raise BrokerUnavailable("the process ends")
        await self.start()

    async def stop(self) -> None:
        """Finish what is under way, and end the broker. Idempotent."""
        if self._started:
            self._started, self._stopped = False, True
            if self._checker is not None:
                self._checker.cancel()
            self.turn_away()
            self.attendance.say_farewells()
            await self._errands.finish()
            await self.broker.stop()
            self.attendance.stop()

    def turn_away(self) -> None:
        """Let no publication wait for the link any longer: the process leaves."""
        self._waiting.close("the process ends")

    # Publishing

    async def publish(
        self,
        channel: str,
        publication: Publication,
        options: ChannelOptions = PLAIN,
        *,
        idempotency_key: str | None = None,
    ) -> Position:
        """Publish; see `Broker.publish`. ▲

        While the link is down it fails at once, or waits where there is a buffer.
        """
        if not self._started:
            await self._start_lately()
        if self._waiting.size and not self.broker.health.up:
            await self._waiting.enter(len(publication.data), self.broker.health.reason)
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
        held = Held(self.hub, channel, entry, member)
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
                await self.attendance.appear(channel, info)
        except BaseException:
            self.leave(channel, member)
            self.attendance.disappear(channel, info)
            raise
        if options.join_leave:
            self._greeted.add((channel, info.client))
            self.attendance.tell_join(channel, info)

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
            self.attendance.disappear(channel, info)
        if (channel, info.client) in self._greeted:
            self._greeted.discard((channel, info.client))
            self.attendance.tell_leave(channel, info, lost=lost)

    def _enter(
        self, channel: str, member: Member, options: ChannelOptions, positioned: bool
    ) -> Entry:
        entry = self._entries.get(channel)
        if entry is None:
            entry = self._entries[channel] = Entry(options)
        entry.members[member] = positioned
        return entry

    async def listen(self, channel: str) -> None:
        """See that the broker hands `channel` over, while it has members.

        Raises:
            BrokerUnavailable: it could not be arranged.
        """
        if not self._started:
            await self._start_lately()
        entry = self._entries.get(channel)
        if entry is not None and not entry.listened:
            entry.asked = True
            await self._errands.run((channel, ""), partial(self._listen, channel, entry))

    async def _listen(self, channel: str, entry: Entry) -> None:
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
                entry.tell_gap(channel)
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
            entry.listened = False
            await self.broker.unsubscribe(channel)

    # What the broker tells (brokers.base.Sink)

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Hand over to the members, unless it came before; see whether one is missing. ▲"""
        entry = self._entries.get(channel)
        # What was under way for members of before says nothing of where the stream is.
        if entry is None or not entry.listened:
            return
        offset, before = publication.offset, entry.position
        if offset and before is not None:
            if entry.waiting is not None:
                self._repair.hold(channel, entry, publication)
                return
            if before.epoch != publication.epoch:
                entry.tell_gap(channel)
            elif offset <= before.offset and entry.proven:
                return  # a late duplicate
            elif offset > before.offset + 1:
                self._repair.begin(channel, entry, publication)
                return
        self._hand_over(channel, entry, publication)

    def _hand_over(self, channel: str, entry: Entry, publication: Publication) -> None:
        offset = publication.offset
        if offset:
            entry.position, entry.proven, entry.quiet = publication.position, True, False
        self.hub.publish(
            channel,
            publication,
            publication.key,
            offset=offset,
            overflow=entry.options.overflow if entry.options is not PLAIN else None,
        )

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Tell those who want to know; then say the farewells that waited for this user."""
        self._arrivals.publish(channel, Presence(info, left=False))
        self.attendance.arrived(channel, info)

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell those who want to know."""
        self._arrivals.publish(channel, Presence(info, left=True))

    def on_control(self, data: bytes) -> None:
        """Pass on what a node has sent."""
        self.take_control(data)

    def on_link(self, up: bool) -> None:
        """Once the link is up again, see what was missed, and be present again."""
        if up:
            self._waiting.open()
            self.attendance.pay()
            self._look_at(iter(list(self._entries.items())))
        self.on_link_changed(up)

    def positioned(self) -> set[Member]:
        """Members that were promised to be told of gaps."""
        return {
            member
            for entry in self._entries.values()
            for member, positioned in entry.members.items()
            if positioned
        }

    def _check(self) -> None:
        """Look at the positions of channels in which nothing came since the last look."""
        self._checker = self._wheel.call_later(POSITION_CHECK, self._check)
        if not self.broker.health.up:
            return
        quiet = [(channel, entry) for channel, entry in self._entries.items() if entry.quiet]
        for entry in self._entries.values():
            entry.quiet = True
        self._look_at(iter(quiet))

    def _look_at(self, entries: Iterator[tuple[str, Entry]]) -> None:
        """Look at the positions of some channels now, and of the rest a little later."""
        some = list(islice(entries, SWEEP_STEP))
        for channel, entry in some:
            self._repair.look(channel, entry)
        if len(some) == SWEEP_STEP and self._started:
            self._wheel.call_later(SWEEP_REST, lambda: self._look_at(entries))

    def _encode(self, channel: str, message: Any, form: Format) -> str | bytes:
        encode = self._encoders.get(form)
        return encode_plain(message, form) if encode is None else encode(channel, message)
