"""What travels, and how a session ends when the program says so."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from pongee.testing import CloseFrame
from tests.servers.expectations import PING_INTERVAL, PING_TIMEOUT
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(15)]


async def test_text_comes_back_as_it_was(server: ServerProcess) -> None:
    async with server.connect("/text") as client:
        for message in ("", "hello", "Grüße, 世界", "x" * 1000):
            await client.send(message)
            assert await client.receive() == message


async def test_typed_json_is_answered_and_bad_json_does_not_end_the_session(
    server: ServerProcess,
) -> None:
    async with server.connect("/json") as client:
        await client.send_json({"n": 21})
        assert await client.receive_json() == {"doubled": 42}
        await client.send("{")
        answer = await client.receive_json()
        assert (answer["type"], answer["code"]) == ("error", "invalid_json")
        await client.send_json({"n": "many"})
        answer = await client.receive_json()
        assert (answer["code"], answer["errors"][0]["loc"]) == ("invalid_message", ["n"])
        await client.send(b'{"n": 4}')
        assert await client.receive_json() == {"doubled": 8}


async def test_messages_sent_at_once_arrive_in_order(server: ServerProcess) -> None:
    sent = [str(number) for number in range(200)]
    async with server.connect("/text") as client:
        for message in sent:
            await client.send(message)
        assert [await client.receive() for _ in sent] == sent


async def test_a_room_hears_its_members_and_the_http_routes(server: ServerProcess) -> None:
    async with server.connect("/rooms/7") as one, server.connect("/rooms/7") as two:
        await one.send("hello")
        assert await one.receive() == "hello"
        while await two.receive(2) != "hello":
            pass
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(server.http("/rooms/7"), params={"text": "all"})
        assert answer.json() == 2
        assert await one.receive() == "all"
        assert await two.receive() == "all"


@pytest.mark.parametrize(
    ("path", "frame", "kind"),
    [
        ("/return", CloseFrame(1000, ""), "handler returned"),
        ("/crash", CloseFrame(1011, "internal error"), "handler crashed"),
        ("/close", CloseFrame(4000, "enough for today"), "closed by the handler"),
    ],
)
async def test_the_end_of_a_handler_is_told_by_a_close_frame(
    server: ServerProcess, tag: str, path: str, frame: CloseFrame, kind: str
) -> None:
    async with server.connect(path, tag=tag) as client:
        assert await client.wait_closed() == frame
    end = await server.until_gone(tag)
    assert (end["kind"], end["code"], end["reason"]) == (kind, frame.code, frame.reason)


async def test_an_idle_client_is_told_to_leave(server: ServerProcess, tag: str) -> None:
    async with server.connect("/idle", tag=tag) as client:
        assert await client.wait_closed() == CloseFrame(4408, "idle timeout")
    assert (await server.until_gone(tag))["kind"] == "idle timeout"


async def test_many_sessions_at_once_are_all_served_and_all_forgotten(
    server: ServerProcess, tag: str
) -> None:
    async def one(number: int) -> None:
        async with server.connect("/text", tag=tag) as client:
            await client.send(str(number))
            assert await client.receive() == str(number)

    await asyncio.gather(*(one(number) for number in range(50)))
    await server.until(tag, lambda report: not report["open"] and len(report["ends"]) == 50, 2)


async def test_a_message_that_nobody_reads_does_no_harm(server: ServerProcess, tag: str) -> None:
    async with server.connect("/wait", tag=tag) as client:
        await client.send("is anybody there?")
        # As long as a server would take to miss a pong.
        await asyncio.sleep(PING_INTERVAL + PING_TIMEOUT + 0.3)
        assert (await server.report(tag))["open"] == 1
        async with asyncio.timeout(1):
            await (await client.connection.ping())
    await server.until_gone(tag)
