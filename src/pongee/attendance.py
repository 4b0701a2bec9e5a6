"""Who of this process is present in which channel, and who is told of coming and going."""

from __future__ import annotations

from collections import deque
from functools import partial

from pongee.brokers.base import Broker
from pongee.brokers.errands import Errand, Errands, Key
from pongee.channels.publication import ClientInfo
from pongee.clock import Timer, TimerWheel
from pongee.errors import BrokerUnavailable
from pongee.limits import LEAVE_DELAY, OWED_STEPS, PRESENCE_REFRESH, PRESENCE_TTL

__all__ = ["Attendance"]


class Attendance:
    """Enters this process's members at the broker, renews their leases, and says their farewells.

    Args:
        broker: knows who is present, of every process.
        errands: keep the steps of one client in order.
        wheel: for leases and late farewells.
    """

    def __init__(self, broker: Broker, errands: Errands, wheel: TimerWheel) -> None:
        self._broker = broker
        self._errands = errands
        self._wheel = wheel
        self._present: dict[str, dict[str, ClientInfo]] = {}
        self._departing: dict[tuple[str, str], dict[str, tuple[Timer, ClientInfo]]] = {}
        self._refresher: Timer | None = None
        # What failed because the link was down: nobody else would strike out who left meanwhile.
        self._owed: deque[tuple[Key, Errand]] = deque(maxlen=OWED_STEPS)

    async def appear(self, channel: str, info: ClientInfo) -> None:
        """Enter `info` among those present; renewed until `disappear`.

        Raises:
            BrokerUnavailable: it may or may not be entered.
        """
        # Before the answer, and in turn: whoever leaves meanwhile, or left just now and is back,
        # must be found as it is.
        self._present.setdefault(channel, {})[info.client] = info
        renew = partial(self._broker.add_presence, channel, info, PRESENCE_TTL)
        await self._errands.run((channel, info.client), renew)
        if self._refresher is None:
            self._refresher = self._wheel.call_later(PRESENCE_REFRESH, self.renew)

    def disappear(self, channel: str, info: ClientInfo) -> None:
        """Strike `info` out, soon."""
        here = self._present.get(channel)
        if here is not None and here.pop(info.client, None) is not None:
            if not here:
                del self._present[channel]
            strike = partial(self._broker.remove_presence, channel, info.client, info.user)
            self._owe((channel, info.client), strike)

    def tell_join(self, channel: str, info: ClientInfo) -> None:
        """Tell the channel's members that `info` came."""
        self._errands.add((channel, info.client), partial(self._broker.join, channel, info))

    def tell_leave(self, channel: str, info: ClientInfo, *, lost: bool = False) -> None:
        """Tell the channel's members that `info` left.

        Args:
            channel: its name.
            info: who.
            lost: the connection broke, and may be back in a moment. The farewell is told when the
                user has come back, or after `LEAVE_DELAY`: users do not flicker.
        """
        if not lost or not info.user:
            self._owe((channel, info.client), partial(self._broker.leave, channel, info))
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
            self._owe((channel, info.client), partial(self._broker.leave, channel, info))
        if not departing:
            self._departing.pop((channel, user), None)

    def renew(self) -> None:
        """Renew every entry, now and from now on."""
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None
        for channel, infos in self._present.items():
            for info in infos.values():
                key = (channel, info.client)
                if key not in self._errands:  # else it is late already, or leaving
                    add = partial(self._broker.add_presence, channel, info, PRESENCE_TTL)
                    self._errands.add(key, add)
        if self._present:
            self._refresher = self._wheel.call_later(PRESENCE_REFRESH, self.renew)

    def pay(self) -> None:
        """Do what failed while the link was down, and renew every entry."""
        owed, self._owed = self._owed, deque(maxlen=OWED_STEPS)
        for key, step in owed:
            self._owe(key, step)
        self.renew()

    def say_farewells(self) -> None:
        """Tell now of those whose return was waited for: the process ends."""
        for (channel, user), departing in list(self._departing.items()):
            for client in list(departing):
                self._tell_late(channel, user, client)

    def _owe(self, key: Key, step: Errand) -> None:
        async def errand() -> None:
            try:
                await step()
            except BrokerUnavailable:
                self._owed.append((key, step))
                raise

        self._errands.add(key, errand)

    def stop(self) -> None:
        """Renew no more."""
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None

    def arrived(self, channel: str, info: ClientInfo) -> None:
        """Say the farewells that waited for `info`'s user to come back."""
        for client in tuple(self._departing.get((channel, info.user), ())):
            if client != info.client:
                self._tell_late(channel, info.user, client)
