from fastapi import FastAPI

from pongee import Pongee, Session, public

pongee = Pongee()
app = FastAPI()


@pongee.endpoint("/ws/chat/{room_id}", auth=public)
async def chat(room_id: int, session: Session[str, str]) -> None:
    await session.subscribe(f"room:{room_id}")
    async for text in session:  # ends when the client is gone
        await pongee.publish(f"room:{room_id}", f"Room {room_id}: {text}")


pongee.install(app)
