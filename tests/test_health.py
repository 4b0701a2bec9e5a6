"""``/healthz`` and ``/readyz`` of an application that includes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from pongee import Caps, Pongee, Session, public
from pongee.brokers.base import UP, Health
from pongee.brokers.memory import MemoryBroker
from pongee.clock import Clock, TimerWheel
from pongee.testing import Server, connect, eventually, serve

pytestmark = pytest.mark.anyio


class Broker(MemoryBroker):
    """A broker of which the test says whether it can be reached."""

    said = UP

    @property
    def health(self) -> Health:
        """What the test said."""
        return self.said


class Scene:
    """The application, served."""

    def __init__(self, server: Server, pongee: Pongee, broker: Broker) -> None:
        self.server = server
        self.pongee = pongee
        self.broker = broker

    async def get(self, path: str) -> tuple[int, Any]:
        """Ask; returns the status and what is told."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(self.server.http(path))
        return answer.status_code, answer.json()


@asynccontextmanager
async def _scene(**options: Any) -> AsyncIterator[Scene]:
    made: list[Broker] = []

    def make(clock: Clock, wheel: TimerWheel) -> Broker:
        made.append(Broker(clock, wheel))
        return made[0]

    app, pongee = FastAPI(), Pongee(broker=make, **options)

    @pongee.endpoint("/ws", auth=public)
    async def wait(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    app.include_router(pongee.health)
    app.include_router(pongee.metrics)
    pongee.install(app)
    assert app.state.pongee is pongee
    async with serve(app) as server:
        yield Scene(server, pongee, made[0])


async def test_process_that_may_get_clients_says_so() -> None:
    """Nothing stands against it."""
    async with _scene() as scene:
        assert await scene.get("/healthz") == (200, {"status": "ok"})
        assert await scene.get("/readyz") == (200, {"status": "ready", "reasons": []})


async def test_process_that_is_full_gets_none_until_there_is_room() -> None:
    """They would be refused."""
    async with _scene(caps=Caps(max_connections=1)) as scene:
        async with connect(scene.server.ws("/ws")):
            await eventually(lambda: scene.pongee.connections())
            told = {"status": "not ready", "reasons": ["full: 1 connections"]}
            assert await scene.get("/readyz") == (503, told)
            assert (await scene.get("/healthz"))[0] == 200
        await eventually(lambda: not scene.pongee._node.capacity.connections)
        assert (await scene.get("/readyz"))[0] == 200


async def test_process_without_its_broker_gets_none() -> None:
    """The reason is told; the process itself is well."""
    async with _scene() as scene:
        scene.broker.said = Health(False, "connection refused")
        told = {"status": "not ready", "reasons": ["broker: connection refused"]}
        assert await scene.get("/readyz") == (503, told)
        assert (await scene.get("/healthz"))[0] == 200


async def test_process_that_leaves_tells_every_reason() -> None:
    """That it leaves is the status."""
    async with _scene() as scene:
        scene.broker.said = Health(False, "gone")
        await scene.pongee.drain(0)
        told = {"status": "draining", "reasons": ["draining", "broker: gone"]}
        assert await scene.get("/readyz") == (503, told)


async def test_metrics_tell_what_is_there_now() -> None:
    """Connections, channels, and whether the broker can be reached, and how often it could not."""
    async with _scene() as scene, connect(scene.server.ws("/ws")):
        await eventually(lambda: scene.pongee.connections(), what="it is in")
        figures = await _figures(scene)
        assert figures["pongee_connections"] == 1
        assert figures["pongee_broker_up"] == 1
        assert figures["pongee_nodes"] == 1
        assert figures["pongee_broker_link_breaks_total"] == 0
        scene.broker.said = Health(False, "away")
        scene.pongee._node.board.on_link(False)
        figures = await _figures(scene)
        assert figures["pongee_broker_up"] == 0
        assert figures["pongee_broker_link_breaks_total"] == 1


async def _figures(scene: Scene) -> dict[str, float]:
    """Read them as Prometheus would."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(scene.server.http("/metrics"))
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {one.name: one.value for family in families for one in family.samples}
