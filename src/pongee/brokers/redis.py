"""A broker on Redis 6.2 or newer: Streams for what is kept, Pub/Sub for what is handed over.

Every step that concerns more than one key is one script on the server, so that it happens as a
whole. All keys of a channel share what stands in braces, so that a cluster keeps them together.
Offsets are exact up to 2^53.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.resources import files
from typing import Any, ClassVar

from redis.exceptions import MovedError, NoScriptError, RedisError

from pongee.brokers.base import Counts, Health, Page, Sink, Stream
from pongee.brokers.budget import Budget
from pongee.brokers.link import Link
from pongee.brokers.redis_address import parse_address
from pongee.brokers.redis_messages import (
    Reader,
    read_position,
    write_client,
    write_message,
    write_presence,
    write_publication,
)
from pongee.brokers.redis_shards import Servers, Shard
from pongee.brokers.redis_subscriptions import Subscriptions
from pongee.brokers.redis_wire import told
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Presence, Publication
from pongee.channels.stream import new_epoch
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import REDIS_READS, REDIS_UNUSED

__all__ = ["RedisBroker"]

logger = logging.getLogger("pongee.brokers")

_LONGEST = 2**52
"""Milliseconds; the server calculates with no more."""


class _Script:
    """A script, and the name that the server gives it."""

    def __init__(self, name: str) -> None:
        self.text = (files("pongee.brokers") / "redis_scripts" / name).read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_PUBLISH = _Script("publish.lua")
_PUBLISH_ONCE = _Script("publish_once.lua")
_HISTORY = _Script("history.lua")
_PRESENCE = _Script("presence.lua")
_SCRIPTS = tuple(one.text for one in (_PUBLISH, _PUBLISH_ONCE, _HISTORY, _PRESENCE))


class RedisBroker:
    """A `Broker` on Redis.

    Concurrency: all steps share one connection for commands, one for subscriptions (in a cluster,
    a pair for each master), and go out in the order of the calls. Cancelling a call gets nothing
    out of step; whether its step happened is unknown then.

    Only what servers replicate before they answer survives their loss: a replica that takes over
    may lack the newest publications, and give their offsets to others.

    Args:
        address: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://`` or
            ``redis+sentinel://``.
        prefix: begins the names of all keys and subjects.

    Raises:
        ConfigurationError: the address cannot be read.
    """

    reliable: ClassVar[bool] = False

    def __init__(self, address: str, *, prefix: str = "pongee") -> None:
        self._address = parse_address(address)
        self._prefix = prefix
        # Keys belong to a database, subjects do not.
        self._told = f"{prefix}.{self._address.db}" if self._address.db else prefix
        self._sink: Sink | None = None
        self._own: tuple[bytes, ...] = ()
        self._probes: dict[bytes, asyncio.Future[None]] = {}
        self._probe_subject = b""
        self._proven = False
        self._servers = Servers(self._address, self._hear, self._broke, _SCRIPTS)
        self._subscriptions = Subscriptions(self._servers)
        self._reader = Reader(self._address.name, prefix)
        self._reads = Budget(REDIS_READS)
        self._link = self._new_link()

    def __repr__(self) -> str:
        """Name the server, without secrets."""
        return f"<RedisBroker {self._address.name}>"

    @property
    def health(self) -> Health:
        """Whether the server can be reached."""
        return self._link.health

    async def start(self, sink: Sink, node: str) -> None:
        """Connect, and keep connecting."""
        await self.stop()
        self._sink = sink
        self._own = (f"{self._told}:control".encode(), f"{self._told}:node:{node}".encode())
        self._probe_subject = f"{self._told}:probe:{node}:{secrets.token_hex(4)}:".encode()
        self._proven = False
        self._link = self._new_link()
        try:
            await self._link.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect, and forget the sink and the subscriptions."""
        self._sink = None
        await self._link.stop()
        self._subscriptions.clear()

    async def subscribe(self, channel: str) -> None:
        """Hand over what is published from now on; returns when the server has confirmed it."""
        self._link.check()
        await self._subscriptions.add(self._subject(channel), channel)

    async def unsubscribe(self, channel: str) -> None:
        """Hand over no more, from this very moment."""
        self._subscriptions.remove(self._subject(channel))

    async def publish(
        self,
        channel: str,
        publication: Publication,
        stream: Stream | None,
        *,
        idempotency_key: str | None = None,
        idempotency_window: float = 300.0,
    ) -> Position:
        """Append and hand over in one step at the server."""
        self._link.check()
        data = write_publication(publication)
        subject = self._subject(channel)
        shard = self._servers.of(subject)
        verb = shard.s + "PUBLISH"
        keys: list[bytes] = []
        if idempotency_key is not None:
            keys.append(self._key(f"once:{len(channel)}", channel, f":{idempotency_key}"))
        window = _milliseconds(idempotency_window)
        if stream is not None:
            keys = [self._key("stream", channel), self._key("meta", channel), *keys]
            ages = stream.size, _milliseconds(stream.ttl), _milliseconds(stream.meta_ttl)
            answer = await self._run(
                shard, _PUBLISH, keys, verb, subject, data, *ages, new_epoch(), window
            )
        elif keys:
            answer = await self._run(
                shard, _PUBLISH_ONCE, keys, verb, subject, write_message(data), window
            )
        else:
            await self._ask(shard, verb, subject, write_message(data))
            return NOWHERE
        return read_position(answer)

    async def history(
        self,
        channel: str,
        stream: Stream,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """Read what is kept."""
        unused = min(stream.meta_ttl, max(stream.ttl, REDIS_UNUSED))
        given = (
            stream.size,
            *map(_milliseconds, (stream.ttl, stream.meta_ttl, unused)),
            new_epoch(),
            "" if since is None else since.offset,
            "" if limit is None else max(0, limit),
            int(reverse),
        )
        keys = [self._key("stream", channel), self._key("meta", channel)]
        async with nullcontext() if limit == 0 else self._reads.share():
            name, offset, entries = await self._run(self._shard(channel), _HISTORY, keys, *given)
            epoch = name.decode()
            return Page(self._reader.page(entries, epoch), Position(int(offset), epoch))

    async def remove_history(self, channel: str) -> None:
        """Forget the publications that are kept."""
        await self._ask(self._shard(channel), "UNLINK", self._key("stream", channel))

    async def join(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process."""
        await self._say(channel, write_presence(Presence(info, left=False)))

    async def leave(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process."""
        await self._say(channel, write_presence(Presence(info, left=True)))

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Enter `info.client`, or renew its lease."""
        await self._attend(
            channel, "add", info.client, _milliseconds(ttl), info.user, write_client(info)
        )

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        """Strike `client` out."""
        await self._attend(channel, "remove", client)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is there."""
        return self._reader.present(await self._attend(channel, "read"))

    async def presence_counts(self, channel: str) -> Counts:
        """How many are there; nobody is read for it."""
        return Counts(*await self._attend(channel, "count"))

    async def control(self, data: bytes, node: str | None = None) -> None:
        """Send `data` to one node, or to all."""
        self._link.check()
        subject = f"{self._told}:control" if node is None else f"{self._told}:node:{node}"
        await self._ask(self._servers.shards[0], "PUBLISH", subject, data)

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`."""
        key = f"{self._prefix}:note:{name}".encode()
        self._link.check()
        await self._ask(self._servers.of(key), "SET", key, data)

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`."""
        key = f"{self._prefix}:note:{name}".encode()
        self._link.check()
        found: bytes | None = await self._ask(self._servers.of(key), "GET", key)
        return found

    # Names. The kind comes first and the channel last, so that no channel's name can be taken for
    # another's; and "c." before it, since empty braces would not count.

    def _key(self, kind: str, channel: str, more: str = "") -> bytes:
        return f"{self._prefix}:{kind}:{{c.{channel}}}{more}".encode()

    def _subject(self, channel: str) -> bytes:
        return f"{self._told}:channel:{{c.{channel}}}".encode()

    # Asking.

    def _shard(self, channel: str) -> Shard:
        self._link.check()
        return self._servers.of(self._subject(channel))

    async def _say(self, channel: str, message: bytes) -> None:
        shard = self._shard(channel)
        await self._ask(shard, shard.s + "PUBLISH", self._subject(channel), message)

    async def _attend(self, channel: str, *arguments: Any) -> Any:
        keys = [self._key(kind, channel) for kind in ("leases", "present", "users")]
        return await self._run(self._shard(channel), _PRESENCE, keys, *arguments)

    async def _run(self, shard: Shard, script: _Script, keys: list[bytes], *arguments: Any) -> Any:
        """Run `script`; a server that was started anew learns it first."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await shard.commands.ask("EVALSHA", script.sha, *rest)
        except NoScriptError:
            return await self._ask(shard, "EVAL", script.text, *rest)
        except RedisError as error:
            return await self._try_elsewhere(error, "EVAL", script.text, *rest)

    async def _ask(self, shard: Shard, *command: Any) -> Any:
        try:
            return await shard.commands.ask(*command)
        except RedisError as error:
            return await self._try_elsewhere(error, *command)

    async def _try_elsewhere(self, error: RedisError, *command: Any) -> Any:
        """Ask the server that the first one named, or fail; nothing has happened yet."""
        reason = f"{self._address.name}: {told(error)}"
        if isinstance(error, MovedError):
            shard = self._servers.moved(error)
            if shard is not None:
                try:
                    return await shard.commands.ask(*command)
                except RedisError as second:
                    reason = f"{self._address.name}: {told(second)}"
            else:
                self._broke(reason)  # the servers are others now
        elif "READONLY" in reason:
            self._broke(reason)  # another server is the master now
        raise BrokerUnavailable(reason) from None

    # The link.

    def _new_link(self) -> Link:
        return Link(
            self._address.name,
            open=self._open,
            probe=self._probe,
            close=self._servers.close,
            changed=self._changed,
        )

    async def _open(self) -> None:
        try:
            await self._servers.open()
        except ConfigurationError as error:
            if self._proven:  # it has worked before, and may again
                raise BrokerUnavailable(str(error)) from None
            raise
        shards = self._servers.shards
        await shards[0].ears.change("SUBSCRIBE", *self._own)
        for number, shard in enumerate(shards):
            await shard.ears.change("SUBSCRIBE", self._probe_subject + b"%d" % number)
        await self._subscriptions.renew()

    async def _probe(self) -> None:
        await asyncio.gather(
            *(self._probe_one(shard, number) for number, shard in enumerate(self._servers.shards))
        )
        self._proven = True

    async def _probe_one(self, shard: Shard, number: int) -> None:
        token = secrets.token_bytes(8)
        came = self._probes[token] = asyncio.get_running_loop().create_future()
        try:
            await self._ask(shard, "PUBLISH", self._probe_subject + b"%d" % number, token)
            await came
        finally:
            del self._probes[token]
        await self._servers.require_master(shard.commands)

    def _broke(self, reason: str) -> None:
        self._link.broke(reason)

    def _changed(self, up: bool) -> None:
        if self._sink is not None:
            self._sink.on_link(up)

    # What is heard.

    def _hear(self, subject: bytes, message: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        channel = self._subscriptions.channel(subject)
        try:
            if channel is not None:
                self._tell(sink, channel, self._reader.message(message))
            elif subject in self._own:
                sink.on_control(message)
            elif subject.startswith(self._probe_subject):
                came = self._probes.get(message)
                if came is not None and not came.done():
                    came.set_result(None)
        except Exception:
            logger.exception("a sink raised at a message")

    def _tell(self, sink: Sink, channel: str, what: Publication | Presence | None) -> None:
        if isinstance(what, Publication):
            sink.on_publication(channel, what)
        elif isinstance(what, Presence):
            (sink.on_leave if what.left else sink.on_join)(channel, what.info)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(min(seconds * 1000, _LONGEST)))
