"""One connection to a NATS server, whose messages are handed over as they are read. ▲

nats-py connects, logs in, speaks TLS and reads the protocol. What it does for each message is left
out: a task and a queue for each subscription (one per channel), a dictionary for each message's
headers, and dropping messages unseen when a queue is full. `Wire` takes messages over where nats-py
has read them (`_process_msg`), and puts commands where nats-py takes them from to write (`_pending`
and its flusher), which also keeps the order in which they were sent. Should another version of
nats-py do without these, no message of a node to itself would come back, and the link says so.

nats-py speaks TLS where the server asks for it, and sends the password in clear where it does not,
whatever the address says. `Wire` sends nothing then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

from nats.aio.client import Client

from pongee.errors import BrokerUnavailable

__all__ = ["NO_HEADERS", "Reply", "Wire"]

logger = logging.getLogger("pongee.brokers")

NO_HEADERS = b""

_INBOX = 1
"""The subscription that answers come by."""


class Reply(NamedTuple):
    """A message from the server.

    Attributes:
        headers: as they came.
        data: the rest.
    """

    headers: bytes
    data: bytes

    @property
    def status(self) -> bytes:
        """The three digits of what is no stored message; ``b""`` for one that is."""
        return self.headers[9:12] if self.headers[8:9] == b" " else b""

    @property
    def why(self) -> str:
        """What follows the status, for people."""
        return self.headers[9 : self.headers.find(b"\r\n")].decode("utf-8", "replace")


class _Asked:
    """A question, and the answers to it so far; `many` of them end with a status."""

    __slots__ = ("answers", "done", "many")

    def __init__(self, many: bool) -> None:
        self.answers: list[Reply] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.many = many


class Wire(Client):
    """A connection.

    Args:
        told: is called with each message's subscription, headers and data.
    """

    def __init__(self, told: Callable[[int, bytes, bytes], None]) -> None:
        super().__init__()
        self._told = told
        self._sids = count(_INBOX)
        self._asked: dict[bytes, _Asked] = {}
        self._tokens = count()
        self._inbox = b"_INBOX.%s." % secrets.token_hex(11).encode()

    def begin(self) -> None:
        """Begin to take answers; the first thing to do once connected."""
        self.sub(self._inbox.decode() + "*")

    def sub(self, subject: str) -> int:
        """Subscribe to `subject`; returns the subscription's number. The server knows later."""
        sid = next(self._sids)
        self.send(b"SUB %s %d\r\n" % (subject.encode(), sid))
        return sid

    def unsub(self, sid: int) -> None:
        """End a subscription; some of its messages may still come."""
        self.send(b"UNSUB %d\r\n" % sid)

    def pub(
        self, subject: str, data: bytes, headers: bytes = NO_HEADERS, reply: bytes = b""
    ) -> None:
        """Send a message."""
        size = len(headers) + len(data)
        if size > self.max_payload:
            raise BrokerUnavailable(
                f"a message of {size} bytes is more than the server's max_payload of "
                f"{self.max_payload}: raise it there"
            )
        to = subject.encode() + (b" " + reply if reply else b"")
        if headers:
            self.send(b"HPUB %s %d %d\r\n" % (to, len(headers), size), headers, data, b"\r\n")
        else:
            self.send(b"PUB %s %d\r\n" % (to, size), data, b"\r\n")

    def send(self, *parts: bytes) -> None:
        """Have a command written, soon and after everything sent before.

        Raises:
            ConnectionError: the connection is over.
        """
        if not self.is_connected or self._flush_queue is None:
            raise ConnectionError("the connection is over")
        command = b"".join(parts)
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def ask(self, subject: str, data: bytes, headers: bytes = NO_HEADERS) -> Reply:
        """Send a message and await its answer; somebody else must set a deadline."""
        return (await self._ask(subject, data, headers, many=False))[0]

    async def ask_many(self, subject: str, data: bytes) -> list[Reply]:
        """The same for answers in several messages, of which the last has a status."""
        return await self._ask(subject, data, NO_HEADERS, many=True)

    async def _ask(self, subject: str, data: bytes, headers: bytes, *, many: bool) -> list[Reply]:
        token = b"%x" % next(self._tokens)
        asked = _Asked(many)
        self._asked[token] = asked
        try:
            self.pub(subject, data, headers, self._inbox + token)
            await asked.done
        finally:
            del self._asked[token]
        return asked.answers

    def fail(self, reason: str) -> None:
        """Tell everybody who waits for an answer that none will come."""
        for asked in self._asked.values():
            if not asked.done.done():
                asked.done.set_exception(BrokerUnavailable(reason))

    async def drop(self) -> None:
        """Let go of the connection, whatever is still to be written: the server may hang."""
        self.fail("the connection is over")
        self._pending.clear()
        self._pending_data_size = 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        with suppress(Exception):
            await self.close()

    async def _process_info(  # called by nats-py before anything is sent
        self, info: dict[str, Any], initial_connection: bool = False
    ) -> None:
        if initial_connection and self.options.get("tls") is not None:
            if info.get("tls_available"):
                info["tls_required"] = True
            if not info.get("tls_required"):
                raise ConnectionError(
                    "the server speaks no TLS and would get the password in clear: give it a "
                    "certificate, or write nats:// instead of tls://"
                )
        await super()._process_info(info, initial_connection)

    async def _process_msg(  # called by nats-py for each message
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        try:
            if sid == _INBOX:
                self._answered(subject, Reply(headers or NO_HEADERS, data))
            else:
                self._told(sid, headers or NO_HEADERS, data)
        except Exception:  # nats-py would stop reading
            logger.exception("a message from the broker could not be handed over")

    def _answered(self, subject: bytes, reply: Reply) -> None:
        asked = self._asked.get(subject[len(self._inbox) :])
        if asked is None or asked.done.done():
            return
        asked.answers.append(reply)
        if not asked.many or reply.status:
            asked.done.set_result(None)
