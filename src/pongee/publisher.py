"""`Publisher`: publish from programs that are not the application."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from pongee.brokers.base import Broker
from pongee.brokers.choose import choose_broker, is_shared
from pongee.channels.names import check_channel
from pongee.channels.options import PLAIN, ChannelOptions, stream_of
from pongee.channels.publication import ClientInfo, Position, Publication, publication_of
from pongee.clock import SystemClock, TimerWheel
from pongee.errors import ConfigurationError, UsageError
from pongee.fleet.layout import LAYOUT, Layout, read_layout
from pongee.limits import LAYOUT_AGE
from pongee.settings import load_settings

__all__ = ["Publisher"]


class Publisher:
    """Publishes to the channels of an application from other processes.

    A script, a worker of a task queue, another service: it needs the broker's address and nothing
    of the application. What was declared of a channel (how much it keeps) is learned from the
    broker, where the application leaves word of it. Payloads are not validated by the channel's
    type: that is the application's, which is not here.

    ```python
    with Publisher("redis://localhost:6379/0") as publisher:
        publisher.publish_sync("chat:7", {"text": "sold"})
    ```

    Args:
        broker: its address; by default the ``PONGEE_BROKER`` of the environment.
        prefix: by default ``PONGEE_BROKER_PREFIX``.

    Raises:
        ConfigurationError: there is no such broker, or it is ``memory://``, which is of one
            process.

    Concurrency: one object serves one event loop by `publish`, and any threads by `publish_sync`,
    which has a connection and a thread of its own, in each process that a fork makes anew.
    """

    def __init__(self, broker: str | None = None, *, prefix: str | None = None) -> None:
        settings = load_settings(broker=broker, broker_prefix=prefix)
        self._address = settings.broker.get_secret_value()
        self._prefix = settings.broker_prefix
        if not is_shared(self._address):
            raise ConfigurationError(
                "Publisher: memory:// is of one process, and this is another; give the broker that "
                "the application has, as Publisher('redis://…'), or in PONGEE_BROKER"
            )
        self._line: _Line | None = None
        self._thread: _Thread | None = None
        self._lock = threading.Lock()

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Position:
        """Publish; connects at the first call.

        Args:
            channel: as `Pongee.publish`, like the others.
            data: anything that can be written as JSON; ``bytes`` only where nothing is declared.
            key: as `Pongee.publish`.
            idempotency_key: as `Pongee.publish`.
            tags: as `Pongee.publish`.

        Returns:
            The position in the channel's stream; offset 0 where it keeps no history.

        Raises:
            UsageError: the name is not allowed, or `data` cannot be sent in this channel.
            ConfigurationError: the broker refuses us, or no application has been there.
            BrokerUnavailable: it may or may not have been accepted.

        Cancellation: likewise.
        """
        loop = asyncio.get_running_loop()
        if self._line is None or self._line.loop.is_closed():
            self._line = _Line(self._address, self._prefix, loop)
        if self._line.loop is not loop:
            raise UsageError("a Publisher serves one event loop; make one for each")
        return await self._line.publish(
            channel, data, key=key, idempotency_key=idempotency_key, tags=tags
        )

    def publish_sync(
        self,
        channel: str,
        data: Any,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> Position:
        """Publish, from code that is not asynchronous.

        Args:
            channel: as `publish`, like the others.
            data: as `publish`.
            key: as `publish`.
            idempotency_key: as `publish`.
            tags: as `publish`.
            timeout: seconds.

        Raises:
            TimeoutError: it may or may not have been published.
            UsageError: as `publish`; likewise the others.
        """
        with self._lock:
            if self._thread is None or self._thread.process != os.getpid():
                self._thread = _Thread(self._address, self._prefix)
            thread = self._thread
        publishing = thread.line.publish(
            channel, data, key=key, idempotency_key=idempotency_key, tags=tags
        )
        return asyncio.run_coroutine_threadsafe(publishing, thread.loop).result(timeout)

    async def aclose(self) -> None:
        """Let go of the connection of `publish`. Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def close(self) -> None:
        """Let go of the connection and the thread of `publish_sync`. Idempotent."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.process == os.getpid():
            thread.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Line:
    """A connection to the broker, on one event loop."""

    def __init__(self, address: str, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        clock = SystemClock()
        self.loop = loop
        self._clock = clock
        self._broker: Broker = choose_broker(address, prefix, clock, TimerWheel(clock))
        self._starting: asyncio.Task[None] | None = None
        self._layout: Layout = []
        self._read_at = float("-inf")

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        key: str | None,
        idempotency_key: str | None,
        tags: Mapping[str, str] | None,
    ) -> Position:
        check_channel(channel)
        if self._starting is None:
            self._starting = asyncio.ensure_future(
                self._broker.start(_Nobody(), secrets.token_hex(8))
            )
        try:
            await asyncio.shield(self._starting)
        except ConfigurationError:
            self._starting = None  # it may be mended by the next time
            raise
        options = await self._options_of(channel)
        publication = publication_of(data, key=key, tags=tags)
        if publication.binary and options is not PLAIN:
            raise UsageError(f"{channel!r} is declared, so that it carries JSON; this is bytes")
        return await self._broker.publish(
            channel,
            publication,
            stream_of(options),
            idempotency_key=idempotency_key,
            idempotency_window=options.idempotency_window,
        )

    async def _options_of(self, channel: str) -> ChannelOptions:
        if self._clock.monotonic() >= self._read_at + LAYOUT_AGE:
            await self._read_layout()
        for pattern, options in self._layout:
            if pattern.match(channel) is not None:
                return options
        return PLAIN

    async def _read_layout(self) -> None:
        written = await self._broker.get(LAYOUT)
        if written is None and self._layout:
            return  # the broker has come back empty, and the application will be as well
        if written is None:
            raise ConfigurationError(
                "no application has been started with this broker and prefix, so that nobody knows "
                "what its channels keep; start it once, or mend PONGEE_BROKER and "
                "PONGEE_BROKER_PREFIX"
            )
        try:
            self._layout = read_layout(written)
        except (msgspec.DecodeError, ConfigurationError) as error:
            raise ConfigurationError(
                f"what the application wrote of its channels cannot be read: {error}; it and this "
                "program should have the same version of Pongee"
            ) from None
        self._read_at = self._clock.monotonic()

    async def close(self) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])
            await self._broker.stop()


class _Thread:
    """An event loop in a thread of its own."""

    def __init__(self, address: str, prefix: str) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.line = _Line(address, prefix, self.loop)
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="pongee-publisher", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.line.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class _Nobody:
    """A sink of one that only publishes."""

    def on_publication(self, channel: str, publication: Publication) -> None:
        """Nothing was subscribed to."""

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Likewise."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Likewise."""

    def on_control(self, data: bytes) -> None:
        """It has no connections to act on."""

    def on_link(self, up: bool) -> None:
        """Whoever publishes is told."""
