"""``--workers``: several processes that serve one port, on uvicorn's supervisor.

What differs from uvicorn's: each worker makes its own application and its own server, which leaves
in order; the first one starts alone, so that what is wrong is told once; nothing waits for a worker
without looking at signals meanwhile; a second signal is passed on.
"""

from __future__ import annotations

import logging
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from pongee import ConfigurationError
from pongee.cli.job import Job
from pongee.cli.listener import bind
from pongee.cli.server import PongeeServer, log_config, make_server, run_to_the_end
from pongee.limits import WORKER_SILENCE, WORKER_START

__all__ = ["Workers", "held_signals", "serve_job"]

logger = logging.getLogger("uvicorn.error")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STEP = 0.05
"""Seconds between two looks at signals and workers."""

_PING, _RETIRE = b"ping", b"retire"
"""What a worker is told: to say whether it serves, and to leave the port to the others."""

_REST = 1.0
"""Seconds before a worker that serves is asked again whether it is well."""


@contextmanager
def held_signals() -> Iterator[None]:
    """Keep signals until the end of this block; a process begun in it keeps its own longer.

    Without that, one that came while it still loads its modules would end it with a traceback.
    """
    # Its first start would let the signals through.
    multiprocessing.resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def serve_job(
    job: Job,
    sockets: list[socket.socket] | None,
    made: Callable[[PongeeServer], None] = lambda server: None,
) -> None:
    """Serve in a process that another one has started.

    Args:
        job: what to serve.
        sockets: to serve on; none is one of its own.
        made: is told the server before it starts.
    """
    early: list[int] = []

    def note(number: int, frame: object) -> None:
        if early:
            raise KeyboardInterrupt
        early.append(number)

    for number in _SIGNALS:
        signal.signal(number, note)
    # Before the application is loaded: what that starts would keep them for ever.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        server = make_server(job, worker=True)
        if not sockets:
            sockets = [bind(job.settings.host, job.settings.port, shared_port=True)]
    except ConfigurationError as error:
        typer.echo(f"pongee: {error}", err=True)
        sys.exit(2)
    made(server)
    if not early:
        run_to_the_end(server, sockets)


class _Worker(Process):
    """One process, as its supervisor sees it; travels there with the job."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], job: Job) -> None:
        self.job = job
        self.heard = time.monotonic()
        self.ready = False
        self._asked = False
        self._others_go_on = False
        super().__init__(config, sockets)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve. Called in the new process."""
        threading.Thread(target=self.always_pong, daemon=True).start()
        serve_job(self.job, sockets, self._take)

    def _take(self, server: PongeeServer) -> None:
        self._server = server
        server.others_go_on |= self._others_go_on

    def pong(self) -> None:
        """Answer the supervisor. Called in the new process, in a thread: it may be busy leaving."""
        if self.child_conn.recv() == _RETIRE:
            self._others_go_on = True
            if isinstance(self._server, PongeeServer):
                self._server.others_go_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.child_conn.send(self._server is not None and self._server.started)

    def start(self) -> None:
        """Start the process."""
        with held_signals():
            super().start()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.is_alive()

    def look(self) -> None:
        """Take what it has answered, and ask again: often until it serves. Never waits."""
        try:
            if self._asked and self.parent_conn.poll():
                self.ready = self.parent_conn.recv()
                self.heard = time.monotonic()
                self._asked = False
            rested = not self.ready or time.monotonic() - self.heard > _REST
            if not self._asked and rested:
                self.parent_conn.send(_PING)
                self._asked = True
        except (OSError, EOFError):
            return  # it has ended, or is to

    def retire(self) -> None:
        """Have it leave while others serve the port: it sends itself SIGTERM, and knows why."""
        try:
            self.parent_conn.send(_RETIRE)
        except OSError:
            return  # it has ended
        logger.info("Retired child process [%s]", self.pid)

    def hurry(self) -> None:
        """Pass a second signal on."""
        if self.running and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)


class Workers(Multiprocess):
    """The processes of one server, each started again when it dies.

    SIGTERM and SIGINT end them in order, SIGHUP replaces them one after the other, SIGTTIN and
    SIGTTOU make them more and fewer.

    Args:
        job: what each serves; its port is the one to share.
        sockets: that they share; none if each makes its own.
        started: called once, when the first of them serves.
    """

    processes: list[_Worker]  # type: ignore[assignment]

    def __init__(self, job: Job, sockets: list[socket.socket], started: Callable[[], None]) -> None:
        config = uvicorn.Config("pongee", workers=job.settings.workers, log_config=log_config())
        super().__init__(config, sockets)
        self.status = 0
        self._job = job
        self._started = started
        self._leaving: list[_Worker] = []
        self._ends = 0
        for number in _SIGNALS:
            signal.signal(number, self._end)

    def run(self) -> None:
        """Start them, look after them, end them."""
        self.init_processes()
        while not self.should_exit.is_set():
            self._pause()
            self.handle_signals()
            self.keep_subprocess_alive()
        self.terminate_all()
        self.join_all()

    def init_processes(self) -> None:
        """Start the first alone, and the others once it serves."""
        first = self._begin()
        self.processes.append(first)
        if self._serves(first):
            self.processes += [self._begin() for _ in range(self.processes_num - 1)]
            self._started()
        elif not self.should_exit.is_set():
            self._give_up(first)

    def keep_subprocess_alive(self) -> None:
        """Replace those that have died, or hang."""
        for index, worker in enumerate(self.processes):
            worker.look()
            if worker.running and time.monotonic() - worker.heard < WORKER_SILENCE:
                continue
            if worker.running:
                logger.error("Child process [%s] hangs", worker.pid)
            worker.kill()
            worker.process.join()
            failed = not worker.ready and worker.exitcode in (2, 3)
            if failed and not any(other.ready and other.running for other in self.processes):
                self._give_up(worker)
                return
            if self.should_exit.is_set():
                return
            logger.info("Child process [%s] died (%s)", worker.pid, worker.exitcode)
            self.processes[index] = self._begin()

    def restart_all(self) -> None:
        """Replace one after the other; each leaves once its successor serves."""
        for index, old in enumerate(self.processes):
            new = self._begin()
            self._leaving.append(new)
            if not self._serves(new):
                if not self.should_exit.is_set():
                    self._bury(new)
                    logger.error("A new child process does not start; the old ones stay")
                return
            self._leaving.remove(new)
            self.processes[index] = new
            self._retire(old)

    def handle_ttin(self) -> None:
        """Start one more."""
        self.processes_num += 1
        self.processes.append(self._begin())

    def handle_ttou(self) -> None:
        """End one, unless it is the only one."""
        if self.processes_num == 1:
            logger.info("The only child process stays")
            return
        self.processes_num -= 1
        self._retire(self.processes.pop())

    def join_all(self) -> None:
        """Wait for their end; pass further signals on."""
        told = min(1, self._ends)
        everybody = [*self.processes, *self._leaving]
        for worker in self._leaving:
            worker.terminate()
        deadline = time.monotonic() + self._patience()
        while any(worker.running for worker in everybody):
            self._pause()
            if self._ends > told:
                told = self._ends
                for worker in everybody:
                    worker.hurry()
            if time.monotonic() > deadline:
                for worker in everybody:
                    worker.kill()

    def _end(self, number: int, frame: object) -> None:
        self._ends += 1

    def _begin(self) -> _Worker:
        worker = _Worker(self.config, self.sockets, self._job)
        worker.start()
        return worker

    def _serves(self, worker: _Worker) -> bool:
        """Wait until `worker` serves; tells if it does not, in time or because we are to end."""
        self._until(lambda: worker.ready or not worker.running, WORKER_START)
        return worker.ready and worker.running and not self.should_exit.is_set()

    def _retire(self, worker: _Worker) -> None:
        self._leaving.append(worker)
        worker.retire()
        self._until(lambda: not worker.running, self._patience())
        if not self.should_exit.is_set():
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        worker.kill()
        worker.process.join()
        self._leaving.remove(worker)

    def _give_up(self, worker: _Worker) -> None:
        logger.error("Child process [%s] does not start", worker.pid)
        worker.kill()
        worker.process.join()
        self.status = worker.exitcode if worker.exitcode in (2, 3) else 3
        self.should_exit.set()

    def _patience(self) -> float:
        settings = self._job.settings
        return settings.drain_delay + settings.drain_window + WORKER_SILENCE

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and not self.should_exit.is_set() and time.monotonic() < deadline:
            self._pause()
            for worker in (*self.processes, *self._leaving):
                worker.look()

    def _pause(self) -> None:
        time.sleep(_STEP)
        if self._ends:
            self.should_exit.set()
