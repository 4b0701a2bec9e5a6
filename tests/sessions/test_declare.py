"""A handler's signature, read: what FastAPI is given to resolve, and what stays open how long."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, Query, Security
from fastapi.dependencies.utils import get_dependant
from pydantic import BaseModel
from starlette.websockets import WebSocket

from pongee import ConfigurationError, Pongee, Session, Settings, public
from pongee.sessions.declare import (
    IDENTITY,
    WEBSOCKET,
    check_lifetimes,
    read_handler,
    released_early,
)


class In(BaseModel):
    x: int


async def database() -> AsyncIterator[str]:
    yield "db"


def files() -> Iterator[str]:
    yield "file"


async def plain() -> str:
    return "x"


class Opener:
    async def __call__(self) -> AsyncIterator[str]:
        yield "opened"


@functools.wraps(database)
async def wrapped() -> AsyncIterator[str]:
    async for one in database():
        yield one


OPENER = Opener()


def _scopes(handler: Any) -> dict[str, str | None]:
    """Each dependency of the handler's own, and how long it stays open."""
    found: dict[str, str | None] = {}
    for name, parameter in read_handler(handler, "/ws", public).signature.parameters.items():
        for part in (parameter.default, *getattr(parameter.annotation, "__metadata__", ())):
            if hasattr(part, "dependency") and name != IDENTITY:
                found[name] = part.scope
    return found


def below(one: Annotated[str, Depends(database)], two: Annotated[str, Depends(files)]) -> None: ...


def above(
    nested: Annotated[None, Depends(below)],
    again: Annotated[str, Depends(database)],
    held: Annotated[str, Depends(OPENER, scope="function")],
) -> None: ...


async def repository(
    db: Annotated[str, Depends(database, scope="function")],
) -> AsyncIterator[str]:
    yield db


def with_repository(repo: Annotated[str, Depends(repository, scope="function")]) -> None: ...


async def everything(
    websocket: WebSocket,
    session: Session[In, str],
    room: int,
    limit: Annotated[int, Query(le=10)] = 5,
) -> None: ...


async def least(chat: Annotated[Session[bytes, In], "the session"]) -> None: ...


def test_session_is_found_by_its_type_whatever_its_name() -> None:
    """Annotations written as text are understood; so is `Annotated`."""
    shape = read_handler(everything, "/ws", public)
    other = read_handler(least, "/ws", public)

    assert (shape.session, shape.incoming, shape.outgoing) == ("session", In, str)
    assert (other.session, other.incoming, other.outgoing) == ("chat", bytes, In)


def test_fastapi_resolves_all_but_the_session_and_the_identity_comes_first() -> None:
    """Nothing of the handler's own is opened for a stranger."""
    shape = read_handler(everything, "/ws", public)

    assert list(shape.signature.parameters) == [IDENTITY, "websocket", "room", "limit"]
    assert shape.signature.parameters["limit"].default == 5
    kinds = {parameter.kind for parameter in shape.signature.parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_websocket_is_taken_from_the_handler_or_added() -> None:
    """The adapter needs one either way; the handler gets it only if it asks."""
    own, added = read_handler(everything, "/ws", public), read_handler(least, "/ws", public)

    assert (own.websocket, own.wants_websocket) == ("websocket", True)
    assert (added.websocket, added.wants_websocket) == (WEBSOCKET, False)
    assert added.signature.parameters[WEBSOCKET].annotation is WebSocket


@pytest.mark.parametrize("auth", [public, Depends(public), Security(public, scopes=["read"])])
def test_policy_becomes_a_dependency_as_it_is(auth: Any) -> None:
    """`Depends` and `Security` keep what they carry."""
    shape = read_handler(least, "/ws", auth)

    [policy] = shape.signature.parameters[IDENTITY].annotation.__metadata__
    assert policy.dependency is public
    assert policy == (Depends(public) if auth is public else auth)


async def holds(
    session: Session[str, str],
    a: Annotated[str, Depends(database)],
    c: Annotated[str, Depends(plain)],
    d: Annotated[str, Depends(database, scope="request")],
    g: Annotated[str, Depends(OPENER)],
    h: Annotated[str, Depends(wrapped)],
    i: Annotated[Opener, Depends()],
    b: str = Depends(files),
    e: str = Depends(database, scope="request"),
    f: str = Security(database, scopes=["x"]),
) -> None: ...


def test_yield_dependency_the_handler_names_stays_open_as_long_as_the_handler() -> None:
    """The handler holds what it yields; an explicit scope and plain dependencies stay as given."""
    assert _scopes(holds) == {
        "a": "function",
        "b": "function",
        "c": None,
        "d": "request",
        "e": "request",
        "f": "function",
        "g": "function",
        "h": "function",
        "i": None,
    }


def test_security_scopes_survive_the_longer_life() -> None:
    """Only the scope of time is changed."""
    default = read_handler(holds, "/ws", public).signature.parameters["f"].default

    assert list(default.scopes) == ["x"]


def test_released_early_names_each_yield_dependency_once() -> None:
    """Those that do not outlive the admission, sorted."""
    dependant = get_dependant(path="/ws", call=above)

    assert released_early(dependant) == ["database", "files"]
    check_lifetimes(dependant, "/ws")


def test_held_dependency_made_from_a_held_one_is_fine() -> None:
    """Both live as long as the handler."""
    check_lifetimes(get_dependant(path="/ws", call=with_repository), "/ws")


async def positional(session: Session[str, str], /) -> None: ...


async def starred(session: Session[str, str], *rest: str) -> None: ...


async def optional(session: Session[str, str] | None) -> None: ...


class Callable:
    async def __call__(self, session: Session[str, str]) -> None: ...


async def generator(session: Session[str, str]) -> AsyncIterator[str]:
    yield "x"


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (positional, "session cannot be positional-only"),
        (starred, r"\*rest says nothing"),
        (optional, "not 0 times"),
        (Callable(), "must be `async def`"),
        (generator, "must be `async def`"),
    ],
)
def test_signature_that_cannot_work_is_refused_with_route_and_cure(
    handler: Any, message: str
) -> None:
    """The message begins with the path and the handler's name."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_handler(handler, "/ws/a", public)
    assert str(caught.value).startswith("/ws/a (")


async def unknown(session: Session[Missing, str]) -> None: ...  # type: ignore[name-defined] # noqa: F821


def test_annotation_that_cannot_be_resolved_is_a_configuration_error() -> None:
    """A name imported for type checkers only is missing when the program runs."""
    with pytest.raises(ConfigurationError, match="Missing"):
        read_handler(unknown, "/ws", public)


async def with_extra(session: Session[str, str], extra: int = 0) -> None: ...


def test_partial_of_a_handler_is_declared_or_refused_with_a_cure() -> None:
    """Whatever is decided, it is not an AttributeError."""
    pongee = Pongee(Settings())
    try:
        pongee.endpoint("/ws", auth=public)(functools.partial(with_extra, extra=1))
    except ConfigurationError:
        return
    assert len(pongee.router.routes) == 1
