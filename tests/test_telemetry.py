"""Events reach every listener, and the log says each in one line."""

from __future__ import annotations

import dataclasses
import logging
import typing

import pytest

import pongee.telemetry
from pongee.codes import CauseKind, CloseCause
from pongee.telemetry import (
    BrokerLink,
    Event,
    HandlerCrashed,
    HandshakeRefused,
    JobCrashed,
    MessageRejected,
    SessionEnded,
    SessionOpened,
    Telemetry,
    TransportAborted,
    log_event,
)

CAUSE = CloseCause(CauseKind.CLIENT_CLOSED, 1000, "bye")
EVENTS: list[tuple[Event, int, str]] = [
    (
        SessionOpened("s1", "/ws", "ada", "192.0.2.1"),
        logging.DEBUG,
        "/ws opened: session s1, user ada, from 192.0.2.1",
    ),
    (
        SessionEnded("s1", "/ws", "ada", "192.0.2.1", CAUSE, 1.5, 3, 4, 2),
        logging.INFO,
        "/ws ended: client closed (1000 'bye'); session s1, user ada, from 192.0.2.1, 1.500 s, "
        "in 3, out 4, dropped 2",
    ),
    (
        HandshakeRefused("/ws", None, 403, "Origin not allowed", "came 'x'"),
        logging.INFO,
        "/ws refused: 403 Origin not allowed; from None (came 'x')",
    ),
    (
        HandshakeRefused("/ws", None, 401, "Invalid credentials"),
        logging.INFO,
        "/ws refused: 401 Invalid credentials; from None",
    ),
    (
        MessageRejected("s1", "/ws", "invalid_json"),
        logging.DEBUG,
        "/ws rejected a message: invalid_json; session s1",
    ),
    (
        HandlerCrashed("s1", "/ws", ValueError("x")),
        logging.ERROR,
        "/ws crashed; session s1",
    ),
    (
        JobCrashed("s1", "/ws", "tick", ValueError("x")),
        logging.ERROR,
        "/ws: job tick crashed; session s1",
    ),
    (
        TransportAborted("s1", "/ws", "write deadline", possible=True),
        logging.INFO,
        "/ws cut: write deadline; session s1",
    ),
    (
        TransportAborted("s1", "/ws", "outbox full", possible=False),
        logging.INFO,
        "/ws cut: outbox full; session s1 (this server cannot abort: the socket lingers)",
    ),
    (BrokerLink(up=True, reason=""), logging.INFO, "the link to the broker is up"),
    (
        BrokerLink(up=False, reason="redis: gone"),
        logging.WARNING,
        "the link to the broker is down: redis: gone",
    ),
]


@pytest.mark.parametrize(("event", "level", "line"), EVENTS)
def test_each_event_is_one_line_at_its_level(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, line: str
) -> None:
    """Tracebacks are for the user's own bugs only."""
    caplog.set_level(logging.DEBUG, "pongee")

    log_event(event)

    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (level, line)
    crashed = isinstance(event, HandlerCrashed | JobCrashed)
    assert (record.exc_info is not None) == crashed


def test_every_kind_of_event_is_tried_frozen_and_exported() -> None:
    """A new event comes with a line in the table above."""
    kinds = set(typing.get_args(Event))

    assert {type(event) for event, _, _ in EVENTS} == kinds
    assert {kind.__name__ for kind in kinds} <= set(pongee.telemetry.__all__)
    assert all(kind.__dataclass_params__.frozen for kind in kinds)


def test_no_event_has_a_field_for_a_secret() -> None:
    """What is not carried cannot be logged: no token, no query, no content of a message."""
    names = {field.name for kind in typing.get_args(Event) for field in dataclasses.fields(kind)}

    assert not names & {"token", "query", "url", "headers", "claims", "identity", "data", "message"}


@pytest.mark.parametrize(
    "event",
    [
        SessionOpened("s1", "/ws", "ada\n/ws opened: session s2", None),
        SessionEnded("s1", "/ws", "ada\rx", None, CAUSE, 1.0, 0, 0, 0),
        HandshakeRefused("/ws", None, 404, "No room a\nb"),
        HandshakeRefused("/ws", None, 404, "No", "a\nb"),
    ],
)
def test_text_from_outside_cannot_begin_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, event: Event
) -> None:
    """A user's id and a reason may hold what a peer sent."""
    caplog.set_level(logging.DEBUG, "pongee")

    log_event(event)

    assert len(caplog.records[0].getMessage().splitlines()) == 1


def test_raising_listener_is_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in somebody's metrics does not touch a connection."""
    told: list[Event] = []
    telemetry = Telemetry()

    @telemetry.listen
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    telemetry.listen(told.append)
    event = MessageRejected("s1", "/ws", "invalid_json")

    telemetry.emit(event)

    assert told == [event]
    assert [record.message for record in caplog.records] == ["a telemetry listener raised"]


def test_listeners_are_called_in_the_order_they_came() -> None:
    """First the ones given, then the ones added; `listen` returns what it got."""
    order: list[int] = []
    telemetry = Telemetry(lambda _: order.append(1))
    second = lambda _: order.append(2)  # noqa: E731

    assert telemetry.listen(second) is second
    telemetry.emit(MessageRejected("s1", "/ws", "x"))

    assert order == [1, 2]
