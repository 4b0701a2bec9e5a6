"""Names of channels. ◇"""

from __future__ import annotations

from pongee.errors import UsageError

__all__ = ["check_channel"]

MAX_CHANNEL_LENGTH = 255
"""Characters of a channel name. Longer: `UsageError` at the call."""


def check_channel(channel: str) -> str:
    """Return `channel` if it may be a channel's name.

    Raises:
        UsageError: empty, too long, or with control characters.
    """
    if not isinstance(channel, str) or not channel:
        raise UsageError(f"a channel's name is a text that is not empty, not {channel!r}")
    if len(channel) > MAX_CHANNEL_LENGTH:
        raise UsageError(
            f"a channel's name has at most {MAX_CHANNEL_LENGTH} characters, not {len(channel)}"
        )
    if not channel.isprintable():
        raise UsageError(f"a channel's name has no control characters, unlike {channel!r}")
    return channel
