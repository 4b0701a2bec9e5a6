"""The outbox against a plain list, under each policy."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pongee.links.base import Outgoing, Overflow
from pongee.links.outbox import Outbox, Pushed

POLICIES: tuple[Overflow, ...] = get_args(Overflow)
MAX_MESSAGES = 4
MAX_BYTES = 40

SIZES = st.integers(0, 60)
KEYS = st.sampled_from([None, "a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), SIZES, KEYS),
        st.tuples(st.just("pop"), st.just(0), st.none()),
        st.tuples(st.just("clear"), st.just(0), st.none()),
    ),
    max_size=40,
)


def _drain(outbox: Outbox) -> list[Outgoing]:
    return [outbox.popleft() for _ in range(len(outbox))]


def _over(waiting: list[Outgoing]) -> bool:
    size = sum(message.size for message in waiting)
    return len(waiting) > MAX_MESSAGES or (size > MAX_BYTES and len(waiting) > 1)


@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None)
@given(steps=STEPS)
def test_outbox_agrees_with_a_list(
    policy: Overflow, steps: list[tuple[str, int, str | None]]
) -> None:
    """Order, bounds, bytes and counts, whatever is pushed and taken."""
    outbox = Outbox(policy, MAX_MESSAGES, MAX_BYTES)
    model: list[Outgoing] = []
    pushed = popped = dropped = replaced = 0

    for kind, size, key in steps:
        if kind == "push":
            message = Outgoing(b"x" * size, key)
            fits = not model or not _over([*model, message])
            result = outbox.push(message)
            if policy == "disconnect":
                assert result is (Pushed.KEPT if fits else Pushed.FULL)
                if not fits:
                    pushed += 1
                    dropped += 1
                    continue
            pushed += 1
            places = [
                n for n, waiting in enumerate(model) if key is not None and waiting.key == key
            ]
            if policy == "latest_per_key" and places:
                model[places[0]] = message
                replaced += 1
            else:
                model.append(message)
            while _over(model):
                model.pop(0)
                dropped += 1
        elif kind == "pop" and model:
            assert outbox.popleft() is model.pop(0)
            popped += 1
        elif kind == "clear":
            dropped += len(model)
            model.clear()
            outbox.clear()

        assert len(outbox) == len(model)
        assert outbox.bytes == sum(message.size for message in model)
        assert not outbox.over
        assert (outbox.dropped, outbox.replaced) == (dropped, replaced)
        assert pushed == popped + len(outbox) + outbox.dropped + outbox.replaced
        if policy == "latest_per_key":
            keys = [message.key for message in model if message.key is not None]
            assert len(keys) == len(set(keys))

    assert _drain(outbox) == model


def test_disconnect_says_full_and_keeps_what_waits() -> None:
    """The caller cuts the client; what was refused is counted, so nothing is lost in silence."""
    outbox = Outbox("disconnect", 2, 100)
    messages = [Outgoing("a"), Outgoing("b")]

    assert [outbox.push(message) for message in messages] == [Pushed.KEPT] * 2
    assert outbox.push(Outgoing("c")) is Pushed.FULL
    assert _drain(outbox) == messages
    assert outbox.dropped == 1


def test_drop_oldest_drops_until_the_newest_fits() -> None:
    """One large message may cost several small ones; each is counted."""
    outbox = Outbox("drop_oldest", 10, 10)
    for text in ("aaa", "bbb", "ccc"):
        outbox.push(Outgoing(text))

    outbox.push(Outgoing("dddddd"))

    assert [message.data for message in _drain(outbox)] == ["ccc", "dddddd"]
    assert outbox.dropped == 2


def test_latest_per_key_replaces_in_place_and_drops_the_oldest_beyond_the_bound() -> None:
    """A price that changed goes out where the old one stood."""
    outbox = Outbox("latest_per_key", 3, 1000)
    for text, key in (("a1", "a"), ("x", None), ("b1", "b"), ("a2", "a"), ("y", None)):
        outbox.push(Outgoing(text, key))

    assert [message.data for message in _drain(outbox)] == ["x", "b1", "y"]
    assert (outbox.dropped, outbox.replaced) == (1, 1)


def test_key_that_was_sent_is_queued_anew() -> None:
    """Only what still waits is replaced."""
    outbox = Outbox("latest_per_key", 3, 1000)
    outbox.push(Outgoing("a1", "a"))
    outbox.popleft()

    outbox.push(Outgoing("a2", "a"))

    assert outbox.replaced == 0
    assert [message.data for message in _drain(outbox)] == ["a2"]


@pytest.mark.parametrize("policy", POLICIES)
def test_single_message_over_the_bound_is_slow_rather_than_impossible(policy: Overflow) -> None:
    """An empty outbox takes any message."""
    outbox = Outbox(policy, 5, 10)

    assert outbox.push(Outgoing("x" * 1000)) is Pushed.KEPT
    assert (len(outbox), outbox.over) == (1, False)


@pytest.mark.parametrize(("policy", "waits"), [("disconnect", True), ("drop_oldest", False)])
def test_only_senders_of_a_disconnect_outbox_wait(policy: Overflow, waits: bool) -> None:
    """Under the other policies messages are dropped instead."""
    outbox = Outbox(policy, 1, 1000)
    outbox.append(Outgoing("a"))
    assert not outbox.waits

    outbox.append(Outgoing("b"))

    assert (outbox.over, outbox.waits) == (True, waits)


@settings(deadline=None)
@given(st.text())
def test_size_of_a_text_is_never_less_than_its_bytes(text: str) -> None:
    """The bound on bytes holds for every alphabet, exactly for ASCII."""
    size = Outgoing(text).size

    assert size >= len(text.encode())
    assert size == len(text) or not text.isascii()


def test_message_becomes_the_event_of_its_kind() -> None:
    """Text and binary frames, built once."""
    assert Outgoing("a", "k").event == {"type": "websocket.send", "text": "a"}
    assert Outgoing(b"a").event == {"type": "websocket.send", "bytes": b"a"}
    assert (Outgoing("a", "k").key, Outgoing(b"ab").size) == ("k", 2)
