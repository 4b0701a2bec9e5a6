"""What a guard that asks for credentials answers: an `Identity`, or it raises `Refused`. ◇"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ANONYMOUS", "Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the peer has proved to be.

    Attributes:
        user: the user's id, or `None` for a peer nobody asked for proof.
        expires_at: when the proof runs out, in Unix seconds; `None` is never.
        claims: what else the proof said, such as a JWT's claims. Never logged.
    """

    user: str | None = None
    expires_at: float | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


ANONYMOUS = Identity()
