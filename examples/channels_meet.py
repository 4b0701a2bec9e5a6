"""A device with a plain WebSocket and browsers with an SDK, in one channel."""

from fastapi import FastAPI
from pydantic import BaseModel

from pongee import Pongee, Session, public

pongee, app = Pongee(), FastAPI()
pongee.connection(auth=public)


class Reading(BaseModel):
    celsius: float


sensor = pongee.channel(
    "sensor:{sensor_id:int}", Reading, history=100, presence=True, may_subscribe=public
)


@pongee.endpoint("/ws/device/{sensor_id}", auth=public)
async def device(sensor_id: int, session: Session[Reading, Reading]) -> None:
    await session.subscribe(sensor.name(sensor_id=sensor_id))  # present like everybody
    async for reading in session:
        await sensor.publish(reading, sensor_id=sensor_id)


pongee.install(app)
