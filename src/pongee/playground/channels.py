"""Rooms for client SDKs, built on public names only: who may what, what is kept, what is typed."""

from typing import Annotated

from pydantic import BaseModel, StringConstraints

from pongee import Client, JWTBearer, Pongee, public

__all__ = ["add_channels"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class ChatMessage(BaseModel):
    """What is said in a room."""

    text: Text


class Greeting(BaseModel):
    """Who a client turned out to be."""

    you: str
    client: str


def add_channels(pongee: Pongee, jwt: JWTBearer) -> None:
    """Declare the rooms, a method, and who may connect."""
    connection = pongee.connection(auth=jwt, anonymous=True)

    pongee.channel(
        "chat:{room_id:int}",
        ChatMessage,
        history=1000,
        history_ttl=600,
        presence=True,
        join_leave=True,
        may_subscribe=public,
        may_publish="subscribers",
        may_see_presence="subscribers",
        may_read_history="subscribers",
    )

    @connection.on_connect
    async def greet(client: Client) -> Greeting:
        return Greeting(you=client.user or "anonymous", client=client.id)

    @pongee.rpc("count")
    async def count(message: ChatMessage) -> dict[str, int]:
        return {"characters": len(message.text), "words": len(message.text.split())}
