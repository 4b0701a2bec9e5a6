"""WebSocket on bytes, for uvicorn: ``uvicorn app:app --ws pongee.wire:WireProtocol``.

A leaf: it knows nothing of the rest of the package, and serves any ASGI application.
"""

from pongee.wire.protocol import WireProtocol

__all__ = ["WireProtocol"]
