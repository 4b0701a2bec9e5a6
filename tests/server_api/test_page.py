"""The examples of the documentation's page, carried out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pongee.server_api.methods import METHODS
from tests.server_api.conftest import KEY, serving

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "server-api.md").read_text()
EXAMPLES = re.findall(r"^\$ (curl .*)\n(.*)$", PAGE, re.MULTILINE)


async def test_examples_answer_what_the_page_shows() -> None:
    """In their order; only the epoch is another each time."""
    assert len(EXAMPLES) == 4
    async with serving() as api:
        for line, shown in EXAMPLES:
            words = shlex.split(line.replace("$PONGEE_API_KEY", KEY))
            assert words[1:3] == ["-X", "POST"]
            assert words[4] == "-H"
            assert words[6] == "-d"
            method = words[3].removeprefix("http://127.0.0.1:8000/api/")
            name, _, value = words[5].partition(": ")
            answer = await api.post(method, headers={name: value}, content=words[7], json=None)
            assert re.sub(r'"epoch":"[^"]+"', '"epoch":"…"', answer.text) == shown


def test_page_lists_every_method() -> None:
    """And no other."""
    table = PAGE.partition("## Methods")[2].partition("## Answers")[0]
    assert re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE) == [*METHODS, "batch"]
