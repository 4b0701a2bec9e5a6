"""How a command ends that gets no ordinary reply. ◇"""

from __future__ import annotations

from pongee.centrifuge.codes import DISCONNECTS, ERRORS, Disconnect, ErrorCode
from pongee.errors import ClientError

__all__ = ["DisconnectClient", "error"]


class DisconnectClient(Exception):
    """The command ends the connection."""

    def __init__(self, code: Disconnect, reason: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason or DISCONNECTS[code]


def error(code: ErrorCode, detail: str = "") -> ClientError:
    """Make the protocol's error `code`, with more to say where that helps the developer."""
    message, temporary = ERRORS[code]
    return ClientError(code, f"{message}: {detail}" if detail else message, temporary=temporary)
