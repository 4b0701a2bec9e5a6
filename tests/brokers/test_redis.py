"""The broker on Redis: the contract, and what is special to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pongee.brokers.base import Broker
from pongee.brokers.redis import RedisBroker
from pongee.testing.broker_contract import BrokerContract
from tests.brokers.redis_server import RedisServer, redis_6, redis_7

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server_6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis6"), redis_6()) as server:
        yield server


@pytest.fixture(scope="module")
def server_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis7"), redis_7()) as server:
        yield server


class _Contract(BrokerContract):
    ttl = 1.0
    shared = True
    url: str

    async def make_broker(self) -> Broker:
        return RedisBroker(self.url)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TestContractOn6(_Contract):
    """With the oldest server that is supported."""

    @pytest.fixture(autouse=True)
    def _use(self, server_6: RedisServer) -> None:
        self.url = server_6.url


class TestContractOn7(_Contract):
    """With a newer one, in a database of its own."""

    @pytest.fixture(autouse=True)
    def _use(self, server_7: RedisServer) -> None:
        self.url = f"{server_7.url[:-1]}3"
