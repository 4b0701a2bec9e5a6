"""``pongee serve``: uvicorn with our settings, and an end in order."""

from __future__ import annotations

import asyncio
import copy
import secrets
import signal
import socket
import sys
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from uvicorn.config import LOGGING_CONFIG

from pongee import ConfigurationError, Pongee, Settings, __version__
from pongee.limits import AFTER_DRAIN
from pongee.playground import create_app

__all__ = ["PongeeServer", "run_server"]


def run_server(settings: Settings) -> None:
    """Serve the playground until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    development = settings.jwt_secret is None
    if development:
        settings = settings.model_copy(update={"jwt_secret": SecretStr(secrets.token_hex(32))})
    app = create_app(settings, development=development)
    server = PongeeServer(_config(app, settings), app.state.pongee)
    _end_quietly_by_signal(server)
    with _listen(settings) as listener:
        _announce(settings, listener.getsockname()[1], development)
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)


class PongeeServer(uvicorn.Server):
    """A uvicorn server that lets sessions leave in order before it closes their sockets."""

    def __init__(self, config: uvicorn.Config, pongee: Pongee) -> None:
        super().__init__(config)
        self._pongee = pongee

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, drain, then shut down as uvicorn does.

        A second signal while it drains cuts it short.
        """
        for server in self.servers:
            server.close()
        deadline = self._pongee.settings.drain_window + AFTER_DRAIN
        drain = asyncio.ensure_future(self._pongee.drain(deadline=deadline))
        while not drain.done() and not self.force_exit:
            await asyncio.wait([drain], timeout=0.05)
        if not drain.done():
            drain.cancel()
            await self._pongee.drain(0, deadline=0.1)
            self.force_exit = False  # from here on it is quick, and the lifespan is to end too
        await super().shutdown(sockets)


def _end_quietly_by_signal(server: uvicorn.Server) -> None:
    """Make an end by signal a success: uvicorn raises it again once it has shut down in order."""

    def again(number: int, frame: object) -> None:
        if not server.started:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, again)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    log_config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    log_config["loggers"]["pongee"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    log_config["formatters"]["default"]["fmt"] = "%(levelprefix)s %(message)s"
    return uvicorn.Config(
        app,
        log_config=log_config,
        # Pongee resolves the client's address itself, with one setting for all its guards.
        proxy_headers=False,
        server_header=False,
        http="pongee.wire.http:HeadProtocol",
        ws="pongee.wire:WireProtocol",
        ws_max_size=settings.max_message_size,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=settings.compression,
        timeout_graceful_shutdown=1,
        backlog=2048,
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"PONGEE_HOST={settings.host!r}, PONGEE_PORT={settings.port}: {error.strerror}; give "
            "another with --port or PORT=…"
        ) from None
    return listener


def _announce(settings: Settings, port: int, development: bool) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{'localhost' if host in ('0.0.0.0', '[::]') else host}:{port}"  # noqa: S104
    lines = [f"Pongee {__version__}: open http://{address}/ in a browser. Ctrl-C stops it."]
    if development:
        assert settings.jwt_secret is not None  # noqa: S101 - made a moment ago
        lines += [
            "Development secret, made for this run (set PONGEE_JWT_SECRET for your own):",
            f"  export PONGEE_JWT_SECRET={settings.jwt_secret.get_secret_value()}",
        ]
    typer.echo("\n".join(lines))
    sys.stdout.flush()
