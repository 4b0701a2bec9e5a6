"""Messages of the protocol made up by Hypothesis, and what another side should see in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct

from pongee.centrifuge.messages import MAX_OFFSET, NOTHING, raw
from pongee.centrifuge.protobuf_schema import SCHEMA, Kind, ListOf, MapOf


def tried(times: int = 100) -> settings:
    """Return settings that count no time, so that a machine that is busy fails no test."""
    return settings(max_examples=times, deadline=None, suppress_health_check=[HealthCheck.too_slow])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
JSON_PAYLOADS = JSON_VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode())
ANY_PAYLOADS = JSON_PAYLOADS | st.binary(min_size=1)

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, MAX_OFFSET),
}


def structs(
    struct: type[Struct],
    payloads: st.SearchStrategy[bytes],
    *,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
) -> st.SearchStrategy[Any]:
    """Return made-up structs of one type, with any of its fields, or `only` some of them."""
    given = {}
    for field in msgspec.structs.fields(struct):
        if field.name in without or (only is not None and field.name not in only):
            continue
        kind = SCHEMA[struct][field.name].kind
        required = field.required or only is not None
        given[field.name] = _values(kind, payloads, without, required=required)
    return st.builds(struct, **given)


def _values(
    kind: Kind,
    payloads: st.SearchStrategy[bytes],
    without: Collection[str],
    *,
    required: bool,
) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any]
    # An optional list or map that is empty is one that is not there.
    size = 0 if required else 1
    match kind:
        case "bytes":
            return payloads.map(raw) if required else st.just(NOTHING) | payloads.map(raw)
        case str():
            return SCALARS[kind]
        case ListOf(item):
            values = st.lists(structs(item, payloads, without=without), min_size=size, max_size=3)
        case MapOf(value):
            entries = SCALARS["string"]
            if not isinstance(value, str):
                entries = structs(value, payloads, without=without)
            values = st.dictionaries(st.text(), entries, min_size=size, max_size=3)
        case _:
            values = structs(kind, payloads, without=without)
    return values if required else st.none() | values


def plain(
    value: Any,
    payload: Callable[[bytes], Any],
    always: Mapping[type[Struct], Collection[str]] | None = None,
) -> Any:
    """Return what another side should see of `value`: dicts, without what is zero or not there.

    Args:
        value: a struct, or what is in a field of one.
        payload: what the other side makes of a payload.
        always: fields that are there even when they are zero.
    """
    match value:
        case Struct():
            kept = (always or {}).get(type(value), ())
            return {
                name: plain(field, payload, always)
                for name in value.__struct_fields__
                if (field := getattr(value, name)) is not None
                and (isinstance(field, Struct) or name in kept or not _is_zero(field))
            }
        case Raw():
            return payload(bytes(value))
        case dict():
            return {key: plain(item, payload, always) for key, item in value.items()}
        case list():
            return [plain(item, payload, always) for item in value]
        case _:
            return value


def _is_zero(value: Any) -> bool:
    return not (bytes(value) if isinstance(value, Raw) else value)
