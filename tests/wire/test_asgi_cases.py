"""Applications by the letter of ASGI, on our class and on uvicorn's default: the same outcome.

Each case is a small application. It runs on both classes before the same client, and everything
that either side can see is compared: the answer to the handshake, messages, the close frame, what
the application received and what its calls raised. A difference that is meant stands beside the
case with its reason, and is asserted too, so that the list stays true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pongee.testing import Client, HandshakeRefused, connect
from tests.wire.harness import Event, Receive, Send, all_gone, wire

pytestmark = pytest.mark.anyio

OURS, UVICORNS = "pongee.wire:WireProtocol", "auto"


@dataclass
class Outcome:
    """What the two ends saw of one connection."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""
    messages: list[str | bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None
    received: list[Event] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)


class Talk:
    """An application's end: `receive` and `send`, with a note of all that happens."""

    def __init__(self, outcome: Outcome, receive: Receive, send: Send) -> None:
        self._outcome = outcome
        self._receive = receive
        self._send = send

    async def receive(self) -> Event:
        event = await self._receive()
        self._outcome.received.append(event)
        return event

    async def send(self, kind: str, **fields: Any) -> None:
        """Send; what is raised is noted and goes on."""
        try:
            await self._send({"type": f"websocket.{kind}"} | fields)
        except Exception as error:
            name = "OSError" if isinstance(error, OSError) else type(error).__name__
            self._outcome.raised.append(f"{kind}: {name}")
            raise

    async def attempt(self, kind: str, **fields: Any) -> None:
        """Send; what is raised is noted and forgotten."""
        with suppress(Exception):
            await self.send(kind, **fields)

    async def accept(self, **fields: Any) -> None:
        await self.receive()
        await self.send("accept", **fields)


Script = Callable[[Talk], Awaitable[Any]]
Visit = Callable[[Client], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """An application, what the client does meanwhile, and what differs, meant or not."""

    script: Script
    visit: Visit | None = None
    differs: dict[str, str] = field(default_factory=dict)
    subprotocols: tuple[str, ...] = ()
    bug: str = ""


CASES: dict[str, Case] = {}


def case(
    visit: Visit | None = None,
    *,
    subprotocols: tuple[str, ...] = (),
    **differs: str,
) -> Callable[[Script], Script]:
    """Add an application to the table; `differs` names fields of `Outcome`, and says why."""

    def add(script: Script) -> Script:
        CASES[script.__name__] = Case(script, visit, differs, subprotocols)
        return script

    return add


async def run(case: Case, implementation: str) -> Outcome:
    """Run one case on one class."""
    outcome = Outcome()

    async def app(scope: Event, receive: Receive, send: Send) -> Any:
        return await case.script(Talk(outcome, receive, send))

    async with wire(app, ws=implementation, headers=[("x-server", "1")]) as server:
        try:
            url = server.ws("/")
            async with connect(url, subprotocols=list(case.subprotocols)) as client:
                response = client.connection.response
                assert response is not None
                outcome.status = response.status_code
                outcome.headers = without_the_moment(list(response.headers.raw_items()))
                if case.visit is not None:
                    await case.visit(client)
                await read_to_end(client, outcome)
        except HandshakeRefused as refused:
            outcome.status, outcome.body = refused.status, refused.body
            outcome.headers = without_the_moment(list(refused.headers.items()))
        await all_gone(server)
    return outcome


async def read_to_end(client: Client, outcome: Outcome) -> None:
    """Collect messages and the close frame."""
    with suppress(ConnectionClosed):
        while True:
            outcome.messages.append(await client.receive())
    end = await client.wait_closed()
    outcome.close = (end.code, end.reason)


def without_the_moment(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sort headers by name, and leave out what depends on time and key."""
    moment = ("date", "sec-websocket-accept")
    return sorted((n.lower(), value) for n, value in headers if n.lower() not in moment)


DROPPED = "uvicorn's class drops TCP; ours says 1011 for a failure and 1000 for a return"
ECHO = "our answer to a close frame repeats its code, not its reason"
LIBRARY = "ours is a RuntimeError where uvicorn's class meets an assertion of its library"
WORDING = "the body of a server's own refusal is not an application's business"


# The handshake


@case()
async def accepts_before_it_receives(talk: Talk) -> None:
    await talk.send("accept")
    await talk.receive()
    await talk.send("send", text="hello")
    await talk.send("close")


@case(close=DROPPED)
async def returns_something(talk: Talk) -> int:
    await talk.accept()
    return 123


@case(body=WORDING, headers=WORDING)
async def sends_before_accept(talk: Talk) -> None:
    await talk.receive()
    await talk.send("send", text="early")


@case(body=WORDING, headers=WORDING)
async def sends_nonsense_before_accept(talk: Talk) -> None:
    await talk.send("nonsense")


@case(close=DROPPED)
async def accepts_twice(talk: Talk) -> None:
    await talk.accept()
    await talk.send("accept")


@case()
async def goes_on_after_a_mistake(talk: Talk) -> None:
    await talk.receive()
    await talk.attempt("send", text="early")
    await talk.attempt("http.response.body", body=b"early")
    await talk.send("accept")
    await talk.attempt("accept")
    await talk.attempt("http.response.start", status=400, headers=[])
    await talk.send("send", text="hello")
    await talk.send("close")


@case()
async def answers_with_headers(talk: Talk) -> None:
    headers = [
        (b"X-Upper", b"1"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"Server", b"mine"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"set-cookie", b"b=2"),
        (b"x-latin", b"caf\xe9"),
        (b"x-empty", b""),
    ]
    await talk.accept(headers=headers)
    await talk.send("close")


@case()
async def answers_with_an_iterator_of_headers(talk: Talk) -> None:
    await talk.accept(headers=iter([(b"x-a", b"1"), [b"x-b", b"2"]]))
    await talk.send("close")


@case(subprotocols=("one", "two"))
async def chooses_a_subprotocol(talk: Talk) -> None:
    await talk.accept(subprotocol="two")
    await talk.send("close")


@case(subprotocols=("one", "two"))
async def chooses_no_subprotocol(talk: Talk) -> None:
    await talk.accept(subprotocol=None)
    await talk.send("close")


@case(subprotocols=("one", "two"))
async def chooses_a_subprotocol_by_header(talk: Talk) -> None:
    await talk.accept(headers=[(b"sec-websocket-protocol", b"one")])
    await talk.send("close")


# Refusals


@case()
async def closes_before_accept(talk: Talk) -> None:
    await talk.receive()
    await talk.send("close", code=4000, reason="no")
    await talk.receive()
    for kind in ("accept", "close", "send", "http.response.start"):
        await talk.attempt(kind, status=400, text="late")


@case()
async def closes_before_it_receives(talk: Talk) -> None:
    await talk.send("close")


@case(raised=LIBRARY)
async def denies(talk: Talk) -> None:
    await talk.receive()
    headers = [
        (b"Content-Type", b"text/html"),
        (b"content-length", b"20"),
        (b"x-own", b"1"),
    ]
    await talk.send("http.response.start", status=402, headers=headers)
    await talk.send("http.response.body", body=b"x" * 10, more_body=True)
    await talk.send("http.response.body", body=b"y" * 10)
    await talk.receive()
    for kind in ("http.response.body", "http.response.start", "accept", "send"):
        await talk.attempt(kind, status=400, headers=[], body=b"late", text="late")


@case()
async def denies_with_an_empty_body(talk: Talk) -> None:
    await talk.receive()
    await talk.send("http.response.start", status=404, headers=[])
    await talk.send("http.response.body", body=b"")


@case()
async def denies_with_an_unknown_status(talk: Talk) -> None:
    await talk.receive()
    await talk.send("http.response.start", status=599, headers=[])
    await talk.send("http.response.body", body=b"odd")


@case()
async def stumbles_while_it_denies(talk: Talk) -> None:
    await talk.receive()
    await talk.attempt("http.response.body", body=b"early")
    for status in (99, 600, 700):
        await talk.attempt("http.response.start", status=status, headers=[])
    await talk.send("http.response.start", status=403, headers=[])
    for kind in ("http.response.start", "accept", "close", "send"):
        await talk.attempt(kind, status=404, headers=[])
    await talk.send("http.response.body", body=b"hard", more_body=True)
    await talk.attempt("accept")
    await talk.send("http.response.body", body=b"body")


@case(body=WORDING, headers=WORDING)
async def denies_with_an_invalid_status(talk: Talk) -> None:
    await talk.receive()
    await talk.send("http.response.start", status=700, headers=[])


@case(body=WORDING, headers=WORDING)
async def raises_before_accept(talk: Talk) -> None:
    raise ValueError


@case(body=WORDING, headers=WORDING)
async def returns_before_accept(talk: Talk) -> None:
    await talk.receive()


# Messages


@case()
async def sends_all_kinds(talk: Talk) -> None:
    await talk.accept()
    for fields in (
        {"text": "é"},
        {"text": ""},
        {"bytes": b"\xff"},
        {"bytes": b""},
        {"text": None, "bytes": b"a"},
        {"text": "b", "bytes": None},
        {"text": "not me", "bytes": b"me"},
        {"bytes": bytearray(b"c")},
        {"bytes": memoryview(b"d")},
        {"text": None, "bytes": None},
        {},
    ):
        await talk.attempt("send", **fields)
    await talk.send("close")


async def talks_and_leaves(client: Client) -> None:
    for data in ("é", "", b"\xff", b"", "a" * 70_000):
        await client.send(data)
    await client.close(4321, "enough")


@case(talks_and_leaves, close=ECHO)
async def reads_all_that_came_before_the_close(talk: Talk) -> None:
    await talk.accept()
    while (await talk.receive())["type"] != "websocket.disconnect":
        pass


async def says_one_thing(client: Client) -> None:
    await client.send("one")


@case(says_one_thing)
async def keeps_a_message_that_a_cancelled_receive_missed(talk: Talk) -> None:
    await talk.receive()
    for _ in range(20):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await talk.receive()
    await talk.send("accept")
    await talk.receive()
    await talk.send("close")


async def says_two_things(client: Client) -> None:
    await client.send("one")
    await client.send("two")


@case(says_two_things)
async def receives_in_two_tasks(talk: Talk) -> None:
    await talk.accept()
    async with asyncio.timeout(1):
        events = await asyncio.gather(talk.receive(), talk.receive())
    for text in sorted(event["text"] for event in events):
        await talk.send("send", text=text)
    await talk.send("close")


@case()
async def sends_in_many_tasks(talk: Talk) -> None:
    await talk.accept()
    big = "a" * 50_000
    await asyncio.gather(*(talk.send("send", text=f"{n}{big}") for n in range(20)))
    await talk.send("close")


# The end


@case()
async def closes(talk: Talk) -> None:
    await talk.accept()
    await talk.send("close")
    await talk.receive()
    for kind in ("send", "close", "accept", "nonsense"):
        await talk.attempt(kind, text="late")


@case()
async def closes_while_another_task_receives(talk: Talk) -> None:
    await talk.accept()
    receiving = asyncio.create_task(talk.receive())
    await asyncio.sleep(0)
    await talk.send("close", code=4000, reason="enough")
    async with asyncio.timeout(3):
        await receiving


@case()
async def closes_with_a_code(talk: Talk) -> None:
    await talk.accept()
    await talk.send("close", code=4999, reason="x" * 123)
    await talk.receive()


@case()
async def closes_without_a_reason(talk: Talk) -> None:
    await talk.accept()
    await talk.send("close", code=1001, reason=None)
    await talk.receive()


async def leaves(client: Client) -> None:
    await client.close(1001, "away")


@case(leaves, close=ECHO)
async def sends_to_a_client_that_left(talk: Talk) -> None:
    await talk.accept()
    await talk.receive()
    await talk.attempt("send", text="late")
    await talk.attempt("send", bytes=b"late")


@case(leaves, close=ECHO)
async def raises_after_the_client_left(talk: Talk) -> None:
    await talk.accept()
    await talk.receive()
    raise ValueError


@case(close=DROPPED)
async def raises_after_accept(talk: Talk) -> None:
    await talk.accept()
    raise ValueError


@case(close=DROPPED)
async def cancels_itself(talk: Talk) -> None:
    await talk.accept()
    raise asyncio.CancelledError


@case()
async def raises_after_its_close(talk: Talk) -> None:
    await talk.accept()
    await talk.send("close", code=4000)
    raise ValueError


@pytest.mark.parametrize("name", list(CASES))
async def test_same_as_on_uvicorns_class(name: str) -> None:
    """Both classes give client and application the same, but for what is meant to differ."""
    case = CASES[name]
    ours = await run(case, OURS)
    uvicorns = await run(case, UVICORNS)
    different = {key for key in vars(ours) if getattr(ours, key) != getattr(uvicorns, key)}
    assert different == set(case.differs), (ours, uvicorns)
