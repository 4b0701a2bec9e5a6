"""The broker on NATS over TLS: whom it trusts, and that nothing goes out in clear."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pongee.brokers.base import Stream
from pongee.brokers.nats import NatsBroker
from pongee.brokers.nats_names import parse_address
from pongee.channels.publication import Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT
from pongee.testing import eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.nats_server import NatsServer
from tests.conftest import require_tool

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

STREAM = Stream(100, 60.0, 600.0)
ONE = Publication(b"1")
WITHIN = 20.0
SOON = 1.0
TOKEN = "s3cret-token"

Certificate = tuple[Path, Path]


def certified(directory: Path, name: str) -> Certificate:
    """Make a certificate for `name`, such as ``IP:127.0.0.1``, that nobody else has signed."""
    openssl = require_tool(shutil.which("openssl"), "openssl", "install OpenSSL")
    directory.mkdir()
    shown, key = directory / "cert.pem", directory / "key.pem"
    command = [openssl, "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", f"subjectAltName={name}"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", str(key), "-out", str(shown)]
    subprocess.run(command, check=True, capture_output=True, timeout=WITHIN)
    return shown, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One for 127.0.0.1."""
    return certified(tmp_path_factory.mktemp("tls") / "right", "IP:127.0.0.1")


@pytest.fixture
def server(tmp_path: Path, certificate: Certificate) -> Iterator[NatsServer]:
    """A server that shows it, and wants a token."""
    with NatsServer(tmp_path / "nats", token=TOKEN, certificate=certificate) as started:
        yield started


@asynccontextmanager
async def running(address: str) -> AsyncIterator[tuple[NatsBroker, RecordingSink]]:
    """A broker that has been started, which does not take for ever."""
    broker, sink = NatsBroker(address), RecordingSink()
    begun = time.monotonic()
    await broker.start(sink, "n")
    try:
        assert time.monotonic() - begun < 2 * BROKER_TIMEOUT + SOON
        yield broker, sink
    finally:
        await broker.stop()


async def works(broker: NatsBroker, sink: RecordingSink) -> None:
    """See that everything goes to and fro."""
    await eventually(lambda: broker.health.up, within=WITHIN, what=broker.health.reason)
    await broker.subscribe("a")
    position = await broker.publish("a", ONE, STREAM)
    await eventually(lambda: sink.publications("a"), within=WITHIN)
    assert (await broker.history("a", STREAM)).top == position


@pytest.mark.parametrize("by", ["address", "environment"])
async def test_trusted_certificate(
    by: str, server: NatsServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way its CA is named."""
    address = server.url
    if by == "address":
        address += f"?ssl_ca_certs={certificate[0]}"
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with running(address) as (broker, sink):
        await works(broker, sink)


@pytest.mark.parametrize("why", ["unknown CA", "other host"])
async def test_certificate_that_is_not_trusted(
    why: str, tmp_path: Path, certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    """The link stays down and tells the cure but no secret, until the certificate is right."""
    other = certified(tmp_path / "other", "DNS:other.test")
    trusted = certificate[0] if why == "unknown CA" else tmp_path / "both.pem"
    if why == "other host":
        trusted.write_text(certificate[0].read_text() + other[0].read_text())
    with NatsServer(tmp_path / "nats", token=TOKEN, certificate=other) as server:
        async with running(f"{server.url}?ssl_ca_certs={trusted}") as (broker, sink):
            assert not broker.health.up
            for cure in ("certificate is refused", "?ssl_ca_certs=", "SSL_CERT_FILE"):
                assert cure in broker.health.reason
            begun = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="certificate is refused"):
                await broker.publish("a", ONE, STREAM)
            assert time.monotonic() - begun < SOON
            assert "certificate is refused" in caplog.text
            assert TOKEN not in caplog.text + broker.health.reason + repr(broker)
            server.stop()
            server.certificate = certificate
            server.start()
            await works(broker, sink)


class Greeter:
    """Takes connections, says what it is told to, and keeps what it hears.

    Args:
        silent: leave it at that, and keep the connection open.
        info: what a server says of itself.
    """

    def __init__(self, *, silent: bool = False, **info: Any) -> None:
        self.heard: list[bytes] = []
        self._silent = silent
        info = {"version": "2.12.0", "max_payload": 1 << 20, "headers": True} | info
        self._greeting = f"INFO {json.dumps(info)}\r\n".encode()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen; gives the host and port."""
        async with await asyncio.start_server(self._greet, "127.0.0.1", 0) as server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self._greeting)
            self.heard.append(await reader.read(100))
            while self._silent and await reader.read(100):
                pass
        except OSError:
            pass  # aborted by the other side
        finally:
            writer.close()


async def test_server_that_speaks_no_tls_gets_no_password() -> None:
    """It may be somebody in between who says so."""
    plain = Greeter(auth_required=True)
    async with plain.listening() as place, running(f"tls://{TOKEN}@{place}") as (broker, _):
        assert not broker.health.up
        assert "speaks no TLS" in broker.health.reason
        await eventually(lambda: plain.heard, within=WITHIN)
        assert set(plain.heard) == {b""}


async def test_tls_is_spoken_where_it_is_only_offered() -> None:
    """The first that comes is a handshake."""
    offering = Greeter(auth_required=True, tls_available=True)
    async with offering.listening() as place, running(f"tls://{TOKEN}@{place}") as (broker, _):
        assert not broker.health.up
        await eventually(lambda: offering.heard, within=WITHIN)
        assert all(heard.startswith(b"\x16\x03") for heard in offering.heard)


async def test_handshake_that_is_never_answered() -> None:
    """Is given up in time."""
    silent = Greeter(silent=True, tls_required=True)
    async with silent.listening() as place, running(f"tls://{TOKEN}@{place}") as (broker, _):
        assert not broker.health.up
        assert place in broker.health.reason


async def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """Stop the start, naming the file."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "missing.pem"):
        address = f"tls://{TOKEN}@127.0.0.1:1?ssl_ca_certs={path}"
        with pytest.raises(ConfigurationError, match=path.name) as caught:
            await NatsBroker(address).start(RecordingSink(), "n")
        assert TOKEN not in str(caught.value)


def test_options_of_addresses() -> None:
    """In any order, and escaped like all of a query."""
    plain = parse_address("nats://localhost")
    assert (plain.replicas, plain.ca_certs, plain.tls) == (1, None, False)
    both = parse_address("tls://u:p@a,b/?ssl_ca_certs=/etc/my%20ca.pem&replicas=3")
    assert (both.replicas, both.ca_certs, both.tls) == (3, "/etc/my ca.pem", True)
    assert both.name == "tls://a,b"
    assert both.servers == ["tls://a:4222", "tls://b:4222"]
    assert parse_address("nats://u:a?b@host").password == "a?b"
    odd = parse_address("tls://u:a?b@host?ssl_ca_certs=/etc/c++/a@b.pem&replicas=1")
    assert (odd.servers, odd.password) == (["tls://host:4222"], "a?b")
    assert odd.ca_certs == "/etc/c++/a@b.pem"


@pytest.mark.parametrize(
    "query",
    [
        "replicas",
        "replicas=",
        "replicas=0",
        "replicas=6",
        "replicas=s3cret",
        "replicas=3&s3cret",
        "s3cret=1",
        "&",
        "ssl_ca_certs=",
        "ssl_ca_certs=a",
    ],
)
def test_bad_options_are_told_with_the_cure(query: str) -> None:
    """And without what stands there: it may be a password that was not escaped."""
    scheme = "nats" if query == "ssl_ca_certs=a" else "tls"
    with pytest.raises(ConfigurationError, match="replicas=3") as caught:
        NatsBroker(f"{scheme}://host?{query}")
    assert "s3cret" not in str(caught.value)
