"""Close codes and causes: number, reason, may the client come back. ◇

The numbers below 4000 are those of RFC 6455 section 7.4.1 and its IANA registry; 4000 to 4999
are free for applications (section 7.4.2), and the table says what ours mean. A close frame tells
the peer a code; a `CloseCause` tells our own side more: who ended the session, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

__all__ = [
    "CODES",
    "CauseKind",
    "CloseCause",
    "CloseCode",
    "CodeInfo",
    "may_be_sent",
    "shorten_reason",
]

REASON_BYTES = 123
"""A close frame's payload is at most 125 bytes, two of them the code (RFC 6455 section 5.5)."""


class CloseCode(IntEnum):
    """The close codes Pongee sends or reports."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    TOKEN_EXPIRED = 4401
    DISCONNECTED = 4403
    IDLE_TIMEOUT = 4408


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """One row of the table in the documentation.

    Attributes:
        meaning: why a session ends with this code.
        reconnect: whether the client may come back as it is.
        sent: whether the code ever travels in a close frame.
    """

    meaning: str
    reconnect: bool
    sent: bool = True


CODES: dict[CloseCode, CodeInfo] = {
    CloseCode.NORMAL: CodeInfo("the handler returned, or either side said goodbye", False),
    CloseCode.GOING_AWAY: CodeInfo("the browser left the page", True),
    CloseCode.PROTOCOL_ERROR: CodeInfo("the peer broke RFC 6455", False),
    CloseCode.UNSUPPORTED_DATA: CodeInfo("a kind of frame the endpoint cannot use", False),
    CloseCode.NO_STATUS: CodeInfo("the peer's close frame held no code", True, sent=False),
    CloseCode.ABNORMAL: CodeInfo("the connection was lost without a close frame", True, sent=False),
    CloseCode.INVALID_PAYLOAD: CodeInfo("text that is not UTF-8", False),
    CloseCode.POLICY_VIOLATION: CodeInfo(
        "refused, or too many errors, or too many messages", False
    ),
    CloseCode.MESSAGE_TOO_BIG: CodeInfo("a message over the limit", False),
    CloseCode.INTERNAL_ERROR: CodeInfo("the handler or a job of the session crashed", True),
    CloseCode.SERVICE_RESTART: CodeInfo("the server is leaving", True),
    CloseCode.TRY_AGAIN_LATER: CodeInfo("too busy, or the client reads too slowly", True),
    CloseCode.TOKEN_EXPIRED: CodeInfo("the token ran out; come back with a new one", False),
    CloseCode.DISCONNECTED: CodeInfo("the application ended the connection", False),
    CloseCode.IDLE_TIMEOUT: CodeInfo("nothing was heard for the idle timeout", True),
}


class CauseKind(StrEnum):
    """Why a session ended."""

    CLIENT_CLOSED = "client closed"
    CONNECTION_LOST = "connection lost"
    BAD_INPUT = "bad input"
    RETURNED = "handler returned"
    CLOSED = "closed by the handler"
    CRASHED = "handler crashed"
    REFUSED = "refused"
    TOO_SLOW = "too slow"
    TOO_MANY = "too many messages or errors"
    IDLE = "idle timeout"
    TOKEN_EXPIRED = "token expired"  # noqa: S105 - a cause, not a secret
    DISCONNECTED = "disconnected by the application"
    DRAINING = "server is leaving"


_BY_CLIENT = frozenset({CauseKind.CLIENT_CLOSED, CauseKind.BAD_INPUT})


@dataclass(frozen=True, slots=True)
class CloseCause:
    """How a session ended: the true cause, and what was (or would be) in the close frame.

    Attributes:
        kind: why.
        code: the close code; 1005 and 1006 are reported here but never sent.
        reason: the close reason, possibly empty.
    """

    kind: CauseKind
    code: int
    reason: str = ""

    @property
    def by(self) -> str:
        """Who ended it: ``client``, ``network`` or ``server``."""
        if self.kind in _BY_CLIENT:
            return "client"
        return "network" if self.kind is CauseKind.CONNECTION_LOST else "server"

    def __str__(self) -> str:
        """One line for logs, such as ``client closed (1000)``."""
        reason = f" {self.reason!r}" if self.reason else ""
        return f"{self.kind.value} ({self.code}{reason})"


def may_be_sent(code: int) -> bool:
    """Whether `code` may travel in a close frame (RFC 6455 sections 7.4.1 and 7.4.2)."""
    if code in (1004, 1005, 1006, 1015):
        return False
    return 1000 <= code <= 1014 or 3000 <= code <= 4999


def shorten_reason(reason: str) -> str:
    """Cut `reason` to the 123 bytes a close frame can hold, never inside a character."""
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) <= REASON_BYTES:
        return encoded.decode()
    return encoded[:REASON_BYTES].decode("utf-8", "ignore")
