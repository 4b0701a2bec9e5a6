"""``/healthz`` and ``/readyz``, for whoever watches the process or sends it clients."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from pongee.node import Node

__all__ = ["PATHS", "make_health", "reasons"]

PATHS = ("/healthz", "/readyz")


def reasons(node: Node) -> list[str]:
    """Say why no more clients should be sent here; nothing if they may come."""
    found: list[str] = []
    if node.runtime.draining:
        found.append("draining")
    capacity = node.capacity
    if capacity.connections >= capacity.caps.max_connections:
        found.append(f"full: {capacity.connections} connections")
    health = node.board.broker.health
    if not health.up:
        found.append(f"broker: {health.reason}")
    return found


def make_health(node: Node) -> APIRouter:
    """Make the two routes."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=None)
    async def readyz() -> dict[str, Any] | JSONResponse:
        """Tell whether clients should be sent here."""
        why = reasons(node)
        if not why:
            return {"status": "ready", "reasons": []}
        status = "draining" if node.runtime.draining else "not ready"
        return JSONResponse({"status": status, "reasons": why}, 503)

    return router
