"""The far side of an ASGI WebSocket, in memory: every send can be held, failed or let through."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.websockets import WebSocket

from pongee.clock import TimerWheel
from pongee.codes import CloseCause
from pongee.limits import Limits
from pongee.links.asgi import AsgiLink, ServerTraits
from pongee.links.base import Overflow
from pongee.links.stall import StallWatch
from pongee.testing import ManualClock

T = TypeVar("T")


async def all_blocked() -> None:
    """Let the event loop run until nothing but this task could go on."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


def start(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `coroutine` beside the test."""
    return asyncio.get_running_loop().create_task(coroutine)


class Server:
    """An ASGI server's two callables. `sent` is what has reached the wire."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.held: list[asyncio.Future[None]] = []
        self.aborted = 0
        self._holding = False
        self._error: Exception | None = None
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def texts(self) -> list[str]:
        """What has been sent, each close frame as its code."""
        return [str(event.get("text", event.get("code"))) for event in self.sent]

    def arrive(self, **event: Any) -> None:
        """Let an event arrive."""
        self._incoming.put_nowait({"type": "websocket.receive"} | event)

    def hold(self) -> None:
        """Block every send from now on, as a full transport does."""
        self._holding = True

    def let_one(self) -> None:
        """Complete the oldest blocked send, unless its caller was cancelled meanwhile."""
        send = self.held.pop(0)
        if not send.done():
            send.set_result(None)

    def flow(self) -> None:
        """Complete what is blocked and block no more."""
        self._holding = False
        while self.held:
            self.let_one()

    def fail(self, error: Exception) -> None:
        """Fail what is blocked and every later send."""
        self._error = error
        while self.held:
            self.fail_one(error)

    def fail_one(self, error: Exception) -> None:
        """Fail the oldest blocked send."""
        self.held.pop(0).set_exception(error)

    def abort(self) -> None:
        """Cut the transport: a blocked send returns, as it does on uvicorn."""
        self.aborted += 1
        self.flow()

    async def receive(self) -> dict[str, Any]:
        """Be the application's `receive`."""
        return await self._incoming.get()

    async def send(self, event: Any) -> None:
        """Be the application's `send`."""
        if self._error is not None:
            raise self._error
        if self._holding:
            gate = asyncio.get_running_loop().create_future()
            self.held.append(gate)
            try:
                await gate
            finally:
                if gate in self.held:
                    self.held.remove(gate)
        self.sent.append(event)


class Owner:
    """Notes what the link tells."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.lost: list[CloseCause] = []
        self.stalled: list[str] = []

    def on_message(self, data: str | bytes) -> None:
        self.messages.append(data)

    def on_lost(self, cause: CloseCause) -> None:
        self.lost.append(cause)

    def on_stalled(self, why: str) -> None:
        self.stalled.append(why)


class Wired:
    """A link between an `Owner` and a `Server`, on a clock moved by hand."""

    def __init__(
        self, overflow: Overflow = "disconnect", *, can_abort: bool = True, **limits: Any
    ) -> None:
        self.clock = ManualClock()
        self.server = Server()
        self.owner = Owner()
        self._overflow = overflow
        self._can_abort = can_abort
        self._limits = Limits(**limits)
        self.watch = StallWatch(TimerWheel(self.clock))
        self.link: AsgiLink

    async def __aenter__(self) -> Wired:
        scope = {"type": "websocket", "path": "/", "headers": [], "extensions": {}}
        websocket = WebSocket(scope, receive=self.server.receive, send=self.server.send)
        self.server.arrive(type="websocket.connect")
        await websocket.accept()
        self.server.sent.clear()
        abort = self.server.abort if self._can_abort else None
        self.link = AsgiLink(
            websocket,
            self.owner,
            limits=self._limits,
            overflow=self._overflow,
            watch=self.watch,
            traits=ServerTraits("test", abort, pings=False),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.flow()
        await all_blocked()
