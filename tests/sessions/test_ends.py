"""Every way a session can end, as seen on the wire. The table of docs/closing.md."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import HTTPException, Path, WebSocketException

from pongee import BrokerUnavailable, Caps, CloseCode, Limits, Refused, Session, public
from pongee.testing import CloseFrame, HandshakeRefused, RawPeer, connect, eventually
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("error", "frame", "cause"),
    [
        (None, CloseFrame(1000, ""), "handler returned"),
        (ValueError("bug"), CloseFrame(1011, "internal error"), "handler crashed"),
        (WebSocketException(4242, "own"), CloseFrame(4242, "own"), "closed by the handler"),
        (HTTPException(403, "not you"), CloseFrame(1008, "not you"), "refused"),
        (HTTPException(500, "secret"), CloseFrame(1011, "internal error"), "handler crashed"),
        (Refused(403, "no", code=4003), CloseFrame(4003, "no"), "refused"),
        (BrokerUnavailable("redis"), CloseFrame(1013, "try again later"), "closed by the handler"),
    ],
)
async def test_end_of_the_handler_is_a_close_frame(
    error: Exception | None, frame: CloseFrame, cause: str
) -> None:
    """Return, crash and the exceptions FastAPI users raise: never 1006."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        if error is not None:
            raise error

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.wait_closed() == frame
        await eventually(lambda: world.causes)
    assert world.causes == [cause]


async def test_crash_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The developer gets the traceback, the client does not."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        raise ValueError("the bug")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert (await client.wait_closed()).reason == "internal error"
    assert caplog.text.count("ValueError: the bug") == 1


async def _refused(world: World, path: str, **options: Any) -> HandshakeRefused:
    async with world.running() as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws(path), **options):
                pass
    return refused.value


async def test_unknown_route_is_404() -> None:
    """A typo in the path does not look like missing permission."""
    refused = await _refused(World(), "/nowhere")
    assert refused.status == 404
    assert refused.json() == {"detail": "Not Found"}


async def test_failed_validation_is_422_with_the_details() -> None:
    """Validation errors come back as data, as for HTTP."""
    world = World()

    @world.pongee.endpoint("/ws/{room}", auth=public)
    async def handler(room: Annotated[int, Path(gt=0)], session: Session[str, str]) -> None: ...

    refused = await _refused(world, "/ws/abc")
    assert refused.status == 422
    assert refused.json()["detail"][0]["loc"] == ["path", "room"]


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Refused(401, "who are you"), 401, "who are you"),
        (Refused(403, "not you", detail={"need": "admin"}), 403, {"need": "admin"}),
        (HTTPException(418, "teapot"), 418, "teapot"),
        (WebSocketException(1008, "policy"), 403, "policy"),
    ],
)
async def test_refusal_before_accept_is_an_http_response(
    error: Exception, status: int, detail: Any
) -> None:
    """``refuse="http"``, the default: a status and a JSON body."""

    async def policy() -> None:
        raise error

    refused = await _refused(_with_policy(policy), "/ws")
    assert refused.status == status
    assert refused.json() == {"detail": detail}
    assert refused.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


def _with_policy(policy: Any, **options: Any) -> World:
    world = World()

    @world.pongee.endpoint("/ws", auth=policy, **options)
    async def handler(session: Session[str, str]) -> None: ...

    return world


@pytest.mark.parametrize(
    ("error", "frame"),
    [
        (Refused(401, "who are you"), CloseFrame(1008, "who are you")),
        (Refused(403, "not you", code=4003), CloseFrame(4003, "not you")),
        (HTTPException(403, "not you"), CloseFrame(1008, "not you")),
        (HTTPException(503, "later"), CloseFrame(1013, "later")),
        (WebSocketException(4009, "own"), CloseFrame(4009, "own")),
    ],
)
async def test_refusal_after_accept_is_a_close_frame(error: Exception, frame: CloseFrame) -> None:
    """``refuse="close"``: the only refusal that a browser's script can read."""

    async def policy() -> None:
        raise error

    world = _with_policy(policy, refuse="close")
    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.wait_closed() == frame
    assert world.opened == []


@pytest.mark.parametrize("size", [100, 101, 300])
@pytest.mark.parametrize("letter", ["x", "é"])
async def test_message_over_the_limit_closes_with_1009(size: int, letter: str) -> None:
    """The limit counts bytes; exactly the limit is fine."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public, limits=Limits(max_message_size=100))
    async def handler(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    text = letter * size
    async with world.running() as server, connect(server.ws("/ws")) as client:
        await client.send(text)
        if len(text.encode()) <= 100:
            assert await client.receive() == text
        else:
            assert (await client.wait_closed()).code == 1009
            await eventually(lambda: world.causes)
            assert world.causes == ["bad input"]


async def test_text_that_is_not_utf8_closes_with_1007() -> None:
    """RFC 6455 section 8.1."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    async with world.running() as server, RawPeer(server.port, "/ws") as peer:
        await peer.handshake()
        await peer.send_frame(1, b"\xff\xfe")
        assert (await peer.read_to_end())[2:4] == (1007).to_bytes(2, "big")
        await eventually(lambda: world.causes)
    assert world.causes == ["bad input"]


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(messages_per_second=1, message_burst=5), "too many messages"),
        (Limits(bytes_per_second=1, byte_burst=30), "too many bytes"),
    ],
)
async def test_too_many_messages_close_with_1008(limits: Limits, why: str) -> None:
    """A token bucket per session, in messages and in bytes."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public, limits=limits)
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    async with world.running() as server, connect(server.ws("/ws")) as client:
        for _ in range(10):
            await client.send("0123456789")
        assert await client.wait_closed() == CloseFrame(1008, why)


async def test_shutdown_of_the_server_closes_with_1012() -> None:
    """The server's own shutdown reaches clients and handlers, whoever runs us."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await asyncio.Event().wait()

    async with world.running() as server, connect(server.ws("/ws")) as client:
        await eventually(lambda: world.opened)
        server.uvicorn.should_exit = True
        assert (await client.wait_closed()).code == 1012
    assert world.causes == ["server is leaving"]


async def test_drain_refuses_new_handshakes_and_spreads_the_closes() -> None:
    """`drain`: 1012 for everybody, over the window; 503 for whoever comes now."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        async for _ in session:
            pass

    async with (
        world.running() as server,
        connect(server.ws("/ws")) as one,
        connect(server.ws("/ws")) as two,
    ):
        await eventually(lambda: len(world.opened) == 2)
        draining = asyncio.ensure_future(world.pongee.drain(0.2))
        assert await one.wait_closed() == CloseFrame(1012, "server is leaving")
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/ws")):
                pass
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"]
        assert not draining.done()
        assert await two.wait_closed() == CloseFrame(1012, "server is leaving")
        await draining
    assert world.causes == ["server is leaving"] * 2


async def test_process_at_its_cap_refuses_with_503_and_retry_after() -> None:
    """Capacity speaks before accept, and the connected ones are unharmed."""
    world = World(caps=Caps(max_connections=2, retry_after=7))

    @world.pongee.endpoint("/ws", auth=public, refuse="close")
    async def handler(session: Session[str, str]) -> None:
        async for text in session:
            await session.send(text)

    async with world.running() as server, connect(server.ws("/ws")) as one:
        async with connect(server.ws("/ws")):
            with pytest.raises(HandshakeRefused) as refused:
                async with connect(server.ws("/ws")):
                    pass
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"] == "7"
        await one.send("still here")
        assert await one.receive() == "still here"
        await eventually(lambda: len(world.pongee.connections()) == 1)
        async with connect(server.ws("/ws")) as again:
            await again.send("room again")
            assert await again.receive() == "room again"


async def test_disconnect_by_the_application_has_its_code_and_reason() -> None:
    """By id and by user."""
    world = World()

    async def policy(user: str) -> str:
        return user

    @world.pongee.endpoint("/ws", auth=policy)
    async def handler(session: Session[str, str]) -> None:
        await session.send(session.id)
        await asyncio.Event().wait()

    async with (
        world.running() as server,
        connect(server.ws("/ws?user=ada")) as one,
        connect(server.ws("/ws?user=ada")) as two,
        connect(server.ws("/ws?user=bob")) as three,
    ):
        ids = [await client.receive() for client in (one, two, three)]
        assert len(world.pongee.connections_of("ada")) == 2
        assert await world.pongee.disconnect(user="ada", code=4010, reason="banned") == 2
        assert await one.wait_closed() == CloseFrame(4010, "banned")
        assert await two.wait_closed() == CloseFrame(4010, "banned")
        assert await world.pongee.disconnect(id=str(ids[2])) == 1
        assert await three.wait_closed() == CloseFrame(CloseCode.DISCONNECTED, "disconnected")
        assert await world.pongee.disconnect(user="nobody") == 0
    assert set(world.causes) == {"disconnected by the application"}
