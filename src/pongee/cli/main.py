"""Commands and their options. Each option wins over its ``PONGEE_*`` setting."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pongee import ConfigurationError, __version__
from pongee.cli.job import Job, export
from pongee.cli.serve import run_server
from pongee.playground.page import make_token
from pongee.settings import load_settings

__all__ = ["main"]

app = typer.Typer(
    help="Pongee: the real-time layer for FastAPI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ConfigurationError as error:
        typer.echo(f"pongee: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Pongee: the real-time layer for FastAPI."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve(
    application: Annotated[
        str | None,
        typer.Argument(
            metavar="[APP]",
            help="What to serve, as module:attribute: a FastAPI application on which "
            "pongee.install(app) was called. Without it, the playground.",
            show_default=False,
        ),
    ] = None,
    factory: Annotated[
        bool, typer.Option("--factory", help="APP is a function that makes the application.")
    ] = False,
    app_dir: Annotated[
        Path, typer.Option(help="Where APP is looked for first; the code that --reload watches.")
    ] = Path(),
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when the code changes; for development.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes; more than one need a broker that they share.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            help="Where channels live: memory://, redis://…, nats://…, or nats://embedded, which "
            "starts a NATS server for this run. An address with a password belongs into "
            "PONGEE_BROKER."
        ),
    ] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(help="Origins beside the server's own, comma-separated.")
    ] = None,
    trusted_proxies: Annotated[
        str | None, typer.Option(help="Proxies whose forwarding headers are believed.")
    ] = None,
    heartbeat_interval: Annotated[
        float | None, typer.Option(help="Seconds between heartbeats of /ws/realtime.")
    ] = None,
    ping_interval: Annotated[
        float | None, typer.Option(help="Seconds between protocol pings.")
    ] = None,
    ping_timeout: Annotated[float | None, typer.Option(help="Seconds a pong may take.")] = None,
    max_message_size: Annotated[
        int | None, typer.Option(help="Bytes of one inbound message.")
    ] = None,
    compression: Annotated[
        bool | None, typer.Option(help="Compress messages for clients that offer it.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Sessions of one process at once.")
    ] = None,
    drain_window: Annotated[
        float | None, typer.Option(help="Seconds over which closes are spread at shutdown.")
    ] = None,
    drain_delay: Annotated[
        float | None, typer.Option(help="Seconds that /readyz says 503 before the port closes.")
    ] = None,
) -> None:
    """Serve an application, or the playground: five endpoints and the page.

    Secrets are taken from the environment only: PONGEE_JWT_SECRET, PONGEE_STATIC_TOKENS.
    """
    options: dict[str, Any] = {
        "workers": workers,
        "host": host,
        "port": port,
        "broker": broker,
        "allowed_origins": allowed_origins,
        "trusted_proxies": trusted_proxies,
        "heartbeat_interval": heartbeat_interval,
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "max_message_size": max_message_size,
        "compression": compression,
        "max_connections": max_connections,
        "drain_window": drain_window,
        "drain_delay": drain_delay,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_settings(**given)
    if application is not None:
        export(given)
    directory = os.path.abspath(app_dir)
    run_server(Job(settings, application, factory, directory, reload=reload))


@app.command()
def token(
    user: Annotated[str, typer.Argument(help="Whose token: the JWT's `sub`.")],
    expires_in: Annotated[float, typer.Option(help="Seconds the token is good for.")] = 3600,
) -> None:
    """Print a JWT signed with PONGEE_JWT_SECRET, for trying things out."""
    settings = load_settings()
    if settings.jwt_secret is None:
        raise ConfigurationError(
            "PONGEE_JWT_SECRET is not set, so the token would be good for nothing; set it to the "
            "server's secret (a server without one prints the secret it made)"
        )
    if not user or not 0 < expires_in < math.inf:
        raise ConfigurationError("a token needs a user, and a lifetime greater than 0 seconds")
    typer.echo(make_token(settings.jwt_secret.get_secret_value(), user, expires_in))


if __name__ == "__main__":
    main()
