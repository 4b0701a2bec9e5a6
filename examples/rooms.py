import os
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import Field

from pongee import JWTBearer, Pongee, public

Text = Annotated[str, Field(max_length=500)]
pongee, app = Pongee(), FastAPI()
pongee.connection(auth=JWTBearer(os.environ["APP_SECRET"]))  # who may connect
chat = pongee.channel(
    "chat:{room}", Text, history=100, presence=True, may_subscribe=public, may_publish="subscribers"
)


async def rude_words() -> list[str]:  # opened for one event, closed after it
    return ["darn"]


@chat.on_publish  # what a client wants to say, validated; it may be refused, or changed
async def tidy(text: Text, rude: Annotated[list[str], Depends(rude_words)]) -> str:
    return " ".join("***" if word in rude else word for word in text.split())


@app.post("/rooms/{room}")
async def announce(room: int, text: str) -> dict[str, int]:
    return {"offset": (await chat.publish(text, room=room)).offset}


pongee.install(app)
