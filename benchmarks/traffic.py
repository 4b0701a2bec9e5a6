"""What travels: shared by both applications and the load generator."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["READING", "TEXT", "Reading"]


class Reading(BaseModel):
    """A message of the typed endpoints."""

    device: str
    sequence: int
    value: float
    tags: list[str]


TEXT = b"0123456789abcdef" * 4
"""64 bytes of text."""

READING = (
    Reading(device="boiler-7", sequence=20260, value=21.5, tags=["north", "cellar"])
    .model_dump_json()
    .encode()
)
"""A `Reading` as both servers write it, so that an echo equals what was sent."""
