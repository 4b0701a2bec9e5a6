"""The application's side: publish, look, and act on those who are connected."""

import os
from typing import Any

from fastapi import FastAPI

from pongee import JWTBearer, Pongee, Position, public

pongee, app = Pongee(), FastAPI()
pongee.connection(auth=JWTBearer(os.environ["APP_SECRET"]))
orders = pongee.channel(
    "orders:{shop}",
    dict[str, Any],
    history=100,
    history_ttl=3600,
    presence=True,
    may_subscribe=public,
)


@app.post("/orders/{shop}/{order}")
async def order(shop: str, order: str) -> Position:
    return await orders.publish(
        {"order": order},
        shop=shop,
        idempotency_key=order,  # the shop repeats its request? The clients hear of it once
        tags={"kind": "order"},  # beside the payload
    )


@app.post("/closing-time")
async def closing_time() -> list[Position]:
    return await pongee.broadcast(["orders:north", "orders:south"], {"closed": True})


@app.post("/orders/{shop}/{order}/sync")
def order_from_a_thread(shop: str, order: str) -> Position:  # a plain `def` runs in a thread
    return pongee.publish_sync(orders.name(shop=shop), {"order": order})


@app.get("/orders/{shop}")
async def look(shop: str) -> dict[str, Any]:
    channel = orders.name(shop=shop)
    page = await pongee.history(channel, limit=10, reverse=True)
    return {
        "there": [info.user for info in (await pongee.presence(channel)).values()],
        "users": (await pongee.presence_stats(channel)).users,
        "newest": [publication.data.decode() for publication in page.publications],
        "offset": page.top.offset,
    }


@app.post("/staff/{user}/{action}")
async def act(user: str, action: str, shop: str = "north") -> int:
    channel = orders.name(shop=shop)
    match action:
        case "assign":
            return await pongee.subscribe(channel, user=user)
        case "remove":
            return await pongee.unsubscribe(channel, user=user)
        case "extend":
            return await pongee.refresh(None, user=user)  # as long as they like
        case _:
            return await pongee.disconnect(user=user)


pongee.install(app)
