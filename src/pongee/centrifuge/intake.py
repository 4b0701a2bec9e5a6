"""The commands of one client: in the order of arrival, and a few calls at once. ▲

A worker task carries commands out one after the other and ends when none is left; RPC calls run
beside it, and subscriptions of one frame beside each other, unless they recover what was missed.
So an unsubscribe finds its subscribe done, and a client's publications keep their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from pongee.centrifuge import commands
from pongee.centrifuge.codes import Disconnect
from pongee.centrifuge.errors import DisconnectClient
from pongee.centrifuge.messages import Command, Error, Reply
from pongee.centrifuge.rules import Phase, Ruling, judge, request_of
from pongee.codes import CauseKind
from pongee.handlers.faults import client_error

if TYPE_CHECKING:
    from pongee.centrifuge.client import Client

__all__ = ["Intake"]

logger = logging.getLogger("pongee.channels")


class Intake:
    """What a client has asked for and is not answered yet.

    Args:
        client: whose commands they are.
    """

    __slots__ = ("_calls", "_client", "_entering", "_ids", "_queue", "_worker")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids: set[int] = set()
        self._queue: deque[tuple[int, str, Any]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] | None = None
        self._entering: set[asyncio.Task[None]] | None = None

    def answered(self, number: int) -> None:
        """Learn that the command `number` has its reply."""
        self._ids.discard(number)

    def drop(self) -> None:
        """Forget what waits."""
        if self._queue is not None:
            self._queue.clear()

    def cancel(self) -> None:
        """Forget what waits, and cancel what runs."""
        self.drop()
        for task in (self._worker, *(self._calls or ()), *(self._entering or ())):
            if task is not None:
                task.cancel()

    def take(self, command: Command) -> None:
        """Rule on a command, and run it in its turn. ▲"""
        client = self._client
        name, request = request_of(command)
        match judge(client.phase, command, name, request, self._ids):
            case Ruling.RUN:
                self._ids.add(command.id)
                if name == "connect":
                    client.phase = Phase.CONNECTING
                if name == "rpc" and self._worker is None and self._may_call():
                    self._call(command.id, request)
                else:
                    self._enqueue((command.id, name, request))
            case Ruling.PONG:
                client.note_pong()
            case Ruling.ILLEGAL:
                logger.info(
                    "%s, client %s: illegal command %s", client.route, client.id, name or "?"
                )
                client.end(Disconnect.BAD_REQUEST, cause=CauseKind.BAD_INPUT)
            case Ruling.SAME_ID:
                self._enqueue((command.id, commands.SAME_ID, None))

    def _enqueue(self, work: tuple[int, str, Any]) -> None:
        client = self._client
        if self._queue is None:
            self._queue = deque()
        queue, limit = self._queue, client.service.spec.limits.waiting_commands
        queue.append(work)
        if len(queue) > limit:
            client.end(Disconnect.TOO_MANY_REQUESTS, cause=CauseKind.TOO_MANY)
            return
        if len(queue) == limit // 2:
            client.link.pause_reading()
        if self._worker is None:
            self._worker = client.loop.create_task(self._work(queue))

    async def _work(self, queue: deque[tuple[int, str, Any]]) -> None:
        client = self._client
        resume_at = client.service.spec.limits.waiting_commands // 4
        try:
            while queue or self._entering:
                if self._entering and not (queue and queue[0][1] == "subscribe"):
                    # What follows may be about one of these channels.
                    await asyncio.wait(self._entering, return_when="FIRST_COMPLETED")
                    continue
                number, name, request = queue.popleft()
                if len(queue) == resume_at:
                    client.link.resume_reading()
                if name == "rpc":
                    while not self._may_call():
                        await asyncio.wait(self._calls or (), return_when="FIRST_COMPLETED")
                    self._call(number, request)
                elif name == "subscribe" and request.recover:
                    # All at once, what a slow client missed would be more than its outbox holds,
                    # each time it came back; and nothing is read that it cannot be given yet.
                    await client.link.flushed()
                    await self._run(number, name, request)
                elif name == "subscribe" and (self._entering or _is_subscribe(queue)):
                    await self._enter(number, request)
                else:
                    await self._run(number, name, request)
        finally:
            self._worker = self._queue = None

    async def _enter(self, number: int, request: Any) -> None:
        """Subscribe beside others of the same frame: each waits for the broker more than once."""
        client = self._client
        if self._entering is None:
            self._entering = set()
        while len(self._entering) >= client.service.spec.limits.concurrent_calls:
            await asyncio.wait(self._entering, return_when="FIRST_COMPLETED")
        task = client.loop.create_task(self._run(number, "subscribe", request))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    def _may_call(self) -> bool:
        limit = self._client.service.spec.limits.concurrent_calls
        return self._calls is None or len(self._calls) < limit

    def _call(self, number: int, request: Any) -> None:
        client = self._client
        if self._calls is None:
            self._calls = set()
        task = client.loop.create_task(self._run(number, "rpc", request))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _run(self, number: int, name: str, request: Any) -> None:
        """Carry out one command and answer it. ▲"""
        client = self._client
        try:
            reply = await commands.COMMANDS[name](client, number, request)
        except DisconnectClient as verdict:
            client.end(verdict.code, verdict.reason, CauseKind.REFUSED)
            return
        except (Exception, asyncio.CancelledError) as raised:
            if client.cause is not None:
                return  # nobody waits for an answer
            if isinstance(raised, asyncio.CancelledError) and _is_cancelled():
                raise
            error = client_error(raised, f"{client.route}, {name}")
            reply = Reply(number, error=Error(error.code, error.message, error.temporary))
            if name == "connect":
                client.answer(reply)
                client.refuse()
                return
        if reply is not None:
            client.answer(reply)


def _is_subscribe(queue: deque[tuple[int, str, Any]]) -> bool:
    return bool(queue) and queue[0][1] == "subscribe"


def _is_cancelled() -> bool:
    """Whether this task was told to end, and not only something that its handler waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
