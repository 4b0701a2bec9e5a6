"""Publish from a program that is not the application: a script, a task queue's worker, a cron job.

PONGEE_BROKER=redis://localhost:6379/0 python publish_from_script.py chat:7 "sold out"
"""

import sys

from pongee import Publisher

with Publisher() as publisher:
    channel, text = sys.argv[1:]
    position = publisher.publish_sync(channel, {"text": text})
    print(f"published at offset {position.offset}")
