"""Endpoints are declared on FastAPI's own routing, and mistakes are told at start-up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Response,
    Security,
)
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBearer,
    OAuth2PasswordBearer,
    SecurityScopes,
)
from starlette.websockets import WebSocket

from pongee import (
    ConfigurationError,
    CookieToken,
    Identity,
    JWTBearer,
    Pongee,
    Session,
    Settings,
    StaticTokens,
    TokenPolicy,
    public,
)
from pongee.testing import HandshakeRefused, connect, eventually, serve
from tests.sessions.conftest import World

pytestmark = pytest.mark.anyio


async def current_name(name: str = "nobody") -> str:
    return name


def scoped(scopes: SecurityScopes) -> list[str]:
    return scopes.scopes


async def test_parameters_and_dependencies_are_resolved_as_in_fastapi() -> None:
    """Path, query, header, Annotated, Depends, Security and defaults all work."""
    world = World()

    @world.pongee.endpoint("/ws/{room}", auth=public)
    async def handler(
        room: Annotated[int, Path(gt=0)],
        session: Session[str, dict[str, Any]],
        websocket: WebSocket,
        name: Annotated[str, Depends(current_name)],
        scopes: Annotated[list[str], Security(scoped, scopes=["read"])],
        user_agent: Annotated[str, Header()],
        limit: Annotated[int, Query(le=10)] = 5,
        old_style: str = Depends(current_name),
    ) -> None:
        await session.send(
            {
                "room": room,
                "name": name,
                "scopes": scopes,
                "limit": limit,
                "old": old_style,
                "agent": user_agent,
                "path": websocket.url.path,
            }
        )

    async with (
        world.running() as server,
        connect(server.ws("/ws/3?name=Ada&limit=7"), user_agent_header="kit") as client,
    ):
        assert await client.receive_json() == {
            "room": 3,
            "name": "Ada",
            "scopes": ["read"],
            "limit": 7,
            "old": "Ada",
            "agent": "kit",
            "path": "/ws/3",
        }


async def test_routers_prefixes_and_their_dependencies_apply() -> None:
    """An endpoint on a router is included, prefixed and guarded like any route."""
    world, router, ran = World(), APIRouter(prefix="/inner"), []

    def guard() -> None:
        ran.append("router")

    @world.pongee.endpoint("/ws/{room}", auth=public, router=router)
    async def handler(room: int, session: Session[str, str]) -> None:
        await session.send(f"{session.route} {room}")

    world.app.include_router(router, prefix="/outer", dependencies=[Depends(guard)])
    async with world.running() as server, connect(server.ws("/outer/inner/ws/8")) as client:
        assert await client.receive() == "/outer/inner/ws/{room} 8"
    assert ran == ["router"]


async def test_own_router_may_be_included_with_a_prefix() -> None:
    """`Pongee.router` is an ordinary router; `install` does not include it twice."""
    world = World()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await session.send(session.route)

    world.app.include_router(world.pongee.router, prefix="/v1")
    async with world.running() as server:
        async with connect(server.ws("/v1/ws")) as client:
            assert await client.receive() == "/v1/ws"
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/ws")):
                pass
        assert refused.value.status == 404


async def test_dependency_overrides_replace_dependencies_and_policies() -> None:
    """Tests of applications replace what they need, the auth policy included."""
    world = World()
    policy = JWTBearer("x" * 32)

    @world.pongee.endpoint("/ws", auth=policy)
    async def handler(
        session: Session[str, str], name: Annotated[str, Depends(current_name)]
    ) -> None:
        await session.send(f"{session.user} {name}")

    world.app.dependency_overrides[policy] = lambda: Identity(user="tester")
    world.app.dependency_overrides[current_name] = lambda: "override"
    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "tester override"


async def test_fastapi_security_class_alone_is_no_policy() -> None:
    """It takes a token out of the request and verifies nothing: everybody would be let in."""
    with pytest.raises(ConfigurationError, match="verifies nothing"):
        _declare(fine, auth=HTTPBearer())
    with pytest.raises(ConfigurationError, match="verifies nothing"):
        _declare(fine, auth=Security(OAuth2PasswordBearer(tokenUrl="token")))


async def test_policy_below_a_fastapi_security_class_refuses_with_its_status() -> None:
    """`Depends` and `Security` are taken, and what they need is resolved."""
    world = World()

    async def verify(
        credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
    ) -> Identity:
        return Identity(user=credentials.credentials)

    @world.pongee.endpoint("/ws", auth=Security(verify), refuse="close")
    async def handler(session: Session[str, str]) -> None:
        await session.send("in")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        frame = await client.wait_closed()
        assert (frame.code, frame.reason) == (1008, "Not authenticated")


async def test_admission_dependencies_are_released_before_the_session_goes_live() -> None:
    """What auth opened is closed while the session lives; what the handler named stays open."""
    world = World()
    opened: dict[str, bool] = {}
    seen: list[dict[str, bool]] = []

    async def database() -> AsyncIterator[str]:
        opened["database"] = True
        yield "connection"
        opened["database"] = False

    async def cache() -> AsyncIterator[str]:
        opened["cache"] = True
        yield "cache"
        opened["cache"] = False

    async def user(db: Annotated[str, Depends(database)]) -> Identity:
        assert opened["database"]
        return Identity(user=f"ada via {db}")

    @world.pongee.endpoint("/ws", auth=user)
    async def handler(session: Session[str, str], held: Annotated[str, Depends(cache)]) -> None:
        seen.append(dict(opened))
        await session.send(f"{session.user} {held}")

    async with world.running() as server, connect(server.ws("/ws")) as client:
        assert await client.receive() == "ada via connection cache"
        assert (await client.wait_closed()).code == 1000
        await eventually(lambda: not opened["cache"])
    assert seen == [{"database": False, "cache": True}]


async def test_no_auth_policy_is_an_error_that_names_the_route_and_the_cure() -> None:
    """Deny by default: whoever forgets the policy learns it before the program runs."""
    pongee = Pongee(Settings())
    with pytest.raises(ConfigurationError, match=r"/ws/open .*handler.*auth=public"):

        @pongee.endpoint("/ws/open")
        async def handler(session: Session[str, str]) -> None: ...


def _declare(handler: Any, **options: Any) -> None:
    Pongee(Settings()).endpoint("/ws", **({"auth": public} | options))(handler)


def sync_handler(session: Session[str, str]) -> None: ...


async def with_background(session: Session[str, str], tasks: BackgroundTasks) -> None: ...


async def with_response(session: Session[str, str], response: Response) -> None: ...


async def bare_session(session: Session) -> None: ...  # type: ignore[type-arg]


async def no_session(text: str) -> None: ...


async def two_sessions(one: Session[str, str], two: Session[str, str]) -> None: ...


async def with_rest(session: Session[str, str], **rest: str) -> None: ...


async def odd_type(session: Session[asyncio.Event, str]) -> None: ...


async def fine(session: Session[str, str]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "options", "message"),
    [
        (sync_handler, {}, "async def"),
        (with_background, {}, "session.spawn"),
        (with_response, {}, "take it out"),
        (bare_session, {}, r"Session\[str, str\]"),
        (no_session, {}, "names its session once"),
        (two_sessions, {}, "2 times"),
        (with_rest, {}, "name each parameter"),
        (odd_type, {}, "cannot carry Event"),
        (fine, {"overflow": "explode"}, "overflow='explode'"),
        (fine, {"refuse": "rudely"}, "refuse='rudely'"),
        (fine, {"auth": "public"}, "is no policy"),
        (fine, {"origins": "https://a.example"}, "give a list"),
        (fine, {"origins": ["a.example"]}, "a.example"),
    ],
)
def test_declaration_that_cannot_work_is_refused_with_the_cure(
    handler: Any, options: dict[str, Any], message: str
) -> None:
    """What FastAPI would resolve into nothing useful fails where it is written."""
    with pytest.raises(ConfigurationError, match=message):
        _declare(handler, **options)


async def test_background_tasks_in_a_dependency_stop_the_start() -> None:
    """A trap below the handler's signature is found when the application starts."""
    world = World()

    def below(tasks: BackgroundTasks) -> None: ...

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str], _: Annotated[None, Depends(below)]) -> None: ...

    world.pongee.install(world.app)
    with pytest.raises(ConfigurationError, match=r"/ws .*below takes BackgroundTasks"):
        async with world.pongee.lifespan(world.app):
            pass


async def test_dependency_that_would_outlive_what_it_is_made_from_stops_the_start() -> None:
    """A held dependency made from a released one would be broken: told at start-up."""
    world = World()

    async def database() -> AsyncIterator[str]:
        yield "connection"

    async def repository(db: Annotated[str, Depends(database)]) -> AsyncIterator[str]:
        yield db

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(
        session: Session[str, str], repo: Annotated[str, Depends(repository)]
    ) -> None: ...

    world.pongee.install(world.app)
    with pytest.raises(ConfigurationError, match=r'Depends\(database, scope="function"\)'):
        async with world.pongee.lifespan(world.app):
            pass


async def test_endpoint_that_is_not_installed_says_so() -> None:
    """Forgetting `install` is told at start-up, not by a closed socket."""
    pongee = Pongee(Settings())
    with pytest.raises(ConfigurationError, match=r"pongee.install\(app\)"):
        async with pongee.lifespan(None):  # type: ignore[arg-type]
            pass
    world = World()
    world.pongee.install(world.app)
    with pytest.raises(ConfigurationError, match="called before"):
        world.pongee.install(world.app)


async def test_policy_that_returns_none_refuses() -> None:
    """Whoever forgets to return the user lets nobody in."""
    world = World()

    async def forgetful() -> None: ...

    @world.pongee.endpoint("/ws", auth=forgetful)
    async def handler(session: Session[str, str]) -> None: ...

    async with world.running() as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/ws")):
                pass
    assert refused.value.status == 401


async def test_cookie_token_below_the_policy_needs_an_origin_check_too() -> None:
    """However deep it is: found at start-up."""
    world = World()
    cookie = TokenPolicy(StaticTokens(["token-123"]), CookieToken("session"))

    async def me(identity: Annotated[Any, Depends(cookie)]) -> Any:
        return identity

    @world.pongee.endpoint("/ws", auth=me, origins=["*"])
    async def handler(session: Session[str, str]) -> None: ...

    world.pongee.install(world.app)
    with pytest.raises(ConfigurationError, match="origin check"):
        async with world.pongee.lifespan(world.app):
            pass


async def test_second_pongee_on_one_application_is_refused() -> None:
    """Two would count and guard the same handshakes twice."""
    world = World()
    world.pongee.install(world.app)
    with pytest.raises(ConfigurationError, match="another Pongee"):
        Pongee(Settings()).install(world.app)


async def test_mounted_application_works() -> None:
    """Starlette runs no lifespan of what is mounted; it starts with its first handshake."""
    world, outer = World(), FastAPI()

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None:
        await session.send("mounted")

    world.pongee.install(world.app)
    outer.mount("/inner", world.app)
    async with serve(outer) as server:
        async with connect(server.ws("/inner/ws")) as client:
            assert await client.receive() == "mounted"
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(server.ws("/inner/nowhere")):
                pass
        assert refused.value.status == 404


async def test_http_404_of_the_application_stays_a_404() -> None:
    """Only a path that no HTTP route has gets the hint to upgrade; without lifespan, too."""
    world = World()

    @world.app.get("/items/{item}")
    async def item(item: int) -> None:
        raise HTTPException(404, "no such item")

    @world.pongee.endpoint("/items/{item}", auth=public)
    async def items(item: int, session: Session[str, str]) -> None: ...

    @world.pongee.endpoint("/ws", auth=public)
    async def handler(session: Session[str, str]) -> None: ...

    world.pongee.install(world.app)
    transport = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.get("/items/3")
        assert (answer.status_code, answer.json()) == (404, {"detail": "no such item"})
        assert (await http.get("/nothing")).status_code == 404
        hint = await http.get("/ws")
        assert hint.status_code == 426
        assert "speaks WebSocket" in hint.json()["detail"]
