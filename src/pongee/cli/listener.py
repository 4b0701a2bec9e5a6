"""Sockets of ``pongee serve``: one for one process, or one for each worker on the same port."""

from __future__ import annotations

import socket
import sys

from pongee import ConfigurationError, Settings

__all__ = ["BACKLOG", "EACH_ITS_OWN", "bind", "hold"]

BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""

EACH_ITS_OWN = sys.platform == "linux"
"""Whether each worker has a socket of its own. Linux spreads connections evenly over them, and with
its socket a worker that leaves really stops listening. Elsewhere they share one."""


def bind(
    host: str, port: int, *, shared_port: bool = False, listening: bool = False
) -> socket.socket:
    """Bind a TCP socket.

    Args:
        host: an address, or a name that leads to one.
        port: 0 lets the system choose.
        shared_port: others of this user may bind it too, if they ask for the same.
        listening: connections may come, and wait until somebody accepts them.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        if listening:
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise ConfigurationError(
            f"PONGEE_HOST={host!r}, PONGEE_PORT={port}: {error.strerror}; give another with --port "
            "or PORT=…"
        ) from None
    return made


def hold(settings: Settings) -> socket.socket:
    """Bind the address for workers. The socket gets no connections, since it does not listen.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    if settings.port:
        # Two servers that share a port would share its clients, too: see that nobody listens.
        bind(settings.host, settings.port).close()
    return bind(settings.host, settings.port, shared_port=True)
