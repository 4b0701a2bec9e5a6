"""The JavaScript SDK, in a process of Node's."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conformance.sdk import WITHIN, GetToken, SdkClient, SdkError
from tests.conftest import require_tool

HERE = Path(__file__).parent / "javascript"
LINE = 4 * 1024 * 1024


class JavascriptClient(SdkClient):
    """A client in the process."""

    def __init__(self, node: Node, number: int, get_token: GetToken | None) -> None:
        super().__init__()
        self._node = node
        self._number = number
        self._answers: dict[tuple[str, str | None], Callable[[Any], Any]] = {}
        if get_token is not None:
            self._answers["get_token", None] = get_token

    async def do(self, name: str, **args: Any) -> Any:
        for what in ("token", "state"):
            getter = args.pop(f"get_{what}", None)
            if getter is not None:
                self._answers[f"get_{what}", args["channel"]] = getter
                args[f"asks_{what}"] = True
        return await self._node.run(self._number, name, args)

    def answer(self, event: dict[str, Any]) -> Any:
        """Answer the SDK's question for a token or a state."""
        channel = event.get("channel")
        return self._answers[event["on"], channel](channel)


class Node:
    """The process with the SDK in one encoding."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._clients: dict[int, JavascriptClient] = {}
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def client(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        data: Any = None,
        transports: list[dict[str, str]] | None = None,
        emulation: str | None = None,
    ) -> JavascriptClient:
        """Make a client.

        Args:
            url: of the WebSocket.
            token: the first one.
            get_token: makes the next ones.
            data: goes with the connect command.
            transports: instead of `url`, such as ``[{"transport": "sse", "endpoint": "http://…"}]``.
            emulation: where those transports send their commands.
        """
        number = next(self._numbers)
        made = self._clients[number] = JavascriptClient(self, number, get_token)
        await made.do(
            "create",
            url=url,
            token=token,
            asks_token=get_token is not None,
            data=data,
            transports=transports,
            emulation=emulation,
        )
        return made

    async def run(self, client: int, name: str, args: dict[str, Any]) -> Any:
        """Run a command and return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._write({"id": number, "client": client, "do": name, "args": args})
        async with asyncio.timeout(WITHIN):
            got = await answer
        if "error" in got:
            raise SdkError(got["error"]["code"], got["error"]["message"])
        return got["result"]

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def read(self) -> None:
        """Take what the process writes, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "on" not in message:
                self._answers.pop(message["id"]).set_result(message)
                continue
            client = self._clients[message.pop("of")]
            client.events.append(message)
            if "ask" in message:
                value = client.answer(message)
                self._write({"do": "answer", "ask": message["ask"], "value": value})


@asynccontextmanager
async def javascript(encoding: str) -> AsyncIterator[Node]:
    """Start Node with the SDK in `encoding`; without them the test is skipped, but never in CI."""
    program = require_tool(shutil.which("node"), "Debian's nodejs", "apt-get install nodejs npm")
    there = (HERE / "node_modules" / "centrifuge").is_dir()
    require_tool(str(HERE) if there else None, "the SDK for Node", "make tools")
    process = await asyncio.create_subprocess_exec(
        program,
        str(HERE / "driver.mjs"),
        encoding,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE,
    )
    node = Node(process)
    reading = asyncio.create_task(node.read())
    try:
        yield node
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading
