"""What ``pongee serve`` serves: the playground, or the application behind an import string."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from pongee import ConfigurationError, Pongee, Settings
from pongee.brokers.choose import is_shared
from pongee.health import PATHS
from pongee.playground import create_app

__all__ = ["Job", "export", "load", "require_shared"]


@dataclass(frozen=True)
class Job:
    """What each process is to serve. Workers get it through a pipe, secrets included.

    Attributes:
        settings: those of the command line and the environment.
        app: ``module:attribute``; `None` is the playground.
        factory: whether `app` is to be called to get the application.
        app_dir: where `app` is looked for first.
        development: the secret was made for this run.
        reload: the process is started again with each change of the code.
    """

    settings: Settings
    app: str | None = None
    factory: bool = False
    app_dir: str = ""
    development: bool = False
    reload: bool = False


def export(given: dict[str, Any]) -> None:
    """Put options into the environment, where the application's own `Pongee` finds them."""
    for name, value in given.items():
        variable = f"PONGEE_{name.upper()}"
        for other in [key for key in os.environ if key.upper() == variable]:
            del os.environ[other]
        os.environ[variable] = str(value)


def require_shared(settings: Settings, workers: int) -> None:
    """See that `workers` processes can be one application.

    Raises:
        ConfigurationError: the broker is one process's own.
    """
    if workers > 1 and not is_shared(settings.broker.get_secret_value()):
        raise ConfigurationError(
            f"--workers {workers} with the broker memory://: each worker would be an application "
            "of its own, whose members do not hear of each other. Give a broker that processes "
            "share, with --broker or PONGEE_BROKER: redis://…, nats://…, or nats://embedded, which "
            "starts one for this run; or leave --workers 1"
        )


def load(job: Job) -> tuple[FastAPI, Pongee]:
    """Make the application.

    Raises:
        ConfigurationError: there is none, or it has no Pongee; what goes wrong inside its own
            module is raised as it is.
    """
    if job.app is None:
        app = create_app(job.settings, development=job.development)
    else:
        app = _imported(job, job.app)
    pongee = getattr(app.state, "pongee", None)
    if not isinstance(pongee, Pongee):
        raise ConfigurationError(
            f"{job.app}: no Pongee is installed in this application; call pongee.install(app) in "
            "its module, after its routes are declared"
        )
    require_shared(pongee.settings, job.settings.workers)
    _add_health(app, pongee)
    return app, pongee


def _imported(job: Job, string: str) -> FastAPI:
    name, colon, path = string.partition(":")
    if not (name and colon and path):
        raise ConfigurationError(
            f"{string!r} names no application; it is module:attribute, such as main:app"
        )
    if job.app_dir not in sys.path:
        sys.path.insert(0, job.app_dir)
    found = _module(name, job.app_dir)
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ConfigurationError(
            f"{string!r}: the module {name} has no {path}; give the name of its FastAPI application"
        ) from None
    if job.factory:
        if not callable(found):
            raise ConfigurationError(f"{string!r} cannot be called; leave --factory away")
        found = found()
    if not isinstance(found, FastAPI):
        cure = "" if job.factory or isinstance(found, type) else "; if it makes one, add --factory"
        raise ConfigurationError(
            f"{string!r} is no FastAPI application but of the type {type(found).__name__}{cure}"
        )
    return found


def _module(name: str, app_dir: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # it is there, and imports something that is not
        raise ConfigurationError(
            f"there is no module {name} in {app_dir or '.'}; start from the directory that holds "
            "it, or name that with --app-dir"
        ) from None


def _add_health(app: FastAPI, pongee: Pongee) -> None:
    """Add ``/healthz`` and ``/readyz``, unless the application has them."""
    taken = {context.path for context in iter_route_contexts(app.routes)}
    if not taken.intersection(PATHS):
        app.include_router(pongee.health)
        # Before a mount or a route of the application that takes every path.
        app.router.routes.insert(0, app.router.routes.pop())
