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
from contextlib import suppress

from pongee.brokers.base import Counts, Page, Stream
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.errors import BrokerUnavailable
from pongee.testing.broker_world import (
    BrokerWorld,
    RecordingSink,
    Worker,
    fresh_name,
    holds,
    same,
    without_position,
)
from pongee.testing.wait import eventually

__all__ = ["BrokerContract", "RecordingSink", "Worker"]

READS: list[tuple[int | None, int | None, bool, list[int]]] = [
    # since, limit, reverse, offsets
    (None, None, False, [4, 5, 6, 7, 8]),
    (None, None, True, [8, 7, 6, 5, 4]),
    (None, 2, False, [4, 5]),
    (None, 2, True, [8, 7]),
    (None, 0, False, []),
    (0, None, False, [4, 5, 6, 7, 8]),
    (1, 3, False, [4, 5, 6]),
    (6, None, False, [7, 8]),
    (6, 1, False, [7]),
    (6, 0, False, []),
    (8, None, False, []),
    (9, None, False, []),
    (9, None, True, [8, 7, 6, 5, 4]),
    (8, 2, True, [7, 6]),
    (5, None, True, [4]),
    (4, None, True, []),
    (10, None, True, []),
]


class BrokerContract(BrokerWorld):
    """Every promise, a test or more each. What may be set is said in `BrokerWorld`."""

    # Order and positions.

    async def test_offsets_count_from_one_in_one_epoch(self) -> None:
        """Each publication has one more than the one before, and the sink is told the same."""
        channel = fresh_name()
        async with self._worker(channel) as worker:
            positions = await self._publish(worker, channel, 5)
            same([one.offset for one in positions], [1, 2, 3, 4, 5], "offsets")
            same({one.epoch for one in positions}, {positions[0].epoch}, "epochs")
            holds(positions[0].epoch not in ("", "_"), f"epoch is {positions[0].epoch!r}")
            came = await self._arrived(worker, channel, 5)
            same([one.position for one in came], positions, "positions handed over")
            same([one.data for one in came], [b"%d" % n for n in range(5)], "payloads")

    async def test_everything_of_a_publication_arrives(self) -> None:
        """In the sink and in the history alike, and what was given is not changed."""
        channel = fresh_name()
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
                same(one.position, NOWHERE, "position of the caller's own publication")
            came = await self._arrived(worker, channel, len(given))
            same(
                [without_position(one) for one in came],
                [without_position(one) for one in given],
                "handed over",
            )
            page = await worker.broker.history(channel, self._stream)
            same(list(page.publications), came, "history")

    async def test_publication_may_be_published_again(self) -> None:
        """Each time and in each channel it gets a position of its own."""
        channel, other = fresh_name(), fresh_name()
        one = Publication(b"1")
        async with self._worker(channel) as worker:
            await worker.broker.publish(channel, one, self._stream)
            await worker.broker.publish(other, one, self._stream)
            second = await worker.broker.publish(channel, one, self._stream)
            same(second.offset, 2, "offset")
            came = await self._arrived(worker, channel, 2)
            same([one.offset for one in came], [1, 2], "offsets handed over")
            await worker.broker.publish(channel, came[1], None)
            again = (await self._arrived(worker, channel, 3))[2]
            same(again.position, NOWHERE, "position without a stream")

    async def test_channel_without_stream_has_no_positions(self) -> None:
        """Its publications arrive all the same, in order."""
        channel = fresh_name()
        async with self._worker(channel) as worker:
            for number in range(3):
                position = await worker.broker.publish(channel, Publication(b"%d" % number), None)
                same(position, NOWHERE, "position")
            came = await self._arrived(worker, channel, 3)
            same([one.data for one in came], [b"0", b"1", b"2"], "payloads")
            same({one.position for one in came}, {NOWHERE}, "positions handed over")

    async def test_reading_makes_a_stream(self) -> None:
        """Offset 0 in the epoch that the first publication will have."""
        channel = fresh_name()
        async with self._workers() as (reader, publisher):
            page = await reader.broker.history(channel, self._stream, limit=0)
            same((list(page.publications), page.top.offset), ([], 0), "page")
            holds(page.top.epoch not in ("", "_"), f"epoch is {page.top.epoch!r}")
            again = await publisher.broker.history(channel, self._stream)
            same(again.top, page.top, "position at the second look")
            (position,) = await self._publish(publisher, channel, 1)
            same(position, Position(1, page.top.epoch), "first position")

    async def test_many_publish_at_once(self) -> None:
        """Offsets are unique and without a gap, and every worker sees the same order."""
        channel, count = fresh_name(), 200
        async with self._workers() as workers:
            for worker in workers:
                await worker.broker.subscribe(channel)
            positions = await asyncio.gather(
                *(self._publish_one(workers[n % 2], channel, n, self._stream) for n in range(count))
            )
            offsets = sorted(one.offset for one in positions)
            same(offsets, list(range(1, count + 1)), "offsets")
            for worker in workers:
                came = await self._arrived(worker, channel, count)
                same([one.offset for one in came], offsets, "offsets handed over")
                for one in came:
                    same(one.position, positions[int(one.data)], f"position of {one.data!r}")

    async def test_history_and_what_follows_have_no_gap(self) -> None:
        """Subscribe, read, go on with what is handed over: again and again amid publications."""
        channel, tasks, each = fresh_name(), 9, 10
        async with self._workers() as (reader, publisher):
            publishing = asyncio.gather(
                *(self._publish(publisher, channel, each) for _ in range(tasks))
            )
            rounds: list[tuple[Page, int]] = []
            while not publishing.done() or not rounds:
                await reader.broker.unsubscribe(channel)
                start = len(reader.sink.events)
                await reader.broker.subscribe(channel)
                rounds.append((await reader.broker.history(channel, self._stream), start))
                await asyncio.sleep(0)
            await publishing

            def union(page: Page, start: int, end: int | None) -> list[int]:
                told = [what.offset for _, _, what in reader.sink.events[start:end]]
                return [one.offset for one in page.publications] + [
                    offset for offset in told if offset > page.top.offset
                ]

            await eventually(
                lambda: tasks * each in union(*rounds[-1], None),
                within=self.within,
                what="the last publication",
            )
            ends = [start for _, start in rounds[1:]]
            for (page, start), end in zip(rounds, [*ends, None], strict=True):
                offsets = union(page, start, end)
                same(offsets, list(range(1, len(offsets) + 1)), "history and what follows")

    # What is kept.

    async def test_reads(self) -> None:
        """Five of eight publications are kept: from where, how many, and in which order."""
        channel = fresh_name()
        stream = Stream(5, self.ttl, 4 * self.ttl)
        async with self._worker() as worker:
            top = (await self._publish(worker, channel, 8, stream))[-1]
            for since, limit, reverse, wanted in READS:
                page = await worker.broker.history(
                    channel,
                    stream,
                    since=None if since is None else Position(since, top.epoch),
                    limit=limit,
                    reverse=reverse,
                )
                what = f"history(since={since}, limit={limit}, reverse={reverse})"
                same([one.offset for one in page.publications], wanted, what)
                same(page.top, top, f"top of {what}")
                same({one.epoch for one in page.publications} <= {top.epoch}, True, "epochs")

    async def test_epoch_of_since_is_not_looked_at(self) -> None:
        """The caller compares it."""
        channel = fresh_name()
        async with self._worker() as worker:
            await self._publish(worker, channel, 3)
            since = Position(1, "another")
            page = await worker.broker.history(channel, self._stream, since=since)
            same([one.offset for one in page.publications], [2, 3], "offsets")

    async def test_position_outlives_publications(self) -> None:
        """Those that are too old are gone; the count goes on in the same epoch."""
        channel = fresh_name()
        async with self._worker() as worker:
            top = (await self._publish(worker, channel, 3))[-1]
            await self.pass_time(self.ttl * 1.1)
            page = await worker.broker.history(channel, self._stream)
            same((list(page.publications), page.top), ([], top), "history")
            (following,) = await self._publish(worker, channel, 1)
            same(following, Position(4, top.epoch), "next position")
            page = await worker.broker.history(channel, self._stream)
            same([one.offset for one in page.publications], [4], "history")

    async def test_history_can_be_removed(self) -> None:
        """The count goes on in the same epoch; where there is none, nothing happens."""
        channel = fresh_name()
        async with self._worker() as worker:
            await worker.broker.remove_history(channel)
            top = (await self._publish(worker, channel, 3))[-1]
            await worker.broker.remove_history(channel)
            page = await worker.broker.history(channel, self._stream)
            same((list(page.publications), page.top), ([], top), "history")
            (following,) = await self._publish(worker, channel, 1)
            same(following, Position(4, top.epoch), "next position")
            page = await worker.broker.history(channel, self._stream)
            same([one.offset for one in page.publications], [4], "history")

    async def test_new_epoch_when_nobody_asked_for_long(self) -> None:
        """Publishing and reading keep a position alive; without them it is forgotten."""
        channel = fresh_name()
        stream = Stream(100, self.ttl / 2, self.ttl)
        async with self._worker() as worker:
            (first,) = await self._publish(worker, channel, 1, stream)
            for _ in range(2):
                await self.pass_time(self.ttl * 0.7)
                page = await worker.broker.history(channel, stream, limit=0)
                same(page.top, first, "position that was asked for")
            await self.pass_time(self.ttl * 1.1)
            (again,) = await self._publish(worker, channel, 1, stream)
            same(again.offset, 1, "offset in a new epoch")
            holds(again.epoch not in (first.epoch, "", "_"), "the new epoch has the old name")
            page = await worker.broker.history(channel, stream)
            same([one.position for one in page.publications], [again], "history")

    # Idempotency.

    async def test_same_key_is_published_once(self) -> None:
        """The second changes nothing and gets the position of the first."""
        channel, other = fresh_name(), fresh_name()
        for stream in (self._stream, None):
            async with self._worker(channel, other) as worker:
                first = await self._publish_one(worker, channel, 1, stream, key="k")
                again = await self._publish_one(worker, channel, 2, stream, key="k")
                same(again, first, "position of the repetition")
                await self._publish_one(worker, channel, 3, stream, key="l")
                await self._publish_one(worker, other, 4, stream, key="k")
                same(await self._settled(worker, channel, stream), [b"1", b"3"], "handed over")
                same(await self._settled(worker, other, stream), [b"4"], "handed over elsewhere")
                if stream is not None:
                    page = await worker.broker.history(channel, stream)
                    kept = [one.data for one in page.publications if not one.binary]
                    same(kept, [b"1", b"3"], "history")
            channel, other = fresh_name(), fresh_name()

    async def test_key_is_forgotten_after_its_window(self) -> None:
        """And remembered for as long."""
        channel = fresh_name()
        async with self._worker() as worker:
            for wait, wanted in ((0.0, 1), (0.5, 1), (0.7, 2)):
                await self.pass_time(self.ttl * wait)
                position = await self._publish_one(worker, channel, 0, self._stream, key="k")
                same(position.offset, wanted, "offset")

    async def test_same_key_at_once_is_published_once(self) -> None:
        """Whoever comes first, everybody gets the same position."""
        channel = fresh_name()
        async with self._workers() as workers:
            for worker in workers:
                await worker.broker.subscribe(channel)
            positions = await asyncio.gather(
                *(
                    self._publish_one(workers[n % 2], channel, n, self._stream, key="k")
                    for n in range(30)
                )
            )
            same({*positions}, {Position(1, positions[0].epoch)}, "positions")
            for worker in workers:
                same(
                    len(await self._settled(worker, channel, self._stream)),
                    1,
                    "publications handed over",
                )

    # Who is there.

    async def test_presence(self) -> None:
        """Entries by connection, with what was said last; striking out does no harm twice."""
        channel = fresh_name()
        ann, ben = ClientInfo("ann", "c1", b"{}", b"[]"), ClientInfo("ben", "c2")
        async with self._workers() as (one, two):
            same(dict(await one.broker.presence(channel)), {}, "presence of nobody")
            await one.broker.add_presence(channel, ann, self.ttl)
            await two.broker.add_presence(channel, ben, self.ttl)
            same(dict(await two.broker.presence(channel)), {"c1": ann, "c2": ben}, "presence")
            renamed = ClientInfo("ann", "c1", b"1")
            await one.broker.add_presence(channel, renamed, self.ttl)
            same(dict(await two.broker.presence(channel)), {"c1": renamed, "c2": ben}, "presence")
            for _ in range(2):
                await one.broker.remove_presence(channel, "c1", "ann")
            await one.broker.remove_presence(fresh_name(), "c1", "ann")
            same(dict(await two.broker.presence(channel)), {"c2": ben}, "presence")

    async def test_presence_counts_connections_and_users(self) -> None:
        """A user with two connections is one, and so are all who are anonymous."""
        channel = fresh_name()
        async with self._worker() as worker:
            same(await worker.broker.presence_counts(channel), Counts(0, 0), "nobody")
            for number, user in enumerate(["ann", "ann", "", "", "ben"]):
                info = ClientInfo(user, f"c{number}")
                await worker.broker.add_presence(channel, info, self.ttl)
                await worker.broker.add_presence(channel, info, self.ttl)
            same(await worker.broker.presence_counts(channel), Counts(5, 3), "counts")
            await worker.broker.remove_presence(channel, "c0", "ann")
            same(await worker.broker.presence_counts(channel), Counts(4, 3), "counts")
            await worker.broker.remove_presence(channel, "c1", "ann")
            same(await worker.broker.presence_counts(channel), Counts(3, 2), "counts")

    async def test_presence_is_a_lease(self) -> None:
        """Who renews stays, who does not disappears, from the counts as well."""
        channel = fresh_name()
        ann, ben = ClientInfo("ann", "c1"), ClientInfo("ben", "c2")
        async with self._worker() as worker:
            await worker.broker.add_presence(channel, ann, self.ttl)
            await worker.broker.add_presence(channel, ben, self.ttl)
            await self.pass_time(self.ttl * 0.6)
            await worker.broker.add_presence(channel, ann, self.ttl)
            await self.pass_time(self.ttl * 0.6)
            same(dict(await worker.broker.presence(channel)), {"c1": ann}, "presence")
            same(await worker.broker.presence_counts(channel), Counts(1, 1), "counts")
            await self.pass_time(self.ttl * 0.6)
            same(await worker.broker.presence_counts(channel), Counts(0, 0), "counts")
            same(dict(await worker.broker.presence(channel)), {}, "presence")

    async def test_joins_and_leaves_keep_their_order(self) -> None:
        """They reach every subscribed worker and are not kept."""
        channel = fresh_name()
        async with self._workers() as workers:
            for worker in workers:
                await worker.broker.subscribe(channel)
            for number in range(10):
                info = ClientInfo("ann", f"c{number}", b"{}", b"[]")
                await workers[0].broker.join(channel, info)
                await workers[0].broker.leave(channel, info)
            for worker in workers:
                await eventually(
                    lambda sink=worker.sink: len(sink.comings(channel)) >= 20,  # type: ignore[misc]
                    within=self.within,
                    what="joins and leaves",
                )
                for number in range(10):
                    own = [one for one in worker.sink.comings(channel) if one[1] == f"c{number}"]
                    wanted = [("join", f"c{number}"), ("leave", f"c{number}")]
                    same(own, wanted, "joins and leaves of one client")
                kind, _, info = worker.sink.events[0]
                same((kind, info.chan_info), ("join", b"[]"), "first of all")
            page = await workers[0].broker.history(channel, self._stream)
            same((list(page.publications), page.top.offset), ([], 0), "history")

    # Who is told.

    async def test_subscribing_and_unsubscribing_are_idempotent(self) -> None:
        """Twice is once, and nothing comes of a channel that was left or never entered."""
        channel, other, watched = fresh_name(), fresh_name(), fresh_name()
        async with self._worker(channel, channel, watched) as worker:
            await worker.broker.unsubscribe(other)
            await self._publish(worker, channel, 1)
            await self._publish(worker, other, 1)
            await worker.broker.join(other, ClientInfo("ann", "c1"))
            same(await self._settled(worker, channel, self._stream), [b"0"], "handed over")
            for _ in range(2):
                await worker.broker.unsubscribe(channel)
            await self._publish(worker, channel, 1)
            await worker.broker.leave(channel, ClientInfo("ann", "c1"))
            await self._settled(worker, watched, self._stream)
            same(len(worker.sink.publications(channel)), 2, "publications, one for settling")
            same({name for _, name, _ in worker.sink.events}, {channel, watched}, "channels")
            await worker.broker.subscribe(channel)
            await self._publish(worker, channel, 1)
            same(
                await self._settled(worker, channel, self._stream),
                [b"0", b"0"],
                "after coming back",
            )

    # Between nodes.

    async def test_control_reaches_one_node_or_all(self) -> None:
        """Whoever sends is one of all, and may write to itself."""
        async with self._workers() as workers:
            (one, two), nodes = workers, len({*workers})
            sent = [
                (b"all", None, one),
                (b"\x00\xff to two", two.node, one),
                (b"to one", one.node, one),
                (b"to nobody", "nobody", two),
                (b"end", None, two),
            ]
            for data, node, sender in sent:
                await sender.broker.control(data, node)
            for worker in {*workers}:

                def ended(sink: RecordingSink = worker.sink) -> bool:
                    return b"end" in sink.control

                await eventually(ended, within=self.within, what="the last control message")
                wanted = {b"all", b"end"}
                wanted |= {b"\x00\xff to two"} if worker is two else set()
                wanted |= {b"to one"} if worker is one else set()
                same(sorted(worker.sink.control), sorted(wanted), f"control, {nodes} nodes")

    async def test_notes_are_kept(self) -> None:
        """What was put last is what everybody gets."""
        name = fresh_name()
        async with self._workers() as (one, two):
            same(await two.broker.get(name), None, "note that nobody put")
            for data in (b"first", b"\x00\xff"):
                await one.broker.put(name, data)
                same(await two.broker.get(name), data, "note")

    async def test_health_is_up_while_it_works(self) -> None:
        """From the start on, and the sink is told of no break."""
        async with self._worker() as worker:
            same(tuple(worker.broker.health), (True, ""), "health")
            await self._publish(worker, fresh_name(), 1)
            holds(False not in worker.sink.links, "the sink was told of a break")

    async def test_sink_is_told_nothing_after_stop(self) -> None:
        """Stopping twice is stopping once."""
        channel = fresh_name()
        async with self._worker(channel) as worker, self._worker(channel) as other:
            await self._publish(worker, channel, 1)
            await self._settled(worker, channel, self._stream)
            before = list(worker.sink.events)
            for _ in range(2):
                await worker.broker.stop()
            with suppress(BrokerUnavailable):
                await self._publish(worker, channel, 1)
            await self._publish(other, channel, 1)
            await self._settled(other, channel, self._stream)
            same(worker.sink.events, before, "what the sink was told")
