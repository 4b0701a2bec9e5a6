"""A client of many channels that is to be killed: ``python -m tests.faults.leaver 8001 1000``."""

from __future__ import annotations

import asyncio
import random
import sys

from pongee.testing import eventually
from tests.faults.client import Subscriber
from tests.faults.ledger import Ledger


async def main(port: int, count: int) -> None:
    """Subscribe to many channels, say so, and stay."""
    channels = [f"seen:{n}" for n in range(count)]
    client = Subscriber("leaver", channels, lambda: port, Ledger(), random.Random(0))
    client.start()
    await eventually(lambda: client.settled, within=60)
    sys.stdout.write("here\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
