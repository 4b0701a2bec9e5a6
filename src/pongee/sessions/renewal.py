"""A session that proves again who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pongee.errors import InvalidToken, SessionClosed, UsageError
from pongee.guards.verdict import Identity

if TYPE_CHECKING:
    from pongee.sessions.session import Session

__all__ = ["renew"]


async def renew(session: Session[Any, Any], token: str) -> Identity:
    """Verify `token` by the endpoint's policy, and let the session stay as long as it lasts.

    Raises:
        InvalidToken: it proves nothing, or another user.
        SessionClosed: the session ended meanwhile.
        UsageError: the policy knows no tokens.
    """
    auth = session._spec.auth
    verify = getattr(auth, "verify", None)
    if verify is None:
        raise UsageError(
            f"{session.route}: auth={auth!r} has no verify(token), so there is nothing "
            "to refresh; JWTBearer and TokenPolicy have it"
        )
    identity: Identity = await verify(token)
    if session.close_cause is not None:
        raise SessionClosed(session.close_cause)
    if identity.user != session.user:
        raise InvalidToken("another user")
    session._identity = identity
    session._timers.arm_expiry(identity.expires_at)
    return identity
