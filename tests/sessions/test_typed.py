"""Typed messages: in and out, valid and not."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from pongee import Limits, MessageError, Session, UsageError, public
from pongee.testing import connect
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio


class Point(BaseModel):
    x: int
    y: int = 0


class Move(BaseModel):
    kind: Literal["move"] = "move"
    to: Point


class Say(BaseModel):
    kind: Literal["say"] = "say"
    text: str


Action = Annotated[Move | Say, Field(discriminator="kind")]


@dataclass
class Pair:
    a: int
    b: str


class Row(TypedDict):
    id: int


async def _echo(world: World, kind: Any, sent: list[str | bytes], **options: Any) -> list[Any]:
    async def handler(session: Session[Any, Any]) -> None:
        async for message in session:
            await session.send(message)

    handler.__annotations__["session"] = Session[kind, kind]
    world.pongee.endpoint("/ws", auth=public, **options)(handler)
    async with world.running() as server, connect(server.ws("/ws")) as client:
        answers = []
        for data in sent:
            await client.send(data)
            answers.append(await client.receive())
        return answers


@pytest.mark.parametrize(
    ("kind", "sent", "answer"),
    [
        (str, "héllo", "héllo"),
        (bytes, b"\x00\xff", b"\x00\xff"),
        (str | bytes, b"\x00", b"\x00"),
        (Any, '{"a": [1, 2.5, null, "x"]}', '{"a":[1,2.5,null,"x"]}'),
        (dict[str, int], '{"a": 1}', '{"a":1}'),
        (Point, '{"x": 1}', '{"x":1,"y":0}'),
        (Action, '{"kind": "move", "to": {"x": 2}}', '{"kind":"move","to":{"x":2,"y":0}}'),
        (Action, '{"kind": "say", "text": "hi"}', '{"kind":"say","text":"hi"}'),
        (Pair, '{"a": 1, "b": "x"}', '{"a":1,"b":"x"}'),
        (Row, '{"id": 7}', '{"id":7}'),
        (list[Point], '[{"x": 1}]', '[{"x":1,"y":0}]'),
    ],
)
async def test_message_of_each_kind_comes_in_and_goes_out(
    kind: Any, sent: str | bytes, answer: str | bytes
) -> None:
    """Str and bytes travel raw; the rest is JSON, validated and serialised."""
    assert await _echo(World(), kind, [sent]) == [answer]


async def test_json_is_taken_from_text_and_binary_frames_alike() -> None:
    """How a client frames its JSON does not matter."""
    answers = await _echo(World(), Point, ['{"x": 1}', b'{"x": 2}'])
    assert answers == ['{"x":1,"y":0}', '{"x":2,"y":0}']


@pytest.mark.parametrize(
    ("kind", "sent", "code"),
    [
        (Point, "not json", "invalid_json"),
        (Point, b"\xff\xfe", "invalid_json"),
        (Point, "", "invalid_json"),
        (Point, "\ufeff{}", "invalid_json"),
        (Point, '{"x": "one"}', "invalid_message"),
        (Point, "[]", "invalid_message"),
        (Action, '{"kind": "fly"}', "invalid_message"),
        (Any, "[" * 50_000, "invalid_json"),
        (Any, '{"a":' * 10_000, "invalid_json"),
        (Any, "9" * 20_000, "invalid_json"),
        (str, b"binary", "text_expected"),
        (bytes, "text", "binary_expected"),
    ],
)
async def test_message_that_cannot_be_used_is_answered_and_the_session_lives_on(
    kind: Any, sent: str | bytes, code: str
) -> None:
    """The answer says what is wrong, for programs and for people."""
    import json

    good: dict[Any, str | bytes] = {str: "fine", bytes: b"fine", Any: "1"}
    valid = good.get(kind, '{"kind":"say","text":"x","x":1}')
    answers = await _echo(World(), kind, [sent, valid])
    error = json.loads(answers[0])
    assert error["type"] == "error"
    assert error["code"] == code
    assert error["errors"][0]["msg"]
    assert "input" not in error["errors"][0]
    assert len(answers) == 2


async def test_error_reply_lists_a_bounded_number_of_errors() -> None:
    """Thousands of wrong items do not become thousands of errors."""
    import json

    sent = json.dumps([{"x": "wrong"}] * 2000)
    answers = await _echo(World(), list[Point], [sent])
    assert len(json.loads(answers[0])["errors"]) == 10


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("JSON please", "JSON please"),
        (lambda error: f"wrong: {error.code}", "wrong: invalid_json"),
        (lambda error: {"oops": error.code}, '{"oops":"invalid_json"}'),
    ],
)
async def test_error_reply_may_be_replaced(answer: Any, expected: str) -> None:
    """Per endpoint: a text, or a function of the error."""
    assert await _echo(World(), Point, ["nonsense"], on_invalid=answer) == [expected]


async def test_function_that_returns_none_leaves_the_default_reply() -> None:
    """A function may answer some errors and leave the others."""

    def only_json(error: MessageError) -> str | None:
        return "not JSON" if error.code == "invalid_json" else None

    answers = await _echo(World(), Point, ["x", "[]"], on_invalid=only_json)
    assert answers[0] == "not JSON"
    assert '"invalid_message"' in answers[1]


async def test_too_many_errors_in_a_window_close_with_1008() -> None:
    """A peer that sends nothing but nonsense is told so, then closed."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(max_errors=3))
    async def handler(session: Session[Point, Any]) -> None:
        async for _ in session:
            pass

    async with world.running() as server, connect(server.ws("/ws")) as client:
        for _ in range(4):
            await client.send("nonsense")
        for _ in range(3):
            assert (await client.receive_json())["code"] == "invalid_json"
        frame = await client.wait_closed()
        assert (frame.code, frame.reason) == (1008, "too many errors")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (str, 5),
        (str, b"bytes"),
        (bytes, "text"),
        (Point, {"x": "one"}),
        (Point, Say(text="hi")),
        (Action, Point(x=1)),
        (Any, object()),
        (Row, {"id": "x"}),
    ],
)
async def test_send_of_a_wrong_type_raises_before_anything_is_sent(kind: Any, wrong: Any) -> None:
    """A bug of ours is an error here, not a puzzle for the client."""
    world = World()

    async def handler(session: Session[Any, Any]) -> None:
        with pytest.raises(UsageError):
            await session.send(wrong)
        await session.close(4000)

    handler.__annotations__["session"] = Session[str, kind]
    world.pongee.endpoint("/ws", auth=public)(handler)
    async with world.running() as server, connect(server.ws("/ws")) as client:
        frame = await client.wait_closed()
        assert frame.code == 4000


async def test_numbers_that_are_not_json_go_out_as_null() -> None:
    """RFC 8259 has no NaN, and browsers refuse it."""
    assert await _echo(World(), Any, ["NaN", "1e999"]) == ["null", "null"]
