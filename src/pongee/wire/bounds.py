"""Every bound of the wire: unit, default, and what happens when it is hit. ◇

Those that belong to a verdict stand beside it: in `pongee.wire.frames` for a stream of frames, in
`pongee.wire.head` and `pongee.wire.http` for a request's head.
"""

from __future__ import annotations

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from the upgrade request to the application's answer. Later: the connection is cut."""

UNREAD_ANSWER = 16 * 1024
"""Bytes of earlier HTTP answers that may still wait to be read at an upgrade: the transport's
low-water mark. More: 400."""

CLOSE_TIMEOUT = 10.0
"""Seconds the peer may take to answer our close frame. Later: abort."""

WRITE_TIMEOUT = 10.0
"""Seconds the transport's buffer may be over its high-water mark and not shrink. Then: abort."""

PING_GRACE = 0.5
"""Seconds that the close frame after a missing pong gets to leave. Then: abort."""

LINGER_STEP = 0.2
"""Seconds without a byte after which a peer that broke the protocol is let go of. Closing at once,
with bytes of its own unread, would make TCP throw our close frame away (RFC 1122 4.2.2.13)."""

LINGER_STEPS = 15
"""How often that is looked at before the connection is closed however much still comes."""

QUEUE_HIGH = 32
"""Messages the ASGI application has not received. More: reading pauses."""

QUEUE_BYTES = 64 * 1024
"""The same in bytes. More: reading pauses, so that a message of any size is held about once."""

QUEUE_LOW = 8
"""Messages at which reading goes on."""

EARLY_HIGH = 64 * 1024
"""Bytes a peer may send before its handshake is answered. More: reading pauses."""

PER_TURN = 256
"""Messages taken from one connection per turn of the event loop. More wait for the next turn."""

COMPRESS_FROM = 16
"""Bytes of a payload from which compressing may make it smaller. Less travels as it is."""
