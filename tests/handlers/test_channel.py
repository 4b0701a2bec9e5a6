"""Who may do what in a channel: the policy first, then the handler."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, JsonValue

from pongee import Client, ClientError, ConfigurationError, Pongee, UsageError, public
from pongee.handlers.channel import Channel

pytestmark = pytest.mark.anyio

SCOPE: dict[str, Any] = {
    "type": "http",
    "headers": [],
    "query_string": b"",
    "path": "/",
    "app": FastAPI(),
}
DENIED, UNKNOWN = 103, 102


class Message(BaseModel):
    """What is said."""

    text: str


class Stranger(BaseModel):
    """What no event has."""

    name: str


def room(**options: Any) -> Channel[Message]:
    """Declare a channel."""
    return Pongee().channel("chat:{room_id}", Message, **options)


async def ask(
    channel: Channel[Any], room_id: str = "7", action: Any = "subscribe", **how: Any
) -> Any:
    """Ask whether somebody may; returns the answer or the error's code."""
    given = {"client": None, "data": {"a": 1}, "message": Message(text="hi")}
    try:
        return await channel.allow(action, SCOPE, {"room_id": room_id}, given, **how)
    except ClientError as refused:
        return refused.code


async def _no(request: Request) -> bool:
    return False


async def _yes(request: Request) -> bool:
    return True


async def _forbidden() -> None:
    raise HTTPException(403, "no")


@pytest.mark.parametrize("action", ["subscribe", "publish"])
@pytest.mark.parametrize(
    ("policy", "how", "expected"),
    [
        (None, {}, DENIED),
        (None, {"subscribed": True}, DENIED),
        (None, {"proven": True}, None),
        (public, {}, None),
        ("subscribers", {}, DENIED),
        ("subscribers", {"subscribed": True}, None),
        (_no, {}, DENIED),
        (_no, {"proven": True}, None),
        (_yes, {}, None),
    ],
)
async def test_policy_without_a_handler(
    action: str, policy: Any, how: Any, expected: int | None
) -> None:
    """Nobody may until it is said who; a token of the application's stands for the policy."""
    assert await ask(room(**{f"may_{action}": policy}), action=action, **how) == expected


@pytest.mark.parametrize(
    ("policy", "how", "expected"),
    [(None, {}, "asked"), (public, {}, "asked"), ("subscribers", {}, DENIED), (_no, {}, DENIED)],
)
async def test_handler_is_asked_after_the_policy(policy: Any, how: Any, expected: Any) -> None:
    """Where there is a policy, both have to agree; without one the handler decides."""
    channel = room(may_subscribe=policy)

    @channel.on_subscribe
    async def enter(room_id: int) -> str:
        return "asked"

    assert await ask(channel, **how) == expected


async def test_parameter_of_another_type_is_an_unknown_channel() -> None:
    """As a path is not found where FastAPI has none; what a policy raises passes."""
    channel = room()

    @channel.on_subscribe
    async def enter(room_id: int) -> int:
        return room_id + 1

    assert await ask(channel, "7") == 8
    assert await ask(channel, "seven") == UNKNOWN
    with pytest.raises(HTTPException):
        await ask(room(may_subscribe=_forbidden))


async def test_handler_gets_what_it_names() -> None:
    """Parameters, the message, the client's data, dependencies that close after it."""
    channel, steps = room(), list[str]()

    async def database() -> AsyncIterator[str]:
        steps.append("open")
        yield "db"
        steps.append("close")

    @channel.on_subscribe
    async def enter(room_id: str, data: JsonValue, db: Annotated[str, Depends(database)]) -> Any:
        steps.append("enter")
        return room_id, data, db

    @channel.on_publish
    async def check(message: Message, client: Client) -> Message:
        return Message(text=message.text.upper())

    assert await ask(channel) == ("7", {"a": 1}, "db")
    assert steps == ["open", "enter", "close"]
    assert await ask(channel, action="publish") == Message(text="HI")


async def test_dependency_closes_though_the_handler_raises() -> None:
    """And learns of it."""
    channel, steps = room(), list[str]()

    async def database() -> AsyncIterator[str]:
        try:
            yield "db"
        except KeyError:
            steps.append("rolled back")
            raise
        finally:
            steps.append("closed")

    @channel.on_subscribe
    async def enter(db: Annotated[str, Depends(database)]) -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError):
        await ask(channel)
    assert steps == ["rolled back", "closed"]


def test_message_is_read_and_written() -> None:
    """Both ways through the payload's type; each side's mistakes are its own."""
    channel = room()
    assert channel.read(b'{"text":"x","more":1}') == Message(text="x")
    assert channel.write({"text": "é\n"}) == '{"text":"é\\n"}'.encode()
    for data in (b"", b"{", b"[]", b'{"text":5}', b"\xff", b"[" * 100_000):
        with pytest.raises(ClientError, match="107 bad request"):
            channel.read(data)
    for message in ({"text": 5}, "x", None, object()):
        with pytest.raises(UsageError, match=r"chat:\{room_id\} cannot carry"):
            channel.write(message)
    anything = Pongee().channel("any", Any)
    with pytest.raises(UsageError):
        anything.write(object())


@pytest.mark.parametrize("event", ["on_subscribe", "on_publish", "on_unsubscribe", "on_presence"])
def test_handler_that_cannot_be_called(event: str) -> None:
    """A parameter that nobody gives is told at the declaration, with where it is."""

    async def handler(stranger: Stranger) -> None:
        """Name what there is not."""

    with pytest.raises(ConfigurationError, match=r"chat:\{room_id\} \(" + event):
        getattr(room(), event)(handler)
