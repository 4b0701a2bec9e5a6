"""The broker on NATS with JetStream, for as many processes as you like.

How it works, module by module:

* `nats_names`: what everything is called. `nats_messages`: what it looks like.
* `nats_wire`: one connection. `nats_jetstream`: the two streams, and what is asked of them.
* `nats_history`: where a channel stands and what it keeps; why positions are right.
* `nats_publisher`: how publications get there. `nats_state`: presence and notes.

A publication with a stream costs one round trip: the server stores it and repeats it itself to all
subscribers, in the order in which it stored. Core NATS may lose what it repeats, never what is
stored; hence not `reliable`. One without a stream goes straight to the subscribers, and `publish`
returns when the server has it.

What a crash of the server's machine can do is up to the server: NATS writes to files at once but
lets the system write them to the disk, every two minutes, unless ``sync_interval: always`` is set.
In a cluster, ``?replicas=3`` in the address has three servers keep what Pongee makes there; streams
that are there already stay as they are (``nats stream edit`` changes them).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import ClassVar

from nats.errors import Error, NoServersError

from pongee.brokers.base import Counts, Health, Page, Sink, Stream
from pongee.brokers.link import Link
from pongee.brokers.nats_history import History
from pongee.brokers.nats_jetstream import OLDEST, Server
from pongee.brokers.nats_messages import (
    CONTROL,
    JOIN,
    LEAVE,
    PUBLICATION,
    TOKEN,
    YIELD,
    Undecodable,
    body_of,
    encode_info,
    encode_publication,
    info_of,
    pack,
    publication_in,
    unpack,
)
from pongee.brokers.nats_names import Names, parse_address
from pongee.brokers.nats_publisher import Publisher
from pongee.brokers.nats_state import State
from pongee.brokers.nats_wire import Wire
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT

__all__ = ["NatsBroker"]

logger = logging.getLogger("pongee.brokers")


class NatsBroker:
    """A `Broker` on NATS.

    Cancellation: a step that was cancelled may or may not have happened; nothing is left undone.

    Args:
        address: such as ``nats://user:password@host:4222`` or
            ``tls://token@host1,host2?replicas=3&ssl_ca_certs=/path/of/ca.pem``.
        prefix: begins the names of everything that is kept there.

    Raises:
        ConfigurationError: `address` is none.
    """

    reliable: ClassVar[bool] = False

    def __init__(self, address: str, *, prefix: str = "pongee") -> None:
        self._address = parse_address(address)
        self._names = Names(prefix)
        self._server = Server(self._address.name, self._names, self._address.replicas)
        self._history = History(self._server)
        self._publisher = Publisher(self._server, self._history)
        self._state = State(self._server)
        self._link = self._make_link()
        self._sink: Sink | None = None
        self._node = ""
        self._was_up = False
        self._subscribed: dict[str, _Subscription] = {}
        self._by_sid: dict[int, Callable[[bytes, bytes], None]] = {}
        self._proofs: dict[bytes, asyncio.Future[None]] = {}
        self._proof: asyncio.Future[None] | None = None
        self._complained = False

    def __repr__(self) -> str:
        """Show no secret."""
        return f"NatsBroker({self._address.name})"

    @property
    def health(self) -> Health:
        """Whether the link is up."""
        return self._link.health

    async def start(self, sink: Sink, node: str) -> None:
        """Begin, and wait until the link is up or the first try has failed."""
        await self.stop()
        self._sink = sink
        self._node = node
        self._was_up = False
        self._link = self._server.link = self._make_link()
        try:
            await self._link.start()
        except ConfigurationError:
            self._sink = None
            raise

    async def stop(self) -> None:
        """End, and forget the sink and the subscriptions."""
        self._sink = None
        self._subscribed.clear()
        await self._link.stop()
        self._fail(self._link.health.reason)
        self._publisher.stop()

    async def subscribe(self, channel: str) -> None:
        """Hand `channel` over; returns when the server has got to know."""
        known = self._subscribed.get(channel)
        if known is not None and known.proved:
            self._link.check()
            return
        async with self._server.deadline():
            if known is None:
                known = self._subscribed[channel] = _Subscription()
                self._listen(self._server.connection(), channel, known)
            try:
                await self._prove()
            except BaseException:
                if not known.proved and self._subscribed.get(channel) is known:
                    await self.unsubscribe(channel)
                raise
            known.proved = True

    async def unsubscribe(self, channel: str) -> None:
        """Hand over no more of `channel`."""
        known = self._subscribed.pop(channel, None)
        if known is None or self._by_sid.pop(known.sid, None) is None:
            return
        wire = self._server.wire
        if wire is not None and wire.is_connected:
            wire.unsub(known.sid)

    async def publish(
        self,
        channel: str,
        publication: Publication,
        stream: Stream | None,
        *,
        idempotency_key: str | None = None,
        idempotency_window: float = 300.0,
    ) -> Position:
        """Append to the stream, if there is one, and hand over to every subscribed process."""
        async with self._server.deadline():
            body = encode_publication(publication)
            if stream is not None:
                return await self._publisher.publish(
                    channel, body, stream, idempotency_key, idempotency_window
                )
            if idempotency_key is not None:
                await self._publisher.publish_once(
                    channel, body, idempotency_key, idempotency_window
                )
            else:
                await self._server.room()
                self._send(self._names.delivery(channel), pack(PUBLICATION, body=body))
                await self._prove()
        return NOWHERE

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
        return await self._history.read(channel, stream, since, limit, reverse)

    async def remove_history(self, channel: str) -> None:
        """Forget the publications that are kept."""
        async with self._server.deadline():
            await self._history.remove(channel)

    async def join(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process that `info` came."""
        await self._tell(self._names.delivery(channel), pack(JOIN, body=encode_info(info)))

    async def leave(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process that `info` left."""
        await self._tell(self._names.delivery(channel), pack(LEAVE, body=encode_info(info)))

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Enter `info.client`, or renew its lease."""
        async with self._server.deadline():
            await self._state.enter(channel, info, ttl)

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        """Strike `client` out."""
        async with self._server.deadline():
            await self._state.strike(channel, client)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is there."""
        async with self._server.deadline():
            return await self._state.present(channel)

    async def presence_counts(self, channel: str) -> Counts:
        """How many are there; reads all of them."""
        async with self._server.deadline():
            return await self._state.count(channel)

    async def control(self, data: bytes, node: str | None = None) -> None:
        """Send `data` to one node or all."""
        subject = self._names.control if node is None else self._names.node(node)
        await self._tell(subject, pack(CONTROL, body=data))

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`."""
        async with self._server.deadline():
            await self._state.put(name, data)

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`."""
        async with self._server.deadline():
            return await self._state.get(name)

    # The link.

    def _make_link(self) -> Link:
        return Link(
            self._address.name,
            open=self._open,
            probe=self._probe,
            close=self._close,
            changed=self._changed,
        )

    async def _open(self) -> None:
        wire = Wire(self._told)
        self._server.wire = wire
        await self._connect(wire)
        wire.begin()
        try:
            await self._server.make_streams()
        except ConfigurationError as error:
            raise self._final(str(error)) from None
        # What was known may be of another life of the server.
        self._publisher.forget_positions()
        self._by_sid = {
            wire.sub(self._names.control): self._told_control,
            wire.sub(self._names.node(self._node)): self._told_control,
        }
        for channel, known in self._subscribed.items():
            self._listen(wire, channel, known)

    async def _connect(self, wire: Wire) -> None:
        problem: Exception | None = None

        async def failed(error: Exception) -> None:
            nonlocal problem
            problem = error
            if wire.is_connected and self._server.wire is wire:
                self._link.broke(f"{self._address.name}: {error}")

        async def closed() -> None:
            if self._server.wire is wire:
                reason = wire.last_error or "the connection was closed"
                self._link.broke(f"{self._address.name}: {reason}")

        context = self._trusted()
        try:
            await wire.connect(
                self._address.servers,
                user=self._address.user,
                password=self._address.password,
                token=self._address.token,
                name=f"pongee {self._node}",
                error_cb=failed,
                closed_cb=closed,
                tls=context,
                allow_reconnect=False,
                connect_timeout=BROKER_TIMEOUT,  # type: ignore[arg-type]  # any number will do
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                pending_size=0,  # `Server.room` waits instead
                flusher_queue_size=0,
            )
        except ssl.SSLCertVerificationError as error:
            raise BrokerUnavailable(
                f"{self._address.name}: its certificate is refused ({error.verify_message}): trust "
                "its CA by ?ssl_ca_certs=/path/of/ca.pem in a tls:// address or by the environment "
                "variable SSL_CERT_FILE, and write the host as the certificate does"
            ) from None
        except NoServersError:
            raise problem or ConnectionError("no server") from None
        except Error as error:
            if "authorization" in str(error).lower() or "authentication" in str(error).lower():
                raise self._final(
                    f"broker: {self._address.name} refuses the user, password or token of the "
                    "address: correct it"
                ) from None
            raise
        version = wire.connected_server_version
        if (version.major, version.minor) < OLDEST:
            raise self._final(
                f"broker: {self._address.name} is NATS {version.major}.{version.minor}; Pongee "
                f"needs {OLDEST[0]}.{OLDEST[1]} or later: update the server"
            )

    def _trusted(self) -> ssl.SSLContext | None:
        """Tell whose certificates are accepted, read anew each time; `None` without TLS."""
        if not self._address.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self._address.ca_certs)
        except OSError as error:
            raise self._final(
                f"broker: the certificates of ssl_ca_certs={self._address.ca_certs} in the NATS "
                f"address cannot be read ({error}): correct it"
            ) from None

    def _final(self, why: str) -> Exception:
        """Say that trying again cannot help, unless it worked before."""
        return ConnectionError(why) if self._was_up else ConfigurationError(why)

    async def _probe(self) -> None:
        await asyncio.gather(self._prove(), self._server.look())

    async def _close(self) -> None:
        wire, self._server.wire = self._server.wire, None
        self._by_sid.clear()
        if wire is not None:
            await wire.drop()

    def _changed(self, up: bool) -> None:
        if up:
            self._was_up = True
        else:
            self._fail(self._link.health.reason)
        if self._sink is not None:
            self._sink.on_link(up)

    def _fail(self, reason: str) -> None:
        """Tell all who wait that nothing will come."""
        if self._server.wire is not None:
            self._server.wire.fail(reason)
        for proof in self._proofs.values():
            if not proof.done():
                proof.set_exception(BrokerUnavailable(reason))
                proof.exception()  # nobody may be waiting
        self._proofs.clear()
        self._proof = None

    async def _prove(self) -> None:
        """Wait until the server has got everything sent so far: a message of ours comes back.

        All that ask in one turn of the event loop share one.
        """
        if self._proof is None:
            loop = asyncio.get_running_loop()
            self._proof = loop.create_future()
            loop.call_soon(self._send_proof, self._proof)
        await asyncio.shield(self._proof)

    def _send_proof(self, proof: asyncio.Future[None]) -> None:
        if self._proof is proof:
            self._proof = None
        if proof.done():
            return
        name = secrets.token_bytes(8)
        self._proofs[name] = proof
        try:
            self._send(self._names.node(self._node), pack(TOKEN, body=name))
        except (OSError, BrokerUnavailable) as error:
            del self._proofs[name]
            proof.set_exception(BrokerUnavailable(f"{self._address.name}: {error}"))
            proof.exception()

    def _send(self, subject: str, data: bytes) -> None:
        self._server.connection().pub(subject, data)

    async def _tell(self, subject: str, data: bytes) -> None:
        """Send what may be lost."""
        async with self._server.deadline():
            await self._server.room()
            self._send(subject, data)

    # What comes.

    def _listen(self, wire: Wire, channel: str, known: _Subscription) -> None:
        known.sid = wire.sub(self._names.delivery(channel))

        def told(headers: bytes, data: bytes) -> None:
            self._told_channel(channel, headers, data)

        self._by_sid[known.sid] = told

    def _told(self, sid: int, headers: bytes, data: bytes) -> None:
        told = self._by_sid.get(sid)
        if told is None:
            return
        try:
            told(headers, data)
        except Undecodable:
            self._complain()
        except Exception:
            logger.exception("a sink raised at a message from the broker")

    def _told_channel(self, channel: str, headers: bytes, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        head = unpack(data)
        kind = head.kind
        if headers:
            self._publisher.heard(channel, head, headers)
        if kind == PUBLICATION:
            sink.on_publication(channel, publication_in(data, head))
        elif kind == JOIN:
            sink.on_join(channel, info_of(data))
        elif kind == LEAVE:
            sink.on_leave(channel, info_of(data))

    def _told_control(self, headers: bytes, data: bytes) -> None:
        kind = unpack(data).kind
        if kind == TOKEN:
            proof = self._proofs.pop(bytes(body_of(data)), None)
            if proof is not None and not proof.done():
                proof.set_result(None)
        elif kind == CONTROL and self._sink is not None:
            self._sink.on_control(bytes(body_of(data)))
        elif kind == YIELD:
            self._publisher.asked_to_pause(str(body_of(data), "utf-8", "surrogatepass"))

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            logger.warning(
                "a message on %s cannot be read and is ignored, as will be others: another "
                "program, or another version of Pongee, uses the prefix %s",
                self._address.name,
                self._names.prefix,
            )


class _Subscription:
    """A channel that is handed over.

    Attributes:
        sid: its subscription's number on the connection.
        proved: the server is known to know.
    """

    __slots__ = ("proved", "sid")

    def __init__(self) -> None:
        self.sid = 0
        self.proved = False
