"""Who may connect: a JWT from a header or a browser's subprotocol; refresh; log a user out."""

import os

from fastapi import FastAPI

from pongee import (
    HeaderToken,
    InvalidToken,
    JWTBearer,
    Pongee,
    Session,
    SubprotocolToken,
)

pongee = Pongee()
app = FastAPI()
jwt = JWTBearer(os.environ["APP_SECRET"], sources=[HeaderToken(), SubprotocolToken()])


@pongee.endpoint("/ws/account", auth=jwt, refuse="close")
async def account(session: Session[dict[str, str], dict[str, str]]) -> None:
    await session.send({"hello": session.user or ""})
    async for message in session:
        if "token" in message:  # the client was warned: {"type": "token_expiring", …}
            try:
                await session.refresh(message["token"])
                await session.send({"refreshed": "ok"})
            except InvalidToken:
                await session.send({"refreshed": "no"})


@app.post("/logout/{user}")
async def logout(user: str) -> dict[str, int]:
    return {"closed": await pongee.disconnect(user=user, code=4403, reason="logged out")}


pongee.install(app)
