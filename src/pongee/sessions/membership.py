"""A session in a channel: what it gets from it, and that others see it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pongee.channels.publication import ClientInfo
from pongee.codes import CauseKind

if TYPE_CHECKING:
    from pongee.sessions.session import Session

__all__ = ["enter", "leave"]


async def enter(session: Session[Any, Any], channel: str) -> None:
    """Let `session` in, for what is published from now on.

    Raises:
        BrokerUnavailable: it is not in.
    """
    runtime = session._runtime
    options = runtime.options_of(channel)
    session._channels.add(channel)
    try:
        await runtime.board.enter_live(channel, session, options, _info(session))
    except BaseException:
        session._channels.discard(channel)
        raise


def leave(session: Session[Any, Any], channel: str) -> None:
    """Let `session` go."""
    runtime, cause = session._runtime, session.close_cause
    lost = cause is not None and cause.kind is CauseKind.CONNECTION_LOST
    options = runtime.options_of(channel)
    runtime.board.leave_live(channel, session, options, _info(session), lost=lost)


def _info(session: Session[Any, Any]) -> ClientInfo:
    return ClientInfo(session.user or "", session.id)
