"""One server process: ``python -m benchmarks.serve plain|pongee CORE``; prints its port."""

from __future__ import annotations

import os
import socket
import sys

import uvicorn

from benchmarks.host import allow_many_files

__all__ = ["main"]


def main(side: str, core: int) -> None:
    """Serve one side until SIGTERM; pinned to `core`, unless that is negative."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    allow_many_files()
    config = uvicorn.Config(
        f"benchmarks.{side}_app:app",
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
        backlog=2048,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
