"""The contract of a broker, promise by promise. ◇

A broker keeps each channel's stream (history), hands publications to the processes that have
members, and knows who is present. `brokers.memory` is the reference; `pongee.testing` ships the
suite that every broker must pass.

Promises:

* **Order.** Publications of one channel reach a process's `Sink` in the order of their offsets.
* **Positions.** With a stream, the first publication of an epoch has offset 1 and each has one more
  than the one before. The top and the epoch outlive the publications that are kept. A new epoch
  begins whenever the counter does; an epoch is never empty and never ``_``.
* **Atomicity.** A publication that `publish` has returned a position for is in the history (until
  size or age removes it) and was, or will be, handed to every sink that was subscribed before.
  What `history` returns and what the sink gets afterwards has no gap in between.
* **Idempotency.** A second publication with the same key in the same channel within the window
  changes nothing and returns the position of the first.
* **Presence** is a lease: an entry that is not renewed within its time to live disappears.
* **Join and leave** are told at most once, are not kept, and keep their order for one client.
* **Gaps.** A broker that is not `reliable` may lose what it hands over, never what it keeps. When
  its link broke it says so at once (`Sink.on_link`, `health`), and once more when everything is
  subscribed again and proved to be: the sink then looks at the positions.
* **Errors.** A step that failed raises `BrokerUnavailable` and may or may not have happened;
  nothing else is raised for what the network does. While the link is down it is raised at once;
  while it is up, within `BROKER_TIMEOUT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

from pongee.channels.publication import ClientInfo, Position, Publication
from pongee.channels.stream import Page, Stream

__all__ = ["UP", "Broker", "Counts", "Health", "Page", "Sink", "Stream"]


class Counts(NamedTuple):
    """How many are present: connections, and different users (anonymous ones are one)."""

    clients: int
    users: int


class Health(NamedTuple):
    """Whether a broker can be reached.

    Attributes:
        up: it can.
        reason: why not, in one line without secrets; ``""`` if it can.
    """

    up: bool
    reason: str


UP = Health(True, "")


class Sink(Protocol):
    """What a broker tells a process, on the event loop's thread, without waiting."""

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Take a publication; `offset` and `epoch` are set where the channel has a stream."""

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Learn that somebody came."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Learn that somebody left."""

    def on_control(self, data: bytes) -> None:
        """Take what a node has sent by `Broker.control`."""

    def on_link(self, up: bool) -> None:
        """Learn that the link broke, or that it works again; publications may be missing."""


class Broker(Protocol):
    """What the rest of a process asks of a broker. Not for use from other threads.

    Attributes:
        reliable: it hands over everything, so that nobody need look whether something is missing.
    """

    reliable: ClassVar[bool]

    @property
    def health(self) -> Health:
        """Whether it can be reached now; costs nothing to ask."""

    async def start(self, sink: Sink, node: str) -> None:
        """Begin; everything for this process goes to `sink`.

        A server that cannot be reached now is no error: the link is down and tried again.

        Args:
            sink: is told.
            node: names this process among those of the broker.

        Raises:
            ConfigurationError: it can never work: the server is too old, or wants another password.
        """

    async def stop(self) -> None:
        """End, and forget the sink. Idempotent."""

    async def subscribe(self, channel: str) -> None:
        """Hand publications, joins and leaves of `channel` to the sink from now on. Idempotent.

        Raises:
            BrokerUnavailable: it could not be arranged.
        """

    async def unsubscribe(self, channel: str) -> None:
        """Hand over no more of `channel`. Idempotent."""

    async def publish(
        self,
        channel: str,
        publication: Publication,
        stream: Stream | None,
        *,
        idempotency_key: str | None = None,
        idempotency_window: float = 300.0,
    ) -> Position:
        """Append to the stream, if there is one, and hand over to every subscribed process.

        Args:
            channel: its name.
            publication: stays as it is; what is kept and handed over is a copy, in which the broker
                sets `offset` and `epoch`.
            stream: `None` is a channel without history.
            idempotency_key: names this publication among those of the channel.
            idempotency_window: seconds that a key is remembered.

        Returns:
            Its position; `NOWHERE` without a stream.

        Raises:
            BrokerUnavailable: it may or may not have been accepted.
        """

    async def history(
        self,
        channel: str,
        stream: Stream,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """Read what is kept. Creates the stream if there is none: offset 0 and a new epoch.

        Args:
            channel: its name.
            stream: what the channel keeps.
            since: exclusive. Forward, the first publication has a greater offset; in reverse, the
                first has the offset just below, and nothing is returned if that one is gone. Its
                epoch is not looked at: the caller compares it with the page's.
            limit: publications at most; 0 asks for the position only, `None` is all.
            reverse: newest first.

        Raises:
            BrokerUnavailable: nobody knows.
        """

    async def remove_history(self, channel: str) -> None:
        """Forget the publications that are kept; the top and the epoch stay."""

    async def join(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process that `info` came."""

    async def leave(self, channel: str, info: ClientInfo) -> None:
        """Tell every subscribed process that `info` left."""

    async def add_presence(self, channel: str, info: ClientInfo, ttl: float) -> None:
        """Enter `info.client`, or renew its lease, for `ttl` seconds."""

    async def remove_presence(self, channel: str, client: str, user: str) -> None:
        """Strike `client` out. Harmless when it is not there."""

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is there, by connection."""

    async def presence_counts(self, channel: str) -> Counts:
        """How many are there."""

    async def control(self, data: bytes, node: str | None = None) -> None:
        """Send `data` to the sink of `node`, or of every node, this one included. At most once.

        Raises:
            BrokerUnavailable: it may or may not arrive.
        """

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name` for whoever asks, until it is put anew.

        Raises:
            BrokerUnavailable: it may or may not be kept.
        """

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`.

        Raises:
            BrokerUnavailable: nobody knows.
        """
