"""The files of the deployment page: each is what it says, and what can run here runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from configparser import RawConfigParser
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pongee import Publisher, Settings, limits
from pongee.brokers.embedded import EmbeddedNats
from pongee.cli.listener import BACKLOG
from pongee.playground.page import make_token
from pongee.testing import Client, HandshakeRefused, connect
from tests.brokers.nats_server import nats_binary
from tests.cli.process import Served
from tests.conftest import require_tool
from tests.docs.plain_yaml import read_documents
from tests.proxy import conftest as proxy

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples" / "deployment"
PAGE = (ROOT / "docs" / "deployment.md").read_text()
SECRET = "d" * 40
API_KEY = "k" * 40
STRANGER: dict[str, Any] = {"local_addr": ("127.0.0.2", 0)}
"""A client whose address is not the proxy's, although both are this machine."""


def _read(name: str) -> str:
    return (FILES / name).read_text()


# The page


def test_page_shows_every_file() -> None:
    """None is forgotten; that they are shown to the letter is tested with the other pages."""
    shown = set(re.findall(r"<!-- examples/deployment/([^ ]+) -->", PAGE))
    assert shown == {path.name for path in FILES.iterdir() if path.is_file()}


def test_page_tells_the_times_of_the_code() -> None:
    """Each row of the table is a bound of ours, in seconds."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) s \|", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} >= {"BROKER_PROBE", "BROKER_TIMEOUT", "BROKER_PATIENCE"}
    assert dict(rows) == {name: f"{getattr(limits, name):g}" for name, _ in rows}


def test_page_names_settings_that_exist() -> None:
    """No file and no sentence sets what nobody reads."""
    known = {f"PONGEE_{name.upper()}" for name in Settings.model_fields}
    for text in (PAGE, *(path.read_text() for path in FILES.iterdir() if path.is_file())):
        assert set(re.findall(r"PONGEE_[A-Z_]+", text)) <= known


# systemd


@pytest.fixture
def unit() -> RawConfigParser:
    """The unit, parsed. It has no key twice, as systemd would allow."""
    parser = RawConfigParser(delimiters="=", comment_prefixes="#", empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(_read("pongee.service"))
    return parser


@pytest.fixture
def environment() -> Settings:
    """The settings of the environment file, read as systemd and the application do."""
    lines = [line for line in _read("pongee.env").splitlines() if line[:1] not in ("#", "")]
    given = dict(line.split("=", 1) for line in lines)
    ours: dict[str, Any] = {
        k.removeprefix("PONGEE_").lower(): v for k, v in given.items() if k != "APP_SECRET"
    }
    return Settings(**ours)


def test_unit_gives_the_time_that_the_settings_need(
    unit: RawConfigParser, environment: Settings
) -> None:
    """The supervisor kills its workers before systemd kills them all."""
    leaving = environment.drain_delay + environment.drain_window
    stop = unit.getfloat("Service", "TimeoutStopSec")
    assert stop == leaving + 35
    assert stop >= leaving + limits.WORKER_SILENCE + limits.EMBEDDED_STOP
    assert unit.getint("Service", "LimitNOFILE") >= environment.max_connections + 1000
    assert unit["Service"]["Restart"] == "always"  # SIGHUP without workers is "a success"


def test_unit_is_one_for_systemd(unit: RawConfigParser, tmp_path: Path) -> None:
    """Where systemd is: it knows every key, and understands every value."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze, of Debian's systemd")
    here = tmp_path / "pongee.service"
    installed = shlex.split(unit["Service"]["ExecStart"])[0]
    pongee = Path(sysconfig.get_path("scripts")) / "pongee"
    here.write_text(_read("pongee.service").replace(installed, str(pongee)))
    done = subprocess.run(
        [program, "verify", str(here)], capture_output=True, text=True, timeout=30, check=False
    )
    assert "pongee.service" not in done.stderr, done.stderr


# Containers


async def test_command_of_the_image_serves_the_application() -> None:
    """The words of CMD; only the address is another."""
    (line,) = re.findall(r"^CMD (\[.*\])$", _read("Dockerfile"), re.MULTILINE)
    words = json.loads(line)
    assert words[:2] == ["pongee", "serve"]
    assert words[-2:] == ["--host", "0.0.0.0"]
    words += ["--host", "127.0.0.1", "--port", "0"]  # the last one counts
    async with Served(command=tuple(words), cwd=FILES, env={"APP_SECRET": SECRET}) as served:
        assert (await served.get("/healthz")).json() == {"status": "ok"}
        (check,) = re.findall(r"^    CMD (\[.*\])$", _read("Dockerfile"), re.MULTILINE)
        python, *arguments = [w.replace(":8000", f":{served.port}") for w in json.loads(check)]
        assert python == "python"
        await asyncio.to_thread(
            subprocess.run, [sys.executable, *arguments], timeout=30, check=True
        )
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0


def test_kubernetes_gives_the_time_that_the_settings_need() -> None:
    """And asks the routes that there are, of the port that there is."""
    deployment, service, budget = read_documents(_read("kubernetes.yml"))
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    leaving = float(values["PONGEE_DRAIN_DELAY"]) + float(values["PONGEE_DRAIN_WINDOW"])
    assert pod["spec"]["terminationGracePeriodSeconds"] == leaving + 30
    assert deployment["spec"]["minReadySeconds"] >= float(values["PONGEE_DRAIN_WINDOW"])
    ready, alive = container["readinessProbe"], container["livenessProbe"]
    assert ready["httpGet"] == {"path": "/readyz", "port": "http"}
    assert alive["httpGet"] == {"path": "/healthz", "port": "http"}
    noticed = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert noticed < float(values["PONGEE_DRAIN_DELAY"])
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = pod["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"]
    assert f"--uid {container['securityContext']['runAsUser']} " in _read("Dockerfile")


# Proxies


def test_traefik_sends_each_router_to_a_service() -> None:
    """That asks for readiness. Nothing is sticky, the HTTP fallback neither."""
    (document,) = read_documents(_read("traefik.yml"))
    routers, services = document["http"]["routers"], document["http"]["services"]
    assert {router["service"] for router in routers.values()} == set(services)
    for service in services.values():
        balancer = service["loadBalancer"]
        assert balancer["healthCheck"]["path"] == "/readyz"
        assert "sticky" not in balancer


@dataclass
class _Site:
    nginx: proxy.Nginx
    servers: tuple[Served, Served]
    broker: str

    async def client(self, stack: AsyncExitStack, **options: Any) -> tuple[Client, dict[str, Any]]:
        """Connect as an SDK does; returns what `on_connect` said."""
        url = self.nginx.ws("/connection/websocket")
        client = await stack.enter_async_context(connect(url, timeout=30, **options))
        await client.send_json({"id": 1, "connect": {"token": make_token(SECRET, "ada", 3600)}})
        return client, (await client.receive_json())["connect"]["data"]

    async def one_on_each(self, stack: AsyncExitStack) -> dict[int, Client]:
        """Connect until there is a client with each process."""
        found: dict[int, Client] = {}
        for _ in range(50):
            client, told = await self.client(stack, **STRANGER)
            assert told["address"] == "127.0.0.2"
            found.setdefault(told["process"], client)
            if len(found) == 2:
                break
        assert set(found) == {server.pid for server in self.servers}
        return found


@pytest.fixture
def nginx_program() -> str:
    """Where nginx is."""
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    return require_tool(path, "Debian's nginx", "apt-get install nginx")


@pytest.fixture
def broker() -> Iterator[str]:
    """A NATS server; returns its address."""
    nats_binary()  # skips where there is none
    server = EmbeddedNats()
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def balancing() -> str:
    """How nginx chooses a process; what is documented."""
    return "least_conn;"


@pytest.fixture
async def site(
    nginx_program: str,
    broker: str,
    balancing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[_Site]:
    """Two processes, and nginx in front of them with the documented file."""
    env = {
        "APP_SECRET": SECRET,
        "PONGEE_API_KEY": API_KEY,
        "PONGEE_BROKER": broker,
        "PONGEE_TRUSTED_PROXIES": "127.0.0.1",
        "PONGEE_DRAIN_DELAY": "60",
    }
    monkeypatch.setattr(proxy, "DOCUMENTED", tmp_path / "documented.conf")
    async with (
        Served("app:app", cwd=FILES, env=env) as one,
        Served("app:app", cwd=FILES, env=env) as other,
    ):
        text = _read("nginx.conf")
        for address, server in (("10.0.0.11:8000", one), ("10.0.0.12:8000", other)):
            assert text.count(address) == 1
            text = text.replace(address, f"127.0.0.1:{server.port}")
        assert text.count("    least_conn; ") == 1
        text = text.replace("    least_conn; ", f"    {balancing} ")
        # Together with what the page on one process has, of which nothing is left here.
        proxy.DOCUMENTED.write_text(text + "\n# server 127.0.0.1:8000;\n")
        directory = tmp_path / "nginx"
        directory.mkdir()
        nginx = proxy.Nginx(nginx_program, directory, one.port, ())
        try:
            yield _Site(nginx, (one, other), broker)
        finally:
            nginx.stop()


@pytest.mark.nginx
@pytest.mark.timeout(180)
async def test_two_processes_behind_nginx_are_one_application(site: _Site) -> None:
    """Addresses are right; what one client or a script says is heard on both."""
    async with AsyncExitStack() as stack:
        clients = list((await site.one_on_each(stack)).values())
        for client in clients:
            await client.send_json({"id": 2, "subscribe": {"channel": "chat:7"}})
            assert "subscribe" in await client.receive_json()
        await clients[0].send_json({"id": 3, "publish": {"channel": "chat:7", "data": "hello"}})
        heard = [await _heard(client) for client in clients]
        assert heard == ["hello", "hello"]
        async with Publisher(site.broker) as publisher:
            assert (await publisher.publish("chat:7", "from a script")).offset == 2
        assert [await _heard(client) for client in clients] == ["from a script"] * 2
    for path in ("/readyz", "/api/info"):
        assert (await site.nginx.http("GET", path)).status_code == 404
    assert (await site.nginx.http("GET", "/healthz")).json() == {"status": "ok"}


async def _heard(client: Client) -> str:
    while True:  # the reply to `publish` may come before the publication
        message = await client.receive_json()
        if "push" in message:
            return str(message["push"]["pub"]["data"])


@pytest.mark.nginx
@pytest.mark.timeout(180)
async def test_handshakes_go_past_a_process_that_leaves(site: _Site) -> None:
    """During its delay it refuses them; no client sees that."""
    leaving, staying = site.servers
    async with AsyncExitStack() as stack:
        clients = await site.one_on_each(stack)
        leaving.signal(signal.SIGTERM)
        await _refuses(leaving)
        for _ in range(8):
            _, told = await site.client(stack)
            assert told["process"] == staying.pid
        # It still serves those it has.
        await clients[leaving.pid].send_json({"id": 2, "subscribe": {"channel": "chat:7"}})
        assert "subscribe" in await clients[leaving.pid].receive_json()
        leaving.signal(signal.SIGTERM)
        assert (await clients[leaving.pid].wait_closed()).code == 3001
        assert await leaving.ended() == 0
        assert (await site.client(stack))[1]["process"] == staying.pid


async def _refuses(server: Served) -> None:
    """Wait until it refuses handshakes."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with connect(server.ws("/connection/websocket")):
                    await asyncio.sleep(0.05)
            except HandshakeRefused:
                return


# The HTTP fallback


@dataclass
class _Stream:
    """An SDK's end of ``http_stream``, whose commands are requests of their own."""

    origin: str
    lines: AsyncIterator[str]
    told: dict[str, Any]

    @classmethod
    async def open(cls, stack: AsyncExitStack, origin: str, **options: Any) -> _Stream:
        """Connect."""
        transport = httpx.AsyncHTTPTransport(**options)
        http = httpx.AsyncClient(transport=transport, trust_env=False, timeout=30)
        await stack.enter_async_context(http)
        first = {"id": 1, "connect": {"token": make_token(SECRET, "ada", 3600)}}
        asked = http.stream("POST", f"{origin}/connection/http_stream", content=json.dumps(first))
        answer = await stack.enter_async_context(asked)
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        return cls(origin, lines, json.loads(await anext(lines))["connect"])

    @property
    def process(self) -> int:
        return int(self.told["data"]["process"])

    async def command(self, **command: Any) -> dict[str, Any]:
        """Send a command on a connection of its own; returns the reply."""
        body = {
            "node": self.told["node"],
            "session": self.told["session"],
            "data": json.dumps(command),
        }
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answer = await http.post(f"{self.origin}/emulation", json=body)
        assert answer.status_code == 204
        while True:  # a publication may come first
            reply = json.loads(await anext(self.lines))
            if reply.get("id") == command["id"]:
                return dict(reply)


async def _one_on_each(stack: AsyncExitStack, origin: str) -> list[_Stream]:
    """Open streams until there is one with each of two processes."""
    found: dict[int, _Stream] = {}
    for number in range(2, 52):
        address = f"127.0.0.{number}"
        stream = await _Stream.open(stack, origin, local_address=address)
        assert stream.told["data"]["address"] == address
        found.setdefault(stream.process, stream)
        if len(found) == 2:
            break
    assert len(found) == 2
    return list(found.values())


async def _know_each_other(*origins: str) -> None:
    """Wait until two processes, behind these addresses, have heard of each other."""
    knowing: set[str] = set()
    key = {"X-API-Key": API_KEY}
    async with asyncio.timeout(60):
        while len(knowing) < 2:
            for origin in origins:
                async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
                    answer = await http.post(f"{origin}/api/info", headers=key, json={})
                own, *others = answer.json()["result"]["nodes"]
                if others:
                    knowing.add(own["uid"])
            await asyncio.sleep(0.02)


@pytest.mark.nginx
@pytest.mark.timeout(180)
@pytest.mark.parametrize("balancing", ["least_conn;", "random two least_conn;"])
async def test_commands_of_the_http_fallback_arrive_by_any_process(site: _Site) -> None:
    """Nothing is sticky: some went by the process that does not have the stream."""
    await _know_each_other(*(server.http("") for server in site.servers))
    holders: list[int] = []
    async with AsyncExitStack() as stack:
        streams = await _one_on_each(stack, site.nginx.origin)
        for stream in streams:
            assert "subscribe" in await stream.command(id=2, subscribe={"channel": "chat:7"})
            for number in range(3, 13):
                publish = {"channel": "chat:7", "data": "hello"}
                assert "error" not in await stream.command(id=number, publish=publish)
            holders += [stream.process] * 11
    text = await asyncio.to_thread(site.nginx.log.read_text)
    used = re.findall(r'"POST /emulation" 204 127\.0\.0\.1:(\d+)', text)
    processes = {str(server.port): server.pid for server in site.servers}
    # The line of the last command may not have been written yet.
    assert len(used) >= len(holders) - 1
    passed_on = [by for by, holder in zip(used, holders, strict=False) if processes[by] != holder]
    assert passed_on


@pytest.mark.nginx
@pytest.mark.timeout(180)
async def test_streams_of_the_http_fallback_go_past_a_process_that_leaves(site: _Site) -> None:
    """And the commands of those that it still serves arrive."""
    leaving, staying = site.servers
    await _know_each_other(*(server.http("") for server in site.servers))
    async with AsyncExitStack() as stack:
        kept = {s.process: s for s in await _one_on_each(stack, site.nginx.origin)}[leaving.pid]
        leaving.signal(signal.SIGTERM)
        await _refuses(leaving)
        for _ in range(8):
            stream = await _Stream.open(stack, site.nginx.origin)
            assert stream.process == staying.pid
        assert "subscribe" in await kept.command(id=2, subscribe={"channel": "chat:7"})


@pytest.mark.timeout(180)
async def test_commands_of_the_http_fallback_arrive_by_any_worker() -> None:
    """Workers on one port are chosen by the system."""
    nats_binary()
    env = {"APP_SECRET": SECRET, "PONGEE_API_KEY": API_KEY, "PONGEE_BROKER": "nats://embedded"}
    async with Served("app:app", "--workers", "2", cwd=FILES, env=env) as served:
        await _know_each_other(served.http(""))
        async with AsyncExitStack() as stack:
            for stream in await _one_on_each(stack, served.http("")):
                assert "subscribe" in await stream.command(id=2, subscribe={"channel": "chat:7"})
                for number in range(3, 13):
                    publish = {"channel": "chat:7", "data": "hello"}
                    assert "error" not in await stream.command(id=number, publish=publish)


# The kernel


def test_kernel_settings_are_those_the_page_counts_with() -> None:
    """Names that this kernel has, and values that are enough."""
    lines = [line for line in _read("sysctl.conf").splitlines() if line[:1] not in ("#", "")]
    values = dict(line.split(" = ") for line in lines)
    assert len(values) == len(lines)
    proc = Path("/proc/sys")
    for name in values:
        path = proc / name.replace(".", "/")
        assert not path.parent.exists() or path.exists(), name
    assert int(values["net.core.somaxconn"]) >= BACKLOG
    low, high = map(int, values["net.ipv4.ip_local_port_range"].split())
    ports = 4 * Settings.model_fields["max_connections"].default
    assert high - low + 1 > ports
    assert f"{high - low + 1:,}" in PAGE
    assert f"{60999 - 32768 + 1:,}" in PAGE
