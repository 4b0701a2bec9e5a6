"""The Autobahn suite's cases against the wire; those of compression, two sizes of each."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.autobahn import KOSOKU, PASSED, run_cases
from tests.conftest import require_tool

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(150)
async def test_every_case_passes() -> None:
    """RFC 6455 to the letter: 301 cases, none failed."""
    tool = require_tool(KOSOKU, "kosoku", "pip install kosoku")
    cases = await run_cases(tool, "-x", "12.*", "-x", "13.*", "-p", "4", within=120)
    outcomes = Counter(case["behavior"] for case in cases.values())
    assert set(outcomes) <= PASSED, cases
    assert sum(outcomes.values()) == 301


@pytest.mark.timeout(150)
async def test_compression_cases_pass() -> None:
    """RFC 7692: two sizes of every kind of offer; `make conformance` runs all 216."""
    tool = require_tool(KOSOKU, "kosoku", "pip install kosoku")
    groups = [f"12.{number}" for number in range(1, 6)] + [f"13.{n}" for n in range(1, 8)]
    options = [word for group in groups for size in (1, 3) for word in ("-i", f"{group}.{size}")]
    cases = await run_cases(tool, *options, "-p", "2", within=120)
    outcomes = Counter(case["behavior"] for case in cases.values())
    assert set(outcomes) <= PASSED, cases
    assert sum(outcomes.values()) == 24
