"""What one stalled member of a hundred does to the others: nothing.

``python -m benchmarks.stalled``: 20 MiB are published to a room in 80 messages, 20 a second, once
with a hundred members that read and once with one of them stalled. Delays are from `publish` to the
client's callback, both on this machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

from fastapi import FastAPI
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from pongee import Limits, Pongee, Session, Settings, public
from pongee.testing import RawPeer, eventually, serve

MEMBERS = 100
MESSAGES = 80
SIZE = 256 * 1024
PAUSE = 0.05
WRITE_DEADLINE = 3.0
MIB = 1024 * 1024


async def _serve(pipe: Connection) -> None:
    pongee = Pongee(Settings())
    app = FastAPI()
    gone: list[float] = []
    limits = Limits(write_deadline=WRITE_DEADLINE, outbox_bytes=64 * MIB, outbox_messages=1000)

    @pongee.endpoint("/ws", auth=public, limits=limits)
    async def room(session: Session[str, str]) -> None:
        await session.subscribe("room")
        await session.closed

    @pongee.on_disconnect
    async def left(session: Session[str, str]) -> None:
        gone.append(time.monotonic())

    pongee.install(app)
    loop = asyncio.get_running_loop()
    async with serve(app, ws_max_size=MIB, log_level="warning") as server:
        pipe.send(server.port)
        await loop.run_in_executor(None, pipe.recv)  # everybody is connected
        await eventually(lambda: pongee.local_channels().get("room") == MEMBERS)
        started = time.monotonic()
        for _ in range(MESSAGES):
            await pongee.publish("room", f"{time.monotonic():.6f} ".ljust(SIZE, "x"))
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(WRITE_DEADLINE)
        pipe.send([moment - started for moment in gone])
        await loop.run_in_executor(None, pipe.recv)


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


class _Member(WSListener):
    def __init__(self, delays: list[float]) -> None:
        self._delays = delays

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            sent = float(frame.get_payload_as_bytes()[:32].split(b" ")[0])
            self._delays.append(time.monotonic() - sent)


async def _run(stalled: bool) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_server, args=(theirs,), daemon=True)
    process.start()
    loop = asyncio.get_running_loop()
    port = await loop.run_in_executor(None, ours.recv)
    delays: list[float] = []
    readers = MEMBERS - stalled
    for _ in range(readers):
        await ws_connect(
            lambda: _Member(delays), f"ws://127.0.0.1:{port}/ws", max_frame_size=2 * MIB
        )
    async with RawPeer(port, "/ws") as peer:
        if stalled:
            await peer.handshake()
        ours.send("connected")
        gone = await loop.run_in_executor(None, ours.recv)
        await eventually(lambda: len(delays) == readers * MESSAGES, within=30)
    ours.send("done")
    process.join(10)
    process.kill()
    cuts = statistics.quantiles(delays, n=100)
    name = f"{readers} readers" + (" and one that stalls" if stalled else "")
    cut = f"; the stalled one was cut {gone[0]:.1f} s after the start" if gone else ""
    print(
        f"{name}: delay median {1e3 * cuts[49]:.0f} ms, p99 {1e3 * cuts[98]:.0f} ms, "
        f"longest {1e3 * max(delays):.0f} ms{cut}"
    )


def main() -> None:
    """Run both and print a line for each."""
    for stalled in (False, True):
        asyncio.run(_run(stalled))


if __name__ == "__main__":
    main()
