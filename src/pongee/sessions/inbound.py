"""Bytes to a typed message or a per-message error, and a typed message to bytes. ◇▲

A `Codec` is compiled once per endpoint from ``Session[In, Out]``. ``str`` and ``bytes`` travel raw;
every other type is JSON, validated and serialised by Pydantic, and accepted in text and binary
frames alike. Decoding never raises anything but `MessageError`, whatever the peer sent: depth,
digits and Unicode are bounded by Pydantic's parser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import pydantic_core
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from pongee.channels.encoding import Format, check_text, encode_any, to_json
from pongee.errors import ConfigurationError, MessageError, UsageError
from pongee.limits import MAX_ERROR_TEXT, MAX_ERRORS_TOLD

__all__ = ["Codec", "answer_to", "error_reply"]

In = TypeVar("In")
Out = TypeVar("Out")


class Codec(Generic[In, Out]):
    """What ``Session[In, Out]`` does to messages.

    Args:
        incoming: the type of messages from the peer.
        outgoing: the type of messages to the peer.

    Raises:
        ConfigurationError: a type Pydantic cannot handle.
    """

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.decode: Callable[[str | bytes], In] = _decoder(incoming)
        self.encode: Callable[[Out], str | bytes] = _encoder(outgoing)
        self.format: Format = (
            "text" if outgoing is str else "bytes" if outgoing is bytes else "json"
        )


def answer_to(error: MessageError, on_invalid: Any) -> str | bytes:
    """Write the answer to a message that cannot be used.

    Args:
        error: what is wrong with it.
        on_invalid: the endpoint's own answer: a text, a function of the error, or `None`.
    """
    answer = on_invalid(error) if callable(on_invalid) else on_invalid
    return error_reply(error) if answer is None else encode_any(answer, "text")


def error_reply(error: MessageError) -> str:
    """Write the default answer to a message that cannot be used."""
    return to_json({"type": "error", "code": error.code, "errors": error.errors})


def _decoder(kind: Any) -> Callable[[str | bytes], Any]:
    if kind is str:
        return _decode_text
    if kind is bytes:
        return _decode_binary
    if kind == str | bytes:
        return lambda data: data
    validate = _adapter(kind).validator.validate_json

    def decode_json(data: str | bytes) -> Any:
        try:
            return validate(data)
        except ValidationError as error:
            raise _message_error(error) from None
        except RecursionError:
            raise MessageError("invalid_json", [_detail("recursion", "too deep")]) from None

    return decode_json


def _encoder(kind: Any) -> Callable[[Any], str | bytes]:
    if kind is str:
        return _encode_text
    if kind is bytes:
        return lambda message: _check_raw(kind, message)
    if kind == str | bytes:
        return lambda message: _check_raw((str, bytes), message)
    if kind is Any:
        return to_json
    adapter = _adapter(kind)
    validate, dump = adapter.validator.validate_python, adapter.serializer.to_json

    def encode_json(message: Any) -> str:
        try:
            return dump(validate(message), warnings="error").decode()
        except (ValidationError, pydantic_core.PydanticSerializationError) as error:
            raise UsageError(
                f"send() wants {_name(kind)}, got {type(message).__name__}: {error}"
            ) from error

    return encode_json


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        if not adapter.pydantic_complete:
            adapter.rebuild()
        return adapter
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise ConfigurationError(
            f"Session[...] cannot carry {_name(kind)}: {error}. Allowed: str, bytes, Any, and "
            "what Pydantic validates (models, unions, dataclasses, TypedDicts, lists, dicts)"
        ) from error


def _check_raw(kind: Any, message: Any) -> str | bytes:
    if isinstance(message, kind):
        return check_text(message) if isinstance(message, str) else message
    raise UsageError(f"send() wants {_name(kind)}, got {type(message).__name__}")


def _encode_text(message: Any) -> str:
    if isinstance(message, str):
        return message if message.isascii() else check_text(message)
    raise UsageError(f"send() wants str, got {type(message).__name__}")


def _decode_text(data: str | bytes) -> str:
    if isinstance(data, str):
        return data
    raise MessageError(
        "text_expected", [_detail("text_expected", "send a text frame, not a binary one")]
    )


def _decode_binary(data: str | bytes) -> bytes:
    if isinstance(data, bytes):
        return data
    raise MessageError(
        "binary_expected", [_detail("binary_expected", "send a binary frame, not a text one")]
    )


def _detail(kind: str, message: str) -> Mapping[str, Any]:
    return {"type": kind, "loc": [], "msg": message}


def _message_error(error: ValidationError) -> MessageError:
    # What was sent is left out: the peer knows it, and it may be as large as the limit allows.
    details = error.errors(include_url=False, include_context=False, include_input=False)
    code = "invalid_json" if details[0]["type"] == "json_invalid" else "invalid_message"
    return MessageError(code, [_shorten(dict(detail)) for detail in details[:MAX_ERRORS_TOLD]])


def _shorten(detail: dict[str, Any]) -> dict[str, Any]:
    """Bound one error: keys and tags of the peer's are repeated in where and what."""
    where = [
        part[:MAX_ERROR_TEXT] if isinstance(part, str) else part
        for part in detail["loc"][:MAX_ERRORS_TOLD]
    ]
    return {"type": detail["type"], "loc": where, "msg": detail["msg"][: 2 * MAX_ERROR_TEXT]}


def _name(kind: Any) -> str:
    if isinstance(kind, tuple):
        return " or ".join(part.__name__ for part in kind)
    return getattr(kind, "__name__", None) or repr(kind)
