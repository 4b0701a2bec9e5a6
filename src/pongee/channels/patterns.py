"""Patterns of channels' names: ``chat:{room_id}`` and what stands for the braces. ◇

Names come from strangers, so matching takes a time that grows with the name's length alone: a
parameter ends where what follows it is found first, and is not tried again.
"""

from __future__ import annotations

import enum
import itertools
import keyword
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pongee.channels.names import check_channel
from pongee.errors import ConfigurationError, UsageError
from pongee.limits import MAX_CHANNEL_LENGTH

__all__ = ["ChannelPattern"]

_PIECES = re.compile(r"\{([^{}]*)\}|([^{}]+)|([{}])")


class _Kind(NamedTuple):
    """A convertor: what its texts look like, what they become, and the fewest characters."""

    regex: str
    convert: Callable[[str], Any]
    shortest: int
    says: str


_KINDS = {
    "str": _Kind("[^:]+?", str, 1, "one or more characters other than ':'"),
    "int": _Kind("-?[0-9]++", int, 1, "decimal digits, after a '-' or not"),
    # One spelling, as `str(UUID(...))` writes it: with several, one id would name several channels.
    "uuid": _Kind(
        "-".join(f"[0-9a-f]{{{n}}}" for n in (8, 4, 4, 4, 12)),
        uuid.UUID,
        36,
        "a UUID in lower case with its hyphens",
    ),
}


class _Parameter(NamedTuple):
    name: str
    kind: str

    @property
    def regex(self) -> str:
        return f"(?P<{self.name}>{_KINDS[self.kind].regex})"


class ChannelPattern:
    """A channel's name with parameters, such as ``chat:{room_id}`` or ``user-{id:int}:inbox``.

    A parameter is ``{name}`` or ``{name:convertor}``. The convertors are ``str`` (the default: one
    or more characters other than ``:``), ``int`` (decimal digits, after a ``-`` or not) and
    ``uuid`` (as ``str(UUID(...))`` writes it: lower case, with hyphens). Where a name can be read
    in several ways, as ``a-b-c`` by ``{x}-{y}``, parameters on the left are as short as can be.

    Args:
        text: the pattern.

    Attributes:
        text: the pattern.
        names: the parameters' names, from left to right.

    Raises:
        ConfigurationError: it is no pattern; the message shows what is wrong with it.
    """

    __slots__ = ("_fullmatch", "_kinds", "_parts", "names", "text")

    def __init__(self, text: str) -> None:
        parts = list(_parse(text))
        parameters = [part for part in parts if isinstance(part, _Parameter)]
        self.text = text
        self.names: tuple[str, ...] = tuple(parameter.name for parameter in parameters)
        _check(text, parts, self.names)
        self._parts = parts
        self._kinds = {name: _KINDS[kind] for name, kind in parameters}
        self._fullmatch = re.compile(_regex(parts)).fullmatch

    def __repr__(self) -> str:
        return f"ChannelPattern({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChannelPattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def match(self, channel: str) -> dict[str, str] | None:
        """Return the texts of the parameters in `channel`, or `None` if it is another's name."""
        found = self._fullmatch(channel)
        return None if found is None else found.groupdict()

    def convert(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return what `match` found as values: ``int`` and ``UUID`` where the pattern says so."""
        return {name: kind.convert(values[name]) for name, kind in self._kinds.items()}

    def format(self, values: Mapping[str, Any]) -> str:
        """Write the name of one channel; `match` gives the same texts back.

        Args:
            values: one for each parameter: a text, an int, a UUID, or a member of an enum whose
                value is one of these.

        Raises:
            UsageError: a parameter is missing or not the pattern's, a value does not fit, or the
                name would be too long or be read as other values.
        """
        if values.keys() != self._kinds.keys():
            raise UsageError(f"{self.text}: {_difference(self.names, values)}")
        texts = {name: self._text(name, values[name]) for name in self.names}
        channel = check_channel(
            "".join(part if isinstance(part, str) else texts[part.name] for part in self._parts)
        )
        read = self.match(channel)
        if read != texts:
            raise UsageError(
                f"{self.text}: {channel!r} would be read as {read}, not as {texts}; part the "
                "parameters by ':' or by something that no value holds"
            )
        return channel

    def overlaps(self, other: ChannelPattern) -> str | None:
        """Return a name that both patterns match, one of the shortest, or `None`."""
        mine, others = _automaton(self._parts), _automaton(other._parts)
        goal = (len(mine) - 1, len(others) - 1)
        came_from: dict[tuple[int, int], tuple[tuple[int, int], str] | None] = {(0, 0): None}
        waiting = deque(came_from)
        while waiting and goal not in came_from:
            here = waiting.popleft()
            for label, target in mine[here[0]]:
                for other_label, other_target in others[here[1]]:
                    char, there = _common(label, other_label), (target, other_target)
                    if char is not None and there not in came_from:
                        came_from[there] = (here, char)
                        waiting.append(there)
        chars = []
        step = came_from.get(goal)
        while step is not None:
            chars.append(step[1])
            step = came_from[step[0]]
        # A longer one is no channel's name, and the walk found one of the shortest.
        return "".join(reversed(chars)) if 0 < len(chars) <= MAX_CHANNEL_LENGTH else None

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
            raise UsageError(
                f"{self.text}: {name} is a text, an int, a UUID or a member of an enum, not "
                f"{type(value).__name__}"
            )
        text = str(value)
        kind = self._kinds[name]
        if re.fullmatch(kind.regex, text) is None:
            raise UsageError(f"{self.text}: {name} is {kind.says}, not {text!r}")
        return text


def _parse(text: str) -> Iterator[str | _Parameter]:
    """Split a pattern into literals and parameters, and refuse what is neither."""
    if not isinstance(text, str) or not text:
        raise ConfigurationError(
            f"a channel's pattern is a text such as 'chat:{{room_id}}', not {text!r}"
        )
    if not text.isprintable():
        raise ConfigurationError(f"a channel's name has no control characters, unlike {text!r}")
    for piece in _PIECES.finditer(text):
        inside, literal, brace = piece.groups()
        if brace:
            raise ConfigurationError(
                f"{text}: '{brace}' at character {piece.start() + 1} has no partner; a parameter "
                "is written {name} or {name:int}, and braces stand for nothing else"
            )
        if literal:
            yield literal
            continue
        name, colon, kind = inside.partition(":")
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigurationError(
                f"{text}: {name!r} cannot be a parameter of a Python function; name it such as "
                "{room_id}"
            )
        if colon and kind not in _KINDS:
            raise ConfigurationError(
                f"{text}: there is no convertor {kind!r}; there are {', '.join(_KINDS)}"
            )
        yield _Parameter(name, kind or "str")


def _check(text: str, parts: list[str | _Parameter], names: tuple[str, ...]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{text}: {{{name}}} stands there twice; name each once")
    for left, right in itertools.pairwise(parts):
        if not isinstance(left, _Parameter):
            continue
        if isinstance(right, _Parameter):
            raise ConfigurationError(
                f"{text}: nothing parts {{{left.name}}} from {{{right.name}}}; put a ':' or "
                "another text between them"
            )
        if left.kind == "int" and right[0] in "0123456789":
            raise ConfigurationError(
                f"{text}: a digit follows {{{left.name}:int}}, so that nobody could tell where "
                "the number ends; put a ':' or another text between them"
            )
    shortest = sum(len(p) if isinstance(p, str) else _KINDS[p.kind].shortest for p in parts)
    if shortest > MAX_CHANNEL_LENGTH:
        raise ConfigurationError(
            f"{text}: the shortest name has {shortest} characters, and a channel's name has at "
            f"most {MAX_CHANNEL_LENGTH}"
        )


def _regex(parts: list[str | _Parameter]) -> str:
    """Write the pattern as a regular expression that never tries a reading twice.

    No parameter holds a ``:``, so each stretch between two of them stands for itself. Within one,
    a ``str`` parameter may stop at the first place where what follows is found, up to the next
    ``str`` parameter: that one takes whatever was left. (What lies between them has one reading
    from where it starts, and ends no later for starting earlier.) Both make a group atomic.
    """
    stretches: list[list[str | _Parameter]] = [[]]
    for part in parts:
        if isinstance(part, _Parameter):
            stretches[-1].append(part)
            continue
        first, *rest = part.split(":")
        stretches[-1].append(first)
        stretches.extend([piece] for piece in rest)
    return "(?>" + ":)(?>".join(map(_stretch, stretches)) + r"\Z)"


def _stretch(parts: list[str | _Parameter]) -> str:
    groups = [""]
    for part in parts:
        if isinstance(part, str):
            groups[-1] += re.escape(part)
        elif part.kind == "str":
            groups.append(part.regex)
        else:
            groups[-1] += part.regex
    head, *others = groups
    if not others:
        return head
    return head + "".join(f"(?>{group})" for group in others[:-1]) + others[-1]


# Labels of an automaton's edges, beside single characters.
_ANY, _DIGIT, _HEX = "any", "digit", "hex"
_MEMBERS = {_DIGIT: "0123456789", _HEX: "0123456789abcdef"}


def _automaton(parts: list[str | _Parameter]) -> list[list[tuple[str, int]]]:
    """Return the edges of each state, as label and target; the last state is the end."""
    states: list[list[tuple[str, int]]] = [[]]

    def then(label: str) -> None:
        states[-1].append((label, len(states)))
        states.append([])

    for part in parts:
        if isinstance(part, str):
            for char in part:
                then(char)
        elif part.kind == "uuid":
            for char in str(uuid.UUID(int=0)):
                then(_HEX if char == "0" else char)
        else:
            label = _ANY if part.kind == "str" else _DIGIT
            if part.kind == "int":
                states[-1].append((_DIGIT, len(states) + 1))
                then("-")
            then(label)
            states[-1].append((label, len(states) - 1))
    return states


def _common(one: str, other: str) -> str | None:
    """Return a character that two labels have in common."""
    if len(one) > 1 and len(other) > 1:
        return "a" if one == other == _ANY else "1"
    char, label = (one, other) if len(one) == 1 else (other, one)
    fits = char != ":" if label == _ANY else char in _MEMBERS.get(label, label)
    return char if fits else None


def _difference(names: tuple[str, ...], values: Mapping[str, Any]) -> str:
    missing = ", ".join(name for name in names if name not in values)
    unknown = ", ".join(str(name) for name in values if name not in names)
    said = [f"no value for {missing}"] if missing else []
    if unknown:
        said.append(f"no parameter {unknown}; it has {', '.join(names) or 'none'}")
    return "; ".join(said)
