"""The Autobahn suite's cases, run by kosoku against a server of this process's own.

``python -m tests.conformance.autobahn`` (``make conformance``) runs all of them against the wire
and prints the outcome by group; ``--compare`` runs uvicorn's own WebSocket classes too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pongee.testing import serve

__all__ = ["KOSOKU", "PASSED", "run_cases"]

KOSOKU = shutil.which("kosoku", path=str(Path(sys.executable).parent)) or shutil.which("kosoku")
MIB = 1024 * 1024
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
WIRE = {"ws": "pongee.wire:WireProtocol", "http": "pongee.wire.http:HeadProtocol"}
CLASSES: dict[str, dict[str, str]] = {
    "wire": WIRE,
    "uvicorn, sans-IO": {"ws": "websockets-sansio"},
    "uvicorn, legacy": {"ws": "websockets"},
    "uvicorn, wsproto": {"ws": "wsproto"},
}
COMPRESSION = ("12", "13")


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


async def run_cases(
    tool: str, *options: str, server: dict[str, str] = WIRE, within: float
) -> dict[str, dict[str, Any]]:
    """Run the cases that `options` choose; returns what is told of each.

    Raises:
        TimeoutError: it took more than `within` seconds.
    """
    settings: dict[str, Any] = {
        "lifespan": "off",
        "ws_max_size": 16 * MIB,
        **server,
    }
    with tempfile.TemporaryDirectory() as directory:
        async with serve(echo, **settings) as running:
            command = (tool, *options, "-o", directory, f"127.0.0.1:{running.port}")
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await asyncio.wait_for(process.wait(), within)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        index = json.loads((Path(directory) / "index.json").read_text())
    cases: dict[str, dict[str, Any]] = next(iter(index.values()))
    return cases


def _outcome(cases: Sequence[dict[str, Any]]) -> str:
    counted = Counter(case["behavior"] for case in cases)
    passed = sum(counted[name] for name in PASSED)
    rest = ", ".join(f"{count} {name}" for name, count in counted.items() if name not in PASSED)
    return f"{passed} of {len(cases)}" + (f" ({rest})" if rest else "")


async def _print_all(tool: str, names: Sequence[str]) -> bool:
    print("| class | groups 1 to 10 | compression (12, 13) |\n|---|---|---|")
    failed = False
    for name in names:
        cases = await run_cases(tool, "-p", "2", server=CLASSES[name], within=1800)
        groups = {key: key.split(".")[0] in COMPRESSION for key in cases}
        plain = [case for key, case in cases.items() if not groups[key]]
        deflate = [case for key, case in cases.items() if groups[key]]
        print(f"| {name} | {_outcome(plain)} | {_outcome(deflate)} |", flush=True)
        bad = [key for key, case in cases.items() if case["behavior"] not in PASSED]
        if bad:
            print(f"{name}: {' '.join(bad)}", file=sys.stderr)
        failed = failed or (name == "wire" and bool(bad))
    return failed


def main() -> None:
    """Run the whole suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true", help="uvicorn's own classes too")
    names = list(CLASSES) if parser.parse_args().compare else ["wire"]
    logging.disable(logging.CRITICAL)  # hundreds of tracebacks of uvicorn's own, on bad UTF-8
    if KOSOKU is None:
        sys.exit("needs kosoku: pip install kosoku")
    sys.exit(asyncio.run(_print_all(KOSOKU, names)))


if __name__ == "__main__":
    main()
