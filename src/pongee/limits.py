"""Every bound: unit, default, and what happens when it is hit. ◇

`Limits` are per session and can be set per endpoint; `Caps` are per process. ``None`` switches a
bound off where that is safe.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pongee.errors import ConfigurationError

__all__ = ["Caps", "Limits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one session.

    Attributes:
        max_message_size: bytes of one inbound message. More: close 1009. The ASGI server's own
            limit (uvicorn: ``--ws-max-size``) acts first where it is lower.
        inbox_messages: messages received but not yet taken by the handler. Full: reading pauses.
        inbox_bytes: the same in bytes. Full: reading pauses.
        outbox_messages: messages waiting for a client that reads slowly. Full: the endpoint's
            overflow policy.
        outbox_bytes: the same in bytes.
        write_deadline: seconds one write may make no progress. Then the transport is aborted: a
            polite close would wait for the very buffer that does not drain.
        close_timeout: seconds the last messages and the close frame may take. Then abort.
        handler_grace: seconds a handler that reads gets to finish what had arrived before the
            client left. Then it is cancelled. A handler that only pushes is cancelled at once.
        max_errors: invalid messages within `error_window`. More: close 1008.
        error_window: seconds.
        messages_per_second: sustained inbound rate; `None` is no limit (reading still pauses when
            the inbox is full). More, after `message_burst`: close 1008.
        message_burst: messages that may come at once; `None` is two seconds' worth.
        bytes_per_second: sustained inbound bytes; `None` is no limit. More, after `byte_burst`:
            close 1008.
        byte_burst: bytes that may come at once; `None` is two seconds' worth, and no less than one
            message of the largest size.
        max_subscriptions: channels one session may subscribe to. More: `UsageError` at the call.
        max_jobs: jobs one session may have running through ``spawn``. More: `UsageError`.
    """

    max_message_size: int = 64 * KIB
    inbox_messages: int = 64
    inbox_bytes: int = 1 * MIB
    outbox_messages: int = 1024
    outbox_bytes: int = 1 * MIB
    write_deadline: float = 10.0
    close_timeout: float = 5.0
    handler_grace: float = 0.5
    max_errors: int = 30
    error_window: float = 60.0
    messages_per_second: float | None = None
    message_burst: int | None = None
    bytes_per_second: float | None = None
    byte_burst: int | None = None
    max_subscriptions: int = 128
    max_jobs: int = 100

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The bounds of one process.

    Attributes:
        max_connections: sessions at once. More: 503 with ``Retry-After`` before accept.
        max_connections_per_user: sessions at once of one user; `None` is no limit. More: 429.
        max_connections_per_address: sessions at once of one client address; `None` is no limit,
            because one address may be a whole office. More: 429.
        retry_after: seconds told to a client that was turned away.
    """

    max_connections: int = 10_000
    max_connections_per_user: int | None = None
    max_connections_per_address: int | None = None
    retry_after: float = 5.0

    def __post_init__(self) -> None:
        _require_positive(self)


def _require_positive(bounds: Limits | Caps) -> None:
    for field in fields(bounds):
        value = getattr(bounds, field.name)
        if value is not None and not value > 0:
            raise ConfigurationError(
                f"{type(bounds).__name__}({field.name}={value!r}): must be greater than 0"
            )
