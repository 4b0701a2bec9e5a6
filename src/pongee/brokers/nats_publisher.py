"""Appends to the streams of channels at NATS. ▲

A process remembers where each channel stands, from what it stored itself and from what it was
handed over, so that a publication costs one round trip: it is stored if the channel still stands
there. If another process was faster it is refused, and tried again where the channel stands now.

What is published to one channel while a step is under way waits; if it becomes much, it is stored
in one step all together. So only other processes can be in the way. A process that was too slow
several times asks the others to pause for an instant, or it would be so for ever: whoever has just
stored something is the first to know what comes next.

A publication with an idempotency key carries it. Before it is stored a post is put up, a message of
the key's own subject in the same log: the key has been used if, and only if, a publication after
the post carries it. Whoever is refused looks there again before the next try, so that there is only
one, however many processes try at once and wherever one of them died. Then the position is written
on the post, for those who come when the publication itself is no longer kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import OrderedDict, deque
from hashlib import blake2b
from itertools import count
from math import ceil

from pongee.brokers.base import Stream
from pongee.brokers.nats_history import History, Last, lasting
from pongee.brokers.nats_jetstream import Server, ServerError, Stored
from pongee.brokers.nats_messages import (
    KEY,
    PUBLICATION,
    YIELD,
    Head,
    conditions,
    header,
    pack,
    position_of,
    unpack,
)
from pongee.channels.publication import Position
from pongee.channels.stream import new_epoch
from pongee.errors import BrokerUnavailable
from pongee.limits import (
    NATS_BATCH,
    NATS_BATCH_BYTES,
    NATS_LANES,
    NATS_PAGE,
    NATS_PAGE_BYTES,
    SWEEP_INTERVAL,
)

__all__ = ["Publisher"]

logger = logging.getLogger("pongee.brokers")

_KEY = b"Pongee-Key"
_UNTIL = b"Pongee-Until"

_PATIENCE = 3
"""Tries after which, again and again, the other processes are asked to pause."""
_PAUSE = 0.003
"""Seconds of such a pause."""

_FEW = 64
"""Publications that are rather stored one after the other: a server takes milliseconds for a step
of several, during which it stores nothing else, and a tenth of one for a single publication."""

_LATE = 0.25
"""Seconds after which those that wait are stored in one step, however few: the server is far."""

_REMOVALS = 500
"""Channels of which old publications are removed in one sweep: servers drop what they are asked
when too much is asked at once."""

_Message = tuple[str, bytes, bytes]
"""A subject, what is stored there, and header lines."""


class _Job:
    """A publication that waits for its position.

    Attributes:
        key: that it carries; `None` for none.
        post: sequence of the key's post; 0 before it is put up.
        seen: sequence up to which there is no publication with the key after the post.
        until: when the key is forgotten, seconds on the server's clock.
        since: when it came, on the event loop's clock.
        same: others with the same key, which get the same position.
    """

    __slots__ = ("body", "done", "key", "post", "same", "seen", "since", "until", "window")

    def __init__(self, body: bytes, key: str | None, window: float) -> None:
        self.body = body
        self.key = key
        self.window = window
        self.post = self.seen = 0
        self.until = 0.0
        self.same: list[_Job] = []
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self.done: asyncio.Future[Position] = loop.create_future()

    def got(self, position: Position) -> None:
        """Tell the publisher, and those with the same key."""
        for job in (self, *self.same):
            if not job.done.done():
                job.done.set_result(position)

    def failed(self, why: str) -> None:
        """Tell them that it failed."""
        for job in (self, *self.same):
            if not job.done.done():
                job.done.set_exception(BrokerUnavailable(why))


class _Lane:
    """One channel.

    Attributes:
        last: where it stands, as far as it is known.
        jobs: what waits for the next step.
        task: takes the steps, while there are any.
        mark: a sequence, and when it was stored: what is up to it is too old one day.
        pause: until when others shall have their turn, on the event loop's clock.
    """

    __slots__ = ("channel", "jobs", "last", "mark", "pause", "stream", "subject", "task")

    def __init__(self, channel: str, subject: str, stream: Stream) -> None:
        self.channel = channel
        self.subject = subject
        self.stream = stream
        self.last: Last | None = None
        self.jobs: deque[_Job] = deque()
        self.task: asyncio.Task[None] | None = None
        self.mark: tuple[int, float] | None = None
        self.pause = 0.0

    def take(self, several: bool) -> list[_Job]:
        """Take what the next step stores; one if not `several`."""
        taken: list[_Job] = []
        keys: dict[str, _Job] = {}
        size = 0
        late = self.jobs[0].since < asyncio.get_running_loop().time() - _LATE
        most = NATS_BATCH if several and (late or len(self.jobs) >= _FEW) else 1
        while self.jobs and len(taken) < most and (not taken or size < NATS_BATCH_BYTES):
            job = self.jobs.popleft()
            if job.done.done():
                continue  # its publisher was cancelled
            first = keys.setdefault(job.key, job) if job.key is not None else job
            if first is not job:
                first.same.append(job)
                continue
            taken.append(job)
            size += len(job.body)
        return taken


class Publisher:
    """Appends for one process.

    Args:
        server: that keeps the log.
        history: reads it.
    """

    def __init__(self, server: Server, history: History) -> None:
        self._server = server
        self._history = history
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._batches = count()
        self._name = secrets.token_hex(8).encode()
        self._sweeper: asyncio.TimerHandle | None = None

    async def publish(
        self, channel: str, body: bytes, stream: Stream, key: str | None, window: float
    ) -> Position:
        """Append; returns once the server has stored it."""
        lane = self._lane(channel, stream)
        job = _Job(body, key, window)
        lane.jobs.append(job)
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._work(lane))
        return await job.done

    async def publish_once(self, channel: str, body: bytes, key: str, window: float) -> None:
        """Publish to a channel without a stream, if nobody has with this key."""
        subject = self._server.names.key(channel, key, alone=True)
        expired = 0
        while True:
            headers = conditions(
                expected=expired, ttl=window, more=_until(self._server.now() + window)
            )
            try:
                await self._server.store(subject, pack(PUBLICATION, body=body), headers)
                return
            except ServerError as error:
                if not error.is_conflict:
                    raise
            stored = await self._server.last(self._server.names.log, subject)
            if stored is not None and not self._is_forgotten(stored):
                return
            expired = 0 if stored is None else stored.sequence

    def forget_positions(self) -> None:
        """Ask anew where channels stand: what was known may be of another life of the server."""
        for lane in self._lanes.values():
            lane.last = lane.mark = None

    def heard(self, channel: str, head: Head, headers: bytes) -> None:
        """Learn from what was handed over where a channel stands. ▲"""
        lane = self._lanes.get(channel)
        if lane is None or not head.epoch:
            return
        sequence = int(header(headers, b"Nats-Sequence") or 0)
        if lane.last is not None and sequence > lane.last.sequence:
            lane.last = Last(sequence, head.offset, head.epoch, self._server.now())

    def asked_to_pause(self, channel: str) -> None:
        """Let another process publish to `channel` first."""
        lane = self._lanes.get(channel)
        if lane is not None and lane.task is not None:
            lane.pause = asyncio.get_running_loop().time() + _PAUSE

    def stop(self) -> None:
        """Sweep no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._lanes.clear()

    def _lane(self, channel: str, stream: Stream) -> _Lane:
        lane = self._lanes.get(channel)
        if lane is None:
            if len(self._lanes) >= NATS_LANES:
                self._make_room()
            subject = self._server.names.publications(channel)
            lane = self._lanes[channel] = _Lane(channel, subject, stream)
            if self._sweeper is None:
                self._sweep_later()
        else:
            lane.stream = stream
            self._lanes.move_to_end(channel)
        return lane

    def _make_room(self) -> None:
        for channel, lane in self._lanes.items():
            if lane.task is None:
                del self._lanes[channel]
                return

    async def _work(self, lane: _Lane) -> None:
        """Take steps until nothing waits."""
        jobs: list[_Job] = []
        try:
            while lane.jobs:
                jobs = lane.take(self._server.stores_several)
                if not jobs:
                    continue
                try:
                    async with self._server.deadline():
                        await self._store(lane, jobs)
                except BrokerUnavailable as error:
                    # Those that wait fail as well: their time has run out, or will.
                    self._fail(lane, jobs, str(error))
        except BaseException as error:
            self._fail(lane, jobs, f"{self._server.name}: {type(error).__name__}")
            raise
        finally:
            lane.task = None

    def _fail(self, lane: _Lane, jobs: list[_Job], why: str) -> None:
        lane.last = None
        for job in (*jobs, *lane.jobs):
            job.failed(why)
        lane.jobs.clear()

    async def _store(self, lane: _Lane, jobs: list[_Job]) -> None:
        """Store `jobs`, and tell each its position; those that were told are taken out."""
        tries = 0
        pause = lane.pause - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        await self._put_up_posts(lane, jobs)
        while jobs:
            last = lane.last or await self._history.last(lane.channel)
            lane.last = last
            await self._find_keys(lane, jobs, last)
            if not jobs:
                return
            now = self._server.now()
            over = last.is_over(lane.stream, now)
            epoch, offset = (new_epoch(), 0) if over else (last.epoch, last.offset)
            messages = self._messages(lane, jobs, last.sequence, offset, epoch)
            try:
                sequence = await self._send(messages)
            except ServerError as error:
                if not (error.is_conflict or error.may_be_tried_again):
                    raise
                if lane.last is last:  # nothing was heard of the one who was faster
                    lane.last = None
                tries += 1
                if tries % _PATIENCE == 0:
                    self._ask_for_a_turn(lane)
                    # Others may be as unlucky.
                    await asyncio.sleep(random.random() * _PAUSE / 4)  # noqa: S311
                continue
            mine = Last(sequence, offset + len(jobs), epoch, now)
            if lane.last is None or sequence >= lane.last.sequence:
                lane.last = mine
            for number, job in enumerate(jobs, offset + 1):
                self._write_on_post(lane, job, number, epoch)
                job.got(Position(number, epoch))
            self._tidy(lane, last, mine, over)
            return

    def _ask_for_a_turn(self, lane: _Lane) -> None:
        message = pack(YIELD, body=lane.channel.encode("utf-8", "surrogatepass"))
        self._server.connection().pub(self._server.names.control, message)

    def _messages(
        self, lane: _Lane, jobs: list[_Job], expected: int | None, offset: int, epoch: str
    ) -> list[_Message]:
        messages: list[_Message] = []
        ttl = lasting(lane.stream, 1)
        for job in jobs:
            offset += 1
            more = b"%s: %s\r\n" % (_KEY, _digest(job.key)) if job.key is not None else b""
            headers = conditions(expected=expected, ttl=ttl, more=more)
            messages.append((lane.subject, pack(PUBLICATION, offset, epoch, job.body), headers))
            expected = None  # the server compares with what was stored before the whole step
        return messages

    async def _send(self, messages: list[_Message]) -> int:
        if len(messages) == 1:
            return await self._server.store(*messages[0])
        return await self._server.store_all(messages, b"%s%d" % (self._name, next(self._batches)))

    # Idempotency keys.

    async def _put_up_posts(self, lane: _Lane, jobs: list[_Job]) -> None:
        keyed = [job for job in jobs if job.key is not None]
        if keyed:
            await asyncio.gather(*(self._put_up_post(lane, job) for job in keyed))
            jobs[:] = [job for job in jobs if not job.done.done()]

    async def _put_up_post(self, lane: _Lane, job: _Job) -> None:
        """Put it up, or find the one that somebody else has; it may tell the position."""
        assert job.key is not None  # noqa: S101 - only then there is a post
        subject = self._server.names.key(lane.channel, job.key, alone=False)
        expired = 0
        while True:
            job.until = self._server.now() + job.window
            headers = conditions(expected=expired, ttl=job.window, more=_until(job.until))
            try:
                job.post = job.seen = await self._server.store(subject, pack(KEY), headers)
                return
            except ServerError as error:
                if not error.is_conflict:
                    raise
            stored = await self._server.last(self._server.names.log, subject)
            if stored is None or self._is_forgotten(stored):
                expired = 0 if stored is None else stored.sequence
                continue
            head = unpack(stored.data)
            if head.epoch:
                job.got(position_of(head))
            job.post = job.seen = stored.sequence
            job.until = _expiry(stored)
            return

    async def _find_keys(self, lane: _Lane, jobs: list[_Job], last: Last) -> None:
        """Look for publications with the keys, from the posts to where the channel stands."""
        for job in jobs:
            if job.key is None:
                continue
            digest, more = _digest(job.key), True
            while job.seen < last.sequence and more:
                stored, more = await self._server.some(
                    self._server.names.log, lane.subject, job.seen + 1, NATS_PAGE, NATS_PAGE_BYTES
                )
                for one in stored:
                    if header(one.headers, _KEY) == digest:
                        job.got(position_of(unpack(one.data)))
                job.seen = stored[-1].sequence if stored and more else last.sequence
        jobs[:] = [job for job in jobs if not job.done.done()]

    def _write_on_post(self, lane: _Lane, job: _Job, offset: int, epoch: str) -> None:
        """Say which position a key has got; nobody waits, since the publication says it as well."""
        if job.key is None:
            return
        subject = self._server.names.key(lane.channel, job.key, alone=False)
        left = max(0.0, job.until - self._server.now())
        headers = conditions(expected=job.post, ttl=left, more=_until(job.until))
        self._server.connection().pub(subject, pack(KEY, offset, epoch), headers)

    def _is_forgotten(self, stored: Stored) -> bool:
        return self._server.now() >= _expiry(stored)

    # What is too old or too much is removed, which only saves space.

    def _tidy(self, lane: _Lane, before: Last, last: Last, over: bool) -> None:
        stream = lane.stream
        if over:
            lane.mark = None
            if before.sequence:
                self._server.forget(lane.subject, seq=before.sequence + 1)
        step = max(64, ceil(stream.size / 4))
        if not over and before.offset // step != last.offset // step:
            self._server.forget(lane.subject, keep=stream.size + 32)
        if lane.mark is None:
            lane.mark = (last.sequence, last.at)
        elif last.at - lane.mark[1] >= stream.ttl:
            self._server.forget(lane.subject, seq=lane.mark[0] + 1)
            lane.mark = (last.sequence, last.at)

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_INTERVAL, self._sweep)

    def _sweep(self) -> None:
        """Let go of channels where nothing was published for as long as publications are kept."""
        self._sweeper = None
        now = self._server.now()
        left = _REMOVALS
        for channel, lane in list(self._lanes.items()):
            last = lane.last
            if lane.task is not None or (last and now - last.at < lane.stream.ttl):
                continue
            if last is not None and last.offset > 1 and self._server.is_up:
                if not left:
                    continue
                left -= 1
                self._server.forget(lane.subject, seq=last.sequence)
            del self._lanes[channel]
        if self._lanes:
            self._sweep_later()


def _digest(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()


def _until(until: float) -> bytes:
    return b"%s: %s\r\n" % (_UNTIL, repr(until).encode())


def _expiry(stored: Stored) -> float:
    return float(header(stored.headers, _UNTIL) or 0)
