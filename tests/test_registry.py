"""Who is connected, against a dictionary that says the same."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pongee.registry import ConnectionInfo, Registry

USERS = [None, "ada", "ben", ""]


class Connection:
    """The least a registry holds."""

    def __init__(self, number: int, user: str | None) -> None:
        self.id = f"c{number}"
        self.user = user
        self.route = "/ws"

    def info(self) -> ConnectionInfo:
        return ConnectionInfo(self.id, self.user, None, 0.0, self.route, 0, 0, 0, 0)

    def disconnect(self, code: int | None = None, reason: str | None = None) -> None:
        raise AssertionError("the registry ends nobody")

    def leave(self) -> None:
        """Nothing to leave."""


class RegistryMachine(RuleBasedStateMachine):
    """Entries come and go; every question has the model's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.made: list[Connection] = []
        self.model: dict[str, Connection] = {}

    @rule(user=st.sampled_from(USERS))
    def add(self, user: str | None) -> None:
        connection = Connection(len(self.made), user)
        self.made.append(connection)
        self.registry.add(connection)
        self.model[connection.id] = connection

    @rule(number=st.integers(0, 40))
    def remove(self, number: int) -> None:
        if self.made:
            connection = self.made[number % len(self.made)]
            self.registry.remove(connection)
            self.model.pop(connection.id, None)

    @invariant()
    def every_question_has_the_models_answer(self) -> None:
        expected = list(self.model.values())
        assert len(self.registry) == len(expected)
        assert list(self.registry) == expected
        assert self.registry.snapshot() == [connection.info() for connection in expected]
        for connection in self.made:
            assert self.registry.get(connection.id) is self.model.get(connection.id)
        named = {one.user for one in expected if one.user is not None}
        assert set(self.registry.users()) == named
        for user in (user for user in USERS if user is not None):
            own = tuple(one for one in expected if one.user == user)
            assert self.registry.of_user(user) == own
            assert self.registry.users().get(user, 0) == len(own)


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_iteration_shows_one_moment_while_connections_leave() -> None:
    """Ending everybody removes entries under the loop that does it."""
    registry = Registry()
    for number in range(3):
        registry.add(Connection(number, "ada"))

    for connection in registry:
        registry.remove(connection)

    assert (len(registry), registry.users()) == (0, {})


def test_unknown_ids_and_users_are_answered_with_nothing() -> None:
    """Asking for a stranger is no error."""
    registry = Registry()

    assert registry.get("nobody") is None
    assert registry.of_user("nobody") == ()
    registry.remove(Connection(1, "nobody"))
