"""A switchboard on a broker whose network is moved by hand, and members that take note."""

from __future__ import annotations

from collections.abc import Callable

from pongee.channels.encoding import Format
from pongee.channels.options import ChannelOptions
from pongee.channels.publication import ClientInfo, Position, Presence, Publication, encode_plain
from pongee.clock import TimerWheel
from pongee.entries import Held
from pongee.links.base import Batch
from pongee.switchboard import Switchboard
from pongee.testing import ManualClock, eventually
from tests.centrifuge.paced import PacedBroker

KEPT = ChannelOptions(history=100, history_ttl=60, recover=True, positioned=True)
PLAIN = ChannelOptions()
SOCIAL = ChannelOptions(presence=True, join_leave=True)
ROOM = "room"
ANN, ANN2 = ClientInfo("ann", "1"), ClientInfo("ann", "2")
NOBODY = ClientInfo("", "3")


class Member:
    """Takes note of what it gets, and of gaps."""

    format: Format = "json"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.gaps = 0

    @property
    def deliver(self) -> Callable[[Batch], None]:
        """Takes publications."""
        return lambda batch: self.got.extend(str(message.data) for message in batch.messages)

    def on_gap(self, channel: str) -> None:
        """Count it."""
        self.gaps += 1


def _encode(channel: str, message: Publication | Presence) -> str | bytes:
    if isinstance(message, Presence):
        return f"{'-' if message.left else '+'}{message.info.client}"
    return encode_plain(message, "json")


class Board:
    """A switchboard on a broker whose network is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wheel = TimerWheel(self.clock)
        self.broker = PacedBroker(self.clock, self.wheel)
        self.board = Switchboard(self.broker, self.wheel, {"json": _encode})
        self.number = 0

    async def publish(self, number: int = 1, *, options: ChannelOptions = KEPT) -> None:
        for _ in range(number):
            self.number += 1
            await self.board.publish(ROOM, Publication(b"%d" % self.number), options)

    async def enter(self, member: Member, *, positioned: bool = True) -> Held:
        held = self.board.enter(ROOM, member, KEPT, positioned=positioned)
        await self.board.listen(ROOM)
        return held

    async def join(self, member: Member) -> Position:
        """Enter with a position; what was held comes first."""
        held = await self.enter(member)
        page = await self.board.read(ROOM, KEPT, limit=0)
        member.got += [str(message.data) for message in held.release(page.top)]
        return page.top

    async def quiet(self) -> None:
        """Let everything arrive, and everybody be told."""
        for _ in range(3):  # what arrives may owe the broker something
            self.broker.arrive(self.broker.on_the_way)
            await self.board._errands.finish()
        await eventually(lambda: not self.board.hub._busy and not self.board._arrivals._busy)


def texts(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def enter_live(at: Board, info: ClientInfo) -> Member:
    member = Member()
    await at.board.enter_live(ROOM, member, SOCIAL, info)
    return member


async def listener(at: Board) -> Member:
    member = await enter_live(at, NOBODY)
    at.board.hear_arrivals(ROOM, member)
    await at.quiet()
    member.got.clear()
    return member
