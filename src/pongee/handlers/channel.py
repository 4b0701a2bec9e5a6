"""A declared channel: its pattern, its messages, and who may do what in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import JsonValue, TypeAdapter

from pongee.channels.options import ChannelOptions
from pongee.channels.patterns import ChannelPattern
from pongee.channels.publication import Position
from pongee.errors import ClientError, ConfigurationError, UsageError
from pongee.guards.policy import public
from pongee.handlers.event import EventHandler, InvalidParameters
from pongee.handlers.faults import read_json

__all__ = ["Access", "Action", "Channel", "Publish"]

Payload = TypeVar("Payload")
Handler = TypeVar("Handler", bound=Callable[..., Any])

Action = Literal["subscribe", "publish", "presence", "history"]
Access = Callable[..., Any] | Literal["subscribers"] | None
"""Who may: `public`, ``"subscribers"`` of the channel, whoever a FastAPI dependency lets pass (it
raises, or returns false, to refuse), or nobody (`None`)."""

Publish = Callable[..., Awaitable[Position]]


def _denied() -> ClientError:
    return ClientError(103, "permission denied")


class Channel(Generic[Payload]):
    """A family of channels with one pattern, such as ``chat:{room_id}``. Made by `Pongee.channel`.

    Handlers are registered with `on_subscribe`, `on_publish`, `on_unsubscribe` and `on_presence`.
    Each may name what it needs: the channel's parameters (``room_id: int``), the message, the
    `Client`, and anything FastAPI resolves (``Depends``, ``Header``, ``Request``…). Dependencies
    open before the event and close after it: nothing is held while nothing happens.

    A handler refuses with `ClientError`, `Refused` or ``HTTPException``.
    """

    def __init__(
        self,
        pattern: ChannelPattern,
        payload: Any,
        options: ChannelOptions,
        *,
        access: Mapping[Action, Access],
        client_publishing: bool,
        client_type: type,
        publish: Publish,
    ) -> None:
        self.pattern = pattern
        self.options = options
        self.client_publishing = client_publishing
        self._adapter: TypeAdapter[Any] = TypeAdapter(payload)
        self._payload = payload
        self._client_type = client_type
        self._publish = publish
        self._access = dict(access)
        self._policies: dict[Action, EventHandler] = {}
        self._handlers: dict[str, EventHandler] = {}
        for action, who in self._access.items():
            if who is None or who == "subscribers" or who is public:
                continue
            if not callable(who):
                raise ConfigurationError(
                    f"{pattern.text}: {who!r} is nobody who may {action}; allowed: public, "
                    '"subscribers", a FastAPI dependency, or None for nobody'
                )
            self._policies[action] = self._read(who, f"may {action}")

    def __repr__(self) -> str:
        return f"<Channel {self.pattern.text}>"

    # Declaring

    def on_subscribe(self, handler: Handler) -> Handler:
        """Call `handler` when a client wants to subscribe; it may refuse.

        What it returns, unless `None`, is JSON for the client's ``subscribed`` event. A parameter
        annotated ``JsonValue`` gets the data the client sent along.
        """
        return self._register("subscribe", handler, {JsonValue: "data"})

    def on_publish(self, handler: Handler) -> Handler:
        """Call `handler` when a client wants to publish; it may refuse, or return another message.

        A parameter annotated with the channel's payload type gets the message, validated.
        """
        return self._register("publish", handler, {self._payload: "message"})

    def on_unsubscribe(self, handler: Handler) -> Handler:
        """Call `handler` when a client has left, whatever way. One that raises is logged."""
        return self._register("unsubscribe", handler, {})

    def on_presence(self, handler: Handler) -> Handler:
        """Call `handler` when a client wants to know who is here; it may refuse."""
        return self._register("presence", handler, {})

    def on_history(self, handler: Handler) -> Handler:
        """Call `handler` when a client wants to read the history; it may refuse."""
        return self._register("history", handler, {})

    def _register(self, event: str, handler: Handler, given: Mapping[Any, str]) -> Handler:
        if event in self._handlers:
            raise ConfigurationError(f"{self.pattern.text}: on_{event} was registered before")
        self._handlers[event] = self._read(handler, f"on_{event}", given)
        return handler

    def _read(
        self, function: Callable[..., Any], what: str, given: Mapping[Any, str] | None = None
    ) -> EventHandler:
        return EventHandler(
            function,
            where=f"{self.pattern.text} ({what})",
            given={self._client_type: "client", **(given or {})},
            parameters=self.pattern.names,
        )

    # Using

    def name(self, **parameters: Any) -> str:
        """Write the name of one channel.

        Raises:
            UsageError: a parameter is missing, unknown, or cannot be part of a name.
        """
        return self.pattern.format(parameters)

    async def publish(
        self,
        message: Payload,
        *,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        **parameters: Any,
    ) -> Position:
        """Publish `message` to the channel with these `parameters`.

        Args:
            message: checked against the payload type.
            idempotency_key: a second publication with it in this channel changes nothing.
            tags: names and values that travel beside the payload.
            key: what ``latest_per_key`` compares.
            parameters: the pattern's, such as ``room_id=7``.

        Returns:
            Its position in the stream; offset 0 in a channel without history.

        Raises:
            UsageError: the message or a parameter is wrong; nothing was published.
            BrokerUnavailable: it may or may not have been accepted.

        Cancellation: it may still be published.
        """
        return await self._publish(
            self.name(**parameters), message, idempotency_key=idempotency_key, tags=tags, key=key
        )

    # For the layers above

    def write(self, message: Any) -> bytes:
        """Write a message of the application's as JSON.

        Raises:
            UsageError: it is none of this channel's.
        """
        try:
            return self._adapter.dump_json(self._adapter.validate_python(message))
        except ValueError as error:
            raise UsageError(f"{self.pattern.text} cannot carry this message: {error}") from error

    def read(self, data: bytes) -> Any:
        """Read a client's message.

        Raises:
            ClientError: 107, it is none of this channel's.
        """
        return read_json(self._adapter, data)

    @property
    def is_open(self) -> bool:
        """Whether some policy lets clients do something here."""
        return any(who is not None for who in self._access.values())

    def handles(self, event: str) -> bool:
        """Whether a handler is registered for `event`."""
        return event in self._handlers

    async def allow(
        self,
        action: Action,
        scope: Mapping[str, Any],
        parameters: Mapping[str, str],
        given: Mapping[str, Any],
        *,
        subscribed: bool = False,
        proven: bool = False,
    ) -> Any:
        """Ask the policy, then the handler; returns what the handler returns.

        Args:
            action: what the client wants.
            scope: of its handshake.
            parameters: of the channel.
            given: for the handler.
            subscribed: whether it is in the channel.
            proven: it showed a token for this channel: the policy is not asked.

        Raises:
            ClientError: it may not, or anything a handler raises.
        """
        who = self._access.get(action)
        handler = self._handlers.get(action)
        policy = self._policies.get(action)
        try:
            if proven or who is public:
                pass
            elif policy is not None:
                if await policy(scope, parameters, given) is False:
                    raise _denied()
            elif who == "subscribers":
                if not subscribed:
                    raise _denied()
            elif handler is None:
                raise _denied()
            return None if handler is None else await handler(scope, parameters, given)
        except InvalidParameters as error:
            if error.in_path:
                raise ClientError(102, "unknown channel") from None
            raise

    async def tell(
        self,
        event: str,
        scope: Mapping[str, Any],
        parameters: Mapping[str, str],
        given: Mapping[str, Any],
    ) -> None:
        """Call the handler of an event that nothing can refuse, if there is one."""
        handler = self._handlers.get(event)
        if handler is not None:
            await handler(scope, parameters, given)
