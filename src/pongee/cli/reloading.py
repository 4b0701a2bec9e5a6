"""``--reload``: a process that is started again with each change of the code, by uvicorn."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import uvicorn
from uvicorn.supervisors import ChangeReload
from uvicorn.supervisors.basereload import BaseReload
from uvicorn.supervisors.statreload import StatReload

from pongee.cli.job import Job
from pongee.cli.server import log_config
from pongee.cli.workers import held_signals, serve_job

__all__ = ["make_reloader"]


class _Reloader(ChangeReload):  # type: ignore[misc, valid-type]
    """uvicorn's; a signal cannot meet a process that still starts, and no change is missed."""

    def startup(self) -> None:
        """Start the process."""
        with held_signals():
            super().startup()
        self._note_times()

    def restart(self) -> None:
        """End it in order, and start it again."""
        with held_signals():
            super().restart()
        self._note_times()

    def _note_times(self) -> None:
        """Note how old the files are before the process reads them; uvicorn does it afterwards."""
        if isinstance(self, StatReload):
            for file in self.iter_py_files():
                with contextlib.suppress(OSError):  # it has gone
                    self.mtimes[file] = file.stat().st_mtime


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
