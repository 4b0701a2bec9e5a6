"""The Python SDK, in the test's own event loop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import is_dataclass
from typing import Any

import centrifuge
from tests.conformance.sdk import GetToken, SdkClient, SdkError

CLIENT_EVENTS = (
    "connecting",
    "connected",
    "disconnected",
    "error",
    "subscribed",
    "subscribing",
    "unsubscribed",
    "publication",
    "join",
    "leave",
)
SUBSCRIPTION_EVENTS = (
    "subscribing",
    "subscribed",
    "unsubscribed",
    "publication",
    "join",
    "leave",
    "error",
)


class PythonClient(SdkClient):
    """A client of the SDK."""

    def __init__(self, url: str, protobuf: bool, get_token: GetToken | None, **options: Any):
        super().__init__()
        self._protobuf = protobuf
        if options["data"] is not None:
            options["data"] = self._encode(options["data"])
        self.inner = centrifuge.Client(
            url,
            events=self._events(centrifuge.ClientEventHandler, CLIENT_EVENTS, server_side=True),
            use_protobuf=protobuf,
            get_token=self._getter(get_token, None),
            min_reconnect_delay=0.02,
            max_reconnect_delay=0.2,
            proxy=None,
            **options,
        )

    async def do(self, name: str, **args: Any) -> Any:
        if "data" in args and args["data"] is not None:
            args["data"] = self._encode(args["data"])
        try:
            return await getattr(self, f"_{name}")(**args)
        except centrifuge.ReplyError as failed:
            raise SdkError(failed.code, failed.message) from None

    async def _connect(self) -> None:
        await self.inner.connect()

    async def _disconnect(self) -> None:
        await self.inner.disconnect()

    async def _subscribe(self, channel: str, **options: Any) -> None:
        events = self._events(
            centrifuge.SubscriptionEventHandler,
            SUBSCRIPTION_EVENTS,
            server_side=False,
            channel=channel,
        )
        getter = self._getter(options.pop("get_token", None), channel)
        if (get_state := options.pop("get_state", None)) is not None:
            options["get_state"] = self._state_getter(get_state)
        made = self.inner.new_subscription(
            channel,
            events,
            get_token=getter,
            min_resubscribe_delay=0.02,
            max_resubscribe_delay=0.2,
            **options,
        )
        await made.subscribe()

    async def _resubscribe(self, channel: str) -> None:
        await self._subscription(channel).subscribe()

    async def _unsubscribe(self, channel: str) -> None:
        await self._subscription(channel).unsubscribe()

    def _subscription(self, channel: str) -> Any:
        found = self.inner.get_subscription(channel)
        assert found is not None
        return found

    async def _publish(self, channel: str, data: Any) -> None:
        await self.inner.publish(channel, data)

    async def _rpc(self, method: str, data: Any) -> Any:
        return self._plain(await self.inner.rpc(method, data))

    async def _presence(self, channel: str) -> Any:
        return self._plain(await self.inner.presence(channel))

    async def _presence_stats(self, channel: str) -> Any:
        return self._plain(await self.inner.presence_stats(channel))

    async def _history(self, channel: str, **options: Any) -> Any:
        if "since" in options:
            options["since"] = centrifuge.StreamPosition(**options["since"])
        return self._plain(await self.inner.history(channel, **options))

    # Between the SDK's world and the tests'

    def _events(self, base: type, names: tuple[str, ...], **source: Any) -> Any:
        def noting(name: str) -> Callable[[Any, Any], Any]:
            async def note(_: Any, context: Any) -> None:
                self.events.append({**self._plain(context), **source_of(context), "on": name})

            return note

        def source_of(context: Any) -> dict[str, Any]:
            channel = getattr(context, "channel", None)
            return source if channel is None else {**source, "channel": channel}

        return type("Noting", (base,), {f"on_{name}": noting(name) for name in names})()

    def _getter(self, get_token: GetToken | None, channel: str | None) -> Any:
        if get_token is None:
            return None

        async def get(*_: Any) -> str:
            self.events.append({"on": "get_token", "channel": channel})
            made = get_token(channel)
            if made is None:
                raise centrifuge.UnauthorizedError
            return made

        return get

    def _state_getter(self, get_state: Callable[[str], dict[str, Any]]) -> Any:
        async def get(channel: str) -> Any:
            self.events.append({"on": "get_state", "channel": channel})
            return centrifuge.StreamPosition(**get_state(channel))

        return get

    def _encode(self, data: Any) -> Any:
        return json.dumps(data).encode() if self._protobuf else data

    def _plain(self, value: Any) -> dict[str, Any]:
        """Write what the SDK tells as plain values; payloads of Protobuf come as bytes."""
        plain: dict[str, Any] = self._decode(value)
        publication: dict[str, Any] = plain.pop("pub", {})
        return publication | plain

    def _decode(self, value: Any) -> Any:
        match value:
            case dict():
                return {name: self._decode(one) for name, one in value.items()}
            case list():
                return [self._decode(one) for one in value]
            case bytes():
                return json.loads(value)
            case Exception():
                return {"code": getattr(value, "code", None), "message": str(value)}
        return self._decode(vars(value)) if is_dataclass(value) else value


class PythonKit:
    """The SDK in one encoding."""

    def __init__(self, encoding: str) -> None:
        self._protobuf = encoding == "protobuf"
        self.clients: list[PythonClient] = []

    async def client(
        self,
        url: str,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        data: Any = None,
    ) -> PythonClient:
        """Make a client."""
        made = PythonClient(url, self._protobuf, get_token, token=token or "", data=data)
        self.clients.append(made)
        return made


@asynccontextmanager
async def python(encoding: str) -> AsyncIterator[PythonKit]:
    """Make a kit; its clients are disconnected in the end."""
    kit = PythonKit(encoding)
    try:
        yield kit
    finally:
        for client in kit.clients:
            await client.inner.disconnect()
