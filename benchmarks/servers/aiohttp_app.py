"""aiohttp's server. The room is a set, and one ``send_str`` after the other."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import WSMsgType, web

__all__ = ["serve"]

members: set[web.WebSocketResponse] = set()


async def _accept(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    return websocket


async def _text(request: web.Request) -> web.WebSocketResponse:
    websocket = await _accept(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


async def _room(request: web.Request) -> web.WebSocketResponse:
    websocket = await _accept(request)
    members.add(websocket)
    try:
        async for _ in websocket:
            pass
    finally:
        members.discard(websocket)
    return websocket


async def _publish(request: web.Request) -> web.WebSocketResponse:
    websocket = await _accept(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            for member in tuple(members):
                await member.send_str(message.data)
    return websocket


async def serve(listener: socket.socket) -> None:
    """Serve on `listener` for good."""
    app = web.Application()
    app.add_routes(
        [web.get("/text", _text), web.get("/room", _room), web.get("/publish", _publish)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=2048).start()
    await asyncio.get_running_loop().create_future()
