"""The tests that every broker must pass, promise by promise of `pongee.brokers.base`.

Inherit, say how to make a broker and how time passes, and let pytest find the class:

    @pytest.mark.anyio
    class TestMyBroker(BrokerContract):
        ttl = 1.0
        shared = True

        async def make_broker(self) -> Broker:
            return MyBroker("…")

        async def pass_time(self, seconds: float) -> None:
            await asyncio.sleep(seconds)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, NamedTuple

from pongee.brokers.base import Broker, Page, Stream
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.testing.wait import eventually

__all__ = ["BrokerContract", "RecordingSink", "Worker"]


class RecordingSink:
    """A `Sink` that remembers.

    Attributes:
        events: ``publication``, ``join`` or ``leave``, the channel, and what was told.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Remember it."""
        self.events.append(("publication", channel, publication))

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Remember it."""
        self.events.append(("join", channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Remember it."""
        self.events.append(("leave", channel, info))

    def publications(self, channel: str) -> list[Publication]:
        """List those of `channel`, as they came."""
        return [
            what for kind, name, what in self.events if (kind, name) == ("publication", channel)
        ]

    def comings(self, channel: str) -> list[tuple[str, str]]:
        """List the joins and leaves of `channel`: which, and whose."""
        return [
            (kind, what.client)
            for kind, name, what in self.events
            if name == channel and kind != "publication"
        ]


class Worker(NamedTuple):
    """One process, as far as its broker knows."""

    broker: Broker
    sink: RecordingSink


class BrokerContract:
    """Inherit and override `make_broker` and `pass_time`.

    Attributes:
        ttl: seconds that the tests let publications, keys and presence live. With real time, short
            enough to wait for, and long enough that a test's steps take a small part of it.
        shared: brokers of one test are workers of one application. Otherwise there is one worker,
            and the tests for several use it several times.
        within: seconds in which what was told must have arrived.
    """

    ttl: ClassVar[float] = 60.0
    shared: ClassVar[bool] = False
    within: ClassVar[float] = 5.0

    async def make_broker(self) -> Broker:
        """Make a broker that has not been started."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass for every broker made."""
        raise NotImplementedError

    # Help for the tests.

    @property
    def _stream(self) -> Stream:
        return Stream(100, self.ttl, 4 * self.ttl)

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[tuple[Worker, Worker]]:
        """Start two workers, or one and name it twice."""
        async with AsyncExitStack() as stack:
            workers: list[Worker] = []
            for _ in range(2 if self.shared else 1):
                worker = Worker(await self.make_broker(), RecordingSink())
                await worker.broker.start(worker.sink)
                stack.push_async_callback(worker.broker.stop)
                workers.append(worker)
            yield workers[0], workers[-1]

    @asynccontextmanager
    async def _worker(self, *subscribed: str) -> AsyncIterator[Worker]:
        async with self._workers() as (worker, _):
            for channel in subscribed:
                await worker.broker.subscribe(channel)
            yield worker

    async def _arrived(self, worker: Worker, channel: str, count: int) -> list[Publication]:
        """Wait for `count` publications, and see that there are no more of them."""

        def enough() -> bool:
            return len(worker.sink.publications(channel)) >= count

        await eventually(enough, within=self.within, what=f"{count} publications in {channel}")
        came = worker.sink.publications(channel)
        _same(len(came), count, f"publications handed over in {channel}")
        return came

    async def _settled(self, worker: Worker, channel: str) -> list[bytes]:
        """Wait until the sink has been told everything of `channel` so far; returns payloads.

        What is published last arrives last, so that nobody need wait for what must not come.
        """
        marker = secrets.token_bytes(8)
        await worker.broker.publish(channel, Publication(marker, binary=True), None)

        def arrived() -> bool:
            return any(one.data == marker for one in worker.sink.publications(channel))

        await eventually(arrived, within=self.within, what=f"the last publication of {channel}")
        return [one.data for one in worker.sink.publications(channel) if one.data != marker]

    # Order and positions.

    async def test_offsets_count_from_one_in_one_epoch(self) -> None:
        """Each publication has one more than the one before, and the sink is told the same."""
        channel = _name()
        async with self._worker(channel) as worker:
            positions = await self._publish(worker, channel, 5)
            _same([one.offset for one in positions], [1, 2, 3, 4, 5], "offsets")
            _same({one.epoch for one in positions}, {positions[0].epoch}, "epochs")
            _true(positions[0].epoch not in ("", "_"), f"epoch is {positions[0].epoch!r}")
            came = await self._arrived(worker, channel, 5)
            _same([one.position for one in came], positions, "positions handed over")
            _same([one.data for one in came], [b"%d" % n for n in range(5)], "payloads")

    async def test_everything_of_a_publication_arrives(self) -> None:
        """In the sink and in the history alike, and what was given is not changed."""
        channel = _name()
        info = ClientInfo("ann", "c1", b'{"a":1}', b'{"b":2}')
        given = [
            Publication(b'{"n":1}', info=info, tags={"a": "b", "\u00e9": ""}, key="k"),
            Publication(b"\x00\xff\n", binary=True),
            Publication(b""),
            Publication(b"[]", info=ClientInfo("", "c2")),
            Publication(b'"' + b"x" * 100_000 + b'"'),
        ]
        async with self._worker(channel) as worker:
            for one in given:
                await worker.broker.publish(channel, one, self._stream)
                _same(one.position, NOWHERE, "position of the caller's own publication")
            came = await self._arrived(worker, channel, len(given))
            _same([_plain(one) for one in came], [_plain(one) for one in given], "handed over")
            page = await worker.broker.history(channel, self._stream)
            _same(list(page.publications), came, "history")

    async def test_publication_may_be_published_again(self) -> None:
        """Each time and in each channel it gets a position of its own."""
        channel, other = _name(), _name()
        one = Publication(b"1")
        async with self._worker(channel) as worker:
            await worker.broker.publish(channel, one, self._stream)
            await worker.broker.publish(other, one, self._stream)
            second = await worker.broker.publish(channel, one, self._stream)
            _same(second.offset, 2, "offset")
            came = await self._arrived(worker, channel, 2)
            _same([one.offset for one in came], [1, 2], "offsets handed over")
            await worker.broker.publish(channel, came[1], None)
            again = (await self._arrived(worker, channel, 3))[2]
            _same(again.position, NOWHERE, "position without a stream")

    async def test_channel_without_stream_has_no_positions(self) -> None:
        """Its publications arrive all the same, in order."""
        channel = _name()
        async with self._worker(channel) as worker:
            for number in range(3):
                position = await worker.broker.publish(channel, Publication(b"%d" % number), None)
                _same(position, NOWHERE, "position")
            came = await self._arrived(worker, channel, 3)
            _same([one.data for one in came], [b"0", b"1", b"2"], "payloads")
            _same({one.position for one in came}, {NOWHERE}, "positions handed over")

    async def test_reading_makes_a_stream(self) -> None:
        """Offset 0 in the epoch that the first publication will have."""
        channel = _name()
        async with self._workers() as (reader, publisher):
            page = await reader.broker.history(channel, self._stream, limit=0)
            _same((list(page.publications), page.top.offset), ([], 0), "page")
            _true(page.top.epoch not in ("", "_"), f"epoch is {page.top.epoch!r}")
            again = await publisher.broker.history(channel, self._stream)
            _same(again.top, page.top, "position at the second look")
            (position,) = await self._publish(publisher, channel, 1)
            _same(position, Position(1, page.top.epoch), "first position")

    async def test_many_publish_at_once(self) -> None:
        """Offsets are unique and without a gap, and every worker sees the same order."""
        channel, count = _name(), 200
        async with self._workers() as workers:
            for worker in workers:
                await worker.broker.subscribe(channel)
            positions = await asyncio.gather(
                *(self._publish_one(workers[n % 2], channel, n) for n in range(count))
            )
            offsets = sorted(one.offset for one in positions)
            _same(offsets, list(range(1, count + 1)), "offsets")
            for worker in workers:
                came = await self._arrived(worker, channel, count)
                _same([one.offset for one in came], offsets, "offsets handed over")
                for one in came:
                    _same(one.position, positions[int(one.data)], f"position of {one.data!r}")

    async def test_history_and_what_follows_have_no_gap(self) -> None:
        """Subscribe, read, go on with what is handed over: again and again amid publications."""
        channel, count = _name(), 90
        stream = Stream(count, self.ttl, 4 * self.ttl)
        async with self._workers() as (reader, publisher):
            publishing = asyncio.gather(
                *(self._publish_one(publisher, channel, n, stream) for n in range(count))
            )
            rounds: list[tuple[Page, int]] = []
            while not publishing.done() or not rounds:
                await reader.broker.unsubscribe(channel)
                before = len(reader.sink.publications(channel))
                await reader.broker.subscribe(channel)
                rounds.append((await reader.broker.history(channel, stream), before))
                await asyncio.sleep(0)
            await publishing
            page, before = rounds[-1]
            await eventually(
                lambda: _union(page, reader.sink.publications(channel)[before:])[-1:] == [count],
                within=self.within,
                what="the last publication",
            )
            told = reader.sink.publications(channel)
            ends = [*(start for _, start in rounds[1:]), len(told)]
            for (read, start), end in zip(rounds, ends, strict=True):
                union = _union(read, told[start:end])
                _same(union, list(range(1, len(union) + 1)), "history and what follows")

    # Idempotency.

    async def test_a_key_makes_the_second_publication_nothing(self) -> None:
        """It returns the first one's position; another channel's key is another."""
        channel, other = _name(), _name()
        async with self._worker(channel) as worker:
            publish = worker.broker.publish
            first = await publish(channel, Publication(b"1"), self._stream, idempotency_key="k")
            second = await publish(channel, Publication(b"2"), self._stream, idempotency_key="k")
            _same(second, first, "position of the second")
            elsewhere = await publish(other, Publication(b"3"), self._stream, idempotency_key="k")
            _same(elsewhere.offset, 1, "offset in another channel")
            _same(await self._settled(worker, channel), [b"1"], "payloads handed over")

    async def test_duplicates_that_race_are_one(self) -> None:
        """However many publish with one key at once, one publication comes of it."""
        channel = _name()
        async with self._workers() as workers:
            await workers[0].broker.subscribe(channel)
            positions = await asyncio.gather(
                *(
                    workers[n % 2].broker.publish(
                        channel, Publication(b"1"), self._stream, idempotency_key="k"
                    )
                    for n in range(20)
                )
            )
            _same({one.offset for one in positions}, {1}, "offsets")
            _same(await self._settled(workers[0], channel), [b"1"], "payloads handed over")

    async def test_a_key_is_forgotten_after_its_window(self) -> None:
        """Without a stream too, a key is remembered; after the window it is new."""
        channel = _name()
        async with self._worker(channel) as worker:
            for _ in range(2):
                for _ in range(2):
                    await worker.broker.publish(
                        channel,
                        Publication(b"1"),
                        None,
                        idempotency_key="k",
                        idempotency_window=self.ttl,
                    )
                await self.pass_time(1.2 * self.ttl)
            _same(await self._settled(worker, channel), [b"1", b"1"], "payloads handed over")

    # History.

    async def test_size_bounds_the_history(self) -> None:
        """The newest are kept; offsets go on."""
        channel, stream = _name(), Stream(3, self.ttl, 4 * self.ttl)
        async with self._worker() as worker:
            for number in range(5):
                await self._publish_one(worker, channel, number, stream)
            page = await worker.broker.history(channel, stream)
            _same([one.offset for one in page.publications], [3, 4, 5], "offsets kept")
            _same(page.top.offset, 5, "top")

    async def test_age_bounds_the_history_and_the_top_stays(self) -> None:
        """What is too old is gone, and the next offset is one more than ever."""
        channel = _name()
        async with self._worker() as worker:
            before = (await self._publish(worker, channel, 3))[-1]
            await self.pass_time(1.2 * self.ttl)
            page = await worker.broker.history(channel, self._stream)
            _same((list(page.publications), page.top), ([], before), "page")
            after = await self._publish_one(worker, channel, 3)
            _same(after, Position(4, before.epoch), "next position")

    async def test_removed_history_keeps_the_position(self) -> None:
        """Publications are forgotten, the top and the epoch are not."""
        channel = _name()
        async with self._worker() as worker:
            top = (await self._publish(worker, channel, 3))[-1]
            await worker.broker.remove_history(channel)
            page = await worker.broker.history(channel, self._stream)
            _same((list(page.publications), page.top), ([], top), "page")
            _same((await self._publish_one(worker, channel, 3)).offset, 4, "next offset")

    async def test_a_stream_long_unused_begins_a_new_epoch(self) -> None:
        """Its offsets cannot be compared with the old ones, and nobody is led to believe so."""
        channel = _name()
        async with self._worker() as worker:
            (before,) = await self._publish(worker, channel, 1)
            await self.pass_time(5 * self.ttl)
            after = await self._publish_one(worker, channel, 1)
            _same(after.offset, 1, "offset")
            _true(after.epoch != before.epoch, "the epoch is the old one")

    async def test_history_reads_from_anywhere_in_both_directions(self) -> None:
        """`since` is exclusive; in reverse nothing comes when the one below is gone."""
        channel, stream = _name(), Stream(5, self.ttl, 4 * self.ttl)
        async with self._worker() as worker:
            for number in range(8):
                epoch = (await self._publish_one(worker, channel, number, stream)).epoch
            for since, limit, reverse, expected in (
                (None, None, False, [4, 5, 6, 7, 8]),
                (None, 2, False, [4, 5]),
                (None, 0, False, []),
                (None, 2, True, [8, 7]),
                (None, None, True, [8, 7, 6, 5, 4]),
                (5, None, False, [6, 7, 8]),
                (5, 1, False, [6]),
                (1, None, False, [4, 5, 6, 7, 8]),
                (8, None, False, []),
                (99, None, False, []),
                (6, None, True, [5, 4]),
                (6, 1, True, [5]),
                (4, None, True, []),
                (2, None, True, []),
            ):
                page = await worker.broker.history(
                    channel,
                    stream,
                    since=None if since is None else Position(since, epoch),
                    limit=limit,
                    reverse=reverse,
                )
                case = f"since {since}, limit {limit}, reverse {reverse}"
                _same([one.offset for one in page.publications], expected, case)
                _same(page.top, Position(8, epoch), f"top, {case}")

    # Presence, joins and leaves.

    async def test_presence_counts_connections_and_users(self) -> None:
        """Two tabs are one user; all that are anonymous are one."""
        channel = _name()
        infos = [ClientInfo(*one) for one in (("ann", "1"), ("ann", "2"), ("", "3"), ("", "4"))]
        async with self._workers() as (worker, other):
            for info in infos:
                await worker.broker.add_presence(channel, info, self.ttl)
            _same(
                dict(await other.broker.presence(channel)),
                {info.client: info for info in infos},
                "presence",
            )
            _same(tuple(await other.broker.presence_counts(channel)), (4, 2), "counts")
            await other.broker.remove_presence(channel, "1", "ann")
            await worker.broker.remove_presence(channel, "nobody", "ann")
            _same(tuple(await worker.broker.presence_counts(channel)), (3, 2), "counts")
            _same(dict(await worker.broker.presence(_name())), {}, "presence elsewhere")

    async def test_presence_is_a_lease(self) -> None:
        """Renewed it stays; not renewed it goes."""
        channel = _name()
        kept, lost = ClientInfo("ann", "1"), ClientInfo("bob", "2")
        async with self._worker() as worker:
            for info in (kept, lost):
                await worker.broker.add_presence(channel, info, self.ttl)
            await self.pass_time(0.6 * self.ttl)
            await worker.broker.add_presence(channel, kept, self.ttl)
            await self.pass_time(0.6 * self.ttl)
            _same(dict(await worker.broker.presence(channel)), {"1": kept}, "presence")
            _same(tuple(await worker.broker.presence_counts(channel)), (1, 1), "counts")

    async def test_joins_and_leaves_keep_their_order(self) -> None:
        """A short visit is a join and then a leave, on every worker."""
        channel = _name()
        infos = [ClientInfo("ann", str(number)) for number in range(20)]
        async with self._workers() as (worker, other):
            await other.broker.subscribe(channel)
            for info in infos:
                await worker.broker.join(channel, info)
                await worker.broker.leave(channel, info)
            expected = [(kind, one.client) for one in infos for kind in ("join", "leave")]
            await eventually(
                lambda: other.sink.comings(channel) == expected,
                within=self.within,
                what="joins and leaves in order",
            )

    # Subscribing and stopping.

    async def test_a_sink_is_told_of_what_it_subscribed_to(self) -> None:
        """And of nothing else, nor after it unsubscribed; doing so twice is once."""
        channel, other = _name(), _name()
        async with self._worker() as worker:
            for _ in range(2):
                await worker.broker.subscribe(channel)
            await self._publish_one(worker, channel, 1)
            await self._publish_one(worker, other, 2)
            await self._arrived(worker, channel, 1)
            _true(channel in await worker.broker.channels(), "the channel is not listed")
            for _ in range(2):
                await worker.broker.unsubscribe(channel)
            await self._publish_one(worker, channel, 3)
            await worker.broker.subscribe(other)
            await self._settled(worker, other)
            _same([one.data for one in worker.sink.publications(channel)], [b"1"], "handed over")

    async def test_it_stops_more_than_once(self) -> None:
        """Quietly."""
        worker = Worker(await self.make_broker(), RecordingSink())
        await worker.broker.start(worker.sink)
        await worker.broker.subscribe(channel := _name())
        for _ in range(2):
            await worker.broker.stop()
        _same(worker.sink.publications(channel), [], "handed over")

    async def _publish(self, worker: Worker, channel: str, count: int) -> list[Position]:
        return [await self._publish_one(worker, channel, number) for number in range(count)]

    async def _publish_one(
        self, worker: Worker, channel: str, number: int, stream: Stream | None = None
    ) -> Position:
        publication = Publication(b"%d" % number)
        return await worker.broker.publish(channel, publication, stream or self._stream)


def _name() -> str:
    """Name a channel that no other test uses, whatever a shared broker remembers."""
    return f"contract:{secrets.token_hex(8)}"


def _same(came: object, expected: object, what: str) -> None:
    if came != expected:
        raise AssertionError(f"{what}: {came!r}, not {expected!r}")


def _true(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _plain(publication: Publication) -> tuple[Any, ...]:
    """What the publisher said, apart from where it ended up."""
    one = publication
    return (one.data, one.info, one.tags, one.binary, one.key)


def _union(page: Page, told: list[Publication]) -> list[int]:
    """Offsets of what was read and of what was told beyond it."""
    read = [one.offset for one in page.publications]
    return read + [one.offset for one in told if one.offset > page.top.offset]
