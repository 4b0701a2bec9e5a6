"""Who else is there, and what is asked of all.

Every process announces itself again and again; one that has not for `NODE_TTL` counts as gone. A
command goes to all at once, and each that is known to be there answers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from pongee.clock import Timer, TimerWheel
from pongee.errors import BrokerUnavailable
from pongee.fleet.messages import (
    Answer,
    Ask,
    Bye,
    Command,
    Forward,
    Hello,
    Message,
    NodeInfo,
    decode,
    encode,
)
from pongee.limits import NODE_INTERVAL, NODE_TTL, SURVEY_TIMEOUT
from pongee.switchboard import Switchboard

__all__ = ["Fleet"]

logger = logging.getLogger("pongee")


class _Survey:
    """A command whose answers are awaited."""

    def __init__(self, expected: set[str]) -> None:
        self.missing = expected
        self._answers: dict[str, Answer] = {}
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._look()

    def take(self, answer: Answer) -> None:
        """Note an answer; one from a process that nobody knew is welcome too."""
        self._answers.setdefault(answer.node, answer)
        self.give_up(answer.node)

    def give_up(self, node: str) -> None:
        """Wait for `node` no more."""
        self.missing.discard(node)
        self._look()

    @property
    def answers(self) -> list[Answer]:
        """Those that have come, one of each process."""
        return list(self._answers.values())

    def end(self) -> None:
        """Wait for nobody any more."""
        self.missing.clear()
        self._look()

    def _look(self) -> None:
        if not self.missing and not self.complete.done():
            self.complete.set_result(None)


class Fleet:
    """The processes of one application, seen from one of them.

    Args:
        board: this process's way to the broker.
        wheel: for announcements and deadlines.
        describe: what this process says of itself.
        carry_out: does what is asked of this process.
        take_forward: hands commands to a client of this process.
    """

    def __init__(
        self,
        board: Switchboard,
        wheel: TimerWheel,
        describe: Callable[[], NodeInfo],
        carry_out: Callable[[Command], Awaitable[Answer]],
        take_forward: Callable[[Forward], None],
    ) -> None:
        self._board = board
        self._wheel = wheel
        self._describe = describe
        self._carry_out = carry_out
        self._take_forward = take_forward
        self._others: dict[str, tuple[NodeInfo, Timer]] = {}
        self._surveys: dict[int, _Survey] = {}
        self._numbers = itertools.count(1)
        self._announcing: Timer | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        board.take_control = self._take

    @property
    def alone(self) -> bool:
        """Whether nobody else can be there: the broker is this process's own."""
        return self._board.broker.reliable

    @property
    def others(self) -> list[NodeInfo]:
        """The other processes, as they last said of themselves."""
        return [info for info, _ in self._others.values()]

    def start(self) -> None:
        """Announce this process, now and from now on."""
        if not self.alone and self._announcing is None:
            self._announce(new=True)

    def greet(self) -> None:
        """Announce this process once more: the link was down."""
        if self._announcing is not None:
            self._announcing.cancel()
            self._announce(new=True)

    async def stop(self) -> None:
        """Say goodbye."""
        if self._announcing is None:
            return
        self._announcing.cancel()
        self._announcing = None
        for _, timer in self._others.values():
            timer.cancel()
        self._others.clear()
        for survey in self._surveys.values():
            survey.end()
        try:
            await self._board.broker.control(encode(Bye(self._board.node)))
        except BrokerUnavailable as error:
            logger.debug("nobody heard the goodbye: %s", error)
        for job in list(self._jobs):
            job.cancel()

    async def ask(self, command: Command) -> list[Answer]:
        """Have every process do something; returns the answers, this process's own first.

        Processes that do not answer within `SURVEY_TIMEOUT` are left out, and logged.

        Raises:
            BrokerUnavailable: this process has done it; others may or may not.
        """
        own = await self._carry_out(command)
        if self.alone:
            return [own]
        number, survey = next(self._numbers), _Survey(set(self._others))
        self._surveys[number] = survey
        try:
            ask = Ask(self._board.node, number, command)
            await self._board.broker.control(encode(ask))
            async with self._wheel.timeout(SURVEY_TIMEOUT):
                await survey.complete
        except TimeoutError:
            names = ", ".join(sorted(survey.missing))
            logger.warning("no answer within %g s from: %s", SURVEY_TIMEOUT, names)
        finally:
            del self._surveys[number]
        return [own, *survey.answers]

    async def forward(self, node: str, commands: Forward) -> bool:
        """Send commands to the process that has the client; returns whether there is one.

        Raises:
            BrokerUnavailable: they may or may not arrive.
        """
        if node not in self._others:
            return False
        await self._board.broker.control(encode(commands), node)
        return True

    # What the others say

    def _take(self, data: bytes) -> None:
        message = decode(data)
        if message is None:
            logger.debug("a control message of another version was ignored")
        else:
            self._react(message)

    def _react(self, message: Message) -> None:
        me = self._board.node
        match message:
            case Hello() if message.info.uid != me and self._announcing is not None:
                self._note(message.info)
                if message.new:
                    self._job(self._say(encode(Hello(self._describe())), message.info.uid))
            case Bye():
                self._forget(message.node)
            case Ask() if message.node != me:
                self._job(self._answer(message))
            case Forward():
                self._take_forward(message)
            case Answer():
                survey = self._surveys.get(message.number)
                if survey is not None:
                    survey.take(message)

    async def _answer(self, ask: Ask) -> None:
        answer = await self._carry_out(ask.command)
        named = Answer(
            self._board.node,
            ask.number,
            answer.count,
            answer.channels,
            answer.code,
            answer.problem,
        )
        try:
            await self._board.broker.control(encode(named), ask.node)
        except BrokerUnavailable as error:  # too large for the broker, perhaps
            short = Answer(self._board.node, ask.number, answer.count, code=100, problem=str(error))
            await self._say(encode(short), ask.node)

    def _note(self, info: NodeInfo) -> None:
        known = self._others.get(info.uid)
        if known is not None:
            known[1].cancel()
        timer = self._wheel.call_later(NODE_TTL, lambda: self._lose(info.uid))
        self._others[info.uid] = (info, timer)

    def _lose(self, node: str) -> None:
        logger.warning("node %s has not been heard of for %g s", node, NODE_TTL)
        self._forget(node)

    def _forget(self, node: str) -> None:
        known = self._others.pop(node, None)
        if known is not None:
            known[1].cancel()
            for survey in self._surveys.values():
                survey.give_up(node)

    def _announce(self, *, new: bool = False) -> None:
        self._announcing = self._wheel.call_later(NODE_INTERVAL, self._announce)
        if self._board.broker.health.up:
            self._job(self._say(encode(Hello(self._describe(), new)), None))

    async def _say(self, data: bytes, node: str | None) -> None:
        try:
            await self._board.broker.control(data, node)
        except BrokerUnavailable as error:
            logger.debug("a message to other nodes was lost: %s", error)

    def _job(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a command of another node failed", exc_info=task.exception())
