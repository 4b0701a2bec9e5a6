"""A session and its channels when the broker does not do what it is asked."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI

from pongee import BrokerUnavailable, Pongee, Session, public
from pongee.brokers.memory import MemoryBroker
from pongee.testing import ManualClock, connect, serve

pytestmark = pytest.mark.anyio


class AwayOnce(MemoryBroker):
    """A broker that cannot be reached the first time a channel is asked for."""

    away = True

    async def subscribe(self, channel: str) -> None:
        if self.away:
            self.away = False
            raise BrokerUnavailable("away")
        await super().subscribe(channel)


async def test_subscribe_that_failed_can_be_tried_again() -> None:
    """The session is not in the channel, and the next time it is."""
    clock = ManualClock()
    pongee, app = Pongee(clock=clock, broker=AwayOnce), FastAPI()
    failed = asyncio.Event()

    @pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        try:
            await session.subscribe("room")
        except BrokerUnavailable:
            assert session.statistics().channels == 0
            failed.set()
            await session.subscribe("room")
        await session.send("in")
        await session.closed

    pongee.install(app)
    async with serve(app) as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "in"
        assert failed.is_set()
        await pongee.publish("room", "hello")
        assert await client.receive() == "hello"
