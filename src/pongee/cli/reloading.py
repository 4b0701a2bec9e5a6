"""``--reload``: a process that is started again with each change of the code, by uvicorn."""

from __future__ import annotations

import socket
from functools import partial

import uvicorn
from uvicorn.supervisors import ChangeReload
from uvicorn.supervisors.basereload import BaseReload

from pongee.cli.job import Job
from pongee.cli.server import log_config
from pongee.cli.workers import held_signals, serve_job

__all__ = ["make_reloader"]


class _Reloader(ChangeReload):  # type: ignore[misc, valid-type]
    """uvicorn's, where a signal cannot meet a process that still starts."""

    def startup(self) -> None:
        """Start the process."""
        with held_signals():
            super().startup()

    def restart(self) -> None:
        """End it in order, and start it again."""
        with held_signals():
            super().restart()


def make_reloader(job: Job, listener: socket.socket) -> BaseReload:
    """Make what watches the files of the application and serves it on `listener`."""
    config = uvicorn.Config(
        job.app or "pongee",
        reload=True,
        reload_dirs=[job.app_dir],
        workers=1,
        log_config=log_config(),
    )
    return _Reloader(config, target=partial(serve_job, job), sockets=[listener])
