"""Push only: a slow reader gets the latest price of each symbol, never a backlog."""

from typing import Any

from fastapi import FastAPI

from pongee import Limits, Pongee, Session, public

pongee = Pongee()
app = FastAPI()


@pongee.endpoint(
    "/ws/prices",
    auth=public,
    overflow="latest_per_key",
    limits=Limits(outbox_messages=100, write_deadline=10),
)
async def prices(session: Session[str, dict[str, Any]]) -> None:
    await session.subscribe("prices")
    await session.closed  # nothing to read: wait until the client is gone


@app.post("/prices/{symbol}")
async def new_price(symbol: str, price: float) -> dict[str, int]:
    await pongee.publish("prices", {"symbol": symbol, "price": price}, key=symbol)
    return {"watching": pongee.local_channels().get("prices", 0)}


pongee.install(app)
