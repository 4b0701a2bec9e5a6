"""Every bound: unit, default, and what happens when it is hit. ◇

`Limits` are per session and can be set per endpoint; `Caps` are per process. ``None`` switches a
bound off where that is safe. The constants are the same for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pongee.errors import ConfigurationError

__all__ = [
    "AFTER_DRAIN",
    "API_BODY_SIZE",
    "API_KEY_SIZE",
    "API_PARALLEL",
    "API_STEPS",
    "BATCH_BYTES",
    "BROKER_BUFFER_WAIT",
    "BROKER_FIRST_WAIT",
    "BROKER_LONGEST_WAIT",
    "BROKER_PATIENCE",
    "BROKER_PROBE",
    "BROKER_TIMEOUT",
    "DRAIN_HOOKS_TIMEOUT",
    "EMBEDDED_START",
    "EMBEDDED_STOP",
    "ERRANDS_AT_ONCE",
    "FIRST_MESSAGE_SIZE",
    "FLUSH_BYTES",
    "FLUSH_REST",
    "FLUSH_STEP",
    "FLUSH_WRITES",
    "HELD_MESSAGES",
    "HOOK_TIMEOUT",
    "IDEMPOTENCY_KEYS",
    "LAYOUT_AGE",
    "LEAVE_DELAY",
    "LEFT_BEHIND",
    "LOGGED_PATH",
    "LOGGED_REASON",
    "MAX_CHANNEL_LENGTH",
    "MAX_ERRORS_TOLD",
    "MAX_ERROR_TEXT",
    "MAX_HOPS",
    "MESSAGES_PER_TURN",
    "MIN_SECRET_BYTES",
    "NAME_SIZE",
    "NATS_ASK_AGAIN",
    "NATS_BATCH",
    "NATS_BATCH_BYTES",
    "NATS_LANES",
    "NATS_PAGE",
    "NATS_PAGE_BYTES",
    "NATS_READS",
    "NATS_UNUSED",
    "NATS_UNWRITTEN",
    "NODE_INTERVAL",
    "NODE_TTL",
    "ONE_PRESS",
    "ORIGIN_SIZE",
    "OWED_STEPS",
    "PENDING_BYTES",
    "PENDING_MESSAGES",
    "POSITION_CHECK",
    "PRESENCE_REFRESH",
    "PRESENCE_TTL",
    "REDIS_CHUNK",
    "REDIS_READS",
    "REDIS_SECOND_LOOK",
    "REDIS_UNSENT",
    "REDIS_UNUSED",
    "REDIS_WAITING",
    "REPAIR_PAUSE",
    "REPAIR_TRIES",
    "REQUEST_GRACE",
    "RETRY_PAUSE",
    "SHORTEST_REST",
    "STATIC_TOKEN_SIZE",
    "STOP_TIMEOUT",
    "STUBBORN_TIMEOUT",
    "SURVEY_TIMEOUT",
    "SWEEP_INTERVAL",
    "SWEEP_REST",
    "SWEEP_STEP",
    "TOKEN_SIZE",
    "WORKER_SILENCE",
    "WORKER_START",
    "Caps",
    "ClientLimits",
    "Limits",
]

KIB = 1024
MIB = 1024 * KIB

# Bounds that no application has to change.

MAX_CHANNEL_LENGTH = 255
"""Characters of a channel name. Longer: `UsageError` at the call."""

MAX_ERROR_TEXT = 100
"""Characters of a key in an error reply, and half of those of its message. Longer: cut."""

LOGGED_PATH = 200
"""Characters of a refused path in the log, percent-encoded: a peer must not write our log."""

HOOK_TIMEOUT = 10.0
"""Seconds one on_disconnect hook may take. Then it is cancelled and logged."""

LOGGED_REASON = 600
"""Characters of the line that explains a refused origin. Longer: cut."""

STUBBORN_TIMEOUT = 5.0
"""Seconds a handler or job may go on after it was cancelled; then it is left behind and logged."""

MESSAGES_PER_TURN = 64
"""Messages one handler gets without a turn for others. More: it yields to the event loop once."""

MAX_ERRORS_TOLD = 10
"""Errors listed in one reply; a hostile message could hold thousands of wrong items."""

STOP_TIMEOUT = 1.0
"""Seconds sessions may take when the application's lifespan ends; then they are cut."""

AFTER_DRAIN = 1.0
"""Seconds that sessions may take beyond the drain window; then their sockets are cut."""

DRAIN_HOOKS_TIMEOUT = 5.0
"""Seconds the on_drain hooks may take, all of them. Then they are cancelled and logged."""

REQUEST_GRACE = 5.0
"""Seconds from the signal on that HTTP requests under way may take. More, once the sessions have
ended: they are cancelled."""

ONE_PRESS = 0.5
"""Seconds within which further signals count as one: a terminal's Ctrl-C reaches a worker twice."""

LEFT_BEHIND = 1.0
"""Seconds a process may last when all is over; then it ends without threads and tasks that do not
listen."""

WORKER_START = 60.0
"""Seconds until a worker serves. More: what it was to replace stays."""

WORKER_SILENCE = 30.0
"""Seconds a worker may say nothing to its supervisor, or take to leave beyond what it is granted.
Then it is killed."""

API_KEY_SIZE = 16
"""Characters the key of the server API has at least. Fewer can be guessed over the network."""

API_BODY_SIZE = 4 * MIB
"""Bytes of one request of the server API. More: 413."""

API_STEPS = 10_000
"""Channels of one broadcast, and commands of one batch. More: error 107, and nothing is done."""

API_PARALLEL = 64
"""Commands of one parallel batch that are under way at once. More: they wait."""

MAX_HOPS = 32
"""Addresses read per handshake. No real chain of proxies is longer; a hostile header may be."""

ORIGIN_SIZE = 512
"""Characters of an Origin or Host header that is looked at: a host's name has 253. Longer: 403."""

TOKEN_SIZE = 8 * 1024
"""Characters of a token (which are bytes: real ones are ASCII). No header a server takes by default
holds more; a longer one is refused unread, so that nobody makes us hash or parse it."""

STATIC_TOKEN_SIZE = 8
"""Characters a static token has at least. Fewer can be guessed over the network."""

FIRST_MESSAGE_SIZE = 16 * 1024
"""Bytes of the message that may bring a token: twice the largest token, for the JSON around it."""

FLUSH_STEP = 250
"""Members of one channel that are served before the next channel's turn comes."""

FLUSH_WRITES = 1000
"""Members served in one turn of the event loop. More: the next turn. A write costs the kernel 5 to
10 µs, so that this is about 10 ms."""

FLUSH_REST = 0.02
"""Seconds the hub rests at most between two hand-overs, during which publications gather."""

SHORTEST_REST = 0.001
"""Seconds. A shorter rest is none: event loops cannot time it."""

FLUSH_BYTES = 4 * MIB
"""Bytes handed to members in one turn of the event loop. More: the next turn."""

PENDING_MESSAGES = 256
"""Messages published to one channel in one turn of the event loop and not handed over. More: they
are handed over at once, so that a publisher that never lets go fills no memory of ours."""

PENDING_BYTES = 4 * MIB
"""The same in bytes."""

BATCH_BYTES = 256 * KIB
"""Bytes written to one member at once. More: several writes, so that the transport can say stop."""

NAME_SIZE = 64
"""Characters kept of the names an SDK gives itself and its application. Longer: cut."""

HELD_MESSAGES = 10_000
"""Publications held for a client while it subscribes. More: it has to subscribe again."""

BROKER_TIMEOUT = 2.0
"""Seconds one step at the broker's server may take. More: `BrokerUnavailable`."""

BROKER_PROBE = 3.0
"""Seconds between two messages that a process sends itself through the broker's server, to see that
the link carries something both ways."""

BROKER_FIRST_WAIT = 0.1
"""Seconds before a lost link is tried again for the first time; doubled with each failure."""

BROKER_LONGEST_WAIT = 2.0
"""Seconds between two tries at most. Each wait is a random part of it, the upper half, so that
processes do not come back all at once."""

BROKER_PATIENCE = 10.0
"""Seconds the link may be down. Then members that were promised their position are sent away with
3010, if there is another process that may reach the broker: nobody stays deaf."""

BROKER_BUFFER_WAIT = 30.0
"""Seconds a publication waits for the link to be up again, where a buffer is set. Then
`BrokerUnavailable`."""

REDIS_WAITING = 50_000
"""Commands of a process that wait for a Redis server's answer. More: `BrokerUnavailable`."""

REDIS_UNSENT = 64 * MIB
"""Bytes of commands that a Redis server's connection does not take yet. More: the same."""

REDIS_SECOND_LOOK = 0.05
"""Seconds between a look that finds a Redis server's answer overdue and the one that acts on it: it
may be there, and we were late to look."""

REDIS_CHUNK = 1000
"""Channels that a process subscribes to at once at a Redis server when it comes back."""

REDIS_UNUSED = 600.0
"""Seconds that Redis keeps the position of a channel that was looked at and never published to."""

ERRANDS_AT_ONCE = 64
"""Steps owed to the broker by nobody who waits (presence, leaving) that are under way at once."""

OWED_STEPS = 100_000
"""Departures that are told again when the link is up. More: the oldest are not, and entries of
presence end with their leases."""

POSITION_CHECK = 25.0
"""Seconds between two looks at the position of a channel that nothing was published to: brokers may
lose a publication on the way, and the last one is missed by nobody."""

REPAIR_PAUSE = 1.0
"""Seconds between two tries to read what is missing of a channel."""

REPAIR_TRIES = 3
"""Tries while the link is up. Then the members are told that they missed something."""

NODE_INTERVAL = 3.0
"""Seconds between two announcements of a process to the others."""

NODE_TTL = 10.0
"""Seconds without an announcement after which a process counts as gone."""

SURVEY_TIMEOUT = 1.0
"""Seconds the other processes may take to answer. Who has not is left out, and logged."""

EMBEDDED_START = 10.0
"""Seconds an embedded NATS server may take until it answers."""

EMBEDDED_STOP = 5.0
"""Seconds it may take to end. Then it is killed."""

NATS_ASK_AGAIN = 0.5
"""Seconds after which NATS is asked once more for a stream, at a start: a cluster that chooses a
leader answers nothing, and the link would wait for it and come up seconds later."""

NATS_BATCH = 100
"""Publications of one channel that are stored at NATS in one step. More: a later step."""

NATS_BATCH_BYTES = 512 * KIB
"""Bytes of them. More: a later step."""

NATS_LANES = 10_000
"""Channels of which a process remembers where their streams at NATS stand. More: the one that was
used least lately is asked for anew, one round trip, when something is published there."""

NATS_READS = 128
"""Publications that a process reads from NATS at once, counting those of one page. Who wants more
waits: a connection's requests are answered one after the other, and publications are among them."""

REDIS_READS = 8
"""Histories that a process reads from Redis at once. More wait, for the same reason."""

NATS_PAGE = 64
"""Messages asked of NATS at once. More are asked for in turn: so many take it 1 to 2 ms."""

NATS_PAGE_BYTES = 1 * MIB
"""Bytes asked of NATS at once, roughly."""

NATS_UNUSED = 300.0
"""Seconds that NATS remembers a channel at least that was only looked at."""

NATS_UNWRITTEN = 8 * MIB
"""Bytes that wait to be written to NATS. More: what is asked next waits, within its deadline."""

LAYOUT_AGE = 30.0
"""Seconds a `Publisher` goes by what it has read of the declared channels."""

PRESENCE_TTL = 60.0
"""Seconds an entry of presence lasts that is not renewed, because its process is gone."""

PRESENCE_REFRESH = 25.0
"""Seconds between two renewals of a process's entries of presence."""

LEAVE_DELAY = 2.0
"""Seconds after which the members of a channel are told that a user's connection was lost, if the
user has not come back; a user who has is told about at once."""

RETRY_PAUSE = 5.0
"""Seconds after a failed fetch before the next one: short, since nobody gets in meanwhile."""

IDEMPOTENCY_KEYS = 100_000
"""Idempotency keys that a process remembers. More: the oldest is forgotten, so that a repetition of
its publication would be taken for a new one."""

SWEEP_INTERVAL = 10.0
"""Seconds between two looks for what has expired in channels that nobody asks for."""

SWEEP_STEP = 1000
"""Channels, or keys, looked at in one turn of the event loop: under 1 ms. More: a later turn."""

SWEEP_REST = 0.05
"""Seconds between two such turns."""

MIN_SECRET_BYTES = 32
"""Bytes of an HS256 key (RFC 7518 section 3.2: at least as long as the hash's output)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one session.

    Attributes:
        max_message_size: bytes of one inbound message. More: close 1009. The ASGI server's own
            limit (uvicorn: ``--ws-max-size``) acts first where it is lower.
        inbox_messages: messages received but not yet taken by the handler. Full: reading pauses.
            A handler that never reads would so miss its client's departure, so after
            `handler_grace` reading goes on there, and what does not fit is discarded and counted.
        inbox_bytes: the same in bytes.
        inbox_patience: seconds a full inbox may keep reading paused. Then close 1008: on plain ASGI
            neither a pong nor a departure can be seen meanwhile, so keep it below the server's
            ping timeout.
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
    inbox_messages: int = 1024
    inbox_bytes: int = 1 * MIB
    inbox_patience: float = 15.0
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
class ClientLimits:
    """The bounds of one client's connection, that of an SDK.

    Attributes:
        max_message_size: bytes of one inbound frame. More: close 1009 (over HTTP: 413).
        max_subscriptions: channels of one client. More: error 106; of the server's own: close 3505.
        waiting_commands: commands that wait for those before them. Half of them: reading pauses.
            More: close 3013.
        concurrent_calls: RPC calls of one client at once. More: the next commands wait.
        outbox_messages: messages waiting for a client that reads slowly. Full: close 3008, and
            the SDK comes back for what it missed; or what the channel's ``overflow`` says.
        outbox_bytes: the same in bytes.
        write_deadline: seconds one write may make no progress. Then the transport is aborted.
        close_timeout: seconds the last messages and the close frame may take. Then abort.
        connect_timeout: seconds until the connect command. Later: close 3502.
        refused_timeout: seconds a client may stay that was answered an error to it. Then closed.
        expiry_grace: seconds between the end of a token and what follows: close 3005, or
            unsubscribe 2501.
        recovered_publications: that a client may have missed. More: not recovered; it starts from
            the present. Also what one command may read of the history.
    """

    max_message_size: int = 64 * KIB
    max_subscriptions: int = 128
    waiting_commands: int = 1024
    concurrent_calls: int = 8
    outbox_messages: int = 8192
    outbox_bytes: int = 1 * MIB
    write_deadline: float = 10.0
    close_timeout: float = 5.0
    connect_timeout: float = 10.0
    refused_timeout: float = 5.0
    expiry_grace: float = 25.0
    recovered_publications: int = 300

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


def _require_positive(bounds: Limits | ClientLimits | Caps) -> None:
    for field in fields(bounds):
        value = getattr(bounds, field.name)
        if value is None and field.default is None:
            continue  # a bound that may be switched off
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not value > 0:
            raise ConfigurationError(
                f"{type(bounds).__name__}({field.name}={value!r}): must be greater than 0"
            )
