"""The picows library's server: callbacks, no coroutines."""

from __future__ import annotations

import socket

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

__all__ = ["serve"]

members: set[WSTransport] = set()


class _Peer(WSListener):
    """Answers what every listener must: a close frame."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.on_text(transport, frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_text(self, transport: WSTransport, text: bytes) -> None:
        """Take a message."""


class _Echo(_Peer):
    def on_text(self, transport: WSTransport, text: bytes) -> None:
        transport.send(WSMsgType.TEXT, text)


class _Member(_Peer):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)


class _Publisher(_Peer):
    def on_text(self, transport: WSTransport, text: bytes) -> None:
        for member in members:
            member.send(WSMsgType.TEXT, text)


PATHS = {b"/text": _Echo, b"/room": _Member, b"/publish": _Publisher}


def _listen(request: WSUpgradeRequest) -> WSListener:
    return PATHS[request.path]()


async def serve(listener: socket.socket) -> None:
    """Serve on `listener` for good."""
    server = await ws_create_server(_listen, sock=listener)
    await server.serve_forever()
