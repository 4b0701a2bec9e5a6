"""The test kit: a real server, a real client, faults on the line, and time moved by hand.

Shipped for the tests of applications; nothing else in the package imports it. Everything stays on
127.0.0.1 and has a deadline, so that a test fails with a sentence instead of hanging.
"""

from __future__ import annotations

from pongee.testing.client import Client, CloseFrame, HandshakeRefused, connect
from pongee.testing.clock import ManualClock
from pongee.testing.raw import RawPeer
from pongee.testing.relay import Relay
from pongee.testing.server import Server, serve
from pongee.testing.wait import eventually

__all__ = [
    "Client",
    "CloseFrame",
    "HandshakeRefused",
    "ManualClock",
    "RawPeer",
    "Relay",
    "Server",
    "connect",
    "eventually",
    "serve",
]
