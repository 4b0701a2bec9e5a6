"""The Redis servers of an address, connected: one, or the masters of a cluster."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    RedisError,
)

from pongee.brokers.redis_address import Address, Host
from pongee.brokers.redis_wire import Commands, Ears, told
from pongee.errors import BrokerUnavailable, ConfigurationError

__all__ = ["Servers", "Shard"]

OLDEST = (6, 2)
"""The first server that has all we use."""

SHARDED = (7, 0)
"""The first server whose clusters can keep a message within its shard."""


class Shard(NamedTuple):
    """A server, and two connections to it.

    Attributes:
        host: where it is.
        commands: for commands.
        ears: for subscriptions.
        s: goes before the verbs of Pub/Sub where the server can keep messages within its shard.
    """

    host: Host
    commands: Commands
    ears: Ears
    s: str


class Servers:
    """The servers of an address.

    Args:
        address: of them.
        hear: takes the subject and the message of whatever is heard.
        ended: is told why a connection is of no use any more.
        scripts: what every server shall know.

    Attributes:
        shards: those that are connected; the first is for what belongs to no channel.
    """

    def __init__(
        self,
        address: Address,
        hear: Callable[[bytes, bytes], None],
        ended: Callable[[str], None],
        scripts: tuple[str, ...],
    ) -> None:
        self.shards: list[Shard] = []
        self._address = address
        self._hear = hear
        self._ended = ended
        self._scripts = scripts
        self._seeds = list(address.hosts)
        self._slots: list[Shard] = []
        self._open: list[Commands | Ears] = []
        self._tls: ssl.SSLContext | None = None

    async def open(self) -> None:
        """Connect; raises what the network does.

        Raises:
            ConfigurationError: a server is too old, of another kind, or wants another login.
        """
        address = self._address
        self._tls = address.certificates()  # anew each time: they may have been renewed
        try:
            if address.kind == "cluster":
                await self._join_cluster()
            elif address.kind == "sentinel":
                await self._follow_sentinels()
            else:
                await self._add(address.hosts[0])
        except RedisError as error:
            cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
            if isinstance(cause, AuthenticationError | NoPermissionError):
                raise ConfigurationError(
                    f"{address.name} refuses the broker's user name or password: {told(cause)}"
                ) from None
            raise BrokerUnavailable(f"{address.name}: {told(error)}") from None

    async def close(self) -> None:
        """Let go of every connection, also of those that are just being made."""
        wires, self._open = self._open, []
        self.shards, self._slots = [], []
        for wire in wires:
            wire.cut()  # all of them, also if we are cancelled
        for wire in wires:
            await wire.close()

    def of(self, key: bytes) -> Shard:
        """Return the server that keeps `key`. ▲

        Raises:
            BrokerUnavailable: none is connected.
        """
        if self._slots:
            return self._slots[key_slot(key)]
        if not self.shards:
            raise BrokerUnavailable(f"{self._address.name}: not connected")
        return self.shards[0]

    def moved(self, error: MovedError) -> Shard | None:
        """Learn that a slot belongs to another server; `None` if that is not connected."""
        for shard in self.shards:
            if shard.host == (error.host, error.port) and self._slots:
                self._slots[error.slot_id] = shard
                return shard
        return None

    async def _add(self, host: Host) -> Shard:
        name, connection = self._address.name, self._address.connection
        commands = Commands(connection(host, self._tls), name, self._ended)
        ears = Ears(connection(host, self._tls), name, self._ended, self._hear)
        self._open += [commands, ears]
        await commands.open()
        await ears.open()
        version = await self._examine(commands)
        for script in self._scripts:
            await commands.ask("SCRIPT", "LOAD", script)
        is_sharded = self._address.kind == "cluster" and version >= SHARDED
        shard = Shard(host, commands, ears, "S" if is_sharded else "")
        self.shards.append(shard)
        return shard

    async def _examine(self, commands: Commands) -> tuple[int, ...]:
        """Return the version of a server that is fit for us."""
        name = self._address.name
        server = dict(re.findall(rb"(\w+):([^\r\n]*)", await commands.ask("INFO", "server")))
        text = server.get(b"redis_version", b"").decode()
        version = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
        if version < OLDEST:
            raise ConfigurationError(
                f"{name} is version {text or 'unknown'}; 6.2 or newer is needed"
            )
        in_cluster = server.get(b"redis_mode") == b"cluster"
        if in_cluster and self._address.kind != "cluster":
            raise ConfigurationError(f"{name} is part of a cluster; write redis+cluster://…")
        if in_cluster and b"cluster_state:ok" not in await commands.ask("CLUSTER", "INFO"):
            raise BrokerUnavailable(f"{name}: the cluster is down")
        await self.require_master(commands)
        return version

    async def require_master(self, commands: Commands) -> None:
        """See that a server takes writes: it may have become a replica, and keep its connections.

        Raises:
            BrokerUnavailable: it does not.
        """
        if b"role:slave" in await commands.ask("INFO", "replication"):
            raise BrokerUnavailable(f"{self._address.name}: is a replica, and takes no writes")

    async def _follow_sentinels(self) -> None:
        """Connect to the master, if it is one: a sentinel that was cut off may not know better."""
        master = await self._find_master()
        first = self._seeds[0]
        self._seeds.append(self._seeds.pop(0))  # unless it works, another is asked first next time
        await self._add(master)
        self._seeds.remove(first)
        self._seeds.insert(0, first)

    async def _find_master(self) -> Host:
        """Ask the sentinels, one after the other."""
        service = self._address.service
        reason = ""
        for host in self._in_turn():
            try:
                answer = await self._ask_once(
                    host, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service, sentinel=True
                )
            except (RedisError, BrokerUnavailable) as error:
                reason = reason or f"no sentinel answers: {told(error)}"
            else:
                if answer:
                    self._seeds.insert(0, self._seeds.pop())
                    return answer[0].decode(), int(answer[1])
                reason = f"no sentinel knows {service}"
        raise BrokerUnavailable(f"{self._address.name}: {reason}")

    def _in_turn(self) -> Iterator[Host]:
        """Name whom to ask, each once; whoever was asked last, and so may hang, comes last."""
        for host in list(self._seeds):
            self._seeds.remove(host)
            self._seeds.append(host)
            yield host

    async def _join_cluster(self) -> None:
        ranges = await self._ask_for_slots()
        masters = {(start, end): host for start, end, host in ranges}
        made = {host: await self._add(host) for host in sorted({*masters.values()})}
        slots: list[Shard | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for (start, end), host in masters.items():
            slots[start : end + 1] = [made[host]] * (end + 1 - start)
        self._slots = [slot for slot in slots if slot is not None]
        if len(self._slots) < REDIS_CLUSTER_HASH_SLOTS:
            raise BrokerUnavailable(f"{self._address.name}: some slots are on no server")
        # The nodes that we were told of at first may be gone one day.
        self._seeds = list(dict.fromkeys([*self._seeds[:1], *made, *self._address.hosts]))

    async def _ask_for_slots(self) -> list[tuple[int, int, Host]]:
        """Ask any node which slots are where."""
        name = self._address.name
        reason = ""
        for host in self._in_turn():
            try:
                ranges = await self._ask_once(host, "CLUSTER", "SLOTS")
            except AuthenticationError:
                raise
            except (RedisError, BrokerUnavailable) as error:
                if "cluster support disabled" in str(error):
                    raise ConfigurationError(f"{name} is no cluster; write redis://…") from None
                reason = told(error)
            else:
                self._seeds.insert(0, self._seeds.pop())
                # A node that does not know its own name says so by none: it is the one asked.
                return [
                    (start, end, ((master[0] or host[0].encode()).decode(), master[1]))
                    for start, end, master, *_ in ranges
                ]
        raise BrokerUnavailable(f"{name}: {reason}")

    async def _ask_once(self, host: Host, *command: str, sentinel: bool = False) -> Any:
        connection = self._address.connection(host, self._tls, sentinel=sentinel)
        wire = Commands(connection, self._address.name, lambda _: None)
        self._open.append(wire)
        try:
            await wire.open()
            return await wire.ask(*command)
        finally:
            self._open.remove(wire)
            await wire.close()
