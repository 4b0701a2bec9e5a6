"""A published value to the bytes of a frame, once per format. ◇▲"""

from __future__ import annotations

from typing import Any, Literal

import pydantic_core

from pongee.errors import UsageError

__all__ = ["Format", "check_text", "encode_any", "to_json"]

Format = Literal["text", "bytes", "json", "centrifuge-json", "centrifuge-protobuf"]
"""How a member's messages travel; a publication is encoded once per format. The first three are
those of plain endpoints, the others those of the client protocol."""


def encode_any(data: Any, form: Format) -> str | bytes:
    """Encode a publication for endpoints of one format.

    Text endpoints get a ``str`` as it is, binary ones ``bytes``; JSON endpoints get JSON. What is
    neither ``str`` nor ``bytes`` is JSON everywhere.

    Raises:
        UsageError: `data` cannot be written as JSON.
    """
    if form == "text" and isinstance(data, str | bytes):
        return check_text(data) if isinstance(data, str) else data
    if form == "bytes" and isinstance(data, str | bytes):
        return check_text(data).encode() if isinstance(data, str) else data
    return to_json(data)


def check_text(text: str) -> str:
    """Return `text` if a text frame can carry it.

    Raises:
        UsageError: it holds half of a surrogate pair, which UTF-8 cannot (RFC 3629 section 3).
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"a text frame cannot carry this text: {error.reason}") from None
    return text


def to_json(data: Any) -> str:
    """Write `data` as JSON text.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        # NaN is not JSON (RFC 8259 section 6) and a browser's parser refuses it.
        return pydantic_core.to_json(data, inf_nan_mode="null").decode()
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError) as error:
        raise UsageError(f"{type(data).__name__} cannot be written as JSON: {error}") from error
