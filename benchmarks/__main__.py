"""Run the workloads, all sides in turn, and print the tables.

Examples: ``--only echo``, ``--only fanout-1000 --rounds 1 --sides plain,pongee``, ``--list``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.generator import GeneratorError, compile_generator
from benchmarks.host import allow_many_files, describe_host, running, take_core
from benchmarks.measure import Bench
from benchmarks.report import Results, failures, growth_table, our_table, select, their_table
from benchmarks.sides import SIDES, install_ws, what_is_missing
from benchmarks.workloads import WORKLOADS, Workload

ROUNDS = 3


def main() -> None:
    """Run the benchmark."""
    if sys.platform != "linux":
        sys.exit("The benchmark reads CPU time and memory from the kernel: it needs Linux.")
    arguments = _arguments()
    if arguments.list:
        print("\n".join(f"{each.key:16}{each.title}" for each in WORKLOADS))
        return
    workloads, sides = select(arguments.only), arguments.sides
    if not workloads:
        sys.exit(f"No workload begins with {', '.join(arguments.only)}; --list names them.")
    files = allow_many_files()
    print(describe_host())
    if files < 12_000:
        print(f"not measured: 10,000 connections; the limit of open files is {files}")
        workloads = [each for each in workloads if not each.key.endswith("crowd")]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pongee-bench-") as folder:
        program = compile_generator(Path(folder))
        sides = _present(sides, Path(folder))
        results = _run(workloads, sides, max(1, arguments.rounds), program)
    _tell("")
    print(f"at most {arguments.rounds} rounds, {time.monotonic() - began:.0f} s\n")
    for what, why in failures(results).items():
        print(f"not measured: {what}: {why}")
    for table in (our_table(results), growth_table(results), their_table(results)):
        if table:
            print(f"\n{table}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of fresh server processes")
    parser.add_argument(
        "--only", type=_words, default=(), help="workloads whose keys begin so, comma-separated"
    )
    parser.add_argument(
        "--sides", type=_sides, default=tuple(SIDES), help=f"of {', '.join(SIDES)}; default all"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _sides(text: str) -> tuple[str, ...]:
    names = _words(text)
    if unknown := [name for name in names if name not in SIDES]:
        raise argparse.ArgumentTypeError(f"no such side: {', '.join(unknown)}")
    return names


def _present(names: Sequence[str], folder: Path) -> list[str]:
    """Leave out the sides whose software is missing, and say so."""
    present = []
    for name in names:
        why = install_ws(folder) if name == "node" else what_is_missing(SIDES[name])
        if why is None:
            present.append(name)
        else:
            print(f"not measured: {SIDES[name].title}: {why}")
    return present


def _run(
    workloads: Sequence[Workload], sides: Sequence[str], rounds: int, program: Path
) -> list[Results]:
    core = take_core()
    results = [Results(workload) for workload in workloads]
    # Fresh processes for each round: how a process's memory happens to lie changes its speed.
    for number in range(rounds):
        for each in results:
            if each.workload.rounds is None or number < each.workload.rounds:
                _tell(f"round {number + 1} of {rounds}: {each.workload.title}")
                _round(each, number, [s for s in each.workload.sides if s in sides], core, program)
    return results


def _round(results: Results, number: int, sides: Sequence[str], core: int, program: Path) -> None:
    """Prepare the workload on all its sides, then sample them in turn."""
    workload = results.workload
    # The servers are killed first: nobody is left to log that the generators are gone.
    with ExitStack() as stack, running(core, sides) as servers:
        benches: dict[str, Bench] = {}
        for side, server in zip(sides, servers, strict=True):
            benches[side] = Bench(program, SIDES[side], server)
            stack.callback(benches[side].stop)
        for repeat in range(workload.repeats):
            for side, bench in list(benches.items()):
                try:
                    if repeat == 0:
                        workload.prepare(bench)
                    results.add(side, (number, repeat), workload.take(bench))
                except GeneratorError as error:
                    results.failures[side] = str(error)
                    del benches[side]


def _tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
