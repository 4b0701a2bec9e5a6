"""Connections: tokens, what happens at the beginning and the end, a channel for each user, RPC."""

import os
import time
from typing import Any

import jwt
from fastapi import FastAPI
from pydantic import BaseModel, JsonValue

from pongee import Client, CloseCause, JWTBearer, Pongee, public

SECRET = os.environ["APP_SECRET"]
pongee, app = Pongee(), FastAPI()
connection = pongee.connection(
    auth=JWTBearer(SECRET),
    anonymous=True,  # who shows no token may come too, and has no user
    personal_channel="#{user}",
)
pongee.channel("#{user}", Any, history=20)  # nobody may subscribe by itself: the server does it
news = pongee.channel("news", str, may_subscribe=public)
pongee.channel("$deal:{deal}", dict[str, Any])  # with a subscription token only


@connection.on_connect
async def hello(client: Client, data: JsonValue) -> dict[str, Any]:
    client.state = {"sdk": client.name}  # your own notes
    await client.subscribe("news")
    return {"you": client.user, "you_sent": data}  # in the `connected` event


@connection.on_disconnect
async def bye(client: Client, cause: CloseCause) -> None:
    print(client.id, "ended:", cause)


class Sum(BaseModel):
    numbers: list[int]


@pongee.rpc("add")
async def add(request: Sum, client: Client) -> int:
    return sum(request.numbers)


@app.post("/tokens/{user}")  # guard such a route: whoever may call it is that user
async def connection_token(user: str) -> str:
    claims = {"sub": user, "exp": time.time() + 600, "info": {"name": user.title()}}
    return jwt.encode(claims, SECRET)


@app.post("/tokens/{user}/deals/{deal}")
async def subscription_token(user: str, deal: str) -> str:
    claims = {"sub": user, "channel": f"$deal:{deal}", "exp": time.time() + 600}
    return jwt.encode(claims, SECRET)


pongee.install(app)
