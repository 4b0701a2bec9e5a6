"""Commands and their options. Each option wins over its ``PONGEE_*`` setting."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from pongee import ConfigurationError, __version__
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
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="Where channels live: memory://, redis://… or nats://….")
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
    max_connections: Annotated[int | None, typer.Option(help="Sessions at once.")] = None,
    drain_window: Annotated[
        float | None, typer.Option(help="Seconds over which closes are spread at shutdown.")
    ] = None,
) -> None:
    """Serve the playground: five endpoints and the page.

    Secrets are taken from the environment only: PONGEE_JWT_SECRET, PONGEE_STATIC_TOKENS.
    """
    settings = load_settings(
        host=host,
        port=port,
        broker=broker,
        allowed_origins=allowed_origins,
        trusted_proxies=trusted_proxies,
        heartbeat_interval=heartbeat_interval,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_message_size=max_message_size,
        compression=compression,
        max_connections=max_connections,
        drain_window=drain_window,
    )
    run_server(settings)


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
