"""The application that faults are put into: topics with a history, and what a worker costs.

``pongee serve tests.faults.app:make_app --factory``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from pongee import BrokerUnavailable, Channel, ClientLimits, JWTBearer, Pongee, public
from pongee.clock import SystemClock
from pongee.limits import MIB
from tests.faults.client import SECRET

__all__ = ["MOST_RECOVERED", "make_app"]

HISTORY = 20_000  # more than a run publishes to one topic
MOST_RECOVERED = 10_000
LAG_STEP = 0.02

_PAGE = resource.getpagesize()


class Wanted(msgspec.Struct):
    """What is asked of ``POST /publish``."""

    channel: str
    data: msgspec.Raw


class SkewedClock(SystemClock):
    """The system's time, with a wall clock that can be set wrong."""

    def __init__(self) -> None:
        self.skew = 0.0
        self.time = lambda: time.time() + self.skew


class Lag:
    """The longest time that the event loop kept somebody waiting, since it was last asked."""

    def __init__(self) -> None:
        self._worst = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_STEP)
            self._worst = max(self._worst, time.monotonic() - before - LAG_STEP)

    def read(self) -> float:
        """Return it in seconds, and begin anew."""
        worst, self._worst = self._worst, 0.0
        return worst


def make_app() -> FastAPI:
    """Make the application of one worker; settings come from the environment."""
    clock, lag = SkewedClock(), Lag()
    pongee = Pongee(clock=clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.getLogger("uvicorn.access").handlers.clear()  # a line for each publication
        watching = asyncio.create_task(lag.watch())
        async with pongee.lifespan(app):
            yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    app = FastAPI(lifespan=lifespan)
    _declare(pongee)
    _publishing(app, pongee)
    _looking(app, pongee, lag, clock)
    app.include_router(pongee.health)
    pongee.install(app)
    return app


def _declare(pongee: Pongee) -> None:
    interval = float(os.environ.get("FAULTS_PING_INTERVAL", "5"))
    pongee.connection(
        auth=JWTBearer(SECRET, require_exp=False),
        anonymous=True,
        ping_interval=interval,
        pong_timeout=interval * 0.6,
        limits=ClientLimits(
            max_subscriptions=1100,
            recovered_publications=int(os.environ.get("FAULTS_RECOVERED", MOST_RECOVERED)),
            outbox_bytes=int(os.environ.get("FAULTS_OUTBOX", 16 * MIB)),
            outbox_messages=100_000,
        ),
    )
    topics: Channel[Any] = pongee.channel(
        "topic:{n}", Any, history=HISTORY, history_ttl=600, may_subscribe=public
    )
    seen: Channel[Any] = pongee.channel(
        "seen:{n}", Any, history=HISTORY, history_ttl=600, presence=True, may_subscribe=public
    )
    del topics, seen  # declared; nobody asks for more


def _publishing(app: FastAPI, pongee: Pongee) -> None:
    read = msgspec.json.Decoder(Wanted).decode

    @app.post("/publish")
    async def publish(request: Request) -> Response:
        """Answer 200 with the position only once it is accepted."""
        wanted = read(await request.body())
        try:
            position = await pongee.publish(wanted.channel, msgspec.json.decode(wanted.data))
        except BrokerUnavailable as error:
            return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})
        body = msgspec.json.encode({"epoch": position.epoch, "offset": position.offset})
        return Response(body, media_type="application/json")

    @app.post("/revoke")
    async def revoke(user: str) -> int:
        return await pongee.disconnect(user=user)


def _looking(app: FastAPI, pongee: Pongee, lag: Lag, clock: SkewedClock) -> None:
    @app.get("/present")
    async def present(channel: str) -> int:
        return (await pongee.presence_stats(channel)).clients

    @app.post("/skew")
    async def skew(seconds: float) -> None:
        clock.skew = seconds

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        """Tell what this process costs; the longest lag is since the last time it was asked."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = Path("/proc/self/statm").read_text().split()[1]  # noqa: ASYNC240 - no disk behind
        return {
            "lag": lag.read(),
            "connections": len(pongee.connections()),
            "channels": len(pongee.local_channels()),
            "tasks": len(asyncio.all_tasks()),
            "rss": int(pages) * _PAGE,
            "files": len(os.listdir("/proc/self/fd")),
            "cpu": used.ru_utime + used.ru_stime,
        }
