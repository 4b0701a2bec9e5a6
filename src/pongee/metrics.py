"""``/metrics``: what a process has and how its broker is, for Prometheus.

Everything is read when it is asked for, so that nothing is counted on the path of a message. Each
process tells of itself: with several behind one port, give each to the scraper by its own address,
or ask all of them by `Pongee.info`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from pongee.node import Node
from pongee.telemetry import BrokerLink, Event

__all__ = ["make_metrics"]


class _Process(Collector):
    """One process's figures."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._broken = 0
        node.telemetry.listen(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, BrokerLink) and not event.up:
            self._broken += 1

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        node, about = self._node, self._node.describe()
        yield GaugeMetricFamily(
            "pongee_broker_up",
            "Whether the link to the broker carries messages both ways",
            int(node.board.broker.health.up),
        )
        yield CounterMetricFamily(
            "pongee_broker_link_breaks", "How often the link to the broker broke", self._broken
        )
        yield GaugeMetricFamily(
            "pongee_draining", "Whether the process is leaving", int(node.runtime.draining)
        )
        for name, text, value in (
            ("connections", "Sessions and client SDKs connected", about.num_clients),
            ("users", "Different users connected, anonymous ones left out", about.num_users),
            ("channels", "Channels with members", about.num_channels),
            ("subscriptions", "Members of channels, each in each", about.num_subs),
            (
                "nodes",
                "Processes of the application, this one included",
                1 + len(node.fleet.others),
            ),
        ):
            yield GaugeMetricFamily(f"pongee_{name}", text, value)


def make_metrics(node: Node) -> APIRouter:
    """Make the route."""
    registry = CollectorRegistry()
    registry.register(_Process(node))
    router = APIRouter()

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Tell the figures of this moment."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
