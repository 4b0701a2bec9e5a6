"""What one process does to its own connections when it is told to."""

from __future__ import annotations

from pongee.centrifuge import codes
from pongee.centrifuge.client import Client
from pongee.centrifuge.errors import error
from pongee.clock import Clock
from pongee.errors import ClientError, SessionClosed, UsageError
from pongee.fleet import messages
from pongee.fleet.messages import Answer, Command, Target
from pongee.handlers.faults import client_error
from pongee.hub import Hub
from pongee.registry import Connected, Registry

__all__ = ["Control"]


class Control:
    """Carries out commands.

    Args:
        registry: connections of this process.
        hub: its channels.
        clock: time.
    """

    def __init__(self, registry: Registry, hub: Hub, clock: Clock) -> None:
        self._registry = registry
        self._hub = hub
        self._clock = clock

    async def carry_out(self, command: Command) -> Answer:
        """Do it; what goes wrong is in the answer, and everybody else has been served."""
        match command:
            case messages.Disconnect():
                return self._disconnect(command)
            case messages.Subscribe():
                return await self._subscribe(command)
            case messages.Unsubscribe():
                return await self._unsubscribe(command)
            case messages.Refresh():
                return self._refresh(command)
            case messages.ListChannels():
                return Answer(channels=messages.matching(self._hub.channels(), command.pattern))

    def _found(self, target: Target) -> list[Connected]:
        """Find sessions and clients alike."""
        found: tuple[Connected, ...]
        if target.user is not None:
            found = self._registry.of_user(target.user)
        else:
            one = None if target.id is None else self._registry.get(target.id)
            found = () if one is None else (one,)
        return [
            one
            for one in found
            if (target.id is None or one.id == target.id)
            and (not target.session or getattr(one, "session", "") == target.session)
            and one.id not in target.keep
        ]

    def _clients(self, target: Target) -> list[Client]:
        return [one for one in self._found(target) if isinstance(one, Client)]

    def _disconnect(self, command: messages.Disconnect) -> Answer:
        found = self._found(command.target)
        problem: Exception | None = None
        for connection in found:
            try:
                connection.disconnect(command.code, command.reason)
            except UsageError as wrong:
                problem = wrong
        return _answer(len(found), problem)

    async def _subscribe(self, command: messages.Subscribe) -> Answer:
        count, problem = 0, None
        for client in self._clients(command.target):
            try:
                await client.subscribe(command.channel)
                count += 1
            except SessionClosed:
                pass  # it left meanwhile
            except Exception as failed:
                problem = failed
        return _answer(count, problem)

    async def _unsubscribe(self, command: messages.Unsubscribe) -> Answer:
        clients = self._clients(command.target)
        for client in clients:
            try:
                await client.unsubscribe(command.channel, command.code, command.reason)
            except UsageError as wrong:
                return _answer(0, wrong)
        return _answer(len(clients), None)

    def _refresh(self, command: messages.Refresh) -> Answer:
        clients, until = self._clients(command.target), command.until
        over = command.expired or (until is not None and until <= self._clock.time())
        for client in clients:
            if over:
                client.disconnect(codes.Disconnect.CONNECTION_EXPIRED)
            else:
                client.refresh(until)
        return _answer(len(clients), None)


def _answer(count: int, problem: Exception | None) -> Answer:
    if problem is None:
        return Answer(count=count)
    if isinstance(problem, UsageError):
        problem = error(codes.ErrorCode.LIMIT_EXCEEDED, str(problem))
    told: ClientError = client_error(problem, "fleet control")
    return Answer(count=count, code=int(told.code), problem=told.message)
