"""Who is present, and notes: the last message of each subject at NATS.

An entry of presence is a message that names its own time to live, and its age is taken by the
server's time when it is read; the server removes it some time after. Striking out stores an empty
message, which hides the entry at once. Counting reads the entries: a server counts connections, but
not different users.
"""

from __future__ import annotations

import msgspec

from pongee.brokers.base import Counts
from pongee.brokers.nats_jetstream import Server
from pongee.brokers.nats_messages import conditions
from pongee.channels.publication import ClientInfo
from pongee.limits import NATS_PAGE, NATS_PAGE_BYTES

__all__ = ["State"]


class _Entry(msgspec.Struct, array_like=True):
    """A client, and the seconds until it has to be entered anew."""

    ttl: float
    info: ClientInfo


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class State:
    """Reads and writes the state.

    Args:
        server: that keeps it. Deadlines are set by the caller.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._names = server.names

    async def enter(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Enter or renew."""
        subject = self._names.present(channel, info.client)
        await self._server.store(subject, _encode(_Entry(ttl, info)), conditions(ttl=ttl))

    async def strike(self, channel: str, client: str) -> None:
        """Strike out; harmless if it is not there."""
        subject = self._names.present(channel, client)
        await self._server.store(subject, b"", conditions(ttl=0.0))

    async def present(self, channel: str) -> dict[str, ClientInfo]:
        """Read who is there."""
        found: dict[str, ClientInfo] = {}
        first, more = 1, True
        while more:
            stored, more = await self._server.some(
                self._names.state,
                self._names.present(channel),
                first,
                NATS_PAGE,
                NATS_PAGE_BYTES,
            )
            now = self._server.now()
            for one in stored:
                first = one.sequence + 1
                try:
                    entry = _decode(one.data) if one.data else None
                except msgspec.MsgspecError:
                    continue  # somebody else's
                if entry is not None and now - one.at < entry.ttl:
                    found[entry.info.client] = entry.info
            more = more and bool(stored)
        return found

    async def count(self, channel: str) -> Counts:
        """Count who is there."""
        present = await self.present(channel)
        return Counts(len(present), len({info.user for info in present.values()}))

    async def put(self, name: str, data: bytes) -> None:
        """Keep a note."""
        await self._server.store(self._names.note(name), data, conditions())

    async def get(self, name: str) -> bytes | None:
        """Read a note."""
        stored = await self._server.last(self._names.state, self._names.note(name))
        return None if stored is None else stored.data
