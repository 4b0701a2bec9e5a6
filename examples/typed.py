"""Typed messages: a discriminated union in, a model out, an answer for what does not fit."""

from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

from pongee import Pongee, Session, public

pongee = Pongee()
app = FastAPI()


class Move(BaseModel):
    kind: Literal["move"]
    x: int
    y: int


class Say(BaseModel):
    kind: Literal["say"]
    text: Annotated[str, Field(max_length=200)]


class Seen(BaseModel):
    event: str


@pongee.endpoint("/ws/game", auth=public)
async def game(
    session: Session[Annotated[Move | Say, Field(discriminator="kind")], Seen],
) -> None:
    async for action in session:  # a Move or a Say; anything else was answered already
        match action:
            case Move(x=x, y=y):
                await session.send(Seen(event=f"moved to {x},{y}"))
            case Say(text=text):
                await session.send(Seen(event=f"said {text}"))


pongee.install(app)
