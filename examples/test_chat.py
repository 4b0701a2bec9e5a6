"""A test of `chat.py` with the kit: a real server, a real client, deadlines everywhere."""

import pytest

from examples.chat import app
from pongee.testing import connect, serve


@pytest.mark.anyio
async def test_everybody_in_the_room_hears() -> None:
    async with (
        serve(app) as server,
        connect(server.ws("/ws/chat/7")) as ada,
        connect(server.ws("/ws/chat/7")) as bob,
    ):
        await ada.send("hello")
        assert await ada.receive() == "Room 7: hello"
        assert await bob.receive() == "Room 7: hello"
