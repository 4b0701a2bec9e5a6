"""``pongee serve``: one process, several, or one that is started again with each change."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import typer
from pydantic import SecretStr

from pongee import ConfigurationError, Settings, __version__
from pongee.brokers.choose import EMBEDDED
from pongee.cli.job import Job, export, require_shared
from pongee.cli.listener import EACH_ITS_OWN, bind, hold
from pongee.cli.server import make_server, run_to_the_end

__all__ = ["run_server"]


def run_server(job: Job) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: there is no such application, the address cannot be had, or what is
            wanted does not go together.
    """
    settings = job.settings
    require_shared(settings, settings.workers)
    if job.reload and settings.workers > 1:
        raise ConfigurationError(
            f"--reload with PONGEE_WORKERS={settings.workers}: one process is reloaded; leave one "
            "of the two away"
        )
    if job.app is None and settings.jwt_secret is None:
        made = settings.model_copy(update={"jwt_secret": SecretStr(secrets.token_hex(32))})
        job = replace(job, settings=made, development=True)
    # What was started is ended, also if the signal comes early.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as started:
        job = _with_broker(job, started)
        if job.reload:
            _reload(job)
        elif settings.workers > 1:
            _supervise(job)
        else:
            _alone(job, started.close)


def _with_broker(job: Job, started: ExitStack) -> Job:
    """Start the broker's server, if it is to be ours."""
    settings = job.settings
    if settings.broker.get_secret_value() != EMBEDDED:
        return job
    from pongee.brokers.embedded import EmbeddedNats

    server = EmbeddedNats()
    started.callback(server.stop)
    server.start()
    export({"broker": server.address})
    known = settings.model_copy(update={"broker": SecretStr(server.address)})
    return replace(job, settings=known)


def _alone(job: Job, last: Callable[[], None]) -> None:
    server = make_server(job)
    settings = job.settings
    with bind(settings.host, settings.port, listening=True) as listener:
        _announce(job, listener.getsockname()[1])
        run_to_the_end(server, [listener], last)


def _supervise(job: Job) -> None:
    from pongee.cli.workers import Workers

    settings = job.settings
    with hold(settings) if EACH_ITS_OWN else bind(settings.host, settings.port) as holder:
        port = holder.getsockname()[1]
        known = replace(job, settings=settings.model_copy(update={"port": port}))
        shared = [] if EACH_ITS_OWN else [holder]
        workers = Workers(known, shared, lambda: _announce(known, port))
        workers.run()
    if workers.status:
        sys.exit(workers.status)


def _reload(job: Job) -> None:
    from pongee.cli.reloading import make_reloader

    # It stays open in this process, so that clients wait while the other is started again.
    with bind(job.settings.host, job.settings.port, listening=True) as listener:
        _announce(job, listener.getsockname()[1])
        make_reloader(job, listener).run()


def _announce(job: Job, port: int) -> None:
    settings: Settings = job.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{'localhost' if host in ('0.0.0.0', '[::]') else host}:{port}"  # noqa: S104
    what = "open" if job.app is None else f"{job.app} is at"
    where = " in a browser" if job.app is None else ""
    lines = [f"Pongee {__version__}: {what} http://{address}/{where}. Ctrl-C stops it."]
    if job.development:
        assert settings.jwt_secret is not None  # noqa: S101 - made a moment ago
        lines += [
            "Development secret, made for this run (set PONGEE_JWT_SECRET for your own):",
            f"  export PONGEE_JWT_SECRET={settings.jwt_secret.get_secret_value()}",
        ]
    typer.echo("\n".join(lines))
    sys.stdout.flush()
