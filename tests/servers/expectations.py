"""Where servers differ: one row per server, each value measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PING_INTERVAL = 0.5
PING_TIMEOUT = 0.5
SERVER_MESSAGE_LIMIT = 128 * 1024
"""Bytes, where the server's limit can be set."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one server does.

    Attributes:
        name: as pytest shows it.
        command: arguments after the interpreter, given a port and a file for settings.
        settings: the content of that file.
        started: what it prints when it listens.
        client_close: the cause that is told when a client closed with 4321 and a reason.
        no_code_close: the kind that is told for a close frame without a code.
        lost: the kind told when the connection broke.
        invalid_utf8: what the client sees: a close code, or 1006 for none.
        invalid_utf8_kind: the kind told.
        bad_opcode: the same for a broken frame.
        oversize_frame: bytes a frame must have to be over the server's own limit.
        oversize: what the client sees of that.
        oversize_kind: the kind told.
        oversize_waits: whether it keeps the session until the peer answers its close frame.
        shutdown: the close code clients see after SIGTERM, 1006 for none.
        shutdown_within: seconds the process may take to end with clients connected.
        exit_status: after SIGTERM.
        shutdown_kinds: the kinds that may be told (granian drops connections and ends the lifespan
            in one moment).
        cuts_stalled: whether the TCP connection of a stalled reader is cut.
        traits: the name Pongee knows it by.
        pings: whether a client that vanished is found by the server's pings.
    """

    name: str
    command: Callable[[int, str], list[str]]
    settings: str = ""
    started: str
    client_close: tuple[str, int, str]
    no_code_close: str
    lost: str = "connection lost"
    invalid_utf8: int
    invalid_utf8_kind: str
    bad_opcode: int
    oversize_frame: int = SERVER_MESSAGE_LIMIT + 1
    oversize: int
    oversize_kind: str
    oversize_waits: bool = False
    shutdown: int
    shutdown_within: float
    exit_status: int
    shutdown_kinds: tuple[str, ...]
    traits: str
    cuts_stalled: bool
    pings: bool


APP = "tests.servers.app:app"


def _uvicorn(ws: str) -> Callable[[int, str], list[str]]:
    def command(port: int, settings: str) -> list[str]:
        return [
            *("-m", "uvicorn", APP, "--port", str(port), "--ws", ws, "--no-proxy-headers"),
            *("--ws-max-size", str(SERVER_MESSAGE_LIMIT)),
            *("--ws-ping-interval", str(PING_INTERVAL), "--ws-ping-timeout", str(PING_TIMEOUT)),
            *("--timeout-graceful-shutdown", "1"),
        ]

    return command


def _hypercorn(port: int, settings: str) -> list[str]:
    return [
        *("-m", "hypercorn", APP, "--config", settings, "--bind", f"127.0.0.1:{port}"),
        *("--access-logfile", "-", "--access-logformat", '%(h)s "%(R)s" %(s)s'),
        *("--graceful-timeout", "1", "--websocket-ping-interval", "1"),
    ]


def _granian(port: int, settings: str) -> list[str]:
    return [
        *("-m", "granian", APP, "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers-kill-timeout", "2", "--access-log"),
        *("--access-log-fmt", '%(addr)s "%(path)s?%(query_string)s" %(status)d'),
    ]


SERVERS = [
    Expected(
        name="uvicorn",
        command=_uvicorn("websockets-sansio"),
        started="Uvicorn running on",
        client_close=("client closed", 4321, "so long"),
        no_code_close="client closed",
        invalid_utf8=1007,
        invalid_utf8_kind="bad input",
        bad_opcode=1002,
        oversize=1009,
        oversize_kind="bad input",
        shutdown=1012,
        shutdown_within=2,
        exit_status=-15,
        shutdown_kinds=("server is leaving",),
        traits="uvicorn",
        cuts_stalled=True,
        pings=True,
    ),
    Expected(
        name="uvicorn-wsproto",
        command=_uvicorn("wsproto"),
        started="Uvicorn running on",
        client_close=("client closed", 4321, "so long"),
        no_code_close="client closed",
        invalid_utf8=1006,
        invalid_utf8_kind="bad input",
        bad_opcode=1006,
        oversize=1009,
        oversize_kind="bad input",
        shutdown=1012,
        shutdown_within=2,
        exit_status=-15,
        shutdown_kinds=("server is leaving",),
        traits="uvicorn",
        cuts_stalled=True,
        pings=True,
    ),
    Expected(
        name="hypercorn",
        command=_hypercorn,
        settings=f"websocket_max_message_size = {SERVER_MESSAGE_LIMIT}\n",
        started="Running on http",
        client_close=("connection lost", 1006, ""),
        no_code_close="connection lost",
        invalid_utf8=1006,
        invalid_utf8_kind="connection lost",
        bad_opcode=1006,
        oversize=1009,
        oversize_kind="connection lost",
        oversize_waits=True,
        shutdown=1012,
        shutdown_within=4,
        exit_status=0,
        shutdown_kinds=("server is leaving",),
        traits="hypercorn",
        cuts_stalled=True,
        pings=False,
    ),
    Expected(
        name="granian",
        command=_granian,
        started="Started worker-1",
        client_close=("client closed", 4321, ""),
        no_code_close="connection lost",
        invalid_utf8=1005,
        invalid_utf8_kind="connection lost",
        bad_opcode=1005,
        oversize_frame=16 * 1024 * 1024 + 1,
        oversize=1005,
        oversize_kind="connection lost",
        shutdown=1006,
        shutdown_within=3,
        exit_status=0,
        shutdown_kinds=("server is leaving", "connection lost"),
        traits="granian",
        cuts_stalled=False,
        pings=False,
    ),
]
