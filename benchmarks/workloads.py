"""What is measured, on which sides, and the aims.

A workload is prepared once on fresh processes of each of its sides, then sampled in turn. Its size
is chosen so that a sample on plain FastAPI takes a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.measure import Bench, Sample
from benchmarks.sides import OTHERS, PLAIN
from benchmarks.traffic import typed

__all__ = ["GROWTH", "WORKLOADS", "Aim", "Workload"]

CONNECTIONS = 100
MESSAGES = 15_000
VISITS = 600
IDLE = 1000
CROWD = 10_000
SIZE = 128
"""Bytes of a text that goes to a room."""
DELIVERIES = {1: 60_000, 8: 160_000}
"""In one sample, by the number of messages in flight. Two and a half times as many to the largest
room, so that the first messages, which find an idle server, do not decide."""
GRACE = 2.0
"""Seconds after the end of a schedule in which a delivery still counts."""
ROOMS = (100, 1000, 5000)
ALL = (PLAIN, "wire", "pongee", *OTHERS)
ROOM = (PLAIN, "wire", "pongee", "channels", *OTHERS)


@dataclass(frozen=True)
class Aim:
    """What a side is to reach.

    Attributes:
        most: the ratio to plain FastAPI, or the value itself.
        absolute: whether it is the value.
        p99: ms that 99 % of the deliveries may take; with it, nothing may be lost.
    """

    most: float
    absolute: bool = False
    p99: float | None = None


@dataclass(frozen=True)
class Workload:
    """One row of the tables for each of its sides.

    Attributes:
        key: for the command line.
        title: for the tables.
        unit: of its values.
        prepare: what comes before the first sample.
        take: takes a sample.
        sides: that are measured.
        aims: by side.
        repeats: samples on one pair of processes.
        rounds: at most so many.
    """

    key: str
    title: str
    unit: str
    prepare: Callable[[Bench], None]
    take: Callable[[Bench], Sample]
    sides: tuple[str, ...]
    aims: Mapping[str, Aim] = field(default_factory=dict)
    repeats: int = 2
    rounds: int | None = None


def _echo(key: str, in_flight: int, aims: Mapping[str, Aim]) -> Workload:
    return Workload(
        key,
        f"echo 64 B text, {CONNECTIONS} connections, {in_flight} in flight",
        "µs/message",
        lambda bench: bench.connect(CONNECTIONS, bench.dialect.echo, bench.dialect.echoes(64)),
        lambda bench: bench.per_message("echo", MESSAGES, in_flight),
        ALL,
        aims,
    )


def _echo_model() -> Workload:
    return Workload(
        "echo-model",
        f"echo of a model, {CONNECTIONS} connections, 1 in flight",
        "µs/message",
        lambda bench: bench.connect(CONNECTIONS, "/typed", typed()),
        lambda bench: bench.per_message("echo", MESSAGES, 1),
        (PLAIN, "wire", "pongee"),
    )


def _rpc() -> Workload:
    return Workload(
        "rpc",
        f"JSON there and back (RPC, or an echo), {CONNECTIONS} connections, 1 in flight",
        "µs/message",
        lambda bench: bench.connect(
            CONNECTIONS, bench.dialect.json, (bench.dialect.json_out, bench.dialect.json_in)
        ),
        lambda bench: bench.per_message("echo", MESSAGES, 1),
        (PLAIN, "channels"),
        {"channels": Aim(0.80)},
    )


def _storm(members: int, missed: int) -> Workload:
    return Workload(
        "storm",
        f"p99 of an echo while {members:,} members come back, each {missed} messages behind",
        "ms",
        lambda bench: bench.warm_visits(bench.dialect.room, *bench.dialect.joining),
        lambda bench: bench.storm(members, missed),
        ("channels",),
        {"channels": Aim(250, absolute=True)},
        repeats=1,
    )


def _fanout(members: int, in_flight: int) -> Workload:
    aims = {(1000, 1): 0.55, (1000, 8): 0.08, (5000, 8): 0.15}
    aim = aims.get((members, in_flight))
    large = members > 1000
    count = DELIVERIES[in_flight] * (5 if large else 2) // 2 // members
    at_a_time = "one at a time" if in_flight == 1 else f"{in_flight} in flight"
    return Workload(
        f"fanout-{members}x{in_flight}",
        f"1 → {members:,} members, {SIZE} B, {at_a_time}",
        "µs/delivery",
        lambda bench: bench.gather(members, SIZE),
        lambda bench: bench.per_message("fanout", count, in_flight),
        ROOM if members == 1000 else (PLAIN, "pongee", "channels"),
        {"pongee": Aim(aim, p99=100 if members == 1000 and in_flight > 1 else None)} if aim else {},
        repeats=1 if large else 2,
    )


def _fanout_paced(rate: int, seconds: float) -> Workload:
    return Workload(
        "fanout-paced",
        f"1 → 1,000 members, {SIZE} B, {rate} messages/s",
        "µs/delivery",
        lambda bench: bench.gather(1000, SIZE),
        lambda bench: bench.per_message("paced", rate, seconds, GRACE),
        ROOM,
        {"pongee": Aim(0.08, p99=100), "channels": Aim(0.12)},
        repeats=1,
    )


def _connect() -> Workload:
    return Workload(
        "connect",
        "connect, register, close; 20 at once",
        "µs/connection",
        lambda bench: bench.warm_visits("/visit", "registered", ""),
        lambda bench: bench.per_message("visit", VISITS, 20, "/visit", "registered", ""),
        (PLAIN, "wire", "pongee"),
        {"pongee": Aim(0.55)},
    )


def _memory() -> Workload:
    return Workload(
        "memory",
        f"memory of an idle connection, of {IDLE:,}",
        "bytes/connection",
        lambda bench: bench.warm_visits("/text"),
        lambda bench: bench.memory(IDLE),
        (PLAIN, "wire", "pongee", "channels", "detached"),
        {
            "pongee": Aim(14_000, absolute=True),
            "channels": Aim(8192, absolute=True),
            "detached": Aim(4_000, absolute=True),
        },
        repeats=1,
    )


def _idle_crowd(seconds: float) -> Workload:
    return Workload(
        "idle-crowd",
        f"{CROWD:,} idle connections, pings every 20 s, for {seconds:.0f} s",
        "% of a core",
        lambda bench: bench.gather(CROWD, SIZE),
        lambda bench: bench.idle(CROWD, seconds),
        (PLAIN, "pongee", "channels"),
        {"pongee": Aim(2, absolute=True)},
        repeats=1,
        rounds=1,
    )


def _busy_crowd(rate: float, seconds: float) -> Workload:
    return Workload(
        "busy-crowd",
        f"p99 of an echo beside {CROWD:,} members that get {rate:.0f} messages/s",
        "ms",
        lambda bench: bench.gather(CROWD, SIZE),
        lambda bench: bench.echo_beside_room(rate, seconds),
        ("pongee",),  # plain FastAPI is half a minute behind by then
        {"pongee": Aim(50, absolute=True)},
        repeats=1,
        rounds=1,
    )


GROWTH = {
    in_flight: {members: f"fanout-{members}x{in_flight}" for members in ROOMS}
    for in_flight in DELIVERIES
}
"""By messages in flight and members: the workloads that tell how the cost grows with the room."""

WORKLOADS = (
    _echo("echo", 1, {"wire": Aim(0.55), "pongee": Aim(0.40)}),
    _echo("echo-16", 16, {"pongee": Aim(0.35)}),
    _echo_model(),
    _rpc(),
    *(_fanout(members, in_flight) for in_flight in DELIVERIES for members in ROOMS),
    _fanout_paced(500, 2.0),
    _connect(),
    _memory(),
    _storm(2000, 50),
    _idle_crowd(42.0),
    _busy_crowd(50.0, 5.0),
)
