"""A client in Python: `pip install centrifuge-python`. It comes back by itself."""

import asyncio
import sys

from centrifuge import Client, PublicationContext, SubscribedContext, SubscriptionEventHandler


async def subscribed(ctx: SubscribedContext) -> None:
    if ctx.was_recovering and not ctx.recovered:
        print("something was missed: load the state again")


async def heard(ctx: PublicationContext) -> None:
    print(ctx.pub.data)


async def main(url: str, token: str) -> None:
    client = Client(url, token=token)  # get_token=... to be asked for the next ones
    events = SubscriptionEventHandler()
    events.on_subscribed, events.on_publication = subscribed, heard
    room = client.new_subscription("chat:7", events=events)
    await client.connect()
    await room.subscribe()
    await room.ready(timeout=5)
    await room.publish("hello from Python")
    await asyncio.sleep(float("inf"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))  # ws://127.0.0.1:8000/connection/websocket, a JWT
