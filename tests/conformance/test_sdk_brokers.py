"""The official Python SDK, unmodified, on channels that live in Redis and in NATS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer, redis_8
from tests.conformance.sdk import KitFactory
from tests.conformance.sdk_python import python
from tests.conformance.sdk_scenarios import Scenarios

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("sdk"), redis_8()) as server:
        yield server.url


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with NatsServer(tmp_path_factory.mktemp("sdk")) as server:
        yield server.url


class TestOnRedis(Scenarios):
    """The same scenarios as in memory."""

    kit: ClassVar[KitFactory] = staticmethod(python)

    @pytest.fixture(autouse=True)
    def _use(self, redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PONGEE_BROKER", redis)


class TestOnNats(Scenarios):
    """Likewise."""

    kit: ClassVar[KitFactory] = staticmethod(python)

    @pytest.fixture(autouse=True)
    def _use(self, nats: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PONGEE_BROKER", nats)
