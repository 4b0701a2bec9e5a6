"""The Autobahn suite's cases against the wire, all but those of compression."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pongee.testing import serve
from tests.conftest import require_tool

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        kind = "bytes" if event.get("text") is None else "text"
        try:
            await send({"type": "websocket.send", kind: event[kind]})
        except OSError:
            return


@pytest.mark.timeout(120)
async def test_every_case_passes(tmp_path: Path) -> None:
    """RFC 6455 to the letter: 301 cases, none failed."""
    beside = shutil.which("kosoku", path=str(Path(sys.executable).parent))
    tool = require_tool(beside or shutil.which("kosoku"), "kosoku", "pip install kosoku")
    options: dict[str, Any] = {"lifespan": "off", "ws_max_size": 16 * MIB}
    async with serve(echo, ws="pongee.wire:WireProtocol", **options) as server:
        run = await asyncio.create_subprocess_exec(
            *(tool, "-x", "12.*", "-x", "13.*", "-p", "4", "-o", str(tmp_path)),
            f"127.0.0.1:{server.port}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(run.communicate(), 100)
    cases = next(iter(json.loads((tmp_path / "index.json").read_text()).values()))
    outcomes = Counter(case["behavior"] for case in cases.values())
    assert set(outcomes) <= PASSED, output.decode()
    assert sum(outcomes.values()) == 301
