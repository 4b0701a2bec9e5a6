"""The broker on Redis over TLS: everything works, and nobody is trusted unasked."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import psutil  # type: ignore[import-untyped]
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis import Redis

from pongee.brokers.base import Stream
from pongee.brokers.redis import RedisBroker
from pongee.channels.publication import Publication
from pongee.errors import BrokerUnavailable, ConfigurationError
from pongee.limits import BROKER_TIMEOUT, REDIS_UNSENT
from pongee.testing import Relay, eventually
from pongee.testing.broker_world import RecordingSink
from tests.brokers.redis_server import RedisServer, redis_7

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

STREAM = Stream(1000, 60, 600)

MIB = 1024 * 1024

Certificate = tuple[Path, Path]


def certify(directory: Path, name: str, *, expired: bool = False) -> Certificate:
    """Write a key and a certificate for 127.0.0.1 that signs itself; returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=-1 if expired else 1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths = directory / f"{name}.key", directory / f"{name}.pem"
    paths[0].write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    paths[1].write_bytes(made.public_bytes(pem))
    return paths


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("tls"), "own")


@pytest.fixture(scope="module")
def server(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    dir_ = tmp_path_factory.mktemp("server")
    with RedisServer(dir_, redis_7(), password="s3cret", certificate=certificate) as server:
        yield server


@asynccontextmanager
async def started(address: str) -> AsyncIterator[tuple[RedisBroker, RecordingSink]]:
    broker, sink = RedisBroker(address), RecordingSink()
    await broker.start(sink, "n")
    try:
        yield broker, sink
    finally:
        await broker.stop()


async def arrived(sink: RecordingSink, channel: str, count: int) -> list[Publication]:
    await eventually(lambda: len(sink.publications(channel)) >= count, within=15, what="all")
    return sink.publications(channel)


async def test_all_arrives_and_is_kept(server: RedisServer) -> None:
    """In order and unharmed: many small ones in one turn, and some that fill every buffer."""
    channel = secrets.token_hex(8)
    async with started(server.url) as (broker, sink):
        assert broker.health.up, broker.health.reason
        await broker.subscribe(channel)
        sizes = [1, 100, MIB, 17, 2 * MIB, 16 * 1024, 16 * 1024 + 1, *([50] * 500)]
        data = [secrets.token_bytes(size) for size in sizes]
        positions = await asyncio.gather(
            *(broker.publish(channel, Publication(one, binary=True), STREAM) for one in data)
        )
        assert [position.offset for position in positions] == [*range(1, len(data) + 1)]
        came = await arrived(sink, channel, len(data))
        assert [one.data for one in came] == data
        page = await broker.history(channel, STREAM)
        assert [one.data for one in page.publications] == data
        assert page.top == positions[-1]
        assert sink.links == [True]


async def test_server_hangs(server: RedisServer) -> None:
    """Whoever waits fails in time; what may wait is bounded; it ends, and recovers."""
    channel = secrets.token_hex(8)
    async with started(server.url) as (broker, sink):
        await broker.subscribe(channel)
        server.freeze()
        try:
            loop = asyncio.get_running_loop()
            before = loop.time()
            large = Publication(b"x" * (1 + REDIS_UNSENT // 50))
            calls = [broker.publish(channel, large, None) for _ in range(60)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {BrokerUnavailable}
            assert str(results[-1]).endswith("too much waits for its answer")
            assert loop.time() - before < 3 * BROKER_TIMEOUT
            await eventually(lambda: not broker.health.up, within=15, what="the break")
            async with asyncio.timeout(2 * BROKER_TIMEOUT):
                await broker.stop()  # in the middle of a handshake, or between two
        finally:
            server.thaw()
        await broker.start(sink, "n")
        await eventually(lambda: broker.health.up, within=15, what="the return")
        await broker.subscribe(channel)
        await broker.publish(channel, Publication(b"7"), STREAM)
        assert (await arrived(sink, channel, 1))[-1].data == b"7"


async def test_line_is_silent_and_cut(server: RedisServer) -> None:
    """A link that carries nothing is found, also when it is cut in the middle of a record."""
    channel = secrets.token_hex(8)
    async with Relay(server.port or 0) as relay:
        address = server.url.replace(f":{server.port}", f":{relay.port}")
        async with started(address) as (broker, sink):
            await broker.subscribe(channel)
            writing = [
                asyncio.ensure_future(broker.publish(channel, Publication(b"x" * MIB), STREAM))
                for _ in range(8)
            ]
            await arrived(sink, channel, 1)
            relay.freeze()
            relay.cut()
            await eventually(lambda: not broker.health.up, within=15, what="the break")
            await asyncio.wait(writing, timeout=15)
            results = await asyncio.gather(*writing, return_exceptions=True)
            assert BrokerUnavailable in {type(result) for result in results}
            relay.thaw()
            await eventually(lambda: broker.health.up, within=15, what="the return")
            await broker.publish(channel, Publication(b"last"), STREAM)
            await eventually(lambda: sink.publications(channel)[-1].data == b"last", within=15)
            page = await broker.history(channel, STREAM)
            assert [one.offset for one in page.publications] == [*range(1, page.top.offset + 1)]


async def test_server_that_is_silent_after_the_handshake(certificate: Certificate) -> None:
    """The connection is gone at once, although an end in order waits for the server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[1], certificate[0])
    met: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        # So that it does not learn of an end, nor answer it.
        cast("asyncio.Transport", writer.transport).pause_reading()
        met.append(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]

        def ours() -> list[object]:
            every = psutil.Process().net_connections("tcp")
            return [one for one in every if one.raddr and one.raddr.port == port]

        broker = RedisBroker(f"rediss://:s3cret@127.0.0.1:{port}?ssl_ca_certs={certificate[1]}")
        starting = asyncio.ensure_future(broker.start(RecordingSink(), "n"))
        await eventually(lambda: met, within=15, what="the login")
        assert ours()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await eventually(lambda: not ours(), what="the end of the connection")
        for writer in met:
            writer.transport.abort()


@pytest.mark.parametrize("wrong", ["other", "expired", "name", "system"])
async def test_certificate_is_refused(
    tmp_path: Path, certificate: Certificate, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """The link stays down; the health and the log say why and what to do, and no secret."""
    caplog.set_level(logging.DEBUG)
    own = certify(tmp_path, "expired", expired=True) if wrong == "expired" else certificate
    trusted = certify(tmp_path, "other")[1] if wrong == "other" else own[1]
    host = "localhost" if wrong == "name" else "127.0.0.1"
    query = "" if wrong == "system" else f"?ssl_ca_certs={trusted}"
    with RedisServer(tmp_path / "server", redis_7(), certificate=own) as server:
        async with started(f"rediss://:s3cret@{host}:{server.port}{query}") as (broker, sink):
            why = {"expired": "has expired", "name": "Hostname mismatch"}.get(wrong, "self-signed")
            for text in (broker.health.reason, caplog.text):
                assert "certificate is refused" in text
                assert why in text
                assert "?ssl_ca_certs=" in text
            with pytest.raises(BrokerUnavailable, match="certificate is refused"):
                await broker.publish("a", Publication(b"1"), STREAM)
            assert sink.links == []
    assert "s3cret" not in f"{caplog.text}{broker!r}{broker.health}"


@pytest.mark.parametrize(
    "query", ["ssl_ca_certs=/no/such/file", "ssl_certfile=/no/such/file", "ssl_min_version=7"]
)
async def test_what_tls_needs_cannot_be_read(query: str) -> None:
    """That is told at the start: trying again could not help."""
    broker = RedisBroker(f"rediss://:s3cret@127.0.0.1:1?{query}")
    with pytest.raises(ConfigurationError, match="begin with ssl_") as caught:
        await broker.start(RecordingSink(), "n")
    assert "s3cret" not in str(caught.value)


def test_option_of_tls_is_wrong() -> None:
    """Like all else that is wrong in an address."""
    with pytest.raises(ConfigurationError, match="write it like"):
        RedisBroker("rediss://127.0.0.1:1?ssl_cert_reqs=perhaps")


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "rediss+cluster"])
async def test_several(tmp_path: Path, certificate: Certificate, scheme: str) -> None:
    """Sentinels and nodes speak TLS too, and tell of the ports for it."""
    in_cluster = scheme == "rediss+cluster"
    with (
        RedisServer(
            tmp_path / "data", redis_7(), certificate=certificate, cluster=in_cluster
        ) as data,
        RedisServer(
            tmp_path / "sentinel", redis_7(), certificate=certificate, sentinel=True
        ) as sentinel,
    ):
        query = f"?ssl_ca_certs={certificate[1]}"
        if in_cluster:
            await asyncio.to_thread(ask, data, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            address = f"{scheme}://127.0.0.1:{data.port}{query}"
        else:
            monitor = "SENTINEL", "MONITOR", "main", "127.0.0.1", data.port, 1
            await asyncio.to_thread(ask, sentinel, *monitor)
            address = f"{scheme}://127.0.0.1:{sentinel.port}/main{query}"
        async with started(address) as (broker, sink):
            await eventually(lambda: broker.health.up, within=15, what="the link")
            await broker.subscribe("a")
            await broker.publish("a", Publication(b"1"), STREAM)
            await arrived(sink, "a", 1)
        async with started(address.partition("?")[0]) as (broker, _):
            assert "certificate is refused" in broker.health.reason


def ask(server: RedisServer, *command: str | int | None) -> None:
    with Redis.from_url(server.url.replace("/0", "")) as client:
        client.execute_command(*command)
