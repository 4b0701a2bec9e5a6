"""Every exception Pongee raises, by who has to act. ◇

    PongeeError
    ├── ConfigurationError    you, before the program starts; the message shows the cure
    ├── UsageError            you, at the call that was wrong
    ├── MessageError          the peer: one message cannot be used, the session lives on
    ├── Refused               the peer: this handshake may not proceed
    ├── InvalidToken          the peer: the token proves nothing
    ├── ClientError           the peer: this command may not, or cannot, be carried out
    ├── BrokerUnavailable     the operator: the broker cannot be reached now
    └── SessionClosed         nobody: the peer is gone, and `cause` says why

This module knows no framework and no event loop: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pongee.codes import CloseCause, CloseCode

__all__ = [
    "BrokerUnavailable",
    "ClientError",
    "ConfigurationError",
    "InvalidToken",
    "MessageError",
    "PongeeError",
    "Refused",
    "SessionClosed",
    "UsageError",
]


class PongeeError(Exception):
    """The base of every exception Pongee raises on purpose."""


class ConfigurationError(PongeeError):
    """A declaration or setting that cannot work. Raised at start-up, never later."""


class UsageError(PongeeError, RuntimeError):
    """A call that is wrong whatever the peer does, such as two iterators on one session."""


class MessageError(PongeeError):
    """One inbound message that cannot be used. The session answers it and lives on.

    Args:
        code: what is wrong, for programs: ``invalid_json``, ``invalid_message``,
            ``text_expected``, ``binary_expected``.
        errors: the details, each a mapping with ``type``, ``loc`` and ``msg``.
    """

    def __init__(self, code: str, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(code, errors)
        self.code = code
        self.errors = [dict(error) for error in errors]

    def __str__(self) -> str:
        """Say what is wrong, without the message itself."""
        return f"{self.code}: " + "; ".join(str(error.get("msg", "")) for error in self.errors)


class Refused(PongeeError):
    """Raise it in an auth policy or a dependency: this handshake may not proceed.

    One declaration, two deliveries: before accept as an HTTP response with `status` and a JSON
    body; or, where the endpoint says ``refuse="close"``, as accept followed by a close frame with
    `code` and `reason`, which is the only refusal a browser's script can read.

    Args:
        status: HTTP status, 4xx or 5xx.
        reason: one line for the peer; also the reason of the close frame. Never a secret.
        code: close code for the second delivery.
        retry_after: seconds for the ``Retry-After`` header, rounded up.
        detail: JSON for the body's ``detail`` field, `reason` by default.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        code: int = CloseCode.POLICY_VIOLATION,
        retry_after: float | None = None,
        detail: Any = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal needs a status from 400 to 599, not {status}")
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.code = int(code)
        self.retry_after = retry_after
        self.detail = reason if detail is None else detail

    def __str__(self) -> str:
        """Status and reason, as the log shows them."""
        return f"{self.status} {self.reason}"


class InvalidToken(PongeeError):
    """The token proves nothing: forged, expired, for somebody else, or not a token.

    Args:
        why: for the log, such as ``expired``; it never holds the token and is not sent to the peer.
        expired: it was good once: a client that gets a new one may try again.
    """

    def __init__(self, why: str, *, expired: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.expired = expired


class ClientError(PongeeError):
    """Raise it in a channel's or RPC method's handler: the client's command is answered with it.

    Args:
        code: 400 to 1999 are the application's; below are those of the Centrifuge protocol.
        message: one line for the client, not empty. Never a secret.
        temporary: the client may try again as it is; its SDK does so by itself where it can.
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        if not 100 <= code <= 1999 or not message:
            raise ValueError(
                f"an error has a code from 100 to 1999 and a message, not {code}, {message!r}"
            )
        super().__init__(code, message)
        self.code = int(code)
        self.message = message
        self.temporary = temporary

    def __str__(self) -> str:
        """Code and message."""
        return f"{self.code} {self.message}"


class BrokerUnavailable(PongeeError):
    """The broker cannot be reached, or did not answer in time: try again later."""


class SessionClosed(PongeeError):
    """The session has ended: sending is no longer possible. Not a fault; let it pass.

    Args:
        cause: who ended it, why, and the close code.
    """

    def __init__(self, cause: CloseCause) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        """Who ended it, and why."""
        return f"the session has ended: {self.cause}"
