"""One event: what a handler gets, from us and from FastAPI, and what it cannot have.

Annotations are evaluated where they stand here, since many name what a test defines.
"""

import asyncio
import enum
import functools
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any

import pytest
from fastapi import (
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Header,
    HTTPException,
    Path,
    Query,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.background import BackgroundTasks
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import AliasChoices, BaseModel, Field, JsonValue
from starlette.requests import HTTPConnection, Request

from pongee.errors import ClientError, ConfigurationError
from pongee.handlers.event import EventHandler, InvalidParameters

pytestmark = pytest.mark.anyio

WHERE = "chat:{room_id} (on_publish)"


class Message(BaseModel):
    text: str


class Client:
    user = "ann"


class Colour(enum.Enum):
    RED = "red"


GIVEN: dict[Any, str] = {Message: "message", Client: "client"}
VALUES = {"message": Message(text="hi"), "client": Client()}


def _scope(app: FastAPI | None = None, **more: Any) -> dict[str, Any]:
    """What is kept of a handshake."""
    return {
        "type": "websocket",
        "app": FastAPI() if app is None else app,
        "scheme": "wss",
        "server": ("chat.example", 443),
        "client": ("192.0.2.1", 50000),
        "path": "/connection/websocket",
        "root_path": "",
        "query_string": b"lang=de&n=7",
        "headers": [
            (b"host", b"chat.example"),
            (b"x-tenant", b"blue"),
            (b"cookie", b"sid=abc"),
            (b"authorization", b"Bearer secret"),
        ],
        "state": {"started": True},
        **more,
    }


def _handler(
    function: Callable[..., Any], *, given: Mapping[Any, str] = GIVEN, names: tuple[str, ...] = ()
) -> EventHandler:
    return EventHandler(function, where=WHERE, given=given, parameters=names or ("room_id",))


async def _call(
    function: Callable[..., Any], *, app: FastAPI | None = None, room_id: Any = "7"
) -> Any:
    return await _handler(function)(_scope(app), {"room_id": room_id}, VALUES)


# What can be a handler


async def coroutine(message: Message) -> str:
    return message.text


def plain_def(message: Message) -> tuple[str, bool]:
    return message.text, threading.current_thread() is threading.main_thread()


class Checks:
    async def __call__(self, message: Message) -> str:
        return message.text

    async def method(self, message: Message) -> str:
        return message.text

    @staticmethod
    async def static(message: Message) -> str:
        return message.text


class ChecksInThread:
    def __call__(self, message: Message) -> tuple[str, bool]:
        return plain_def(message)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def limited(limit: int, message: Message, unit: str = "x") -> str:
    return message.text + unit * limit


def hands_on(message: Message) -> Any:
    return coroutine(message)


class Taken:
    def __init__(self, message: Message) -> None:
        self.text = message.text

    def __eq__(self, other: object) -> bool:
        return self.text == other

    def __hash__(self) -> int:
        return hash(self.text)


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (coroutine, "hi"),
        (plain_def, ("hi", False)),
        (Checks(), "hi"),
        (Checks().method, "hi"),
        (Checks.static, "hi"),
        (ChecksInThread(), ("hi", False)),
        (logged(coroutine), "hi"),
        (logged(plain_def), ("hi", False)),
        (functools.partial(limited, limit=2), "hixx"),
        (functools.partial(limited, 2, unit="y"), "hiyy"),
        (functools.partial(functools.partial(Checks())), "hi"),
        (hands_on, "hi"),
        (Taken, "hi"),
    ],
)
async def test_handler_may_be_any_callable(function: Any, returned: Any) -> None:
    """A plain def runs in a thread; what it returns is returned, and awaited if need be."""
    handler = _handler(function)

    assert await handler(_scope(), {"room_id": "7"}, VALUES) == returned


async def test_what_partial_has_set_is_not_the_clients_to_choose() -> None:
    """FastAPI alone would take ?n=7 for it."""

    async def handler(n: int) -> int:
        return n

    assert await _call(functools.partial(handler, n=1)) == 1


async def test_partial_may_set_a_dependency() -> None:
    """That is FastAPI's to resolve."""

    async def handler(tenant: str) -> str:
        return tenant

    assert await _call(functools.partial(handler, tenant=Header(alias="x-tenant"))) == "blue"
    assert await _call(functools.partial(handler, tenant=Depends(lambda: "green"))) == "green"


# What we give


async def test_given_values_go_by_type() -> None:
    """Bare, inside Annotated, or quoted; whatever the parameter's name, and as the object it is."""

    async def bare(body: Message, client: Client) -> Any:
        return body, client

    async def annotated(a: Annotated[Message, "a note"], b: Annotated[Client, Field()]) -> Any:
        return a, b

    async def quoted(a: "Message", b: "Annotated[Client, 1]") -> Any:
        return a, b

    async def with_default(a: Message | None = None, b: Client = Client()) -> Any:  # noqa: B008
        return a, b

    expected = VALUES["message"], VALUES["client"]
    for function in (bare, annotated, quoted):
        assert await _call(function) == expected
    optional = _handler(with_default, given={Message | None: "message", Client: "client"})
    assert await optional({}, {}, VALUES) == expected


async def test_given_types_may_be_any_annotation() -> None:
    """Lists, unions, JSON, Annotated ones; compared, not asked whether they are subclasses."""
    kind = Annotated[list[int] | str, Field(min_length=1)]

    async def handler(a: kind, b: JsonValue, c: dict[str, Any]) -> Any:
        return a, b, c

    given = {kind: "a", JsonValue: "b", dict[str, Any]: "c"}
    values: dict[str, Any] = {"a": [1], "b": None, "c": {}}
    assert await _handler(handler, given=given)({}, {}, values) == ([1], None, {})


async def test_a_channels_parameter_is_known_by_its_name_first() -> None:
    """A channel of texts gives its message to the other text."""

    async def handler(room_id: str, message: str) -> Any:
        return room_id, message

    handles = _handler(handler, given={str: "message"})
    assert await handles({}, {"room_id": "7"}, {"message": "hi"}) == ("7", "hi")


async def test_marked_parameter_is_fastapis_even_if_we_could_give_its_type() -> None:
    """Depends, in Annotated or as a default, and Header."""
    other = Message(text="other")

    async def handler(
        a: Annotated[Message, Depends(lambda: other)],
        x_tenant: Annotated[str, Header()],
        text: str,
        b: Message = Depends(lambda: other),  # noqa: B008
        lang: str = Query(),
    ) -> Any:
        return a, x_tenant, text, b, lang

    handles = _handler(handler, given={Message: "message", str: "text"})
    found = await handles(_scope(), {"room_id": "7"}, {"text": "t", "message": VALUES["message"]})
    assert found == (other, "blue", "t", other, "de")


async def test_handler_needs_nothing() -> None:
    """All that we give is optional."""

    async def handler() -> int:
        return 5

    assert await _call(handler) == 5


# Parameters of the channel


async def test_channels_parameters_are_validated_as_fastapi_does_for_a_path() -> None:
    """By the annotation; in the fast way and in the other."""
    some = uuid.uuid4()

    async def fast(
        a: int, b: Annotated[int, Path(gt=0)], c: uuid.UUID, d: Colour, e: str, f: Any
    ) -> Any:
        return a, b, c, d, e, f

    async def slow(
        request: Request, a: int, b: Annotated[int, Path(gt=0)], c: uuid.UUID, d: Colour, e: str
    ) -> Any:
        return a, b, c, d, e, request.path_params["f"]

    names = ("a", "b", "c", "d", "e", "f")
    values = {"a": "-7", "b": 8, "c": some, "d": "red", "e": "", "f": 9}
    for function in (fast, slow):
        found = await _handler(function, names=names)(_scope(), values, VALUES)
        assert found == (-7, 8, some, Colour.RED, "", "9")


async def test_channels_parameter_needs_no_annotation_and_may_have_an_alias() -> None:
    """As with FastAPI's paths."""

    async def handler(room_id, room: Annotated[int, Path(alias="room_id")]) -> Any:  # type: ignore[no-untyped-def]
        return room_id, room

    assert await _call(handler) == ("7", 7)


async def fast_room(room_id: Annotated[int, Path(gt=0)]) -> int:
    return room_id


async def slow_room(room_id: Annotated[int, Path(gt=0)], request: Request) -> int:
    return room_id


def room_of(room_id: Annotated[int, Path(gt=0)]) -> int:
    return room_id


async def room_below(room: Annotated[int, Depends(room_of)]) -> int:
    return room


@pytest.mark.parametrize("function", [fast_room, slow_room, room_below])
async def test_value_that_does_not_fit_is_refused_with_fastapis_errors(function: Any) -> None:
    """Text for people leaves out what was sent."""
    assert await _call(function) == 7
    for wrong, kind in (("lobby", "int_parsing"), (-1, "greater_than")):
        with pytest.raises(InvalidParameters) as caught:
            await _call(function, room_id=wrong)
        [error] = caught.value.errors
        assert (error["type"], error["loc"]) == (kind, ("path", "room_id"))
        assert error["input"] == str(wrong)
        assert caught.value.in_path
        assert str(caught.value).startswith("path.room_id: Input should be")
        assert str(wrong) not in str(caught.value)


# What FastAPI gives


async def test_request_shows_the_handshake() -> None:
    """As GET, with the channel's parameters as texts and the client."""

    async def handler(request: Request, connection: HTTPConnection) -> Any:
        assert request is connection
        assert (request.method, request.scope["type"]) == ("GET", "http")
        assert request.path_params == {"room_id": "7"}
        assert request.headers["x-tenant"] == "blue"
        assert request.client is not None
        assert request.client.host == "192.0.2.1"
        assert str(request.url) == "wss://chat.example/connection/websocket?lang=de&n=7"
        assert request.state.started is True
        return request.scope["pongee.client"]

    assert await _call(handler, room_id=7) is VALUES["client"]


async def test_handshakes_scope_is_left_as_it_was() -> None:
    """What one event puts into its request's scope or state is not there for the next."""
    scope = _scope()
    before = {**scope, "state": dict(scope["state"])}

    async def handler(request: Request) -> bool:
        seen = hasattr(request.state, "mark") or "mark" in request.scope
        request.state.mark = request.scope["mark"] = 1
        return seen

    handles = _handler(handler)
    assert [await handles(scope, {}, VALUES) for _ in range(2)] == [False, False]
    assert scope == before


async def test_event_without_a_client_has_none_in_its_scope() -> None:
    """And a handshake without state has an empty one."""

    async def handler(request: Request) -> Any:
        return request.scope["pongee.client"], request.state._state

    scope = _scope()
    del scope["state"]
    assert await _handler(handler, given={})(scope, {}, {}) == (None, {})


class Filters(BaseModel):
    lang: str
    n: int = 0


async def test_headers_cookies_and_query_come_from_the_handshake() -> None:
    """Converted; with defaults; also as a model."""

    async def handler(
        x_tenant: Annotated[str, Header()],
        sid: Annotated[str, Cookie()],
        n: int,
        filters: Annotated[Filters, Query()],
        absent: Annotated[str | None, Header()] = None,
        limit: Annotated[int, Query(le=100)] = 10,
    ) -> Any:
        return x_tenant, sid, n, filters, absent, limit

    assert await _call(handler) == ("blue", "abc", 7, Filters(lang="de", n=7), None, 10)


async def needs_header(x_absent: Annotated[str, Header()]) -> None: ...


async def needs_number(lang: int) -> None: ...


async def needs_below(x: Annotated[Any, Depends(needs_header)]) -> None: ...


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (needs_header, ("header", "x-absent")),
        (needs_number, ("query", "lang")),
        (needs_below, ("header", "x-absent")),
    ],
)
async def test_what_the_handshake_lacks_is_told(function: Any, place: Any) -> None:
    """It is the client's fault, and no matter of the channel's name."""
    with pytest.raises(InvalidParameters) as caught:
        await _call(function)
    assert [error["loc"] for error in caught.value.errors] == [place]
    assert not caught.value.in_path


async def test_security_schemes_and_scopes_work() -> None:
    """Scopes gather on the way down."""

    def user(
        scopes: SecurityScopes,
        token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
    ) -> Any:
        return token.credentials, scopes.scopes

    def admin(user: Annotated[Any, Security(user, scopes=["admin"])]) -> Any:
        return user

    async def handler(
        admin: Annotated[Any, Security(admin, scopes=["read"])], own: SecurityScopes
    ) -> Any:
        return admin, own.scopes

    assert await _call(handler) == (("secret", ["read", "admin"]), [])


async def test_http_exception_of_a_dependency_comes_out_as_it_is() -> None:
    """And the handler is not called."""
    called = []

    async def handler(token: Annotated[Any, Depends(HTTPBearer())]) -> None:
        called.append(token)

    with pytest.raises(HTTPException) as caught:
        await _handler(handler)(_scope(headers=[]), {}, VALUES)
    assert caught.value.status_code == 401
    assert not called


async def test_dependency_is_called_once_per_event() -> None:
    """Unless it says use_cache=False; the next event calls it again."""
    calls: list[str] = []

    def cached() -> int:
        calls.append("cached")
        return len(calls)

    def fresh() -> int:
        calls.append("fresh")
        return len(calls)

    def below(a: Annotated[int, Depends(cached)]) -> int:
        return a

    async def handler(
        a: Annotated[int, Depends(cached)],
        b: Annotated[int, Depends(below)],
        c: Annotated[int, Depends(fresh, use_cache=False)],
        d: Annotated[int, Depends(fresh, use_cache=False)],
    ) -> bool:
        return a == b and c != d

    assert await _call(handler)
    assert calls == ["cached", "fresh", "fresh"]
    assert await _call(handler)
    assert len(calls) == 6


# Overrides


async def test_dependencies_can_be_overridden() -> None:
    """By the application's own mapping, at any depth, at any time."""
    app = FastAPI()

    def user() -> str:
        return "real"

    def name(user: Annotated[str, Depends(user)]) -> str:
        return user

    async def handler(name: Annotated[str, Depends(name)]) -> str:
        return name

    handles = _handler(handler)
    assert await handles(_scope(app), {"room_id": "7"}, VALUES) == "real"
    app.dependency_overrides[user] = lambda room_id: f"in {room_id}"
    assert await handles(_scope(app), {"room_id": "7"}, VALUES) == "in 7"
    app.dependency_overrides.clear()
    assert await handles(_scope(app), {"room_id": "7"}, VALUES) == "real"


async def test_policy_can_be_overridden_itself() -> None:
    """It is a dependency, although we call it; what replaces it may ask for other things."""
    app = FastAPI()

    async def policy(client: Client) -> str:
        return "strict"

    async def lenient(room_id: int, tenant: Annotated[str, Header(alias="x-tenant")]) -> Any:
        return room_id, tenant

    async def friendly(message: Message) -> str:
        return message.text

    handles = _handler(policy)
    for other, returned in (
        (None, "strict"),
        (lenient, (7, "blue")),
        (lenient, (7, "blue")),
        (friendly, "hi"),
        (policy, "strict"),
    ):
        app.dependency_overrides = {} if other is None else {policy: other}
        assert await handles(_scope(app), {"room_id": "7"}, VALUES) == returned


async def test_callable_that_has_no_hash_is_called_whatever_is_overridden() -> None:
    """It cannot stand in the mapping."""

    class Policy:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self) -> int:
            return 3

    app = FastAPI()
    app.dependency_overrides[Policy] = coroutine
    assert await _call(Policy(), app=app) == 3


# What a handler cannot have


class Other:
    pass


class Page(BaseModel):
    n: int


async def rests(*rooms: int) -> None: ...
async def rests_by_name(**rooms: int) -> None: ...
async def positional(message: Message, /) -> None: ...
async def unknown_model(page: Page) -> None: ...
async def body(x: Annotated[int, Body()]) -> None: ...
async def upload(file: UploadFile) -> None: ...
async def upload_bytes(file: Annotated[bytes, File()]) -> None: ...
async def several(pages: list[Page]) -> None: ...
async def unknown_class(other: Other) -> None: ...
async def websocket(ws: WebSocket) -> None: ...
async def tasks(tasks: BackgroundTasks) -> None: ...
async def response(response: Response) -> None: ...
async def unannotated(message) -> None: ...  # type: ignore[no-untyped-def]
async def twice(a: Message, b: Annotated[Message, 1]) -> None: ...
async def no_such_path(x: Annotated[int, Path()]) -> None: ...
async def no_such_choice(
    x: Annotated[int, Path(validation_alias=AliasChoices("y", "z"))],
) -> None: ...
async def default(room_id: Annotated[int, Path()] = 7) -> None: ...
async def as_query(room_id: Annotated[int, Query()]) -> None: ...


async def takes_message(message: Message) -> None: ...
async def takes_client(client: Client) -> None: ...
async def body_below(x: Annotated[Any, Depends(takes_message)]) -> None: ...
async def client_below(x: Annotated[Any, Depends(takes_client)]) -> None: ...
async def websocket_below(x: Annotated[Any, Depends(websocket)]) -> None: ...
async def tasks_below(x: Any = Depends(tasks)) -> None: ...  # noqa: B008
async def response_below(x: Any = Depends(response)) -> None: ...  # noqa: B008
async def path_below(x: Any = Depends(no_such_path)) -> None: ...  # noqa: B008


def yields_function_scope() -> Iterator[int]:
    yield 1


def outlives(x: Annotated[int, Depends(yields_function_scope, scope="function")]) -> Iterator[int]:
    yield x


async def wrong_scopes(x: Annotated[int, Depends(outlives, scope="request")]) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (rests, "name each parameter; *rooms"),
        (rests_by_name, "name each parameter; *rooms"),
        (positional, "message cannot be positional-only"),
        (unknown_model, "page would be the body of a request, and an event has none"),
        (unknown_model, "allowed: message: Message, client: Client, room_id, Request, and what is"),
        (body, "x would be the body"),
        (upload, "file would be the body"),
        (upload_bytes, "file would be the body"),
        (several, "pages would be the body"),
        (unknown_class, "FastAPI cannot resolve other: Invalid args for response field!"),
        (websocket, "ws takes WebSocket, but not every client has one; take Request or"),
        (tasks, "tasks takes BackgroundTasks, which nobody runs"),
        (response, "response takes Response, whose cookies and headers go nowhere"),
        (unannotated, "say what message is; allowed: message: Message"),
        (twice, "a and b would both be the message; take it once"),
        (no_such_path, "x takes Path() x, and the channel has no such parameter; it has room_id"),
        (no_such_choice, "x takes Path() x, and the channel has no such parameter"),
        (default, "FastAPI cannot resolve room_id: Path parameters cannot have default values"),
        (as_query, "FastAPI cannot resolve room_id: Cannot use `Query` for path param 'room_id'"),
        (body_below, "x, through takes_message, asks for message, which would be the body"),
        (body_below, "values that we give reach the handler alone. Take message in the handler"),
        (client_below, "FastAPI cannot resolve x: Invalid args for response field!"),
        (websocket_below, "x, through websocket, takes WebSocket"),
        (tasks_below, "x, through tasks, takes BackgroundTasks"),
        (response_below, "x, through response, takes Response"),
        (path_below, "x, through no_such_path, takes Path() x"),
        (wrong_scopes, "cannot depend on dependencies with scope"),
    ],
)
def test_parameter_that_nobody_can_give_is_refused_at_once(function: Any, why: str) -> None:
    """With the handler's name, the parameter's, what is allowed, and the cure."""
    with pytest.raises(ConfigurationError) as caught:
        _handler(function)
    message = str(caught.value)
    assert message.startswith(f"{WHERE} ({__name__}.{function.__name__}): ")
    assert why in message
    assert "\n" not in message


def test_handler_shows_where_it_belongs() -> None:
    """For logs."""
    handler = _handler(coroutine)
    assert repr(handler) == f"<EventHandler {WHERE} ({__name__}.coroutine)>"
    assert handler.parameters == ("room_id",)


# The fast way


async def with_both(message: Message, room_id: int) -> Any:
    return message.text, room_id


async def yields(message: Message) -> AsyncIterator[str]:
    yield message.text


@pytest.mark.parametrize(
    ("function", "plain"),
    [
        (coroutine, True),
        (plain_def, True),
        (with_both, True),
        (slow_room, False),
        (needs_header, False),
        (needs_number, False),
        (room_below, False),
        (yields, False),
    ],
)
def test_handler_is_plain_if_fastapi_has_nothing_to_resolve(function: Any, plain: bool) -> None:
    """Given values and the channel's parameters need no request."""
    assert _handler(function).plain is plain


async def test_plain_handler_needs_no_handshake() -> None:
    """No request is made."""
    assert await _handler(with_both)({}, {"room_id": "7"}, VALUES) == ("hi", 7)


async def test_events_at_once_do_not_meet() -> None:
    """One handler, many calls."""

    def tenant(room_id: int) -> int:
        return room_id

    async def handler(message: Message, tenant: Annotated[int, Depends(tenant)]) -> Any:
        await asyncio.sleep(0)
        return message.text, tenant

    handles = _handler(handler)
    found = await asyncio.gather(
        *(handles(_scope(), {"room_id": n}, {"message": Message(text=str(n))}) for n in range(30))
    )
    assert found == [(str(n), n) for n in range(30)]


async def test_what_the_handler_raises_comes_out_as_it_is() -> None:
    """In the fast way and in the other, from a thread too."""

    async def fast() -> None:
        raise ClientError(403, "no")

    def threaded() -> None:
        raise ClientError(403, "no")

    async def slow(request: Request) -> None:
        raise ClientError(403, "no")

    for function in (fast, threaded, slow):
        with pytest.raises(ClientError, match="403 no"):
            await _call(function)
