"""Each server once per test run, and fresh ones for tests that end them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.expectations import SERVERS, Expected
from tests.servers.process import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=SERVERS, ids=[server.name for server in SERVERS])
def expected(request: pytest.FixtureRequest) -> Expected:
    """What this server does."""
    server: Expected = request.param
    return server


@pytest.fixture(scope="session")
def server(expected: Expected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start one server for all tests."""
    process = ServerProcess(expected, tmp_path_factory.mktemp(expected.name))
    yield process
    process.kill()


@pytest.fixture
def mortal(expected: Expected, tmp_path: Path) -> Iterator[ServerProcess]:
    """Start a server for one test, which may end it."""
    process = ServerProcess(expected, tmp_path)
    yield process
    process.kill()


@pytest.fixture
def tag() -> str:
    """Name the sessions of one test."""
    return f"tag-{next(_numbers)}"
