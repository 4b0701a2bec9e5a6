"""Appends to the streams of channels at NATS. ▲

A process remembers where each channel stands, from what it stored itself and from what it was
handed over, so that a publication costs one round trip: it is stored if the channel still stands
there. If another process was faster it is refused, and tried again where the channel stands now.

What is published to one channel while a step is under way waits, and is stored in the next step all
together: as many publishers as there are cost one round trip, and only other processes can be in
the way. A step with an idempotency key also stores which position the key has got, if nobody has
stored the same key before: either both are stored or nothing is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import OrderedDict, deque
from itertools import count
from math import ceil

from pongee.brokers.base import Stream
from pongee.brokers.nats_history import History, Last, lasting
from pongee.brokers.nats_jetstream import Server, ServerError
from pongee.brokers.nats_messages import (
    KEY,
    PUBLICATION,
    Head,
    Undecodable,
    conditions,
    header,
    pack,
    unpack,
)
from pongee.channels.publication import NOWHERE, Position
from pongee.channels.stream import new_epoch
from pongee.errors import BrokerUnavailable
from pongee.limits import NATS_BATCH, NATS_BATCH_BYTES, NATS_LANES, SWEEP_INTERVAL

__all__ = ["Publisher"]

logger = logging.getLogger("pongee.brokers")

_WINDOW = b"Pongee-Window"

_Message = tuple[str, bytes, bytes]
"""A subject, what is stored there, and header lines."""


class _Job:
    """A publication that waits for its position.

    Attributes:
        key_seen: sequence of the key's message that has expired; 0 for none.
        same: others with the same key, which get the same position.
    """

    __slots__ = ("body", "done", "key", "key_seen", "same", "window")

    def __init__(self, body: bytes, key: str | None, window: float) -> None:
        self.body = body
        self.key = key
        self.window = window
        self.key_seen = 0
        self.same: list[_Job] = []
        self.done: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

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
    """

    __slots__ = ("channel", "jobs", "last", "mark", "stream", "subject", "task")

    def __init__(self, channel: str, subject: str, stream: Stream) -> None:
        self.channel = channel
        self.subject = subject
        self.stream = stream
        self.last: Last | None = None
        self.jobs: deque[_Job] = deque()
        self.task: asyncio.Task[None] | None = None
        self.mark: tuple[int, float] | None = None

    def take(self) -> list[_Job]:
        """Take what the next step stores."""
        taken: list[_Job] = []
        keys: dict[str, _Job] = {}
        size = 0
        while self.jobs and len(taken) < NATS_BATCH and (not taken or size < NATS_BATCH_BYTES):
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
        seen = 0
        while True:
            headers = conditions(expected=seen, ttl=window, more=_window(window))
            try:
                await self._server.store(subject, pack(PUBLICATION, body=body), headers)
                return
            except ServerError as error:
                if not error.is_conflict:
                    raise
            seen, position = await self._key(subject)
            if position is not None:
                return

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
                jobs = lane.take()
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
        """Store `jobs`, and tell each its position."""
        tries = 0
        while jobs:
            last = lane.last or await self._history.last(lane.channel)
            lane.last = last
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
                jobs[:] = await self._without_known(lane, jobs)
                tries += 1
                if tries > 2:
                    await asyncio.sleep(random.random() * 0.002 * min(tries, 10))  # noqa: S311
                continue
            top = offset + len(jobs)
            if lane.last is None or sequence >= lane.last.sequence:
                lane.last = Last(sequence, top, epoch, now)
            for number, job in enumerate(jobs, offset + 1):
                job.got(Position(number, epoch))
            self._tidy(lane, last, Last(sequence, top, epoch, now), over)
            return

    def _messages(
        self, lane: _Lane, jobs: list[_Job], expected: int | None, offset: int, epoch: str
    ) -> list[_Message]:
        messages: list[_Message] = []
        ttl = lasting(lane.stream, 1)
        for job in jobs:
            offset += 1
            if job.key is not None:
                headers = conditions(
                    expected=job.key_seen, ttl=job.window, more=_window(job.window)
                )
                subject = self._server.names.key(lane.channel, job.key, alone=False)
                messages.append((subject, pack(KEY, offset, epoch), headers))
            headers = conditions(expected=expected, ttl=ttl)
            messages.append((lane.subject, pack(PUBLICATION, offset, epoch, job.body), headers))
            expected = None  # the server compares with what was stored before the whole step
        return messages

    async def _send(self, messages: list[_Message]) -> int:
        if len(messages) == 1:
            return await self._server.store(*messages[0])
        return await self._server.store_all(messages, b"%s%d" % (self._name, next(self._batches)))

    async def _without_known(self, lane: _Lane, jobs: list[_Job]) -> list[_Job]:
        """Answer those whose key has a position, and return the rest."""
        rest = []
        for job in jobs:
            if job.key is not None:
                subject = self._server.names.key(lane.channel, job.key, alone=False)
                job.key_seen, position = await self._key(subject)
                if position is not None:
                    job.got(position)
                    continue
            rest.append(job)
        return rest

    async def _key(self, subject: str) -> tuple[int, Position | None]:
        """Look a key up: its message's sequence, and its position if the window is still open."""
        stored = await self._server.last(self._server.names.log, subject)
        if stored is None:
            return 0, None
        window = float(header(stored.headers, _WINDOW) or 0)
        if self._server.now() - stored.at >= window:
            return stored.sequence, None
        try:
            head = unpack(stored.data)
        except Undecodable:
            return stored.sequence, None
        return stored.sequence, Position(head.offset, head.epoch) if head.epoch else NOWHERE

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
        for channel, lane in list(self._lanes.items()):
            last = lane.last
            if lane.task is not None or (last and now - last.at < lane.stream.ttl):
                continue
            del self._lanes[channel]
            if last is not None and self._server.is_up:
                self._server.forget(lane.subject, seq=last.sequence)
        if self._lanes:
            self._sweep_later()


def _window(window: float) -> bytes:
    return b"%s: %r\r\n" % (_WINDOW, window)
