"""What is deployed: a chat for client SDKs that tells each client how it was seen."""

import os
from typing import Annotated

from fastapi import FastAPI
from pydantic import Field

from pongee import Client, JWTBearer, Pongee, public

Text = Annotated[str, Field(max_length=500)]
pongee, app = Pongee(), FastAPI()
connection = pongee.connection(auth=JWTBearer(os.environ["APP_SECRET"]))
chat = pongee.channel(
    "chat:{room}", Text, history=100, may_subscribe=public, may_publish="subscribers"
)


@connection.on_connect
async def hello(client: Client) -> dict[str, str | int | None]:
    return {"address": client.address, "process": os.getpid()}


pongee.install(app)
