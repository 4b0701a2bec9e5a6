"""From the connect command to a ready client; how long it may stay."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pydantic_core
from starlette.requests import HTTPConnection

from pongee.centrifuge.codes import Disconnect, ErrorCode
from pongee.centrifuge.errors import DisconnectClient, error
from pongee.centrifuge.messages import (
    ConnectRequest,
    ConnectResult,
    RefreshRequest,
    RefreshResult,
    Reply,
    SubscribeRequest,
    raw,
)
from pongee.centrifuge.subscription import LIVE_ONLY, Entering, Subscription, Wish, enter
from pongee.centrifuge.tokens import (
    Grant,
    connection_subs,
    expiry_of,
    info_of,
    subscription_grant,
    user_of,
)
from pongee.channels.encoding import to_json
from pongee.codes import CauseKind
from pongee.entries import Gap
from pongee.errors import InvalidToken, Refused
from pongee.guards.policy import TokenPolicy, public
from pongee.guards.verdict import ANONYMOUS, Identity
from pongee.limits import NAME_SIZE
from pongee.links.base import Outgoing

if TYPE_CHECKING:
    from pongee.centrifuge.client import Client

__all__ = ["connect", "refresh", "set_expiry", "ttl_of", "verify_subscription"]

VERSION = "pongee"


async def connect(client: Client, number: int, request: ConnectRequest) -> None:
    """Authenticate, call ``on_connect``, enter the server's channels, and answer."""
    client.name, client.version = request.name[:NAME_SIZE], request.version[:NAME_SIZE]
    _emulate_headers(client, request.headers or {})
    identity = await _authenticate(client, request.token)
    client.identity = identity
    if identity.user is not None:
        try:
            client.claim_user(identity.user)
        except Refused:
            raise DisconnectClient(Disconnect.CONNECTION_LIMIT) from None
    try:
        client.conn_info = info_of(identity.claims)
        wanted = connection_subs(identity.claims)
    except InvalidToken:
        raise DisconnectClient(Disconnect.INVALID_TOKEN) from None
    sent = _json(bytes(request.data))
    client.greeted, data = await client.service.hook(
        "connect", client.scope, client.given(data=sent)
    )
    answer = b"" if data is None else to_json(data).encode()
    spec = client.service.spec
    if spec.personal is not None and identity.user:
        wanted.setdefault(spec.personal.replace("{user}", identity.user), {})
    for name in client.wanted:
        wanted.setdefault(name, {})
    client.wanted = []
    entering = await _enter_all(client, wanted, request.subs or {})
    _begin(client, number, entering, answer)


def _begin(client: Client, number: int, entering: dict[str, Entering], data: bytes) -> None:
    """Answer, in one step with the beginning of every subscription."""
    spec = client.service.spec
    result = ConnectResult(
        client=client.id,
        version=VERSION,
        ping=max(1, math.ceil(spec.ping_interval)),
        pong=True,
        session=client.session,
        node=client.service.node if client.session else "",
        data=raw(data),
    )
    held: list[Outgoing] = []
    try:
        result.subs = {}
        for name, one in entering.items():
            result.subs[name], rest = one.commit()
            held += rest
    except Gap:
        raise DisconnectClient(Disconnect.INSUFFICIENT_STATE) from None
    result.subs = result.subs or None
    expires_at = client.identity.expires_at
    if expires_at is not None and "refresh" not in spec.handlers:
        result.expires, result.ttl = True, ttl_of(client, expires_at)
    client.answer(Reply(number, connect=result))
    client.ready()
    set_expiry(client, expires_at)
    client.deliver_held(held)
    for one in entering.values():
        one.announce()


async def _enter_all(
    client: Client,
    wanted: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, SubscribeRequest],
) -> dict[str, Entering]:
    if len(wanted) > client.service.spec.limits.max_subscriptions:
        raise DisconnectClient(Disconnect.CHANNEL_LIMIT)
    entering: dict[str, Entering] = {}
    try:
        for name, options in wanted.items():
            found = client.service.declared.find(name)
            if found is None:
                raise error(ErrorCode.UNKNOWN_CHANNEL, name)
            info = client.info_in(info_of(options))
            sub = Subscription(*found, info, server=True)
            position = known.get(name)
            wish = LIVE_ONLY
            if position is not None:
                wish = Wish.of(position)._replace(join_leave=True)
            entering[name] = await enter(client, name, sub, wish)
    except BaseException:
        for name, sub in client.subscriptions.items():
            sub.end(client, name)
        client.subscriptions = {}
        raise
    return entering


def _json(data: bytes) -> Any:
    try:
        return pydantic_core.from_json(data) if data else None
    except ValueError:
        raise error(ErrorCode.BAD_REQUEST, "data is no JSON") from None


def _emulate_headers(client: Client, headers: Mapping[str, str]) -> None:
    """Take headers that a browser could not send, as far as they are allowed."""
    for name, value in headers.items():
        if name.lower() in client.service.spec.emulated_headers and value.isprintable():
            pair = (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            client.scope["headers"] = [*client.scope["headers"], pair]


# Who


async def _authenticate(client: Client, token: str) -> Identity:
    if token:
        return await _verify(client, token)
    spec = client.service.spec
    policy = spec.auth
    if policy is public:
        return ANONYMOUS
    if not isinstance(policy, TokenPolicy):
        assert spec.policy is not None  # noqa: S101 - read when it was declared
        try:
            proof = await spec.policy(client.scope, {}, client.given())
        except Refused as refused:
            if refused.status >= 500:
                raise
            raise DisconnectClient(Disconnect.PERMISSION_DENIED) from None
        if isinstance(proof, Identity):
            return proof
        if isinstance(proof, str):
            return Identity(user=proof)
    elif _has_token(policy, handshake := HTTPConnection(client.scope)):
        try:
            found = await policy(handshake)
        except Refused as refused:
            if refused.status >= 500:
                raise
        else:
            if isinstance(found, Identity):
                return found
    if spec.anonymous:
        return ANONYMOUS
    raise DisconnectClient(Disconnect.BAD_REQUEST, "no credentials")


def _has_token(policy: TokenPolicy, handshake: HTTPConnection) -> bool:
    return any(source.extract(handshake) is not None for source in policy.sources)


async def _verify(client: Client, token: str) -> Identity:
    """Verify a connection token.

    Raises:
        DisconnectClient: it proves nothing.
        ClientError: 109, it has expired.
    """
    policy = client.service.spec.auth
    if not isinstance(policy, TokenPolicy):
        raise DisconnectClient(Disconnect.INVALID_TOKEN)  # nothing here could verify it
    try:
        claims = await policy.claims(token)
        if claims is None:
            return await policy.verify(token)
        if "channel" in claims:
            raise InvalidToken("a subscription token")
        user = user_of(claims, _user_claim(policy))
        if not user and not client.service.spec.anonymous:
            raise InvalidToken("no user")
        return Identity(user or None, expiry_of(claims), claims)
    except InvalidToken as problem:
        if problem.expired:
            raise error(ErrorCode.TOKEN_EXPIRED) from None
        raise DisconnectClient(Disconnect.INVALID_TOKEN) from None


def _user_claim(policy: Any) -> str:
    return getattr(getattr(policy, "verifier", None), "user_claim", "sub")


async def verify_subscription(client: Client, token: str, channel: str) -> Grant:
    """Verify a subscription token.

    Raises:
        InvalidToken: it proves nothing, or for another channel or user.
    """
    claims = await _claims(client, token)
    claim = _user_claim(client.service.spec.auth)
    return subscription_grant(claims, channel, client.user or "", claim)


async def channel_of(client: Client, token: str) -> str:
    """Return the channel a subscription token is for.

    Raises:
        InvalidToken: it proves nothing.
    """
    return str((await _claims(client, token)).get("channel", ""))


async def _claims(client: Client, token: str) -> Mapping[str, Any]:
    policy = client.service.spec.auth
    claims = await policy.claims(token) if isinstance(policy, TokenPolicy) else None
    if claims is None:
        raise InvalidToken("nothing here verifies subscription tokens")
    return claims


# How long


def ttl_of(client: Client, expires_at: float) -> int:
    """Whole seconds until `expires_at`, at least 1: SDKs fail with less."""
    return max(1, int(min(expires_at - client.service.runtime.clock.time(), 365 * 86400)))


async def refresh(client: Client, number: int, request: RefreshRequest) -> Reply:
    """Take a new token for the connection."""
    if not request.token or "refresh" in client.service.spec.handlers:
        raise DisconnectClient(Disconnect.BAD_REQUEST)
    policy = client.service.spec.auth
    try:
        identity = await _verify(client, request.token)
    except DisconnectClient:
        raise
    except Exception as problem:
        if getattr(problem, "code", None) == ErrorCode.TOKEN_EXPIRED:
            raise DisconnectClient(Disconnect.CONNECTION_EXPIRED) from None
        raise
    if identity.user != client.user or not isinstance(policy, TokenPolicy):
        raise DisconnectClient(Disconnect.INVALID_TOKEN)
    client.identity = identity
    set_expiry(client, identity.expires_at)
    result = RefreshResult(client.id, VERSION)
    if identity.expires_at is not None:
        result.expires, result.ttl = True, ttl_of(client, identity.expires_at)
    return Reply(number, refresh=result)


def set_expiry(client: Client, expires_at: float | None) -> None:
    """Let `client` stay until `expires_at`, in Unix seconds; `None` is for ever."""
    client.disarm_expiry()
    if expires_at is None:
        return
    spec, runtime = client.service.spec, client.service.runtime
    left = expires_at - runtime.clock.time()
    if "refresh" in spec.handlers:
        client.arm_expiry(left, lambda: client.start(_refresh_by_server(client)))
    else:
        client.arm_expiry(left + spec.limits.expiry_grace, lambda: _expire(client))


def _expire(client: Client) -> None:
    client.end(Disconnect.CONNECTION_EXPIRED, cause=CauseKind.TOKEN_EXPIRED)


async def _refresh_by_server(client: Client) -> None:
    """Ask ``on_refresh`` until when the client may stay."""
    until: Any = None
    try:
        _, until = await client.service.hook("refresh", client.scope, client.given())
    except asyncio.CancelledError:
        raise
    except Exception:
        client.log_crash("on_refresh")
    if isinstance(until, int | float) and until > client.service.runtime.clock.time():
        set_expiry(client, float(until))
    else:
        _expire(client)
