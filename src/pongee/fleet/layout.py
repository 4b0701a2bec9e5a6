"""What was declared of channels, written down for publishers that do not have the application. ◇"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from pongee.channels.options import ChannelOptions
from pongee.channels.patterns import ChannelPattern

__all__ = ["LAYOUT", "Layout", "read_layout", "write_layout"]

LAYOUT = "channels"
"""The name under which it is kept at the broker."""

Layout = list[tuple[ChannelPattern, ChannelOptions]]


class _Family(msgspec.Struct):
    pattern: str
    options: ChannelOptions


def write_layout(
    families: Iterable[tuple[ChannelPattern, ChannelOptions]], written: bytes | None = None
) -> bytes:
    """Write it as JSON, which people can read with the broker's own tools.

    Args:
        families: of this process.
        written: what others wrote; families that this process does not have are kept.
    """
    own = {pattern.text: _Family(pattern.text, options) for pattern, options in families}
    others: list[_Family] = []
    if written is not None:
        with contextlib.suppress(msgspec.DecodeError):
            others = msgspec.json.decode(written, type=list[_Family])
    return msgspec.json.encode([*own.values(), *(one for one in others if one.pattern not in own)])


def read_layout(data: bytes) -> Layout:
    """Read it.

    Raises:
        msgspec.DecodeError: it is none.
    """
    found = msgspec.json.decode(data, type=list[_Family])
    return [(ChannelPattern(one.pattern), one.options) for one in found]
