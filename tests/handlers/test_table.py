"""What was declared is found, by every name that is meant, and by no other."""

from __future__ import annotations

import pytest

from pongee import ConfigurationError, Pongee, public
from pongee.channels.options import PLAIN


def test_channel_is_found_by_name() -> None:
    """With its parameters; undeclared ones behave plainly."""
    pongee = Pongee()
    room = pongee.channel("chat:{room_id}", str, history=5)
    news = pongee.channel("news", str)
    declared = pongee._node.declared
    assert declared.find("chat:7") == (room, {"room_id": "7"})
    assert declared.find("news") == (news, {})
    for name in ("chat:", "chat:7:8", "chat", "newsx", "xnews", "", "NEWS", "chat:7\n"):
        found = declared.find(name)
        assert found is None or found[1]["room_id"] == name.removeprefix("chat:"), name
    assert declared.options_of("chat:7").history == 5
    assert declared.options_of("elsewhere") is PLAIN


def test_what_clients_can_reach_needs_a_connection() -> None:
    """Each way to be reached, and none."""
    ways = ["may_subscribe", "may_publish", "may_see_presence", "may_read_history"]
    for way in ways:
        pongee = Pongee()
        pongee.channel("a", str, **{way: public})  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="nobody said who may connect"):
            pongee._node.declared.check()
    for event in ("on_subscribe", "on_publish"):
        pongee = Pongee()
        channel = pongee.channel("a", str)

        async def handler() -> None:
            """Do nothing."""

        getattr(channel, event)(handler)
        with pytest.raises(ConfigurationError, match="nobody said who may connect"):
            pongee._node.declared.check()
    pongee = Pongee()
    pongee.channel("a", str)
    pongee._node.declared.check()
