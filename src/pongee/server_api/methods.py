"""What each method of the server API does.

A method takes the `Api` and its request and returns the result, which is written as JSON. It raises
`ClientError` for what the caller did wrong, and `BrokerUnavailable`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from pongee.centrifuge.codes import ErrorCode, is_disconnect_code
from pongee.centrifuge.errors import error
from pongee.centrifuge.messages import (
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    published,
    wire_info,
)
from pongee.channels.names import check_channel
from pongee.channels.options import PLAIN, ChannelOptions, stream_of
from pongee.channels.publication import Position, Publication, publication_of
from pongee.errors import ClientError, UsageError
from pongee.fleet.messages import (
    Command,
    Disconnect,
    ListChannels,
    Refresh,
    Subscribe,
    Target,
    Unsubscribe,
    check_pattern,
    sum_up,
)
from pongee.handlers.channel import Channel
from pongee.handlers.faults import client_error
from pongee.limits import API_STEPS, MESSAGES_PER_TURN
from pongee.node import Node
from pongee.server_api import requests

__all__ = ["METHODS", "Api", "Method", "told"]


@dataclass(frozen=True)
class Api:
    """What the methods work on."""

    node: Node


class Method(NamedTuple):
    """One method: the type of its request, and what it does."""

    request: Any
    run: Callable[[Api, Any], Awaitable[Any]]


def told(problem: ClientError) -> dict[str, Any]:
    """Write an error as the caller gets it."""
    return {"code": int(problem.code), "message": problem.message}


def _bad(detail: str) -> ClientError:
    return error(ErrorCode.BAD_REQUEST, detail)


def _checked(name: str) -> str:
    try:
        return check_channel(name)
    except UsageError as problem:
        raise _bad(str(problem)) from None


def _decline(request: Any, *names: str) -> None:
    """Refuse what would be ignored: the caller relies on it."""
    for name in names:
        if getattr(request, name) not in (None, False, ""):
            raise error(ErrorCode.NOT_AVAILABLE, f"{name} is not supported")


# Publishing


class _Message:
    """What one request publishes, read and written once for all channels of one declaration."""

    def __init__(self, request: requests.MessageRequest) -> None:
        _decline(request, "delta", "version")
        self._request = request
        self._data = _payload(request)
        self._written: dict[Channel[Any] | None, Publication] = {}

    async def publish(self, node: Node, name: str) -> dict[str, Any]:
        """Publish it to one channel.

        Raises:
            ClientError: 107, the name or the payload cannot be used there.
            BrokerUnavailable: it may or may not have been accepted.
        """
        found = node.declared.find(_checked(name))
        channel = None if found is None else found[0]
        options = PLAIN if channel is None else channel.options
        publication = self._written.get(channel)
        if publication is None:
            publication = self._written[channel] = self._write(channel)
        if self._request.skip_history:
            options = replace(options, history=0)
        offset, epoch = await node.board.publish(
            name, publication, options, idempotency_key=self._request.idempotency_key or None
        )
        return {"offset": offset, "epoch": epoch}

    def _write(self, channel: Channel[Any] | None) -> Publication:
        tags = self._request.tags
        try:
            if channel is None:
                return publication_of(msgspec.json.decode(self._data), tags=tags)
            return Publication(channel.write(channel.read(self._data)), tags=tags or None)
        except (UsageError, ValueError) as problem:
            raise _bad(f"data: {problem}") from None


def _payload(request: requests.MessageRequest) -> bytes:
    data = bytes(request.data)
    if request.b64data:
        try:
            data = base64.b64decode(request.b64data, validate=True)
            msgspec.json.decode(data)
        except (ValueError, RecursionError):
            raise _bad("b64data is not JSON in base64; channels carry JSON") from None
    if not data:
        raise _bad("data is missing")
    return data


async def _publish(api: Api, request: requests.PublishRequest) -> Any:
    return await _Message(request).publish(api.node, request.channel)


async def _broadcast(api: Api, request: requests.BroadcastRequest) -> Any:
    if not request.channels or len(request.channels) > API_STEPS:
        raise _bad(f"channels: 1 to {API_STEPS}")
    message = _Message(request)
    responses: list[dict[str, Any]] = []
    for name in request.channels:
        if len(responses) % MESSAGES_PER_TURN == MESSAGES_PER_TURN - 1:
            await asyncio.sleep(0)  # others have their turn
        try:
            responses.append({"result": await message.publish(api.node, name)})
        except Exception as problem:
            responses.append({"error": told(client_error(problem, "server API, broadcast"))})
    return {"responses": responses}


# Connections


def _target(request: requests.TargetRequest, keep: Sequence[str] = ()) -> Target:
    if not request.user and not request.client:
        raise _bad("user is missing")
    return Target(
        user=request.user or None,
        id=request.client or None,
        session=request.session or None,
        keep=frozenset(keep),
    )


async def _everywhere(api: Api, command: Command) -> dict[str, Any]:
    """Have every process do it.

    Raises:
        ClientError: what went wrong at one, when everybody else has been served.
    """
    for answer in await api.node.command(command):
        if answer.code:
            raise ClientError(answer.code, answer.problem)
    return {}


async def _subscribe(api: Api, request: requests.SubscribeRequest) -> Any:
    _decline(request, "info", "b64info", "data", "b64data", "recover_since", "override")
    target = _target(request)
    if api.node.declared.find(_checked(request.channel)) is None:
        raise error(ErrorCode.UNKNOWN_CHANNEL)
    return await _everywhere(api, Subscribe(target, request.channel))


async def _unsubscribe(api: Api, request: requests.UnsubscribeRequest) -> Any:
    return await _everywhere(api, Unsubscribe(_target(request), _checked(request.channel)))


async def _disconnect(api: Api, request: requests.DisconnectRequest) -> Any:
    target = _target(request, request.whitelist or ())
    wish = request.disconnect or requests.CustomDisconnect()
    if wish.code and not is_disconnect_code(wish.code):
        raise _bad(f"disconnect code {wish.code}: 3000 to 4999 may be used")
    return await _everywhere(api, Disconnect(target, wish.code or None, wish.reason or None))


async def _refresh(api: Api, request: requests.RefreshRequest) -> Any:
    command = Refresh(_target(request), request.expire_at or None, bool(request.expired))
    return await _everywhere(api, command)


# Channels


def _options(api: Api, name: str) -> ChannelOptions:
    return api.node.declared.options_of(_checked(name))


async def _presence(api: Api, request: requests.ChannelRequest) -> Any:
    _need_presence(api, request.channel)
    present = await api.node.board.broker.presence(request.channel)
    return PresenceResult({one: wire_info(info) for one, info in present.items()})


async def _presence_stats(api: Api, request: requests.ChannelRequest) -> Any:
    _need_presence(api, request.channel)
    return PresenceStatsResult(*await api.node.board.broker.presence_counts(request.channel))


def _need_presence(api: Api, name: str) -> None:
    if not _options(api, name).presence:
        raise error(ErrorCode.NOT_AVAILABLE, "no presence in this channel")


async def _history(api: Api, request: requests.HistoryRequest) -> Any:
    stream = stream_of(_options(api, request.channel))
    if stream is None:
        raise error(ErrorCode.NOT_AVAILABLE, "no history in this channel")
    since, limit = request.since, request.limit or 0
    if since is not None and request.reverse and not since.offset:
        raise _bad("reverse needs an offset")
    page = await api.node.board.broker.history(
        request.channel,
        stream,
        since=None if since is None else Position(since.offset, since.epoch),
        limit=None if limit < 0 else limit,
        reverse=bool(request.reverse),
    )
    if since is not None and since.epoch not in ("", page.top.epoch):
        raise error(ErrorCode.UNRECOVERABLE_POSITION)
    found = [published(one) for one in page.publications]
    return HistoryResult(found, page.top.epoch, page.top.offset)


async def _history_remove(api: Api, request: requests.ChannelRequest) -> Any:
    if stream_of(_options(api, request.channel)) is None:
        raise error(ErrorCode.NOT_AVAILABLE, "no history in this channel")
    await api.node.board.broker.remove_history(request.channel)
    return {}


async def _channels(api: Api, request: requests.ChannelsRequest) -> Any:
    try:
        pattern = check_pattern(request.pattern or "")
    except UsageError as problem:
        raise _bad(str(problem)) from None
    found = sum_up(answer.channels for answer in await api.node.command(ListChannels(pattern)))
    return {"channels": {name: {"num_clients": count} for name, count in found.items()}}


async def _info(api: Api, request: requests.InfoRequest) -> Any:
    return {"nodes": [api.node.describe(), *api.node.fleet.others]}


METHODS: Mapping[str, Method] = {
    "publish": Method(requests.PublishRequest, _publish),
    "broadcast": Method(requests.BroadcastRequest, _broadcast),
    "subscribe": Method(requests.SubscribeRequest, _subscribe),
    "unsubscribe": Method(requests.UnsubscribeRequest, _unsubscribe),
    "disconnect": Method(requests.DisconnectRequest, _disconnect),
    "refresh": Method(requests.RefreshRequest, _refresh),
    "presence": Method(requests.ChannelRequest, _presence),
    "presence_stats": Method(requests.ChannelRequest, _presence_stats),
    "history": Method(requests.HistoryRequest, _history),
    "history_remove": Method(requests.ChannelRequest, _history_remove),
    "channels": Method(requests.ChannelsRequest, _channels),
    "info": Method(requests.InfoRequest, _info),
}
"""By name: each is at ``/api/{name}``, and may be in a batch."""
