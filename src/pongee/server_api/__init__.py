"""The server API: what other programs may ask of this process over HTTP, with a key.

Paths, requests and replies are those of Centrifugo's server API, so that its libraries work.
"""

from __future__ import annotations

from pongee.server_api.routes import make_router

__all__ = ["make_router"]
