"""The part of `Pongee` that looks at channels and acts on connections, of every process."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from pongee.brokers.base import Counts, Page
from pongee.centrifuge.codes import ErrorCode, is_unsubscribe_code
from pongee.channels.names import check_channel
from pongee.channels.options import ChannelOptions, stream_of
from pongee.channels.publication import ClientInfo, Position, Publication
from pongee.codes import may_be_sent
from pongee.errors import BrokerUnavailable, ClientError, UsageError
from pongee.fleet.messages import (
    Command,
    Disconnect,
    ListChannels,
    NodeInfo,
    Refresh,
    Subscribe,
    Target,
    Unsubscribe,
    check_pattern,
    sum_up,
)
from pongee.node import Node

__all__ = ["ActingFace"]


class ActingFace:
    """Presence, history, and what can be done to connections, whichever process they are at.

    What is done to connections is done to this process's own first, before anything is waited for.
    A process that does not answer within a second is left out of the result, and logged; so is one
    that this process has not heard of yet, in the first moments after a start.
    """

    _node: Node

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is in `channel`, by connection; nobody, where it declares no presence.

        Raises:
            BrokerUnavailable: nobody knows.
        """
        return await self._node.board.broker.presence(check_channel(channel))

    async def presence_stats(self, channel: str) -> Counts:
        """How many connections and how many different users are in `channel`.

        Raises:
            BrokerUnavailable: nobody knows.
        """
        return await self._node.board.broker.presence_counts(check_channel(channel))

    async def history(
        self,
        channel: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Page:
        """Read what `channel` keeps.

        Args:
            channel: its name.
            since: exclusive; `None` is the oldest (in reverse: the newest).
            limit: publications at most; `None` is all.
            reverse: newest first.

        Raises:
            UsageError: no channel with history is called so.
            BrokerUnavailable: nobody knows.
        """
        stream = stream_of(self._node.declared.options_of(check_channel(channel)))
        if stream is None:
            raise UsageError(f"{channel!r} keeps no history: declare it with history=…")
        return await self._node.board.broker.history(
            channel, stream, since=since, limit=limit, reverse=reverse
        )

    async def remove_history(self, channel: str) -> None:
        """Forget the publications that `channel` keeps; its position stays.

        Raises:
            BrokerUnavailable: they may or may not be forgotten.
        """
        await self._node.board.broker.remove_history(check_channel(channel))

    async def subscribe(
        self,
        channel: str,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
    ) -> int:
        """Subscribe client SDKs to a declared channel: the one with `id`, or all of `user`.

        Returns:
            How many.

        Raises:
            UsageError: neither or both were given, no such channel is declared, or a client is in
                as many as it may be.
            BrokerUnavailable: other processes could not be told, or one could not reach the broker.
        """
        if self._node.declared.find(check_channel(channel)) is None:
            raise UsageError(f"{channel!r} is not declared: pongee.channel(…)")
        return await self._command(Subscribe(_target(id, user), channel))

    async def unsubscribe(
        self,
        channel: str,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
        code: int = 2000,
        reason: str = "",
    ) -> int:
        """End subscriptions of client SDKs to `channel`: of the one with `id`, or all of `user`.

        Returns:
            How many clients were asked.

        Raises:
            UsageError: neither or both were given, or a code that may not be used.
            BrokerUnavailable: other processes could not be told.
        """
        if not is_unsubscribe_code(code):
            raise UsageError(f"unsubscribe code {code}: 2000 to 2999 may be used")
        return await self._command(
            Unsubscribe(_target(id, user), check_channel(channel), code, reason)
        )

    async def refresh(
        self,
        expires_at: float | None,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
    ) -> int:
        """Let client SDKs stay until `expires_at`, in Unix seconds; `None` is for ever.

        Returns:
            How many.

        Raises:
            UsageError: neither or both were given.
            BrokerUnavailable: other processes could not be told.
        """
        return await self._command(Refresh(_target(id, user), expires_at))

    async def channels(self, pattern: str = "") -> dict[str, int]:
        """Channels with members on any process of the application, and how many.

        Args:
            pattern: of the names: ``*`` is anything, ``?`` any character, ``[ab]`` one of these.

        Raises:
            UsageError: it is no pattern.
            BrokerUnavailable: other processes could not be asked.
        """
        answers = await self._node.command(ListChannels(check_pattern(pattern)))
        return sum_up(answer.channels for answer in answers)

    async def disconnect(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        user: str | None = None,
        code: int | None = None,
        reason: str | None = None,
    ) -> int:
        """End connections, sessions and client SDKs alike: the one with `id`, or all of `user`.

        Args:
            id: of a session or client.
            user: the user's id.
            code: by default 4403 for sessions and 3503 for client SDKs, which do not come back.
            reason: one line.

        Returns:
            How many.

        Raises:
            UsageError: neither or both were given, or `code` must not be sent; client SDKs take
                3000 to 4999.
            BrokerUnavailable: other processes could not be told.
        """
        if code is not None and not may_be_sent(code):
            raise UsageError(f"close code {code} must not be sent")
        return await self._command(Disconnect(_target(id, user), code, reason))

    async def once(self, name: str, ttl: float) -> bool:
        """Whether nobody has called this with `name` before, on any process, for `ttl` seconds.

        Of calls at the same time exactly one is told that it is the first.

        Args:
            name: anything.
            ttl: seconds for which the answer is remembered.

        Raises:
            BrokerUnavailable: nobody knows; a second call may be told that it is not the first.
        """
        channel = f"$once:{sha256(name.encode()).hexdigest()}"
        options = ChannelOptions(history=1, history_ttl=ttl, history_meta_ttl=ttl)
        position = await self._node.board.publish(channel, Publication(b"1"), options)
        return position.offset == 1

    async def info(self) -> list[NodeInfo]:
        """What the processes of the application are, this one first; the others as of just now."""
        return [self._node.describe(), *self._node.fleet.others]

    async def _command(self, command: Command) -> int:
        """Have every process do it; returns how many connections it concerned."""
        answers = await self._node.command(command)
        for answer in answers:
            if answer.code == ErrorCode.LIMIT_EXCEEDED:
                raise UsageError(answer.problem)
            if answer.code == ErrorCode.INTERNAL:
                raise BrokerUnavailable(f"{answer.node or 'this process'}: {answer.problem}")
            if answer.code:
                raise ClientError(answer.code, answer.problem)
        return sum(answer.count for answer in answers)


def _target(id: str | None, user: str | None) -> Target:  # noqa: A002 - the word users know
    """Say which connections are meant.

    Raises:
        UsageError: neither or both were given.
    """
    if (id is None) == (user is None):
        raise UsageError("id=... or user=...: give one of the two")
    return Target(user=user, id=id)
