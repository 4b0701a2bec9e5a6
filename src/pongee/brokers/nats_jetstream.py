"""What is asked of a NATS server: requests, what they may cost in time, and what can go wrong.

JetStream's two streams are made here. Both hold one subject for each thing that is kept, and let
go of it at a time of its own (`Nats-TTL`), so that neither has a limit that depends on a channel:

* the log keeps publications, positions and idempotency keys. Whatever is stored under ``….d.…`` is
  repeated by the server itself where subscribers listen: only what was stored is delivered, in the
  order in which it was stored, and a process that dies in between takes nothing with it.
* the state keeps the last message of each subject: who is there, and notes.

Where several servers of a cluster keep the streams, any of them may answer a quick question, also
one that has not got the newest messages yet. A key that was used would look unused, a history whole
that is not. So what is the last is then asked of the leader, and what others tell is completed by
it. While servers choose a new leader, for four to nine seconds, nothing is stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from nats.errors import Error

from pongee.brokers.link import Link
from pongee.brokers.nats_messages import header, seconds
from pongee.brokers.nats_names import Names
from pongee.brokers.nats_wire import NO_HEADERS, Reply, Wire
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT, NATS_ASK_AGAIN, NATS_UNWRITTEN

__all__ = ["OLDEST", "Deadline", "Server", "ServerError", "Stored", "streams"]

logger = logging.getLogger("pongee.brokers")

OLDEST = (2, 11)
"""The oldest server that will do: messages have times to live, and several are read at once."""
_STORES_SEVERAL = (2, 12)
"""The oldest that stores several messages or none of them."""

_WRONG_SEQUENCE = (10071, 10164)
_NO_STREAM = 10059
_NO_CLUSTER = 10074
_NO_MESSAGE = 10037
_NO_JETSTREAM = (10076, 10039)
_BATCH_LOST = (10176, 10210)
"""Codes of JetStream. The last: too many batches are under way."""


class ServerError(Exception):
    """The server said no.

    Args:
        code: JetStream's; 0 where there is none.
        text: for people.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def is_conflict(self) -> bool:
        """Whether somebody else was faster."""
        return self.code in _WRONG_SEQUENCE

    @property
    def may_be_tried_again(self) -> bool:
        """Whether nothing was stored and the same may work now."""
        return self.code in _BATCH_LOST


class Stored(NamedTuple):
    """A message that the server keeps."""

    sequence: int
    at: float
    data: bytes
    headers: bytes


class _Problem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Problem | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Deadline:
    """Ends a step after `BROKER_TIMEOUT`, and says `BrokerUnavailable` to all that goes wrong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._timeout = asyncio.timeout(BROKER_TIMEOUT)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise BrokerUnavailable(
                f"{self._name}: no answer within {BROKER_TIMEOUT:g} s"
            ) from None
        if isinstance(error, ServerError | OSError | Error):
            raise BrokerUnavailable(f"{self._name}: {error}") from error


class Server:
    """The server at the other end of the link, whichever connection that is just now.

    Args:
        name: for people, without secrets.
        names: what everything is called there.
        replicas: servers of a cluster that keep each stream, where it is made here.

    Attributes:
        link: says whether it can be reached; set before anything is asked.
        wire: the connection, while there is one.
        stores_several: several messages can be stored in one step.
        replicated: several servers keep the log, and may be behind each other.
    """

    def __init__(self, name: str, names: Names, replicas: int = 1) -> None:
        self.name = name
        self.names = names
        self.replicas = replicas
        self.link: Link | None = None
        self.wire: Wire | None = None
        self.stores_several = False
        self.replicated = False
        self._created: object = None
        self._compared: set[str] = set()
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """Tell the server's time in seconds since 1970, as far as it is known."""
        return time.monotonic() + self._ahead

    @property
    def is_up(self) -> bool:
        """Whether the link is up."""
        return self.link is not None and self.link.health.up

    def deadline(self) -> Deadline:
        """Begin a step: raises at once if the link is down."""
        if self.link is None:
            raise BrokerUnavailable(f"{self.name}: not started")
        self.link.check()
        return Deadline(self.name)

    def connection(self) -> Wire:
        """Return the connection."""
        if self.wire is None:
            raise BrokerUnavailable(f"{self.name}: not connected")
        return self.wire

    async def room(self) -> None:
        """Wait while too much is unwritten, because the server does not read."""
        # Rare, and nats-py tells nobody when it has written.
        while self.connection().pending_data_size > NATS_UNWRITTEN:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def store(self, subject: str, data: bytes, headers: bytes) -> int:
        """Store a message; returns its sequence. ▲

        Raises:
            ServerError: it was refused.
        """
        await self.room()
        return self._stored(await self.connection().ask(subject, data, headers))

    async def store_all(self, messages: list[tuple[str, bytes, bytes]], batch: bytes) -> int:
        """Store several messages, or none of them; returns the last one's sequence. ▲

        Args:
            messages: a subject, data and header lines each.
            batch: names them, and no others.
        """
        await self.room()
        wire, last = self.connection(), len(messages)
        for number, (subject, data, headers) in enumerate(messages, 1):
            # What is sent in one go, without waiting, cannot be left unfinished by a cancellation.
            lines = b"Nats-Batch-Id: %s\r\nNats-Batch-Sequence: %d\r\n" % (batch, number)
            if number < last:
                wire.pub(subject, data, headers[:-2] + lines + b"\r\n")
        lines += b"Nats-Batch-Commit: 1\r\n\r\n"
        return self._stored(await wire.ask(subject, data, headers[:-2] + lines))

    def _stored(self, reply: Reply) -> int:
        if reply.status:
            self._gone(reply)
        ack = _decode_ack(reply.data)
        if ack.error is not None:
            raise ServerError(ack.error.err_code, ack.error.description)
        return ack.seq

    def _gone(self, reply: Reply) -> None:
        """Nobody stores: JetStream ended or somebody deleted the stream, which is made anew."""
        if reply.status == b"503" and self.link is not None:
            self.link.broke(f"{self.name}: JetStream does not answer")
        raise ServerError(0, f"JetStream said {reply.why}")

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Get the last message of `subject`, if there is one. ▲"""
        await self.room()
        if self.replicated:
            return await self._at_leader(stream, {"last_by_subj": subject})
        reply = await self.connection().ask(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        if reply.status == b"404":
            return None
        if reply.status:
            self._gone(reply)
        return _stored(reply)

    async def some(
        self, stream: str, subject: str, first: int, count: int, size: int
    ) -> tuple[list[Stored], bool]:
        """Get messages of `subject` in their order.

        Args:
            stream: that holds them.
            subject: may have a wildcard.
            first: the lowest sequence.
            count: at most.
            size: bytes, roughly at most.

        Returns:
            The messages, and whether there are more.
        """
        await self.room()
        question = {"seq": first, "next_by_subj": subject, "batch": count, "max_bytes": size}
        replies = await self.connection().ask_many(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(question)
        )
        end = replies.pop()
        if end.status not in (b"204", b"404"):
            self._gone(end)
        stored = [_stored(reply) for reply in replies]
        more = header(end.headers, b"Nats-Num-Pending") not in (None, b"0")
        if self.replicated and not more:
            more = await self._complete(stored, stream, subject, first, count)
        return stored, more

    async def _complete(
        self, stored: list[Stored], stream: str, subject: str, first: int, count: int
    ) -> bool:
        """Add what a server did not have yet; returns whether there may be still more."""
        while len(stored) < count:
            if stored:
                first = stored[-1].sequence + 1
            one = await self._at_leader(stream, {"seq": first, "next_by_subj": subject})
            if one is None:
                return False
            stored.append(one)
        return True

    async def _at_leader(self, stream: str, which: Mapping[str, Any]) -> Stored | None:
        """Get one message from the server that is the first to have it."""
        try:
            message = (await self.api(f"STREAM.MSG.GET.{stream}", which))["message"]
        except ServerError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        data, headers = (b64decode(message.get(name, "")) for name in ("data", "hdrs"))
        return Stored(message["seq"], seconds(message["time"]), data, headers)

    async def remove(self, subject: str, first: int) -> None:
        """Remove the messages of `subject` before the sequence `first`."""
        await self.api(f"STREAM.PURGE.{self.names.log}", {"filter": subject, "seq": first})

    def forget(self, subject: str, **which: int) -> None:
        """Have messages of `subject` removed some time; only to save space.

        Args:
            subject: of the log.
            which: ``seq``, the first that stays, or ``keep``, how many stay.
        """
        wire = self.connection()
        question = msgspec.json.encode({"filter": subject, **which})
        wire.pub(f"$JS.API.STREAM.PURGE.{self.names.log}", question, reply=b"_INBOX.nobody")

    async def api(self, method: str, question: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call JetStream's API.

        Raises:
            ServerError: it said no, or is not there.
        """
        body = b"" if question is None else msgspec.json.encode(question)
        reply = await self.connection().ask(f"$JS.API.{method}", body, NO_HEADERS)
        if reply.status:
            raise ServerError(_NO_JETSTREAM[0], f"JetStream said {reply.why}")
        answer: dict[str, Any] = msgspec.json.decode(reply.data)
        if "error" in answer:
            problem = answer["error"]
            raise ServerError(problem.get("err_code", 0), problem.get("description", "?"))
        return answer

    async def learn_time(self, stream: str) -> dict[str, Any]:
        """Ask for a stream, which also tells the server's time."""
        before = time.monotonic()
        info = await self.api(f"STREAM.INFO.{stream}")
        told = seconds(info.get("ts", ""))
        if told:
            self._ahead = told - (before + time.monotonic()) / 2
        return info

    async def look(self) -> None:
        """See that the log is there, and is the one that was there.

        Raises:
            ServerError: it is another: positions that are remembered mean nothing there.
        """
        info = await self.learn_time(self.names.log)
        self.replicated = _replicas(info) > 1
        if info.get("created") != self._created:
            raise ServerError(0, f"the stream {self.names.log} was deleted and made anew")

    async def make_streams(self) -> None:
        """See that both streams are there.

        Raises:
            ConfigurationError: there are others of that name, or cannot be such.
        """
        version = self.connection().connected_server_version
        atomic = (version.major, version.minor) >= _STORES_SEVERAL
        for config in streams(self.names, atomic=atomic, replicas=self.replicas):
            info = await self._make(config)
            have = info["config"]
            for setting in _NEEDED & config.keys():
                if have.get(setting) != config[setting]:
                    raise ConfigurationError(
                        f"broker: the JetStream stream {config['name']} on {self.name} is not "
                        f"Pongee's own ({setting} differs): delete it there, or choose another "
                        "broker_prefix"
                    )
            self._compare_replicas(config["name"], _replicas(info))
            if config["name"] == self.names.log:
                self.replicated = _replicas(info) > 1
                self.stores_several = bool(have.get("allow_atomic"))
                self._created = info.get("created")

    async def _make(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Make a stream if it is not there; returns what the server tells of it."""
        name = config["name"]
        try:
            return await self._find(name)
        except ServerError as error:
            if error.code in _NO_JETSTREAM:
                raise ConfigurationError(
                    f"broker: the server {self.name} keeps nothing: start it with JetStream "
                    "(nats-server -js, or jetstream {} in its configuration)"
                ) from None
            if error.code != _NO_STREAM:
                raise
        try:
            await self.api(f"STREAM.CREATE.{name}", config)
        except ServerError as error:
            if error.code == _NO_CLUSTER:
                raise ConfigurationError(
                    f"broker: {self.name} is no cluster, and keeps no {self.replicas} replicas: "
                    "leave ?replicas= out of the address, or make it one"
                ) from None
            raise
        return await self.learn_time(name)

    async def _find(self, stream: str) -> dict[str, Any]:
        """Ask for a stream until somebody answers: questions get lost while there is no leader."""
        asked: set[asyncio.Task[dict[str, Any]]] = set()
        try:
            while True:
                asked.add(asyncio.ensure_future(self.learn_time(stream)))
                done, _ = await asyncio.wait(
                    asked, timeout=NATS_ASK_AGAIN, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return done.pop().result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    def _compare_replicas(self, name: str, have: int) -> None:
        """Say so if a stream has fewer than the address asks for; what is there is kept."""
        if have < self.replicas and name not in self._compared:
            logger.warning(
                "the JetStream stream %s on %s has %d replicas and the address asks for %d: change "
                "it by `nats stream edit %s --replicas %d`",
                *(name, self.name, have, self.replicas, name, self.replicas),
            )
        self._compared.add(name)


_NEEDED = {
    "subjects",
    "max_msgs_per_subject",
    "allow_direct",
    "allow_msg_ttl",
    "republish",
}


def streams(names: Names, *, atomic: bool, replicas: int = 1) -> list[dict[str, Any]]:
    """Describe the two streams as JetStream's API wants it.

    Args:
        names: what they are called.
        atomic: the server can store several messages in one step.
        replicas: servers that keep each.
    """
    common = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",  # a stream that an operator bounds refuses, and forgets nothing
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "allow_direct": True,
        "allow_msg_ttl": True,
    }
    p = names.prefix
    log = common | {
        "name": names.log,
        "subjects": [f"{p}.s.>"],
        "max_msgs_per_subject": -1,
        "republish": {"src": f"{p}.s.*.d.*", "dest": f"{p}.c.{{{{wildcard(1)}}}}"},
    }
    if atomic:
        log["allow_atomic"] = True
    state = common | {
        "name": names.state,
        "subjects": [f"{p}.h.>", f"{p}.n.>"],
        "max_msgs_per_subject": 1,
    }
    return [log, state]


def _replicas(info: Mapping[str, Any]) -> int:
    return int(info["config"].get("num_replicas", 1))


def _stored(reply: Reply) -> Stored:
    headers = reply.headers
    return Stored(
        int(header(headers, b"Nats-Sequence") or 0),
        seconds((header(headers, b"Nats-Time-Stamp") or b"").decode()),
        reply.data,
        headers,
    )
