"""What messages at NATS look like."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.brokers.nats_messages import (
    LONGEST,
    Undecodable,
    body_of,
    conditions,
    encode_info,
    encode_publication,
    header,
    info_of,
    pack,
    position_of,
    publication_in,
    seconds,
    sent_at,
    unpack,
)
from pongee.channels.publication import NOWHERE, ClientInfo, Position, Publication
from pongee.channels.stream import new_epoch

INFOS = st.builds(ClientInfo, st.text(), st.text(), st.binary(), st.binary())
PUBLICATIONS = st.builds(
    Publication,
    st.binary(),
    info=st.none() | INFOS,
    tags=st.none() | st.dictionaries(st.text(), st.text(), min_size=1),
    binary=st.booleans(),
    key=st.none() | st.text(),
)


@given(PUBLICATIONS, st.integers(1, 2**63))
def test_publications_come_back(one: Publication, offset: int) -> None:
    """With the position of the message, not with the one that they had."""
    position = Position(offset, new_epoch())
    body = encode_publication(one)
    data = pack(b"P", *position, body)
    head = unpack(data)
    assert position_of(head) == position
    came = publication_in(data, head)
    assert came.position == position
    assert encode_publication(came) == body
    nowhere = pack(b"P", body=body)
    assert publication_in(nowhere, unpack(nowhere)) == one
    assert position_of(unpack(nowhere)) == NOWHERE


@given(INFOS)
def test_infos_come_back(info: ClientInfo) -> None:
    """Whole."""
    data = pack(b"J", body=encode_info(info))
    assert unpack(data).kind == b"J"
    assert info_of(data) == info
    assert bytes(body_of(data)) == encode_info(info)


@given(st.binary(max_size=60))
def test_anything_else_is_undecodable_at_worst(data: bytes) -> None:
    """Never another error."""
    try:
        head = unpack(data)
        publication_in(data, head)
        info_of(data)
    except Undecodable:
        pass


def test_headers() -> None:
    """Written as a server reads them, and read as it writes them."""
    assert conditions() == b"NATS/1.0\r\n\r\n"
    raw = conditions(expected=0, ttl=1.2, more=b"A: b\r\n")
    assert header(raw, b"Nats-Expected-Last-Subject-Sequence") == b"0"
    assert header(raw, b"Nats-TTL") == b"3s"
    assert header(raw, b"A") == b"b"
    assert header(raw, b"Nats") is None
    assert header(conditions(ttl=math.inf), b"Nats-TTL") == b"%ds" % (LONGEST + 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-24T20:44:53.238812824Z", 1795553093.238812),
        ("2026-11-24T20:44:53.2Z", 1795553093.2),
        ("2026-11-24T20:44:53Z", 1795553093.0),
        ("", 0.0),
        ("yesterday", 0.0),
    ],
)
def test_times_of_servers(text: str, wanted: float) -> None:
    """To the microsecond, with as many digits as there are."""
    assert seconds(text) == pytest.approx(wanted, abs=1e-5)
    assert sent_at(b"NATS/1.0\r\nNats-Time-Stamp: %s\r\n\r\n" % text.encode()) == seconds(text)
