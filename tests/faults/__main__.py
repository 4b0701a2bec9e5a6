"""Run the rows: ``python -m tests.faults --rows 1,5 --broker redis --seconds 60 --seed 7``."""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import time
import traceback
from collections.abc import Awaitable, Callable

from tests.faults import rows_broker, rows_fleet, rows_network, rows_soak, rows_worker
from tests.faults.ledger import Report
from tests.faults.world import Options, Outcome

ROW_LIMIT = 300.0
"""Seconds after which a row is given up; it is meant to take two minutes at most."""

Row = Callable[[Options], Awaitable[Outcome]]
ROWS: dict[str, Row] = {
    **rows_broker.ROWS,
    **rows_network.ROWS,
    **rows_worker.ROWS,
    **rows_fleet.ROWS,
    **rows_soak.ROWS,
}


def main() -> None:
    """Run what the command line says; the exit status is 1 if a check failed."""
    arguments = _arguments()
    _allow_many_files()
    _say(f"seed {arguments.seed}")
    failed = False
    reports: list[tuple[str, Report]] = []
    for name in arguments.rows:
        for kind in arguments.broker:
            options = Options(
                kind=kind,
                seed=arguments.seed,
                subscribers=arguments.subscribers,
                rate=arguments.rate,
                seconds=arguments.seconds,
            )
            began = time.monotonic()
            outcome = asyncio.run(_run(ROWS[name], options))
            failed |= not outcome.ok
            _tell(name, kind, outcome, time.monotonic() - began)
            reports += [(f"{name} {kind}", report) for report in outcome.reports]
    _say("\nledger")
    for title, report in reports:
        _say(f"  {title:16} {report}")
    sys.exit(failed)


async def _run(row: Row, options: Options) -> Outcome:
    try:
        async with asyncio.timeout(ROW_LIMIT):
            return await row(options)
    except Exception:
        outcome = Outcome()
        outcome.check("the row ran to its end", False, "\n" + traceback.format_exc())
        return outcome


def _tell(name: str, kind: str, outcome: Outcome, took: float) -> None:
    verdict = "ok" if outcome.ok else "FAILED"
    title = (ROWS[name].__doc__ or "").partition("\n")[0]
    _say(f"\n{verdict:6} row {name} on {kind}, {took:.0f} s: {title}")
    for what, ok, measured in outcome.checks:
        _say(f"    {'  ' if ok else '! '}{what}: {measured}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument(
        "--broker",
        type=lambda text: text.split(","),
        default=["redis", "nats"],
        help="redis, nats or memory, comma-separated",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of what can be shorter")
    parser.add_argument("--subscribers", type=int, default=200)
    parser.add_argument("--rate", type=float, default=500.0, help="publications a second")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    return parser.parse_args()


def _rows(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no such rows: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    main()
