"""Jobs that run beside a session's handler, and end with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pongee.errors import SessionClosed, UsageError

__all__ = ["Jobs"]


class Jobs:
    """The running jobs of one session. Made with its first job: most sessions have none.

    Args:
        loop: where they run.
        limit: jobs at once.
        crashed: called with a job's name and error when it raised anything but `SessionClosed`.
    """

    __slots__ = ("_crashed", "_limit", "_loop", "tasks")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._crashed = crashed
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start `job`.

        Raises:
            UsageError: too many jobs; `job` was not started.
        """
        if len(self.tasks) >= self._limit:
            job.close()
            raise UsageError(f"a session may run at most {self._limit} jobs")
        task = self._loop.create_task(job, name=getattr(job, "__qualname__", "job"))
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SessionClosed):
            self._crashed(task.get_name(), error)
