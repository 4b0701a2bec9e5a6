"""Who is measured: plain FastAPI, Pongee, and others that do the same work."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.traffic import CHANNELS, PLAIN_DIALECT, SOCKETIO, Dialect

__all__ = ["OTHERS", "OURS", "PLAIN", "SIDES", "Side", "install_ws", "what_is_missing"]

WIRE = "pongee.wire:WireProtocol"
HEAD = "pongee.wire.http"
WS_PACKAGE = "ws@8.23.0"


@dataclass(frozen=True)
class Side:
    """One kind of server.

    Attributes:
        name: for the command line.
        title: for the tables.
        module: where ``app`` or ``serve`` is; none for Node.
        wire: whether uvicorn is given our WebSocket and HTTP classes.
        dialect: how the generator speaks to it.
        needs: the module that must be installed, beside those of the project.
    """

    name: str
    title: str
    module: str | None = None
    wire: bool = False
    dialect: Dialect = PLAIN_DIALECT
    needs: str | None = None

    def uvicorn_options(self) -> dict[str, str]:
        """What differs between the sides on uvicorn."""
        if not self.wire:
            return {"http": "httptools", "ws": "auto"}
        head = f"{HEAD}:HeadProtocol" if importlib.util.find_spec(HEAD) else "httptools"
        return {"http": head, "ws": WIRE}


PLAIN = "plain"
OURS = ("wire", "pongee", "channels", "detached")
OTHERS = ("socketio", "websockets", "aiohttp", "picows", "node")

_OTHER = "benchmarks.servers."
SIDES = {
    side.name: side
    for side in (
        Side(PLAIN, "plain FastAPI", "benchmarks.plain_app"),
        Side("wire", "plain route on our wire", "benchmarks.plain_app", wire=True),
        Side("pongee", "Pongee session", "benchmarks.pongee_app", wire=True),
        Side("channels", "Pongee channel", "benchmarks.channels_app", wire=True, dialect=CHANNELS),
        Side("detached", "detached connection", _OTHER + "detached_app", wire=True),
        Side("socketio", "python-socketio", _OTHER + "socketio_app", False, SOCKETIO, "socketio"),
        Side("websockets", "websockets", _OTHER + "websockets_app"),
        Side("aiohttp", "aiohttp", _OTHER + "aiohttp_app", needs="aiohttp"),
        Side("picows", "picows", _OTHER + "picows_app", needs="picows"),
        Side("node", "Node's ws"),
    )
}


def what_is_missing(side: Side) -> str | None:
    """Say why `side` cannot be measured, or `None`."""
    if side.needs is not None and importlib.util.find_spec(side.needs) is None:
        return f"{side.needs} is not installed"
    return None


def install_ws(folder: Path) -> str | None:
    """Install Node's ``ws`` into `folder` for our servers to find; say why it cannot be done."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "node or npm is not installed"
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--silent"]
    try:
        done = subprocess.run(
            [npm, "install", "--prefix", str(folder), *options, WS_PACKAGE],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"npm did not install {WS_PACKAGE} within 60 s"
    if done.returncode:
        return f"npm did not install {WS_PACKAGE}: {done.stderr.strip()[:200]}"
    os.environ["NODE_PATH"] = str(folder / "node_modules")
    return None
