"""The broker on NATS: the contract, and what is special to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pongee.brokers.base import Broker
from pongee.brokers.nats import NatsBroker
from pongee.testing.broker_contract import BrokerContract
from tests.brokers.nats_server import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests here."""
    directory: Path = tmp_path_factory.mktemp("nats")
    with NatsServer(directory) as started:
        yield started


@pytest.mark.anyio
class TestContract(BrokerContract):
    """Every promise, with two workers and real time."""

    ttl = 1.5
    shared = True

    @pytest.fixture(autouse=True)
    def _use(self, server: NatsServer) -> None:
        self.url = server.url

    async def make_broker(self) -> Broker:
        return NatsBroker(self.url)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
