"""A reader of as much YAML as our files need."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["read_documents"]

_KEY = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(?: (.+))?")
_PLAIN = re.compile(r"[A-Za-z0-9/][^#\"'&*!|>%@{}\[\]]*|[A-Za-z]+\(`.*`\)")


def read_documents(text: str) -> list[Any]:
    """Read the part of YAML that our files are written in, and refuse everything else.

    Mappings and lists by indentation of two spaces, plain and double-quoted scalars, ``{}``,
    comments on lines of their own. A file that this reads means the same to every reader.

    Raises:
        ValueError: there is something that this does not read.
    """
    return [_read_document(part) for part in re.split(r"^---$", text, flags=re.MULTILINE)]


def _read_document(text: str) -> Any:
    lines: list[tuple[int, str]] = []
    for line in text.splitlines():
        content = line.lstrip(" ")
        if content and not content.startswith("#"):
            lines.append((len(line) - len(content), content))
    value, rest = _read_block(lines, 0)
    if rest:
        raise ValueError(f"does not belong here: {rest[0][1]!r}")
    return value


def _read_block(lines: list[tuple[int, str]], indent: int) -> tuple[Any, list[tuple[int, str]]]:
    if not lines or lines[0][0] != indent:
        raise ValueError(f"{indent} spaces expected: {lines[:1]}")
    if lines[0][1].startswith("- "):
        return _read_list(lines, indent)
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        match = _KEY.fullmatch(lines[0][1])
        if match is None or match[1] in found:
            raise ValueError(f"no key, or one that was there: {lines[0][1]!r}")
        lines = lines[1:]
        if match[2] is not None:
            found[match[1]] = _scalar(match[2])
        else:
            found[match[1]], lines = _read_block(lines, indent + 2)
    return found, lines


def _read_list(
    lines: list[tuple[int, str]], indent: int
) -> tuple[list[Any], list[tuple[int, str]]]:
    found: list[Any] = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        content = lines[0][1][2:]
        if _KEY.fullmatch(content):
            value, lines = _read_block([(indent + 2, content), *lines[1:]], indent + 2)
        else:
            value, lines = _scalar(content), lines[1:]
        found.append(value)
    return found, lines


def _scalar(text: str) -> Any:
    if text == "{}":
        return {}
    if text.startswith('"'):
        return json.loads(text)
    if not _PLAIN.fullmatch(text) or ": " in text or text.endswith((" ", ":")):
        raise ValueError(f"no plain scalar: {text!r}")
    if text in ("true", "false"):
        return text == "true"
    if text.lower() in ("yes", "no", "on", "off", "null", "true", "false"):
        raise ValueError(f"means different things to different readers: {text!r}")
    return int(text) if text.isdecimal() else text
