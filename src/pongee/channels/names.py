"""Names of channels. ◇"""

from __future__ import annotations

from pongee.errors import UsageError
from pongee.limits import MAX_CHANNEL_LENGTH

__all__ = ["check_channel"]


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
