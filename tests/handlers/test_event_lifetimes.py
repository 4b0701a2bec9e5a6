"""What `yield` dependencies open is closed when the event is over, however it ends.

Annotations are evaluated where they stand here, since many name what a test defines.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from pongee.errors import ClientError, UsageError
from pongee.handlers.event import EventHandler, InvalidParameters

pytestmark = pytest.mark.anyio


class Journal:
    """Dependencies of both kinds and both scopes, which write down what happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    async def outer(self) -> AsyncIterator[str]:
        self.write("open outer")
        try:
            yield "outer"
        except BaseException as error:
            self.write(f"outer sees {type(error).__name__}")
            raise
        finally:
            self.write("close outer")

    def inner(self) -> Iterator[str]:
        self.write("open inner")
        try:
            yield "inner"
        except BaseException as error:
            self.write(f"inner sees {type(error).__name__}")
            raise
        finally:
            self.write("close inner")


def _scope(app: Any = None, headers: Any = ()) -> dict[str, Any]:
    return {
        "type": "websocket",
        "app": FastAPI() if app is None else app,
        "path": "/connection/websocket",
        "query_string": b"",
        "headers": list(headers),
    }


async def _call(function: Any, app: Any = None) -> Any:
    handler = EventHandler(function, where="chat:{room}", given={}, parameters=("room",))
    return await handler(_scope(app), {"room": "7"}, {})


async def test_dependencies_open_before_the_handler_and_close_after_it() -> None:
    """Those of scope "function" first, then those of scope "request", as after an endpoint."""
    journal = Journal()

    async def handler(
        a: Annotated[str, Depends(journal.outer)],
        b: Annotated[str, Depends(journal.inner, scope="function")],
    ) -> str:
        journal.write("handler")
        return a + b

    assert await _call(handler) == "outerinner"
    assert journal.lines == ["open outer", "open inner", "handler", "close inner", "close outer"]


async def test_plain_def_is_called_between_as_well() -> None:
    """In its thread."""
    journal = Journal()

    def handler(a: Annotated[str, Depends(journal.inner)]) -> None:
        journal.write("handler")

    await _call(handler)
    assert journal.lines == ["open inner", "handler", "close inner"]


async def test_dependencies_see_what_the_handler_raises() -> None:
    """Both scopes; and it comes out."""
    journal = Journal()

    async def handler(
        a: Annotated[str, Depends(journal.outer)],
        b: Annotated[str, Depends(journal.inner, scope="function")],
    ) -> None:
        raise ClientError(403, "no")

    with pytest.raises(ClientError, match="403 no"):
        await _call(handler)
    assert journal.lines[2:] == [
        "inner sees ClientError",
        "close inner",
        "outer sees ClientError",
        "close outer",
    ]


async def test_dependency_may_raise_something_else_instead() -> None:
    """As FastAPI's documentation shows."""

    async def translates() -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            raise HTTPException(404) from error

    async def handler(_: Annotated[None, Depends(translates)]) -> None:
        raise KeyError("room")

    with pytest.raises(HTTPException):
        await _call(handler)


async def test_open_dependencies_close_when_another_fails() -> None:
    """By an exception, or since the client's header is missing."""
    journal = Journal()

    def fails() -> None:
        raise HTTPException(403)

    async def refused(
        a: Annotated[str, Depends(journal.outer)], b: Annotated[None, Depends(fails)]
    ) -> None: ...

    async def invalid(
        a: Annotated[str, Depends(journal.outer)], x_absent: Annotated[str, Header()]
    ) -> None: ...

    with pytest.raises(HTTPException):
        await _call(refused)
    assert journal.lines == ["open outer", "outer sees HTTPException", "close outer"]
    journal.lines.clear()
    with pytest.raises(InvalidParameters):
        await _call(invalid)
    assert journal.lines == ["open outer", "outer sees InvalidParameters", "close outer"]


async def swallows() -> AsyncIterator[None]:
    try:
        yield
    except Exception:
        return


def swallows_in_thread() -> Iterator[None]:
    try:
        yield
    except Exception:
        return


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize("dependency", [swallows, swallows_in_thread])
async def test_refusal_that_a_dependency_swallows_is_not_taken_for_consent(
    scope: Any, dependency: Any
) -> None:
    """A handler that raised must not look like one that returned `None`."""

    async def handler(_: Annotated[None, Depends(dependency, scope=scope)]) -> None:
        raise ClientError(403, "no")

    with pytest.raises(UsageError, match=r"chat:\{room\} .*swallowed ClientError") as caught:
        await _call(handler)
    assert isinstance(caught.value.__cause__, ClientError)


async def test_commit_that_fails_is_not_taken_for_success() -> None:
    """Although the handler returned, and a dependency further out swallows it."""

    async def commits() -> AsyncIterator[None]:
        yield
        raise OSError("disk full")

    async def direct(_: Annotated[None, Depends(commits)]) -> int:
        return 1

    async def swallowed(
        a: Annotated[None, Depends(swallows)],
        b: Annotated[None, Depends(commits, scope="function")],
    ) -> int:
        return 1

    with pytest.raises(OSError, match="disk full"):
        await _call(direct)
    with pytest.raises(UsageError, match="swallowed OSError"):
        await _call(swallowed)


async def test_cancelling_an_event_closes_what_it_opened() -> None:
    """Dependencies see the cancellation, may await while they close, and the task is cancelled."""
    journal = Journal()
    waiting = asyncio.Event()

    async def slow_to_close() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            journal.write("closed slowly")

    async def handler(
        a: Annotated[str, Depends(journal.outer)],
        b: Annotated[str, Depends(journal.inner, scope="function")],
        c: Annotated[None, Depends(slow_to_close, scope="function")],
    ) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(_call(handler))
    await asyncio.wait_for(waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert journal.lines[2:] == [
        "closed slowly",
        "inner sees CancelledError",
        "close inner",
        "outer sees CancelledError",
        "close outer",
    ]


async def test_cancellation_that_a_dependency_swallows_is_one_all_the_same() -> None:
    """Who cancelled waits for it."""
    waiting = asyncio.Event()

    async def stubborn() -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            return

    async def handler(_: Annotated[None, Depends(stubborn)]) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(_call(handler))
    await asyncio.wait_for(waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", ["outer", "inner"])
async def test_policy_may_be_a_yield_dependency_itself(name: str) -> None:
    """What it yields is what it says; it closes when the event is over."""
    journal = Journal()

    assert await _call(getattr(journal, name)) == name
    assert journal.lines == [f"open {name}", f"close {name}"]


async def test_override_may_yield() -> None:
    """Whatever it replaces."""
    journal = Journal()
    app = FastAPI()

    def real() -> str:
        return "real"

    async def handler(x: Annotated[str, Depends(real)]) -> str:
        journal.write("handler")
        return x

    app.dependency_overrides[real] = journal.outer
    assert await _call(handler, app) == "outer"
    assert journal.lines == ["open outer", "handler", "close outer"]
    app.dependency_overrides[handler] = journal.inner
    assert await _call(handler, app) == "inner"


# A real pool


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Five connections, and not one more."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'events.db'}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=5,
        max_overflow=0,
    )
    yield engine
    await engine.dispose()


def _checked_out(engine: AsyncEngine) -> int:
    pool = engine.sync_engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    return pool.checkedout()


async def test_no_database_connection_is_held_between_events(engine: AsyncEngine) -> None:
    """200 in turn and 20 at once through a pool of 5; some of them fail."""
    most = 0

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    async def handler(n: int, db: Annotated[AsyncSession, Depends(get_db)]) -> int:
        nonlocal most
        found = (await db.execute(text("select :n + 1"), {"n": n})).scalar_one()
        most = max(most, _checked_out(engine))
        if n % 10 == 9:
            raise ClientError(400, "nine")
        return int(found)

    handles = EventHandler(handler, where="rows:{n}", given={}, parameters=("n",))
    scope = _scope()
    for n in range(200):
        try:
            assert await handles(scope, {"n": n}, {}) == n + 1
        except ClientError:
            assert n % 10 == 9
        assert _checked_out(engine) == 0
    assert most == 1
    results = await asyncio.gather(
        *(handles(scope, {"n": n}, {}) for n in range(20)), return_exceptions=True
    )
    assert [r for r in results if isinstance(r, int)] == [n + 1 for n in range(20) if n % 10 != 9]
    assert sum(isinstance(r, ClientError) for r in results) == 2
    assert 1 < most <= 5
    assert _checked_out(engine) == 0


async def test_cancelled_event_gives_its_database_connection_back(engine: AsyncEngine) -> None:
    """In the middle of the handler, with a transaction open."""
    waiting = asyncio.Event()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    async def handler(db: Annotated[AsyncSession, Depends(get_db)]) -> None:
        await db.execute(text("select 1"))
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(_call(handler))
    await asyncio.wait_for(waiting.wait(), 5)
    assert _checked_out(engine) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _checked_out(engine) == 0
