"""What the documentation shows is what the code is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pongee import ClientLimits, Refused, Settings
from pongee.centrifuge.codes import DISCONNECTS, ERRORS, UNSUBSCRIBES, comes_back
from pongee.codes import CODES
from pongee.handlers.faults import client_error

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- ([^ ]+) -->\n```[a-z]*\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_on_the_page_are_the_files_that_run(page: Path) -> None:
    """A block under a file's name is that file, to the letter."""
    for name, block in BLOCK.findall(page.read_text()):
        assert block == (ROOT / name).read_text(), f"{page.name} shows another {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """No link to a file that is not there."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_lists_every_close_code_with_its_meaning() -> None:
    """The table is the code's own table."""
    text = (ROOT / "README.md").read_text()
    for code, info in CODES.items():
        answer = "yes" if info.reconnect else "no"
        assert f"| {int(code)} | {info.meaning} | {answer}" in text


def test_readme_lists_every_setting() -> None:
    """A setting nobody can find does not exist."""
    text = (ROOT / "README.md").read_text()
    listed = set(re.findall(r"^\| `(PONGEE_[A-Z_]+)`", text, re.MULTILINE))
    assert listed == {f"PONGEE_{name.upper()}" for name in Settings.model_fields}


def test_protocol_page_lists_every_code() -> None:
    """The three tables are the code's own tables, no row more or less."""
    text = (ROOT / "docs/client-protocol.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| (yes|no) \|", text, re.MULTILINE)
    answer = {True: "yes", False: "no"}
    assert rows == [
        *((str(int(code)), info.message, answer[info.temporary]) for code, info in ERRORS.items()),
        *((str(int(c)), reason, answer[c >= 2500]) for c, reason in UNSUBSCRIBES.items()),
        *((str(int(c)), reason, answer[comes_back(c)]) for c, reason in DISCONNECTS.items()),
    ]


def test_channels_page_lists_every_limit() -> None:
    """Each with its default, where that is a plain number."""
    text = (ROOT / "docs/channels.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE))
    for field in fields(ClientLimits):
        value = getattr(ClientLimits(), field.name)
        told = rows[field.name].replace(",", "").split()[0]
        assert not told.isdigit() or float(told) in (value, value / 1024**2)


def test_channels_page_tells_what_a_refusal_becomes() -> None:
    """Every status of the table is answered with the code of its row."""
    text = (ROOT / "docs/channels.md").read_text()
    section = text.partition("## Refusing")[2].partition("\n## ")[0]
    told = {
        int(status): int(code)
        for left, code in re.findall(r"^\| ([^|]+) \| (\d{3})\b", section, re.MULTILINE)
        for status in re.findall(r"\b4\d\d\b", left)
    }
    assert sorted(told) == [400, 401, 403, 404, 409, 422, 429]
    assert told == {status: client_error(Refused(status, "no"), "").code for status in told}


def test_page_of_the_playground_knows_every_close_code() -> None:
    """The page explains each code in words."""
    text = (ROOT / "src/pongee/playground/static/codes.js").read_text()
    for code in CODES:
        assert re.search(rf"\b{int(code)}\b", text), f"codes.js does not know {int(code)}"
