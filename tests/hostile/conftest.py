"""The servers under attack, one process of each kind for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.harness import Target, Targets


@pytest.fixture(scope="session")
def targets() -> Iterator[Targets]:
    """Start each server process when it is first needed."""
    running = Targets()
    yield running
    running.stop()


@pytest.fixture(params=["serve", "plain"])
def target(request: pytest.FixtureRequest, targets: Targets) -> Target:
    """Both servers, one after the other: ``pongee serve``, and stock FastAPI on our wire."""
    return targets.get(request.param)


@pytest.fixture
def serve(targets: Targets) -> Target:
    """``pongee serve`` alone, for what only it has."""
    return targets.get("serve")


@pytest.fixture
def plain(targets: Targets) -> Target:
    """Stock FastAPI alone, where messages may be compressed."""
    return targets.get("plain")


@pytest.fixture
def guarded(targets: Targets) -> Target:
    """An application with caps for users and addresses, and tokens in the first message."""
    return targets.get("guarded")
