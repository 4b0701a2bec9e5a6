"""An HTTP request for a WebSocket route: 426 instead of a puzzling 404.

The usual cause is a proxy that drops the upgrade headers; the body says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Message, Scope, Send

__all__ = ["hint_at_upgrade"]

HINT = (
    "This route speaks WebSocket. If the client did ask for an upgrade, a proxy in between has "
    "dropped its Upgrade and Connection headers."
)


def hint_at_upgrade(scope: Scope, send: Send, find: Callable[[Scope], Any]) -> Send:
    """Wrap `send` so that a 404 for a path of ours becomes 426 (RFC 9110 section 15.5.22)."""
    replaced = False

    async def hinting(message: Message) -> None:
        nonlocal replaced
        unrouted = "endpoint" not in scope  # an application's own 404 stays what it is
        if message["type"] == "http.response.start" and message["status"] == 404 and unrouted:
            replaced = find({**scope, "type": "websocket"}) is not None
            if replaced:
                headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
                await JSONResponse({"detail": HINT}, 426, headers)(scope, _never, send)
        if not replaced:
            await send(message)

    return hinting


async def _never() -> Message:
    return {"type": "http.disconnect"}
