"""The part of `Pongee` that declares channels and acts on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.params import Depends

from pongee.app_acting import ActingFace
from pongee.centrifuge.client import Client
from pongee.centrifuge.endpoint import websocket_endpoint
from pongee.centrifuge.http_streams import stream_routes
from pongee.channels.names import check_channel
from pongee.channels.options import ChannelOptions, Overflow
from pongee.channels.patterns import ChannelPattern
from pongee.channels.publication import Position, Publication, publication_of
from pongee.errors import ConfigurationError, UsageError
from pongee.guards.origin import OriginPolicy
from pongee.guards.policy import TokenPolicy, public
from pongee.handlers.channel import Access, Channel
from pongee.handlers.connection import Connection
from pongee.handlers.event import EventHandler
from pongee.handlers.rpc import Method
from pongee.handlers.table import ConnectionSpec
from pongee.limits import ClientLimits
from pongee.settings import Settings

__all__ = ["ChannelFace"]

Payload = TypeVar("Payload")
Function = TypeVar("Function", bound=Callable[..., Any])


class ChannelFace(ActingFace):
    """Channels, RPC and client SDKs; `Pongee` adds sessions and the application."""

    settings: Settings
    router: APIRouter
    _origins: OriginPolicy
    _loop: asyncio.AbstractEventLoop | None

    # Declaring

    def channel(
        self,
        pattern: str,
        payload: type[Payload],
        *,
        history: int = 0,
        history_ttl: float | None = None,
        recover: bool | None = None,
        positioned: bool | None = None,
        cache: bool = False,
        presence: bool = False,
        join_leave: bool = False,
        may_subscribe: Access = None,
        may_publish: Access = None,
        may_see_presence: Access = None,
        may_read_history: Access = None,
        client_publishing: bool = True,
        overflow: Overflow = "disconnect",
        idempotency_window: float = 300.0,
    ) -> Channel[Payload]:
        """Declare a family of channels.

        Nobody may do anything in it until you say who: by a ``may_…`` policy, or by a handler that
        decides (`Channel.on_subscribe` and so on), or both.

        Args:
            pattern: such as ``chat:{room_id}``; a parameter is one or more characters but ``:``.
            payload: the type of its messages, anything Pydantic validates; they travel as JSON.
            history: publications that are kept.
            history_ttl: seconds they are kept; 300 by default.
            recover: whether a client that was away gets what it missed; with history, yes.
            positioned: whether a client is told when it missed something; as `recover`.
            cache: whether a client gets the newest publication as it subscribes, and nothing older.
            presence: whether it is known who is there.
            join_leave: whether members who ask for it are told who comes and goes.
            may_subscribe: who may subscribe.
            may_publish: which clients may publish; the application always may.
            may_see_presence: which clients may ask who is there.
            may_read_history: which clients may read the history.
            client_publishing: false declines every client's publication, whatever `may_publish`.
            overflow: what happens to its messages when a client reads too slowly.
            idempotency_window: seconds that an idempotency key is remembered.

        Raises:
            ConfigurationError: it cannot work, or overlaps with a channel declared before.
        """
        recovers = history > 0 and not cache if recover is None else recover
        options = ChannelOptions(
            history=history,
            history_ttl=300.0 if history_ttl is None else history_ttl,
            presence=presence,
            join_leave=join_leave,
            recover=recovers,
            positioned=recovers if positioned is None else positioned,
            cache=cache,
            overflow=overflow,
            idempotency_window=idempotency_window,
        )
        _check_options(pattern, options, history_ttl)
        channel: Channel[Payload] = Channel(
            ChannelPattern(pattern),
            payload,
            options,
            access={
                "subscribe": may_subscribe,
                "publish": may_publish,
                "presence": may_see_presence,
                "history": may_read_history,
            },
            client_publishing=client_publishing,
            client_type=Client,
            publish=self.publish,
        )
        self._node.declared.add_channel(channel)
        return channel

    def rpc(self, name: str) -> Callable[[Function], Function]:
        """Declare an RPC method: the one parameter that is not FastAPI's is the request.

        Args:
            name: as clients call it.

        Raises:
            ConfigurationError: declared twice, or the function's signature cannot be used.
        """

        def declare(function: Function) -> Function:
            self._node.declared.add_method(Method(name, function, Client))
            return function

        return declare

    def connection(
        self,
        *,
        auth: Any,
        anonymous: bool = False,
        prefix: str = "/connection",
        ping_interval: float = 25.0,
        pong_timeout: float = 8.0,
        personal_channel: str | None = None,
        emulated_headers: Sequence[str] = (),
        origins: Sequence[str] | OriginPolicy | None = None,
        limits: ClientLimits | None = None,
    ) -> Connection:
        """Let client SDKs connect, at ``{prefix}/websocket``; or by HTTP where that is blocked.

        Args:
            auth: `public`, or a `JWTBearer` or other `TokenPolicy`, which verifies the tokens of
                connections and subscriptions, or a FastAPI dependency that returns an `Identity`
                or a user's id, or raises.
            anonymous: whether a client may connect that proves nothing.
            prefix: of the paths.
            ping_interval: seconds between two pings to a client.
            pong_timeout: seconds its answer may take; less than `ping_interval`.
            personal_channel: the channel each user is subscribed to, such as ``"#{user}"``.
            emulated_headers: headers that a client may bring in its connect command, for
                dependencies that read them. They are as untrusted as any header.
            origins: allowed beside the server's own; by default the settings'.
            limits: by default `ClientLimits` with the settings' ``max_message_size``.

        Raises:
            ConfigurationError: it cannot work, or was declared before.
        """
        declared = self._node.declared
        if declared.connection is not None:
            raise ConfigurationError("pongee.connection(...) was called before")
        if not 0 < pong_timeout < ping_interval:
            raise ConfigurationError(
                f"pong_timeout={pong_timeout!r} must be greater than 0 and less than "
                f"ping_interval={ping_interval!r}"
            )
        policy: Any = auth.dependency if isinstance(auth, Depends) else auth
        own = policy is public or isinstance(policy, TokenPolicy)
        if not callable(policy):
            raise ConfigurationError(
                f"connection(auth={policy!r}): no policy; allowed: public, JWTBearer(...), a "
                "TokenPolicy, or a FastAPI dependency"
            )
        checked = self._origin_policy(origins)
        for source in getattr(policy, "sources", ()):
            if getattr(source, "needs_origin_check", False) and not checked.checks:
                raise ConfigurationError(
                    "connection: a token from a cookie needs an origin check, or any site could "
                    "use your users' cookies; take origins='*' away or name the allowed origins"
                )
        spec = ConnectionSpec(
            auth=policy,
            anonymous=anonymous or policy is public,
            prefix=prefix.rstrip("/"),
            ping_interval=ping_interval,
            pong_timeout=pong_timeout,
            personal=personal_channel,
            emulated_headers=frozenset(name.lower() for name in emulated_headers),
            policy=None
            if own
            else EventHandler(policy, where="connection (auth)", given={Client: "client"}),
            origins=checked,
            limits=limits or ClientLimits(max_message_size=self.settings.max_message_size),
        )
        declared.connection = spec
        self.router.add_api_websocket_route(
            f"{spec.prefix}/websocket", websocket_endpoint(spec, lambda: self._node.service)
        )
        self.router.routes.extend(stream_routes(spec, lambda: self._node.service))
        return Connection(spec, Client)

    def _origin_policy(self, origins: Sequence[str] | OriginPolicy | None) -> OriginPolicy:
        if origins is None:
            return self._origins
        if isinstance(origins, OriginPolicy):
            return origins
        if isinstance(origins, str):
            raise ConfigurationError(f"origins={origins!r}: give a list, origins=[{origins!r}]")
        return OriginPolicy(origins)

    # Publishing

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Position:
        """Hand `data` to everybody subscribed to `channel`, sessions and client SDKs alike.

        Args:
            channel: a name of 1 to 255 printable characters.
            data: in a declared channel a message of its type. Else ``str`` and ``bytes`` reach
                text and binary endpoints as they are; anything else is written as JSON, once.
            key: what ``latest_per_key`` compares.
            idempotency_key: a second publication with it in this channel changes nothing, and
                returns the position of the first.
            tags: names and values that travel beside the payload to client SDKs.

        Returns:
            The position in the channel's stream; offset 0 where it keeps no history.

        Raises:
            UsageError: the name is not allowed, or `data` cannot be sent in this channel.
            BrokerUnavailable: it may or may not have been accepted.

        Delivery: in the order of calls for each channel, from the next turn of the event loop on;
        never waits for a client. Under load messages gather for up to 20 ms. What is recovered,
        and what is not, is told in the documentation on delivery.
        """
        declared, board = self._node.declared, self._node.board
        found = declared.find(check_channel(channel))
        if found is None:
            return await board.publish(
                channel, publication_of(data, key=key, tags=tags), idempotency_key=idempotency_key
            )
        publication = Publication(found[0].write(data), tags=_texts(tags), key=key)
        return await board.publish(
            channel, publication, found[0].options, idempotency_key=idempotency_key
        )

    async def broadcast(
        self,
        channels: Iterable[str],
        data: Any,
        *,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[Position]:
        """Publish `data` to many channels; returns a position for each, in order.

        Raises:
            UsageError: as `publish`; channels before the wrong one got it.
            BrokerUnavailable: likewise.
        """
        return [
            await self.publish(channel, data, idempotency_key=idempotency_key, tags=tags)
            for channel in channels
        ]

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
        """Publish from another thread, such as a plain ``def`` route or a scheduler's job.

        Args:
            channel: as `publish`, like the others.
            data: as `publish`.
            key: as `publish`.
            idempotency_key: as `publish`.
            tags: as `publish`.
            timeout: seconds.

        Raises:
            UsageError: called on the event loop's own thread, or the application does not run.
            TimeoutError: it may or may not have been published.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            raise UsageError(
                "publish_sync: the application does not run; it starts with its server"
            )
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            raise UsageError("publish_sync would block the event loop; use `await publish(...)`")
        publishing = self.publish(
            channel, data, key=key, idempotency_key=idempotency_key, tags=tags
        )
        return asyncio.run_coroutine_threadsafe(publishing, loop).result(timeout)


def _check_options(pattern: str, options: ChannelOptions, history_ttl: float | None) -> None:
    if options.history < 0 or not options.history_ttl > 0 or not options.idempotency_window > 0:
        raise ConfigurationError(
            f"{pattern}: history={options.history!r} must be 0 or more, "
            f"history_ttl={options.history_ttl!r} and "
            f"idempotency_window={options.idempotency_window!r} more than 0 seconds"
        )
    tracked = options.recover or options.positioned or options.cache
    if not options.history and (tracked or history_ttl is not None):
        raise ConfigurationError(
            f"{pattern}: recover, positioned, cache and history_ttl need history=<publications>"
        )
    if options.overflow not in ("disconnect", "drop_oldest", "latest_per_key"):
        raise ConfigurationError(f"{pattern}: overflow={options.overflow!r}")
    if tracked and options.overflow != "disconnect":
        raise ConfigurationError(
            f"{pattern}: overflow={options.overflow!r} drops messages, so that no client could "
            "keep its position: set recover=False and positioned=False, or overflow='disconnect'"
        )


def _texts(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    if tags is not None and not all(
        isinstance(text, str) for pair in tags.items() for text in pair
    ):
        raise UsageError("tags are texts: a mapping of str to str")
    return dict(tags) if tags else None
