"""What processes of one application say to each other, as structs. ◇

They travel by `Broker.control`, in MessagePack. Fields that a version does not know are ignored,
and messages that it does not know are left alone: a fleet may be of two versions for a while.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from pongee.errors import UsageError
from pongee.limits import MAX_CHANNEL_LENGTH

__all__ = [
    "Answer",
    "Ask",
    "Bye",
    "Command",
    "Disconnect",
    "Forward",
    "Hello",
    "ListChannels",
    "Message",
    "NodeInfo",
    "Refresh",
    "Subscribe",
    "Target",
    "Unsubscribe",
    "check_pattern",
    "decode",
    "encode",
    "matching",
    "sum_up",
]


class NodeInfo(Struct, frozen=True, kw_only=True):
    """What a process says of itself.

    Attributes:
        uid: names it.
        name: of its machine.
        version: of Pongee.
        num_clients: connections, sessions and client SDKs.
        num_users: different users, anonymous ones left out.
        num_subs: members of channels, each in each.
        num_channels: with members.
        uptime: seconds.
    """

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class Target(Struct, frozen=True, omit_defaults=True):
    """Which connections are meant: those that fit everything that is given.

    Attributes:
        user: whose.
        id: the connection's.
        session: of a client SDK.
        keep: connections that are not meant all the same.
    """

    user: str | None = None
    id: str | None = None
    session: str | None = None
    keep: frozenset[str] = frozenset()


class Disconnect(Struct, frozen=True, tag=True, omit_defaults=True):
    """End connections."""

    target: Target
    code: int | None = None
    reason: str | None = None


class Subscribe(Struct, frozen=True, tag=True):
    """Subscribe client SDKs."""

    target: Target
    channel: str


class Unsubscribe(Struct, frozen=True, tag=True, omit_defaults=True):
    """End subscriptions of client SDKs."""

    target: Target
    channel: str
    code: int = 2000
    reason: str = ""


class Refresh(Struct, frozen=True, tag=True, omit_defaults=True):
    """Say until when client SDKs may stay, in Unix seconds; `None` is for ever."""

    target: Target
    until: float | None = None
    expired: bool = False


class ListChannels(Struct, frozen=True, tag=True, omit_defaults=True):
    """Tell the channels with members."""

    pattern: str = ""


Command = Disconnect | Subscribe | Unsubscribe | Refresh | ListChannels


class Hello(Struct, frozen=True, tag=True, omit_defaults=True):
    """A process is there; one that has only begun wants to hear of the others."""

    info: NodeInfo
    new: bool = False


class Bye(Struct, frozen=True, tag=True):
    """A process leaves."""

    node: str


class Ask(Struct, frozen=True, tag=True):
    """A command for every other process, which answers `node` under `number`."""

    node: str
    number: int
    command: Command


class Answer(Struct, frozen=True, tag=True, omit_defaults=True):
    """What came of a command.

    Attributes:
        node: who answers.
        number: of the question.
        count: connections that it concerned.
        channels: and their members, where that was asked.
        code: of the error, as clients are told; 0 is none.
        problem: the error.
    """

    node: str = ""
    number: int = 0
    count: int = 0
    channels: dict[str, int] = {}
    code: int = 0
    problem: str = ""


class Forward(Struct, frozen=True, tag=True, omit_defaults=True):
    """Commands of a client without a connection of its own, which came to the wrong process.

    Attributes:
        session: addresses the client.
        data: the commands.
        binary: they are in Protobuf.
    """

    session: str
    data: bytes
    binary: bool = False


Message = Hello | Bye | Ask | Answer | Forward

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Write a message."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message | None:
    """Read a message; `None` is one that this version does not know."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it may be asked for.

    Raises:
        UsageError: it is too long, or has what means something else elsewhere.
    """
    if len(pattern) > MAX_CHANNEL_LENGTH or not set(pattern).isdisjoint("{}\\"):
        raise UsageError(
            "a pattern has *, ? and [...], no braces or backslashes, and at most "
            f"{MAX_CHANNEL_LENGTH} characters"
        )
    return pattern


def matching(channels: dict[str, int], pattern: str) -> dict[str, int]:
    """Return those of `channels` that fit; an empty pattern fits all."""
    if not pattern:
        return channels
    return {name: channels[name] for name in fnmatch.filter(channels, pattern)}


def sum_up(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up the members of each channel."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
