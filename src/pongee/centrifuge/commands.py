"""What each command does, and what the server does to a client's subscriptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import pydantic_core

from pongee.centrifuge import connecting
from pongee.centrifuge.codes import (
    UNSUBSCRIBES,
    Disconnect,
    ErrorCode,
    UnsubscribeCode,
    is_unsubscribe_code,
)
from pongee.centrifuge.errors import DisconnectClient, error
from pongee.centrifuge.messages import (
    Empty,
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    Push,
    Reply,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubRefreshResult,
    Subscribed,
    SubscribeRequest,
    Unsubscribed,
    UnsubscribeRequest,
    published,
    raw,
    wire_info,
)
from pongee.centrifuge.subscription import LIVE_ONLY, Subscription, Wish, enter
from pongee.centrifuge.tokens import Grant
from pongee.channels.encoding import to_json
from pongee.channels.names import check_channel
from pongee.channels.options import stream_of
from pongee.channels.publication import Position, Publication
from pongee.codes import CauseKind
from pongee.entries import Gap
from pongee.errors import InvalidToken, SessionClosed, UsageError
from pongee.handlers.channel import Channel

if TYPE_CHECKING:
    from pongee.centrifuge.client import Client

__all__ = ["COMMANDS", "SAME_ID", "lose_position", "subscribe_by_server", "unsubscribe_by_server"]

SAME_ID = "same id"
"""In place of a command whose id another one has that is not answered: an error, in its turn."""

Run = Callable[["Client", int, Any], Awaitable[Reply | None]]


def _find(client: Client, name: str) -> tuple[Channel[Any], dict[str, str]]:
    try:
        check_channel(name)
    except UsageError as problem:
        raise error(ErrorCode.BAD_REQUEST, str(problem)) from None
    found = client.service.declared.find(name)
    if found is None:
        raise error(ErrorCode.UNKNOWN_CHANNEL)
    return found


def _is_in(client: Client, name: str) -> bool:
    sub = client.subscriptions.get(name)
    return sub is not None and sub.live


# Subscribing


async def _subscribe(client: Client, number: int, request: SubscribeRequest) -> None:
    name = request.channel
    if request.type:
        raise error(ErrorCode.NOT_AVAILABLE, "map and shared-poll subscriptions")
    if request.delta not in ("", "fossil"):
        raise DisconnectClient(Disconnect.BAD_REQUEST)
    if request.tf is not None:
        raise error(ErrorCode.BAD_REQUEST, "tags filters are not allowed")
    channel, parameters = _find(client, name)
    if name in client.subscriptions:
        raise error(ErrorCode.ALREADY_SUBSCRIBED)
    if len(client.subscriptions) >= client.service.spec.limits.max_subscriptions:
        raise error(ErrorCode.LIMIT_EXCEEDED)
    grant = await _grant(client, request.token, name) if request.token else Grant(None, b"")
    data = await channel.allow(
        "subscribe",
        client.scope,
        parameters,
        client.given(data=_value(bytes(request.data))),
        proven=bool(request.token),
    )
    # Before anything begins: a value that is no JSON must leave nothing behind.
    answer = b"" if data is None else to_json(data).encode()
    sub = Subscription(channel, parameters, client.info_in(grant.info), server=False)
    entering = await enter(client, name, sub, Wish.of(request))
    try:
        result, rest = entering.commit()
    except Gap:
        raise DisconnectClient(Disconnect.INSUFFICIENT_STATE) from None
    result.data = raw(answer)
    if grant.expires_at is not None:
        result.expires, result.ttl = True, connecting.ttl_of(client, grant.expires_at)
        _arm_expiry(client, name, sub, grant.expires_at)
    client.answer(Reply(number, subscribe=result))
    client.deliver_held(rest)
    entering.announce()


async def _grant(client: Client, token: str, name: str) -> Grant:
    try:
        grant = await connecting.verify_subscription(client, token, name)
    except InvalidToken as problem:
        if problem.expired:
            raise error(ErrorCode.TOKEN_EXPIRED) from None
        if problem.why in ("for another channel", "for another user"):
            raise DisconnectClient(Disconnect.INVALID_TOKEN) from None
        raise error(ErrorCode.PERMISSION_DENIED) from None
    if grant.expires_at is not None and grant.expires_at <= client.service.runtime.clock.time():
        raise error(ErrorCode.EXPIRED)
    return grant


def _value(data: bytes) -> Any:
    """Read the data a client sent along.

    Raises:
        ClientError: it is no JSON.
    """
    try:
        return pydantic_core.from_json(data) if data else None
    except ValueError:
        raise error(ErrorCode.BAD_REQUEST, "data is no JSON") from None


def _arm_expiry(client: Client, name: str, sub: Subscription, expires_at: float) -> None:
    if sub.expiry is not None:
        sub.expiry.cancel()
    runtime = client.service.runtime
    left = expires_at - runtime.clock.time() + client.service.spec.limits.expiry_grace
    sub.expiry = runtime.wheel.call_later(left, lambda: _expire(client, name))


def _expire(client: Client, name: str) -> None:
    unsubscribe_by_server(client, name, UnsubscribeCode.EXPIRED)


async def _unsubscribe(client: Client, number: int, request: UnsubscribeRequest) -> Reply:
    sub = client.subscriptions.get(request.channel)
    if sub is not None and sub.live:  # else the server is subscribing it, and it does not know
        del client.subscriptions[request.channel]
        sub.end(client, request.channel)
        client.start(sub.tell_unsubscribed(client))
    return Reply(number, unsubscribe=Empty())


async def _sub_refresh(client: Client, number: int, request: SubRefreshRequest) -> Reply:
    if request.type:
        raise error(ErrorCode.NOT_AVAILABLE)
    if not request.token:
        raise error(ErrorCode.BAD_REQUEST, "no token")
    try:
        # Some SDKs leave the channel to the token.
        name = request.channel or await connecting.channel_of(client, request.token)
        if not _is_in(client, name):
            raise error(ErrorCode.PERMISSION_DENIED)
        grant = await connecting.verify_subscription(client, request.token, name)
    except InvalidToken as problem:
        if problem.expired:
            raise error(ErrorCode.EXPIRED) from None
        raise DisconnectClient(Disconnect.INVALID_TOKEN) from None
    sub = client.subscriptions.get(name)
    if sub is None:
        raise error(ErrorCode.PERMISSION_DENIED)
    if grant.expires_at is not None and grant.expires_at <= client.service.runtime.clock.time():
        raise error(ErrorCode.EXPIRED)
    if grant.expires_at is None:
        if sub.expiry is not None:
            sub.expiry.cancel()
        return Reply(number, sub_refresh=SubRefreshResult())
    _arm_expiry(client, name, sub, grant.expires_at)
    ttl = connecting.ttl_of(client, grant.expires_at)
    return Reply(number, sub_refresh=SubRefreshResult(expires=True, ttl=ttl))


# Publishing and asking


async def _publish(client: Client, number: int, request: PublishRequest) -> Reply:
    channel, parameters = _find(client, request.channel)
    if request.type or not channel.client_publishing:
        raise error(ErrorCode.NOT_AVAILABLE)
    data = bytes(request.data)
    if not data:
        raise error(ErrorCode.BAD_REQUEST, "no data")
    message = channel.read(data)
    changed = await channel.allow(
        "publish",
        client.scope,
        parameters,
        client.given(message=message),
        subscribed=_is_in(client, request.channel),
    )
    sub = client.subscriptions.get(request.channel)
    publication = Publication(
        channel.write(message if changed is None else changed),
        info=client.info_in() if sub is None else sub.info,
    )
    await client.service.board.publish(request.channel, publication, channel.options)
    return Reply(number, publish=Empty())


async def _may_see(client: Client, name: str) -> None:
    channel, parameters = _find(client, name)
    if not channel.options.presence:
        raise error(ErrorCode.NOT_AVAILABLE, "no presence in this channel")
    await channel.allow(
        "presence", client.scope, parameters, client.given(), subscribed=_is_in(client, name)
    )


async def _presence(client: Client, number: int, request: PresenceRequest) -> Reply:
    await _may_see(client, request.channel)
    present = await client.service.board.broker.presence(request.channel)
    infos = {one: wire_info(info) for one, info in present.items()}
    return Reply(number, presence=PresenceResult(infos))


async def _presence_stats(client: Client, number: int, request: PresenceRequest) -> Reply:
    await _may_see(client, request.channel)
    clients, users = await client.service.board.broker.presence_counts(request.channel)
    return Reply(number, presence_stats=PresenceStatsResult(clients, users))


async def _history(client: Client, number: int, request: HistoryRequest) -> Reply:
    name, since = request.channel, request.since
    channel, parameters = _find(client, name)
    stream = stream_of(channel.options)
    if stream is None:
        raise error(ErrorCode.NOT_AVAILABLE, "no history in this channel")
    await channel.allow(
        "history", client.scope, parameters, client.given(), subscribed=_is_in(client, name)
    )
    if since is not None and request.reverse and not since.offset:
        raise error(ErrorCode.BAD_REQUEST, "reverse needs an offset")
    most = client.service.spec.limits.recovered_publications
    page = await client.service.board.broker.history(
        name,
        stream,
        since=None if since is None else Position(since.offset, since.epoch),
        limit=most if request.limit < 0 else min(request.limit, most),
        reverse=request.reverse,
    )
    if since is not None and since.epoch not in ("", page.top.epoch):
        raise error(ErrorCode.UNRECOVERABLE_POSITION)
    found = [published(one) for one in page.publications]
    return Reply(number, history=HistoryResult(found, page.top.epoch, page.top.offset))


async def _rpc(client: Client, number: int, request: RpcRequest) -> Reply:
    methods = client.service.declared.methods
    if not methods:
        raise error(ErrorCode.NOT_AVAILABLE, "no methods are declared")
    method = methods.get(request.method)
    if method is None:
        raise error(ErrorCode.METHOD_NOT_FOUND)
    answer = await method(client.scope, client, bytes(request.data))
    return Reply(number, rpc=RpcResult(raw(answer)))


async def _send(client: Client, number: int, request: Any) -> None:
    # A message without an id cannot be answered: closing is the only way to say so.
    raise DisconnectClient(Disconnect.NOT_AVAILABLE)


async def _ping(client: Client, number: int, request: Any) -> Reply:
    raise error(ErrorCode.NOT_AVAILABLE)


async def _same_id(client: Client, number: int, request: Any) -> Reply:
    raise error(ErrorCode.BAD_REQUEST, "this id is in use")


COMMANDS: Mapping[str, Run] = {
    "connect": connecting.connect,
    "refresh": connecting.refresh,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "sub_refresh": _sub_refresh,
    "publish": _publish,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "history": _history,
    "rpc": _rpc,
    "send": _send,
    "ping": _ping,
    SAME_ID: _same_id,
}


# By the server


async def subscribe_by_server(client: Client, name: str) -> None:
    """Subscribe a connected client; see `Client.subscribe`."""
    if client.cause is not None:
        raise SessionClosed(client.cause)
    if name in client.subscriptions:
        return
    found = client.service.declared.find(check_channel(name))
    if found is None:
        raise UsageError(f"no declared channel is called {name!r}")
    if len(client.subscriptions) >= client.service.spec.limits.max_subscriptions:
        raise UsageError("this client is in as many channels as it may be")
    sub = Subscription(*found, client.info_in(), server=True)
    entering = await enter(client, name, sub, LIVE_ONLY)
    try:
        result, rest = entering.commit()
    except Gap:
        client.end(Disconnect.INSUFFICIENT_STATE)
        return
    told = Subscribed(result.recoverable, result.epoch, result.offset, result.positioned)
    client.push(Push(name, subscribe=told))
    for publication in result.publications or ():  # the newest, of a channel that caches
        client.push(Push(name, pub=publication))
    client.deliver_held(rest)
    entering.announce()


def unsubscribe_by_server(client: Client, name: str, code: int, reason: str = "") -> bool:
    """End a subscription and tell the client; returns whether there was one.

    Raises:
        UsageError: a code that may not be used.
    """
    if not is_unsubscribe_code(code):
        raise UsageError(f"unsubscribe code {code}: 2000 to 2999 may be used")
    sub = client.subscriptions.get(name)
    if sub is None:
        return False
    if not sub.live:
        sub.revoked = True  # whoever is entering it learns of it
        return True
    if sub.server_side and code == UnsubscribeCode.EXPIRED:
        client.end(Disconnect.SUBSCRIPTION_EXPIRED, cause=CauseKind.TOKEN_EXPIRED)
        return True
    del client.subscriptions[name]
    sub.end(client, name)
    known = UNSUBSCRIBES.get(UnsubscribeCode(code)) if code in set(UnsubscribeCode) else None
    # Both are always there: SDKs fail without them.
    told = Unsubscribed(int(code), reason or known or "unsubscribed")
    client.push(Push(name, unsubscribe=told))
    client.start(sub.tell_unsubscribed(client))
    return True


def lose_position(client: Client, name: str) -> None:
    """Make the client subscribe again, from its position: a publication was lost on the way."""
    sub = client.subscriptions.get(name)
    if sub is None or not sub.live:
        return  # it is just entering, and sees for itself
    if sub.server_side:
        client.end(Disconnect.INSUFFICIENT_STATE, cause=CauseKind.CLOSED)
    else:
        unsubscribe_by_server(client, name, UnsubscribeCode.INSUFFICIENT_STATE)
