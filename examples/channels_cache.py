"""State, not events: a client gets the newest value at once, and a slow one never a backlog."""

from fastapi import FastAPI
from pydantic import BaseModel

from pongee import Pongee, public

pongee, app = Pongee(), FastAPI()
pongee.connection(auth=public)


class Score(BaseModel):
    home: int
    away: int


score = pongee.channel("score:{game}", Score, history=1, cache=True, may_subscribe=public)
ticker = pongee.channel("ticker", dict[str, float], overflow="latest_per_key", may_subscribe=public)


@app.post("/games/{game}")
async def goal(game: str, score_now: Score) -> None:
    await score.publish(score_now, game=game)


@app.post("/prices/{symbol}")
async def price(symbol: str, price: float) -> None:
    await ticker.publish({symbol: price}, key=symbol)


pongee.install(app)
