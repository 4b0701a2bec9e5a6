"""Subscribers that come, go and come back get every publication once and in order, or are told.

The clients, the switchboard, the hub and the streams are real; the broker's answers and deliveries,
the event loop's turns and time are moved by hand, so that everything can happen between any two.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pongee import ClientLimits, Pongee, public
from pongee.centrifuge.client import Client
from pongee.centrifuge.json_codec import JSON_FORMAT
from pongee.centrifuge.service import JSON
from pongee.codes import CauseKind, CloseCause
from pongee.testing import ManualClock
from tests.centrifuge.paced import HandLoop, Line, PacedBroker, at_once

ROOM = "room"
FOR_EVER = 10.0**9
WATCHERS = 3

OFTEN = ["published", "arrived", "a turn"]
SELDOM = ["lost", "a hole", "repeated", "begun anew", "removed"]

Place = tuple[str, int]  # epoch, offset


class World:
    """The server's side, and what was published: by epoch, in order."""

    def __init__(self) -> None:
        self.loop = HandLoop()
        self.clock = ManualClock()
        self.pongee = Pongee(clock=self.clock, broker=PacedBroker)
        self.pongee.connection(
            auth=public,
            ping_interval=FOR_EVER,
            pong_timeout=1,
            limits=ClientLimits(connect_timeout=FOR_EVER, recovered_publications=4),
        )
        self.room = self.pongee.channel(
            ROOM, int, history=6, history_ttl=60, may_subscribe=public, presence=True
        )
        self.service = self.pongee._node.service
        self.board = self.pongee._node.board
        assert isinstance(self.board.broker, PacedBroker)
        self.broker = self.board.broker
        self.loop.run_until_complete(self.board.start())
        self.published: dict[str, list[int]] = {}
        self.number = 0
        self.problems: list[Exception] = []

    def publish(self) -> Place:
        self.number += 1
        position = at_once(self.pongee.publish(ROOM, self.number))
        self.published.setdefault(position.epoch, []).append(self.number)
        assert position.offset == len(self.published[position.epoch])
        return position.epoch, position.offset

    def top(self, epoch: str) -> int:
        return len(self.published.get(epoch, ()))


class Watcher:
    """Behaves like an SDK: it keeps its position, asks for what it missed, and checks it all."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client: Client | None = None
        self.line = Line(self.take)
        self.place: Place | None = None
        self.state = "away"
        self.asked: Place | None = None
        self.asked_at: dict[str, int] = {}
        self.told = 0  # how often it was told that something is lost

    def come(self) -> None:
        """Connect, and subscribe in the same frame."""
        self.line = line = Line(lambda message: self.take(message) if line is self.line else None)
        scope = {"type": "http", "headers": [], "query_string": b"", "path": "/"}
        self.client = Client(
            self.world.service,
            JSON,
            JSON_FORMAT,
            scope,
            address=None,
            route="/",
            loop=self.world.loop,
        )
        self.client.open(line, None)  # type: ignore[arg-type]
        self.client.on_message('{"id":1,"connect":{}}')
        self.subscribe()

    def subscribe(self) -> None:
        assert self.client is not None
        wish: dict[str, Any] = {"channel": ROOM}
        if self.place is not None:
            wish |= {"recover": True, "epoch": self.place[0], "offset": self.place[1]}
        self.asked = self.place
        self.asked_at = {epoch: len(all_) for epoch, all_ in self.world.published.items()}
        self.state = "subscribing"
        self.client.on_message(json.dumps({"id": 2, "subscribe": wish}))

    def unsubscribe(self) -> None:
        assert self.client is not None
        self.state = "unsubscribing"
        self.client.on_message(json.dumps({"id": 3, "unsubscribe": {"channel": ROOM}}))

    def go(self) -> None:
        """Vanish; what is under way to it is lost."""
        assert self.client is not None
        self.line = Line(self.take)
        self.state = "away"
        self.client.on_lost(CloseCause(CauseKind.CONNECTION_LOST, 1006, ""))

    def look(self) -> None:
        """See whether the server ended the connection."""
        if self.line.closed is not None and self.state != "away":
            assert self.line.closed[0] == 3010, self.line.closed
            self.state = "away"
            self.told += 1

    def take(self, message: dict[str, Any]) -> None:
        """Check one reply or push; what is wrong is told later, for the hub lets nobody raise."""
        try:
            self._take(message)
        except (AssertionError, LookupError) as problem:
            self.world.problems.append(problem)

    def _take(self, message: dict[str, Any]) -> None:
        assert "error" not in message, message
        push = message.get("push", {})
        if "pub" in push:
            assert self.state in ("subscribed", "unsubscribing"), f"a push while {self.state}"
            self._take_publication(push["pub"])
        elif "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2500
            self.told += 1
            if self.state == "subscribed":
                # As SDKs do at once; but not in the middle of the server's step.
                self.state = "subscribing"
                self.world.loop.call_soon(self._again, self.client)
        elif "subscribe" in message:
            self._take_reply(message["subscribe"])
        elif "unsubscribe" in message:
            self.state = "idle"

    def _again(self, client: Client | None) -> None:
        if self.client is client and self.state == "subscribing":
            self.subscribe()

    def _take_publication(self, publication: dict[str, Any]) -> None:
        assert self.place is not None
        epoch, offset = self.place
        assert publication["offset"] == offset + 1, "a hole or a repeat"
        assert publication["data"] == self.world.published[epoch][offset], "of another epoch"
        self.place = (epoch, offset + 1)

    def _take_reply(self, result: dict[str, Any]) -> None:
        assert self.state == "subscribing"
        self.state = "subscribed"
        epoch, offset = result["epoch"], result.get("offset", 0)
        assert result.get("was_recovering", False) == (self.asked is not None)
        if result.get("recovered"):
            assert (epoch, offset) == self.asked
            assert len(result.get("publications", ())) <= 4
        else:
            assert "publications" not in result
        self.place = (epoch, offset)
        for publication in result.get("publications", ()):
            self._take_publication(publication)
        # It has everything that was there when it asked.
        assert self.asked_at.get(epoch, 0) <= self.place[1] <= self.world.top(epoch)


class Recovery(RuleBasedStateMachine):
    """Everything that may happen to a channel and its subscribers, in any order."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.watchers = [Watcher(self.world) for _ in range(WATCHERS)]

    def _in(self, number: int, *states: str) -> Watcher | None:
        watcher = self.watchers[number]
        return watcher if watcher.state in states else None

    who = st.integers(0, WATCHERS - 1)

    def _happens(self, what: str) -> None:
        world = self.world
        with world.loop.inside():
            match what:
                case "published":
                    world.publish()
                case "arrived":
                    world.broker.arrive()
                case "lost":
                    world.broker.lose()
                case "a hole":
                    world.broker.arrive(world.broker.on_the_way)
                    world.publish()
                    world.broker.lose()
                    world.publish()
                    world.broker.arrive()
                case "repeated":
                    world.broker.repeat()
                case "begun anew":
                    world.broker.restart(ROOM)
                case "removed":
                    at_once(world.broker.remove_history(ROOM))
        if what == "a turn":
            world.loop.now += 0.01
            world.loop.turn()

    @rule(what=st.sampled_from(OFTEN) | st.sampled_from(SELDOM))
    def something(self, what: str) -> None:
        self._happens(what)

    @rule(number=st.integers(1, 5))
    def are_published(self, number: int) -> None:
        for _ in range(number):
            self._happens("published")

    @rule(number=st.integers(1, 5))
    def arrive(self, number: int) -> None:
        for _ in range(number):
            self._happens("arrived")

    @rule(
        who=st.integers(0, WATCHERS - 1),
        meanwhile=st.lists(
            st.lists(st.sampled_from(OFTEN) | st.sampled_from(SELDOM), max_size=3),
            min_size=4,
            max_size=7,
        ),
    )
    def come_amid(self, who: int, meanwhile: list[list[str]]) -> None:
        """Come, while this happens at each point where the broker is waited for."""
        watcher = self._in(who, "away", "subscribed", "idle")
        if watcher is None:
            return
        self.world.broker.paced = True
        with self.world.loop.inside():
            if watcher.state == "subscribed":
                watcher.go()
            watcher.come() if watcher.state == "away" else watcher.subscribe()
        self._happens("a turn")
        for happening in meanwhile:
            for what in happening:
                self._happens(what)
            self.world.broker.go_on()
            self._happens("a turn")

    @rule(paced=st.booleans())
    def pace(self, paced: bool) -> None:
        self.world.broker.paced = paced

    @precondition(lambda self: self.world.broker.waiting)
    @rule(number=st.integers(0, 3))
    def go_on(self, number: int) -> None:
        self.world.broker.go_on(number)
        self._happens("a turn")

    @rule(who=who)
    def come(self, who: int) -> None:
        watcher = self._in(who, "away")
        if watcher is not None:
            with self.world.loop.inside():
                watcher.come()

    @rule(who=who)
    def go(self, who: int) -> None:
        watcher = self._in(who, "subscribing", "subscribed", "idle", "unsubscribing")
        if watcher is not None:
            with self.world.loop.inside():
                watcher.go()

    @rule(who=who)
    def leave_the_room(self, who: int) -> None:
        watcher = self._in(who, "subscribed")
        if watcher is not None:
            with self.world.loop.inside():
                watcher.unsubscribe()

    @rule(who=who)
    def enter_again(self, who: int) -> None:
        watcher = self._in(who, "idle")
        if watcher is not None:
            with self.world.loop.inside():
                watcher.subscribe()

    @rule(seconds=st.sampled_from([30, 61]))
    def time_passes(self, seconds: float) -> None:
        with self.world.loop.inside():
            self.world.clock.advance(seconds)

    @rule()
    def settle(self) -> None:
        """Whoever is there catches up, or learns of its loss; nobody waits for ever."""
        world = self.world
        self._finish_steps()
        with world.loop.inside():
            world.broker.arrive(world.broker.on_the_way)
            top = world.publish()
            world.broker.arrive(1)
        self._finish_steps()
        assert not self.world.problems, self.world.problems
        for watcher in self.watchers:
            assert watcher.state in ("subscribed", "idle", "away"), watcher.state
            if watcher.state == "subscribed":
                assert watcher.place == top, (watcher.place, top)

    def _finish_steps(self) -> None:
        self.world.broker.paced = False
        while self.world.broker.waiting:
            self.world.broker.go_on()
            self.world.loop.turn()
        self.world.loop.quiet()
        for watcher in self.watchers:
            watcher.look()

    @invariant()
    def see_who_was_closed(self) -> None:
        for watcher in getattr(self, "watchers", ()):
            watcher.look()
            for problem in self.world.problems:
                raise problem
            assert not watcher.told or self.world.broker.faults, "a loss that was none"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            self.settle()
            with world.loop.inside():
                for watcher in self.watchers:
                    if watcher.state != "away":
                        watcher.go()
            world.loop.quiet()
            assert world.board.hub.channels() == {}
            assert world.broker.subscribed == frozenset()
            assert at_once(world.broker.presence(ROOM)) == {}
            assert not world.service.runtime.endings
        finally:
            with world.loop.inside():
                world.service.runtime.wheel.close()
            world.loop.close()


TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
