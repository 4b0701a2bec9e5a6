"""RPC methods: one typed request, one typed reply."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel, Field

from pongee import Client, ClientError, ConfigurationError, UsageError
from pongee.handlers.rpc import Method

pytestmark = pytest.mark.anyio

SCOPE: dict[str, Any] = {
    "type": "http",
    "headers": [(b"x-tenant", b"blue")],
    "query_string": b"",
    "path": "/",
    "app": FastAPI(),
}


class Order(BaseModel):
    """What is ordered."""

    number: Annotated[int, Field(gt=0)]


async def _tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


async def call(function: Any, data: bytes = b"") -> bytes:
    """Call `function` as a method."""
    return await Method("m", function, Client)(SCOPE, None, data)


async def test_request_and_reply_are_typed() -> None:
    """Read as what the method takes, written as what it says it returns."""

    async def double(order: Order) -> Order:
        return Order(number=2 * order.number)

    def plain(numbers: list[int]) -> int:
        return sum(numbers)

    async def anything(value: Any) -> Any:
        return {"got": value, "nan": float("nan")}

    assert await call(double, b'{"number":4}') == b'{"number":8}'
    assert await call(plain, b"[1,2,3]") == b"6"
    assert await call(anything, b'{"a":1}') == b'{"got":{"a":1},"nan":null}'


async def test_request_may_be_left_out() -> None:
    """Where the method takes none, whatever came is not looked at; else it is null."""

    async def none(client: Client) -> str:
        return "fine"

    async def maybe(order: Order | None) -> bool:
        return order is None

    assert await call(none) == b'"fine"'
    assert await call(none, b"[1]") == b'"fine"'
    assert await call(maybe) == b"true"


async def test_dependencies_of_fastapi() -> None:
    """Beside the request, in any order."""

    async def method(
        tenant: Annotated[str, Depends(_tenant)],
        order: Order,
        x_tenant: Annotated[str, Header()],
        other: str = Depends(_tenant),
    ) -> list[Any]:
        return [tenant, x_tenant, other, order.number]

    assert await call(method, b'{"number":1}') == b'["blue","blue","blue",1]'


@pytest.mark.parametrize(
    "data", [b"", b"null", b"{", b"[]", b'{"number":0}', b'{"number":"x"}', b"\xff", b"[" * 9999]
)
async def test_request_of_another_shape_is_the_clients_mistake(data: bytes) -> None:
    """107, with what is wrong."""

    async def method(order: Order) -> None:
        pytest.fail("called")

    with pytest.raises(ClientError, match="107 bad request: "):
        await call(method, data)


async def test_reply_of_another_shape_is_the_methods_mistake() -> None:
    """Not the client's."""

    async def method() -> Order:
        return "none"  # type: ignore[return-value]

    with pytest.raises(UsageError, match="'m' did not return what it says"):
        await call(method)


async def _two(first: Order, second: Order) -> None:
    """Take two requests."""


async def _untyped(order) -> None:  # type: ignore[no-untyped-def]
    """Take what nobody knows."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_two, r"one request, not 2 \(first, second\)"),
        (_untyped, "say what order is"),
    ],
)
def test_signature_that_cannot_be_used(function: Any, message: str) -> None:
    """Told at the declaration, with the cure."""
    with pytest.raises(ConfigurationError, match=message):
        Method("m", function, Client)
