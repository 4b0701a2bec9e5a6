"""Messages that are well framed and badly meant: depth, digits, odd Unicode, wrong kinds.

All go to ``pongee serve``: its typed JSON endpoint and its text endpoints. Right is an error reply
on a connection that lives on, or an answer that is strict JSON (RFC 8259) itself; a close with a
code that blames the message is right too. Never 1011, never a traceback, never a long computation.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.hostile.harness import TOKEN, Target
from tests.hostile.peer import Peer, frame

pytestmark = pytest.mark.anyio

TEXT, BINARY = 1, 2
NOT_JSON = "ERROR: 仅支持JSON格式"
BLAMED = {"close 1003", "close 1007", "close 1008"}
REFUSED = {"error", *BLAMED}
LIMIT = 64 * 1024


@dataclass(frozen=True)
class Row:
    """One message to the JSON endpoint."""

    name: str
    data: str | bytes
    right: set[str]
    source: str


def _nested(opening: str, closing: str, middle: str = "") -> str:
    depth = (LIMIT - len(middle)) // len(opening + closing)
    return opening * depth + middle + closing * depth


OWASP = "OWASP WebSocket Security Cheat Sheet, input validation"
DIGITS = "CVE-2020-10735"
JSON = "RFC 8259"
ODD = {"ack", *REFUSED}
"""Odd, and harmless if the answer repeats it as strict JSON."""

ROWS = [
    Row("opening brackets only", "[" * LIMIT, REFUSED, OWASP),
    Row("nested arrays", _nested("[", "]"), REFUSED, OWASP),
    Row("nested objects", _nested('{"a":', "}", "1"), REFUSED, OWASP),
    Row("nested arrays inside a message", '{"a":' + "[" * 30_000 + "]" * 30_000 + "}", ODD, OWASP),
    Row("150 levels inside a message", '{"a":' + "[" * 150 + "]" * 150 + "}", ODD, OWASP),
    Row("190 levels inside a message", '{"a":' * 190 + "1" + "}" * 190, ODD, OWASP),
    Row("20,000 digits", '{"n":' + "7" * 20_000 + "}", ODD, DIGITS),
    Row("4,200 digits", '{"n":' + "7" * 4200 + "}", ODD, DIGITS),
    Row("60,000 digits after the point", '{"n":0.' + "7" * 60_000 + "}", ODD, DIGITS),
    Row("exponent of 60,000 digits", '{"n":1e' + "9" * 60_000 + "}", ODD, DIGITS),
    Row("NaN", "NaN", REFUSED, JSON),
    Row("NaN inside a message", '{"n":NaN}', ODD, JSON),
    Row("Infinity inside a message", '{"n":-Infinity}', ODD, JSON),
    Row("1e999", '{"n":1e999}', ODD, JSON),
    Row("keys twice", '{"type":"a","type":"b","x":1,"x":2}', ODD, JSON),
    Row("10,000 keys", json.dumps({f"k{n}": n for n in range(4000)}), ODD, "CVE-2012-1150"),
    Row("lone surrogate in a value", '{"x":"\\ud800"}', ODD, JSON),
    Row("lone surrogate in a key", '{"\\udfff":1}', ODD, JSON),
    Row("byte order mark", "\ufeff{}", ODD, JSON),
    Row("empty text", "", REFUSED, JSON),
    Row("spaces only", " " * LIMIT, REFUSED, JSON),
    Row("NUL", '{"x":"\0"}', REFUSED, JSON),
    Row("escaped NUL", '{"x":"\\u0000"}', ODD, JSON),
    Row("binary that is no JSON", b"\x00\xff\xfe" * 100, REFUSED, "RFC 6455 section 7.4.1"),
    Row("pickle", b"\x80\x04\x95\x1b\x00\x00\x00.", REFUSED, "CVE-2025-61765"),
    Row("array instead of an object", "[]", REFUSED, OWASP),
    Row("text instead of an object", '"x"', REFUSED, OWASP),
    Row("type that is a number", '{"type":7}', REFUSED, OWASP),
    Row("type that is an object", '{"type":{"a":1}}', REFUSED, OWASP),
    Row("no type", '{"x":1}', {"ack"}, OWASP),
    Row("names that Python knows", '{"__class__":1,"model_dump":2,"self":3,"":4}', ODD, OWASP),
    Row("10^9 parts announced", '{"type":"x","parts":1000000000}', {"ack"}, "CVE-2026-33151"),
]


def _reject(constant: str) -> None:
    raise AssertionError(f"the answer holds {constant}, which is no JSON")


def _kind(payload: bytes) -> str:
    """Tell an error reply from an answer; either must be what a strict reader can read."""
    text = payload.decode()
    if text == NOT_JSON:
        return "error"
    said: dict[str, Any] = json.loads(text, parse_constant=_reject, parse_int=str)
    return str(said["type"])


async def _outcome(peer: Peer, data: str | bytes) -> str:
    """Send one message; returns the kind of the reply, or the end of the connection."""
    opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
    await peer.send(frame(opcode, payload))
    await peer.read(lambda: any(first & 0x0F in (1, 2, 8) for first, _ in peer.frames))
    return _kind(peer.texts()[0]) if peer.texts() else await peer.outcome(answer=True)


async def _is_usable(peer: Peer) -> bool:
    heard = len(peer.texts())
    await peer.send(frame(TEXT, b"{}"))
    return _kind((await peer.messages(heard + 1))[heard]) == "ack"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_odd_json_is_answered_and_the_connection_lives_on(serve: Target, row: Row) -> None:
    """An error reply, or strict JSON; within a second (50 ms are meant: the report has them)."""
    async with serve.attack(row.name, row.right) as attack, serve.upgraded("/ws/realtime") as peer:
        start = time.monotonic()
        attack.came(await _outcome(peer, row.data))
        assert time.monotonic() - start < 1
        if not attack.outcome.startswith("close"):
            assert await _is_usable(peer)


@pytest.mark.parametrize("path", ["/ws/chat/1", f"/ws/secure/1?token={TOKEN}", "/ws/auth"])
async def test_binary_where_text_is_expected(serve: Target, path: str) -> None:
    """An error reply that says so, or 1003 (RFC 6455 section 7.4.1); 1008 where it is no token."""
    right = {"close 1008"} if path == "/ws/auth" else {"error", "close 1003"}
    async with serve.attack(f"binary to {path}", right) as attack, serve.upgraded(path) as peer:
        attack.came(await _outcome(peer, b"\x00\xff"))


async def test_nothing_but_rubbish_is_ended(serve: Target) -> None:
    """A peer is told its errors some times, and then closed with 1008."""
    async with serve.attack("1,000 messages of rubbish") as attack:
        async with serve.upgraded("/ws/realtime") as peer:
            await peer.exchange(frame(TEXT, b"rubbish") * 1000, peer.is_closed)
            attack.came(await peer.outcome(answer=True))
        assert attack.outcome.endswith("close 1008")
        assert len(peer.texts()) < 100
