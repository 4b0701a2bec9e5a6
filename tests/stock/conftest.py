"""Stock applications run on both protocol classes: ours, and the one uvicorn takes by default.

The same test, the same application and the same client; what an application or a client sees must
be the same. `Stock` holds the ends that differ on purpose: uvicorn's class drops the TCP
connection where ours still says what happened.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from pongee.testing import Server, serve


@dataclass(frozen=True, kw_only=True)
class Stock:
    """One protocol class under uvicorn.

    Attributes:
        ws: uvicorn's setting.
        returned: the code a client sees when an application returns without a close; 1006 is none.
        raised: the same for an application that raises after accept.
        lost: the code an application is told when the connection broke without a close frame,
            which RFC 6455 section 7.1.5 calls 1006.
    """

    ws: str
    returned: int
    raised: int
    lost: int

    def serve(self, app: Any, **config: Any) -> AbstractAsyncContextManager[Server]:
        """Serve `app` on this class."""
        return serve(app, **({"ws": self.ws} | config))


WIRE = Stock(ws="pongee.wire:WireProtocol", returned=1000, raised=1011, lost=1006)
DEFAULT = Stock(ws="auto", returned=1006, raised=1006, lost=1005)


@pytest.fixture(params=[WIRE, DEFAULT], ids=["wire", "default"])
def stock(request: pytest.FixtureRequest) -> Stock:
    """Run the test on our class, and on uvicorn's as the reference."""
    chosen: Stock = request.param
    return chosen
