"""What a command means in each state of a connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from pongee.centrifuge.messages import Command
from pongee.centrifuge.rules import NEEDS_CHANNEL, REQUESTS, Phase, Ruling, judge, request_of
from tests.centrifuge.strategies import structs

RUN, PONG, IGNORE = Ruling.RUN, Ruling.PONG, Ruling.IGNORE
ILLEGAL, SAME_ID = Ruling.ILLEGAL, Ruling.SAME_ID


def _command(name: str, number: int = 2, **more: Any) -> Command:
    fields = {"channel": "c"} | more if name in NEEDS_CHANNEL else more
    return convert({"id": number, name: fields}, Command)


def _judge(phase: Phase, command: Command, ids: set[int] | None = None) -> Ruling:
    name, request = request_of(command)
    return judge(phase, command, name, request, ids or set())


@pytest.mark.parametrize("name", REQUESTS)
def test_each_command_in_each_phase(name: str) -> None:
    """Only connect before the connection is ready; nothing after it was refused."""
    first = name == "connect"
    command = _command(name)
    assert _judge(Phase.OPEN, command) is (RUN if first else ILLEGAL)
    assert _judge(Phase.CONNECTING, command) is (ILLEGAL if first else RUN)
    assert _judge(Phase.READY, command) is (ILLEGAL if first else RUN)
    assert _judge(Phase.REFUSED, command) is IGNORE
    assert _judge(Phase.CLOSED, command) is IGNORE


@pytest.mark.parametrize("name", REQUESTS)
def test_id_is_needed_except_to_send(name: str) -> None:
    """Without one there is nothing to answer to."""
    phase = Phase.OPEN if name == "connect" else Phase.READY
    assert _judge(phase, _command(name, 0)) is (RUN if name == "send" else ILLEGAL)


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - {"connect", "send"}))
def test_id_in_use(name: str) -> None:
    """The first one's answer could not be told from the second's."""
    assert _judge(Phase.READY, _command(name, 2), {2}) is SAME_ID
    assert _judge(Phase.READY, _command(name, 3), {2}) is RUN


@pytest.mark.parametrize("name", sorted(NEEDS_CHANNEL))
def test_channel_is_needed(name: str) -> None:
    """Where a command is about one; a token may name it for sub_refresh."""
    assert _judge(Phase.READY, _command(name, channel="")) is ILLEGAL
    assert _judge(Phase.READY, _command("sub_refresh", channel="")) is RUN


def test_pong() -> None:
    """A command with nothing in it; with an id it is an unknown one."""
    assert _judge(Phase.READY, Command()) is PONG
    assert _judge(Phase.CONNECTING, Command()) is PONG
    assert _judge(Phase.OPEN, Command()) is ILLEGAL
    assert _judge(Phase.READY, Command(id=1)) is ILLEGAL


@given(
    command=structs(Command, st.just(b"1")),
    phase=st.sampled_from(Phase),
    ids=st.sets(st.integers(1, 5)),
)
def test_every_command_has_a_ruling(command: Command, phase: Phase, ids: set[int]) -> None:
    """The first request counts, in the protocol's order, whatever else there is."""
    name, request = request_of(command)
    there = [one for one in REQUESTS if getattr(command, one) is not None]
    assert name == (there[0] if there else "")
    assert request is (getattr(command, name) if name else None)
    assert isinstance(judge(phase, command, name, request, ids), Ruling)
