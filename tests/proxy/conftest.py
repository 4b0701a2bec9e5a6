"""Debian's nginx with the documented configuration, in front of a playground."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pongee import Pongee, Settings
from pongee.playground import create_app
from pongee.playground.page import make_token
from pongee.testing import Server, serve
from tests.conftest import require_tool

DOCUMENTED = Path(__file__).parent.parent.parent / "docs" / "nginx.conf"
SECRET = "p" * 32
STATIC_TOKEN = "static-token-0123456789"
JWT = make_token(SECRET, "ada", 3600)

MAIN = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {0};
}}
"""

Change = tuple[str, str]


class Nginx:
    """One nginx in the foreground, on a free port of 127.0.0.1.

    Args:
        program: where nginx is.
        directory: for its files.
        upstream: the application's port.
        changes: to the documented configuration, each of which must apply.
    """

    def __init__(
        self, program: str, directory: Path, upstream: int, changes: tuple[Change, ...]
    ) -> None:
        self.port = _free_port()
        self.log = directory / "access.log"
        site = DOCUMENTED.read_text()
        for old, new in (
            ("server 127.0.0.1:8000;", f"server 127.0.0.1:{upstream};"),
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            ("/var/log/nginx/access.log", str(self.log)),
            *changes,
        ):
            assert site.count(old) == 1, old
            site = site.replace(old, new)
        (directory / "site.conf").write_text(site)
        (directory / "nginx.conf").write_text(MAIN.format(directory / "site.conf"))
        self._output = (directory / "output").open("w+")
        self._process = subprocess.Popen(
            [program, "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")],
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_ready()
        except AssertionError:
            self.stop()
            raise

    def ws(self, path: str) -> str:
        """Write the WebSocket address of `path` through nginx."""
        return f"ws://127.0.0.1:{self.port}{path}"

    @property
    def origin(self) -> str:
        """Where a browser would say its page came from."""
        return f"http://127.0.0.1:{self.port}"

    async def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make one HTTP request through nginx."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return await client.request(method, self.origin + path, **options)

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._output.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                ended = self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self._output.seek(0)
                    raise AssertionError(f"no nginx: {self._output.read()}") from None
                time.sleep(0.01)
            else:
                return


@dataclass(frozen=True)
class Proxied:
    """The application and the nginx in front of it."""

    nginx: Nginx
    server: Server
    pongee: Pongee


NginxFactory = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[NginxFactory]:
    """Start nginx; each is ended with the test."""
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    program = require_tool(path, "Debian's nginx", "apt-get install nginx")
    started: list[Nginx] = []

    def start(upstream: int, *changes: Change) -> Nginx:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Nginx(program, directory, upstream, changes))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@asynccontextmanager
async def proxied(
    nginx: NginxFactory, *changes: Change, ping_interval: float = 20, **settings: Any
) -> AsyncIterator[Proxied]:
    """Serve the playground, and nginx in front of it."""
    values: dict[str, Any] = {
        "jwt_secret": SECRET,
        "static_tokens": STATIC_TOKEN,
        "trusted_proxies": "127.0.0.1",
    }
    app = create_app(Settings(**(values | settings)))
    async with serve(
        app, ws_max_size=64 * 1024, ws_per_message_deflate=False, ws_ping_interval=ping_interval
    ) as server:
        yield Proxied(nginx(server.port, *changes), server, app.state.pongee)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
