"""Direct mode: frames by plain calls instead of ASGI messages.

`WireProtocol` offers it in the ASGI scope, beside full ASGI:

```python
direct = scope["extensions"].get("pongee.direct")     # absent on any other server
await send({"type": "websocket.accept"})
connection = direct["connection"]
connection.attach(receiver)                           # a `DirectReceiver`
return                                                # or stay; see below
```

The contract:

* `attach` comes after accept, once. What had arrived meanwhile is handed to the receiver before
  `attach` returns. From then on `receive` and `send` of the ASGI call raise `RuntimeError`.
* **Detach**: the connection is the receiver's until `DirectReceiver.on_end`, whether the ASGI call
  returns or not. One that returns leaves no task, no coroutine and no scope behind.
* All calls happen on the event loop's thread and none of them waits. `on_message` comes in the
  order of arrival, never after `on_end`; `on_end` comes exactly once, whoever ended the connection.
* Pings, pongs, the answer to a close frame, protocol errors and the close timeout stay the wire's.
  The write deadline is the receiver's: between `on_write_paused` and `on_write_resumed` the
  transport's buffer is over its high-water mark, and what is written makes it grow.
* A receiver that raises is logged and its connection closed with 1011.
* ASGI middleware sees neither messages nor the end of the connection. One that must may take
  ``pongee.direct`` out of the scope's extensions, and the application falls back to ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["EXTENSION", "DirectConnection", "DirectReceiver"]

EXTENSION = "pongee.direct"
"""Key in ``scope["extensions"]``; its value is ``{"connection": DirectConnection}``."""


class DirectReceiver(Protocol):
    """What the wire tells."""

    def on_message(self, data: str | bytes) -> None:
        """Take a whole message; `str` came as text, `bytes` as binary."""

    def on_end(self, code: int, reason: str | None) -> None:
        """Learn that nothing more will come.

        Args:
            code: of the close frame that was received or sent; 1006 for a connection that was lost
                without one, 1012 when the server shuts down.
            reason: `None` where there was no close frame.
        """

    def on_write_paused(self) -> None:
        """Learn that the transport's buffer is over its high-water mark."""

    def on_write_resumed(self) -> None:
        """Learn that it has drained."""


class DirectConnection(Protocol):
    """What a receiver can do. Nothing here raises once the connection is lost."""

    transport: asyncio.Transport
    """Written to directly while the connection is open: `write` without its check."""

    can_write: bool
    """Whether the transport's buffer is under its high-water mark."""

    lost: bool
    """Whether the socket is closed."""

    on_gone: Callable[[], None] | None
    """Called when it is; `None` at first."""

    window_bits: int
    """The window agreed for compressed messages to the peer; 0 is no compression."""

    def attach(self, receiver: DirectReceiver) -> None:
        """Take the connection over.

        Raises:
            RuntimeError: not accepted yet, or taken over before.
        """

    def write(self, data: bytes) -> None:
        """Write finished frames as they are. Ignored after a close frame of ours."""

    def send_close(self, code: int, reason: str, within: float | None = None) -> None:
        """Send a close frame; cut the connection unless the peer answers in time. Idempotent.

        Args:
            code: 1000 to 1014 or 3000 to 4999; 1005 sends a frame without a code.
            reason: cut to 123 bytes.
            within: seconds for the peer's answer; 10 by default.
        """

    def abort(self) -> None:
        """Cut the connection now, and drop what was not sent."""

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`; no pong is missed meanwhile.

        What is parsed already still comes: at most 255 messages, or about 64 KiB.
        """

    def resume_reading(self) -> None:
        """Go on."""

    def write_buffer_size(self) -> int:
        """Bytes written and not yet taken by the kernel."""
