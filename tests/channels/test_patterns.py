"""Patterns of channels' names, against plain words, a slower matcher and generated names."""

from __future__ import annotations

import enum
import re
import time
import uuid
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pongee.channels.patterns import ChannelPattern
from pongee.errors import ConfigurationError, UsageError
from pongee.limits import MAX_CHANNEL_LENGTH

ID = uuid.UUID("0b0e1c22-93a5-4c2f-8c3d-6f4f4d0e9a11")


class Colour(enum.Enum):
    RED = "red"
    SEVEN = 7
    NOTHING = None


@pytest.mark.parametrize(
    ("pattern", "channel", "values"),
    [
        ("news", "news", {}),
        ("news", "news2", None),
        ("news", "new", None),
        ("chat:{room}", "chat:7", {"room": "7"}),
        ("chat:{room}", "chat:комната 7", {"room": "комната 7"}),
        ("chat:{room}", "chat:", None),
        ("chat:{room}", "chat:a:b", None),
        ("chat:{room}", "chat:a\n", {"room": "a\n"}),
        ("chat:{room:str}", "Chat:a", None),
        ("chat:{room:int}", "chat:-007", {"room": "-007"}),
        ("chat:{room:int}", "chat:-", None),
        ("chat:{room:int}", "chat:7\n", None),
        ("chat:{room:int}", "chat:٧", None),
        ("doc:{id:uuid}", f"doc:{ID}", {"id": str(ID)}),
        ("doc:{id:uuid}", f"doc:{str(ID).upper()}", None),
        ("doc:{id:uuid}", f"doc:{ID.hex}", None),
        ("{a}", "a", {"a": "a"}),
        ("{a}:{b}:x", "1:2:x", {"a": "1", "b": "2"}),
        ("{a}.*{b}", "1.*2", {"a": "1", "b": "2"}),
        ("{a}.*{b}", "1xx2", None),
        ("{a}-{b}", "x-y-z", {"a": "x", "b": "y-z"}),
        ("{a}-{b}-7", "x-y-7-7", {"a": "x", "b": "y-7"}),
        ("{a}-{n:int}", "x-5-7", {"a": "x-5", "n": "7"}),
        ("{a}-{n:int}", "x--7", {"a": "x", "n": "-7"}),
        ("{a}-{n:int}-{b}", "x-y-5-z", {"a": "x-y", "n": "5", "b": "z"}),
        ("{a}::{b}", "x::y", {"a": "x", "b": "y"}),
        (":{b}", ":y", {"b": "y"}),
        ("{a}:", "y:", {"a": "y"}),
    ],
)
def test_name_matches_as_the_pattern_reads(
    pattern: str, channel: str, values: dict[str, str] | None
) -> None:
    """Whole names; what stands left is as short as can be."""
    assert ChannelPattern(pattern).match(channel) == values


def test_pattern_tells_its_text_and_the_names_of_its_parameters() -> None:
    """Two patterns of one text are equal."""
    pattern = ChannelPattern("a:{x}:{y:int}")
    assert (pattern.text, pattern.names) == ("a:{x}:{y:int}", ("x", "y"))
    assert pattern == ChannelPattern("a:{x}:{y:int}")
    assert len({pattern, ChannelPattern("a:{x}:{y:int}"), ChannelPattern("a")}) == 2
    assert pattern != "a:{x}:{y:int}"
    assert repr(pattern) == "ChannelPattern('a:{x}:{y:int}')"


def test_matched_texts_become_values_where_the_pattern_says_so() -> None:
    """A str stays a str."""
    pattern = ChannelPattern("{a}:{b:int}:{c:uuid}")
    found = pattern.match(f"007:-8:{ID}")
    assert found is not None
    assert pattern.convert(found) == {"a": "007", "b": -8, "c": ID}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "such as 'chat:{room_id}', not ''"),
        (None, "not None"),
        (7, "not 7"),
        ("chat:{room", "'{' at character 6 has no partner"),
        ("chat:room}", "'}' at character 10 has no partner"),
        ("{{room}}", "has no partner"),
        ("chat:{}", "'' cannot be a parameter"),
        ("chat:{room-id}", "'room-id' cannot be a parameter"),
        ("chat:{7}", "'7' cannot be a parameter"),
        ("chat:{class}", "'class' cannot be a parameter"),
        ("chat:{a}:{a:int}", "{a} stands there twice"),
        ("chat:{a:path}", "no convertor 'path'; there are str, int, uuid"),
        ("chat:{a:}", "no convertor ''"),
        ("{a}{b}", "nothing parts {a} from {b}"),
        ("{a:int}0:{b}", "a digit follows {a:int}"),
        ("a\n{b}", r"control characters, unlike 'a\n{b}'"),
        ("x" * (MAX_CHANNEL_LENGTH + 1), "at most 255"),
        ("x" * (MAX_CHANNEL_LENGTH - 35) + "{id:uuid}", "has 256 characters"),
    ],
)
def test_text_that_is_no_pattern_is_refused_with_what_is_wrong(text: Any, why: str) -> None:
    """At the declaration."""
    with pytest.raises(ConfigurationError) as caught:
        ChannelPattern(text)
    assert why in str(caught.value)


def test_pattern_as_long_as_a_name_may_be_is_one() -> None:
    """The bound is that of names, not of patterns."""
    ChannelPattern("x" * MAX_CHANNEL_LENGTH)
    ChannelPattern("x" * (MAX_CHANNEL_LENGTH - 1) + "{a_name_that_is_longer_than_one_character}")


@pytest.mark.parametrize(
    ("pattern", "values", "channel"),
    [
        ("news", {}, "news"),
        ("chat:{room}", {"room": "lobby"}, "chat:lobby"),
        ("chat:{room}", {"room": 7}, "chat:7"),
        ("chat:{room}", {"room": ID}, f"chat:{ID}"),
        ("chat:{room}", {"room": Colour.RED}, "chat:red"),
        ("chat:{room:int}", {"room": Colour.SEVEN}, "chat:7"),
        ("chat:{room:int}", {"room": "-7"}, "chat:-7"),
        ("{a:uuid}.{b}", {"b": "x", "a": ID}, f"{ID}.x"),
    ],
)
def test_name_is_written_from_values(pattern: str, values: dict[str, Any], channel: str) -> None:
    """Texts, ints, UUIDs, and enums of these."""
    assert ChannelPattern(pattern).format(values) == channel


@pytest.mark.parametrize(
    ("pattern", "values", "why"),
    [
        ("chat:{room}", {}, "chat:{room}: no value for room"),
        ("{a}:{b}", {"a": 1, "c": 2}, "no value for b; no parameter c; it has a, b"),
        ("news", {"a": 1}, "no parameter a; it has none"),
        ("chat:{room}", {"room": ""}, "one or more characters other than ':', not ''"),
        ("chat:{room}", {"room": "a:b"}, "not 'a:b'"),
        ("chat:{room:int}", {"room": "x"}, "decimal digits"),
        ("chat:{room:int}", {"room": "7\n"}, "decimal digits"),
        ("chat:{room:uuid}", {"room": 7}, "a UUID in lower case"),
        ("chat:{room}", {"room": None}, "not NoneType"),
        ("chat:{room}", {"room": True}, "not bool"),
        ("chat:{room}", {"room": 1.5}, "not float"),
        ("chat:{room}", {"room": Colour.NOTHING}, "not NoneType"),
        ("chat:{room}", {"room": "a\n"}, "control characters"),
        ("chat:{room}", {"room": "x" * 300}, "at most 255 characters, not 305"),
        ("{a}-{b}", {"a": "x-y", "b": "z"}, "would be read as {'a': 'x', 'b': 'y-z'}"),
    ],
)
def test_values_that_make_no_name_are_refused(
    pattern: str, values: dict[str, Any], why: str
) -> None:
    """Also a name that somebody would read as other values than were meant."""
    with pytest.raises(UsageError) as caught:
        ChannelPattern(pattern).format(values)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "example"),
    [
        ("news", "news", "news"),
        ("news", "new", None),
        ("chat:{a}", "chat:lobby", "chat:lobby"),
        ("chat:{a}", "chat:{a}:x", None),
        ("chat:{a}", "chat", None),
        ("user-{a}", "{b}-7", "user-7"),
        ("{a}-x", "{b}-y", None),
        ("{n:int}", "{m:int}", "1"),
        ("{n:int}", "{a}", "1"),
        ("{n:int}", "-{a}", "-1"),
        ("{n:int}", "x{a}", None),
        ("{n:int}", "{a}-", None),
        ("{n:int}:{m}", "{a}:b", "1:b"),
        ("{n:int}", "{a:uuid}", None),
        ("{n:int}-{b}", "{a:uuid}", "1" * 8 + "-1111-1111-1111-" + "1" * 12),
        ("{a}", "{b}", "a"),
        ("{a}b", "c{d}", "cb"),
        ("{a}" + "b" * 200, "c" * 200 + "{d}", None),
    ],
)
def test_patterns_that_share_a_name_show_one(one: str, other: str, example: str | None) -> None:
    """Whichever is asked."""
    assert ChannelPattern(one).overlaps(ChannelPattern(other)) == example
    backwards = ChannelPattern(other).overlaps(ChannelPattern(one))
    assert (backwards is None) == (example is None)


ALPHABET = "a1-:"


@st.composite
def _patterns(draw: st.DrawFn) -> ChannelPattern:
    """Patterns of an alphabet so small that they meet often."""
    literal = st.text(ALPHABET, min_size=1, max_size=3)
    text, glue = draw(st.one_of(st.just(""), literal)), False
    for number in range(draw(st.integers(0, 3))):
        if glue:
            text += draw(literal)
        kind = draw(st.sampled_from(["", "", ":int"]))
        text += f"{{p{number}{kind}}}"
        glue = True
    text += draw(st.one_of(st.just(""), literal)) or ("" if text else "a")
    assume(not re.search(r":int\}\d", text))
    return ChannelPattern(text)


def _slowly(pattern: ChannelPattern) -> re.Pattern[str]:
    """The pattern as a regular expression that tries every reading."""
    parts = re.split(r"(\{\w+(?::int)?\})", pattern.text)
    return re.compile(
        "".join(
            ("-?[0-9]+" if part.endswith(":int}") else "[^:]+")
            if part.startswith("{")
            else re.escape(part)
            for part in parts
        )
    )


@settings(max_examples=500)
@given(_patterns(), st.lists(st.text(ALPHABET, max_size=10), max_size=20), st.data())
def test_no_reading_is_missed(
    pattern: ChannelPattern, names: list[str], data: st.DataObject
) -> None:
    """Groups that are never tried again match what a matcher matches that tries everything."""
    slow = _slowly(pattern)
    near = data.draw(st.lists(st.from_regex(slow, fullmatch=True, alphabet=ALPHABET), max_size=5))
    for name in [*names, *near, *(name[:-1] for name in near)]:
        found = pattern.match(name)
        assert (found is not None) == (slow.fullmatch(name) is not None), name
        if found is not None:
            assert set(found) == set(pattern.names)


@settings(max_examples=300)
@given(_patterns(), st.data())
def test_values_come_back_from_the_name_they_make(
    pattern: ChannelPattern, data: st.DataObject
) -> None:
    """Or they make none, since it would be read as others."""
    text = st.one_of(st.text(ALPHABET, max_size=4), st.integers(-20, 20))
    values = {name: data.draw(text) for name in pattern.names}
    try:
        channel = pattern.format(values)
    except UsageError:
        return
    found = pattern.match(channel)
    assert found == {name: str(value) for name, value in values.items()}
    for name, value in pattern.convert(found).items():
        assert value in (values[name], int(values[name]) if isinstance(value, int) else None) or (
            str(values[name]) == value
        )


@settings(max_examples=300)
@given(_patterns(), st.data())
def test_matched_name_is_written_again(pattern: ChannelPattern, data: st.DataObject) -> None:
    """Matching is a reading that `format` agrees with."""
    name = data.draw(st.from_regex(_slowly(pattern), fullmatch=True, alphabet=ALPHABET))
    found = pattern.match(name)
    assert found is not None
    assert pattern.format(found) == name


@settings(max_examples=500)
@given(_patterns(), _patterns(), st.data())
def test_overlap_is_told_if_and_only_if_there_is_one(
    one: ChannelPattern, other: ChannelPattern, data: st.DataObject
) -> None:
    """Both match the example, or nothing that one matches is the other's."""
    example = one.overlaps(other)
    if example is not None:
        assert one.match(example) is not None
        assert other.match(example) is not None
        return
    slow = st.from_regex(_slowly(one), fullmatch=True, alphabet=ALPHABET)
    for name in data.draw(st.lists(slow, max_size=10)):
        assert other.match(name) is None, name


def test_no_name_takes_long_to_match() -> None:
    """Hostile names for a pattern with many readings: tried one by one they would take years."""
    pattern = ChannelPattern("-".join(f"{{p{i}}}" for i in range(40)) + "-{n:int}:{m:int}-x:y")
    mixed = ChannelPattern("-".join(f"{{p{i}}}-{{n{i}:int}}" for i in range(20)) + "-z")
    started = time.process_time()
    for name in ("-" * 255, "1-" * 126 + ":1", "-1" * 127, "--1" * 85, "1" * 255):
        assert pattern.match(name) is None
        assert mixed.match(name) is None
    assert time.process_time() - started < 1
