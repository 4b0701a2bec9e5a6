"""One server process: ``python -m benchmarks.serve SIDE CORE``; prints its port."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from pathlib import Path

import uvicorn
import uvloop

from benchmarks.host import allow_many_files
from benchmarks.sides import SIDES

__all__ = ["main"]

BACKLOG = 2048
NODE_APP = Path(__file__).parent / "servers" / "node_app.js"


def main(name: str, core: int) -> None:
    """Serve one side until it is killed; pinned to `core`, unless that is negative."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    allow_many_files()
    side = SIDES[name]
    if side.module is None:
        os.execlp("node", "node", str(NODE_APP))  # noqa: S606, S607 - takes the core with it
    module = importlib.import_module(side.module)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        if not hasattr(module, "app"):
            listener.setblocking(False)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(module.serve(listener))
            return
        config = uvicorn.Config(
            module.app,
            loop="uvloop",
            ws_per_message_deflate=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=1,
            backlog=BACKLOG,
            **side.uvicorn_options(),  # type: ignore[arg-type]
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
