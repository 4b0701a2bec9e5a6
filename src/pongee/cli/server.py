"""uvicorn with our settings, and an end in order."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from pongee import Pongee, Settings
from pongee.cli.job import Job, load
from pongee.cli.listener import BACKLOG
from pongee.limits import AFTER_DRAIN, LEFT_BEHIND, ONE_PRESS, REQUEST_GRACE

__all__ = ["PongeeServer", "log_config", "make_server", "run_to_the_end"]

logger = logging.getLogger("pongee")


class PongeeServer(uvicorn.Server):
    """A uvicorn server that lets sessions leave in order before it closes their sockets.

    Args:
        config: uvicorn's.
        pongee: whose sessions.
        worker: another process started it and sends it the signals.
        reload: somebody waits for the next one, so that nothing is spread over time unasked.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        pongee: Pongee,
        *,
        worker: bool = False,
        reload: bool = False,
    ) -> None:
        super().__init__(config)
        self._pongee = pongee
        self._worker = worker
        self._reload = reload
        self.others_go_on = False
        """Whether others serve the same port, so that leaving it at once turns nobody away."""
        self.at_end: Callable[[], None] = lambda: None
        self._cut = False
        """Whether there was a further signal that nothing has been cut short for yet."""
        self._last_cut = -math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave; at a further signal, sooner.

        A worker may get the same one from its supervisor and from whoever sent it to all of us; a
        second one its supervisor passes on as SIGINT.
        """
        if self.should_exit and (sig == signal.SIGINT or not self._worker):
            now = time.monotonic()
            if now - self._last_cut > ONE_PRESS:
                self._cut, self._last_cut = True, now
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Leave also when the process that started us is gone."""
        parent = multiprocessing.parent_process() if self._worker else None
        if counter % 10 == 0 and parent is not None and not parent.is_alive():
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so, stop listening, drain, then shut down as uvicorn does.

        A second signal cuts short what we wait for then, sessions or requests, and a further one
        the next. The lifespan is told to end in any case: it may hold what must not be lost.
        """
        try:
            begun = asyncio.get_running_loop().time()
            if not await self._unless_cut(self._drain()):
                self._stop_listening()
                await self._pongee.drain(0, deadline=0.1)
            taken = asyncio.get_running_loop().time() - begun
            patience = AFTER_DRAIN if self._reload else max(AFTER_DRAIN, REQUEST_GRACE - taken)
            self.config.timeout_graceful_shutdown = patience  # type: ignore[assignment]
            logging.getLogger("uvicorn.error").addFilter(_no_cancellation)
            await super().shutdown(sockets)
        finally:
            self._cut = False
            await self._unless_cut(self.lifespan.shutdown())
            self.at_end()

    async def _wait_tasks_to_complete(self) -> None:  # called by uvicorn's `shutdown`
        """Wait for requests, unless cut short: then uvicorn cancels them, as when time is up."""
        try:
            if not await self._unless_cut(super()._wait_tasks_to_complete()):
                raise TimeoutError
        finally:
            self.force_exit = True  # it is to leave the lifespan to us

    async def _drain(self) -> None:
        settings = self._pongee.settings
        window, delay = settings.drain_window, settings.drain_delay
        if self._reload:
            asked = settings.model_fields_set
            window = window if "drain_window" in asked else 0.0
            delay = delay if "drain_delay" in asked else 0.0
        if self.others_go_on:
            delay = 0.0
        if delay:
            asyncio.get_running_loop().call_later(delay, self._stop_listening)
        else:
            self._stop_listening()
        await self._pongee.drain(window, delay=delay, deadline=window + AFTER_DRAIN)

    def _stop_listening(self) -> None:
        for server in self.servers:
            server.close()

    async def _unless_cut(self, work: Coroutine[Any, Any, None]) -> bool:
        """Tell whether `work` came to its end before a further signal. It begins in any case."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task], timeout=0.05)
            while not task.done() and not self._cut:
                await asyncio.wait([task], timeout=0.05)
            if task.done():
                task.result()
                return True
            self._cut = False
            return False
        finally:
            task.cancel()


def _no_cancellation(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of requests that were cut; uvicorn has told how many."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def make_server(job: Job, *, worker: bool = False) -> PongeeServer:
    """Make the application and its server.

    Raises:
        ConfigurationError: there is no such application, or it cannot work.
    """
    app, pongee = load(job)
    config = _config(app, pongee.settings)
    return PongeeServer(config, pongee, worker=worker, reload=job.reload)


def run_to_the_end(
    server: PongeeServer, sockets: list[socket.socket], last: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal comes; returns when all is over, or ends the process.

    Args:
        server: what serves.
        sockets: bound.
        last: done before the process is ended, should something of the application go on for ever.

    Raises:
        SystemExit: it did not start.
    """

    def give_up() -> None:
        logger.error("ended although something of the application goes on")
        last()
        logging.shutdown()
        os._exit(0)

    def watch() -> None:
        # The interpreter waits for threads, and the event loop for tasks that ignore their
        # cancellation: one that never ends would hold us for ever.
        timer = threading.Timer(LEFT_BEHIND, give_up)
        timer.daemon = True
        timer.start()

    server.at_end = watch
    _end_quietly_by_signal(server)
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(3)


def _end_quietly_by_signal(server: uvicorn.Server) -> None:
    """Make an end by signal a success: uvicorn raises it again once it has shut down in order."""

    def again(number: int, frame: object) -> None:
        if not server.started:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, again)


def log_config() -> dict[str, Any]:
    """Make uvicorn's configuration of logs, with our own logger in it."""
    made: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    made["loggers"]["pongee"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    made["formatters"]["default"]["fmt"] = "%(levelprefix)s %(message)s"
    return made


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=log_config(),
        # Pongee resolves the client's address itself, with one setting for all its guards.
        proxy_headers=False,
        server_header=False,
        http="pongee.wire.http:HeadProtocol",
        ws="pongee.wire:WireProtocol",
        ws_max_size=settings.max_message_size,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=settings.compression,
        workers=1,
        backlog=BACKLOG,
    )
