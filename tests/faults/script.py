"""A plain script that publishes: ``python -m tests.faults.script 500 --rate 100``.

Prints a line of JSON for each publication that was accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import msgspec

from pongee import Publisher

TOPICS = 20
AT_ONCE = 100


def main() -> None:
    """Publish what the command line says; the broker comes from the environment."""
    parser = argparse.ArgumentParser("python -m tests.faults.script", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--publisher", type=int, default=900, help="its number in the ledger")
    parser.add_argument("--rate", type=float, default=200.0, help="publications a second")
    parser.add_argument("--flood", help="publish to this channel as fast as it goes")
    arguments = parser.parse_args()
    if arguments.flood:
        asyncio.run(_flood(arguments.flood, arguments.count))
    else:
        _publish(arguments.count, arguments.publisher, arguments.rate)


def _publish(count: int, number: int, rate: float) -> None:
    began = time.monotonic()
    with Publisher() as publisher:
        for n in range(count):
            time.sleep(max(0.0, began + n / rate - time.monotonic()))
            topic = f"topic:{n % TOPICS}"
            data = {"p": number, "n": n, "at": time.monotonic()}
            position = publisher.publish_sync(topic, data)
            line = [topic, number, n, position.epoch, position.offset]
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()


async def _flood(channel: str, count: int) -> None:
    """Print how many were published, each time that so many more were."""
    async with Publisher() as publisher:
        for start in range(0, count, AT_ONCE):
            names = (f"{channel}:{n % TOPICS}" for n in range(start, start + AT_ONCE))
            await asyncio.gather(*(publisher.publish(name, start) for name in names))
            sys.stdout.write(f"{AT_ONCE}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
