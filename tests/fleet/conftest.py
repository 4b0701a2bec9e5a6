"""Brokers' servers for tests of several processes of one application."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pongee import Settings
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer, redis_6

KINDS: dict[str, Callable[[Path], RedisServer | NatsServer]] = {
    "redis": lambda folder: RedisServer(folder, redis_6(), appendonly=True),
    "nats": NatsServer,
}


@pytest.fixture(scope="session", params=list(KINDS))
def broker_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer | NatsServer]:
    """A server that tests share, each with a prefix of its own."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with KINDS[request.param](folder) as server:
        yield server


@pytest.fixture
def settings(broker_server: RedisServer | NatsServer) -> Settings:
    """Settings of one application."""
    return Settings(broker=broker_server.url, broker_prefix=f"t{secrets.token_hex(4)}")
