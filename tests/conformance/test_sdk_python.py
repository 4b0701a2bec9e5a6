"""The official Python SDK, unmodified, on our channels."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.conformance.sdk import KitFactory
from tests.conformance.sdk_python import python
from tests.conformance.sdk_scenarios import Scenarios

pytestmark = pytest.mark.anyio


class TestPythonSdk(Scenarios):
    """``centrifuge-python``."""

    kit: ClassVar[KitFactory] = staticmethod(python)
