"""The load generator's process: compiled from ``generator.c``, driven a command at a time.

The workloads use it; one process speaks to one server, or to the workers of one application. Every
command has a time limit, here and in the program itself, and what goes wrong in a command raises.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import cast

__all__ = ["Generator", "GeneratorError", "Outcome", "compile_generator"]

SOURCE = Path(__file__).with_name("generator.c")
LIMIT = 150.0
"""Seconds a command may take: more than `generator.c` allows itself."""


class GeneratorError(Exception):
    """A command failed: the server closed a connection, say, or was not done in time."""


@dataclass(frozen=True)
class Outcome:
    """What the generator saw during one command.

    Attributes:
        wall: seconds it took.
        own: CPU seconds the generator used.
        wanted: messages that were due.
        received: those that came, each of them checked.
        gaps: sequence numbers that members skipped.
        disorder: messages that came late or twice.
        pings: protocol pings, all of them answered.
        p50: half of the messages took no longer, in ms.
        p99: 99 % took no longer, in ms.
        longest: delay, in ms.
    """

    wall: float
    own: float
    wanted: int
    received: int
    gaps: int
    disorder: int
    pings: int
    p50: float
    p99: float
    longest: float

    @property
    def lost(self) -> int:
        """Messages that did not come, or not in order."""
        return max(self.wanted - self.received, self.gaps) + self.disorder


def compile_generator(folder: Path) -> Path:
    """Compile the program into `folder`.

    Raises:
        RuntimeError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("the load generator is written in C: install a C compiler (cc)")
    program = folder / "generator"
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(SOURCE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return program


class Generator:
    """One running generator.

    Args:
        program: what `compile_generator` made.
        ports: of servers on 127.0.0.1; connections take turns, the first at the first.
    """

    def __init__(self, program: Path, *ports: int) -> None:
        self._process = subprocess.Popen(
            [str(program), *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def command(self, *words: object) -> Outcome:
        """Run a command to its end; see ``generator.c`` for what there is.

        Raises:
            GeneratorError: it failed.
        """
        self.start(*words)
        return self.finish()

    def start(self, *words: object) -> None:
        """Begin a command; `finish` must follow."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)).encode() + b"\n")

    def finish(self) -> Outcome:
        """Wait for the command that was begun.

        Raises:
            GeneratorError: it failed.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            raise GeneratorError(f"no answer within {LIMIT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise GeneratorError("the load generator has ended")
        answer = cast("dict[str, object]", json.loads(line))
        if error := answer.pop("error"):
            raise GeneratorError(str(error))
        return Outcome(**answer)  # type: ignore[arg-type]

    def stop(self) -> None:
        """End it, and with it all its connections."""
        self._process.kill()
        self._process.communicate()
