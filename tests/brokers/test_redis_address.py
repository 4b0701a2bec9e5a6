"""Addresses of Redis: every form, and no secret in what is shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.brokers.redis import RedisBroker
from pongee.brokers.redis_address import parse_address
from pongee.errors import ConfigurationError

SECRETS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).map(
    lambda text: f"s3{text}cret"
)


@given(SECRETS, SECRETS)
def test_login_is_read_whatever_it_is(user: str, password: str) -> None:
    """As it is quoted, and it is shown nowhere."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
    for address in (
        f"redis://{login}h:1/2",
        f"rediss://{login}h:1/2",
        f"redis+sentinel://{login}h:1,g/main/2",
        f"redis+cluster://{login}h:1,g",
    ):
        parsed = parse_address(address)
        assert (parsed._options["username"], parsed._options["password"]) == (user, password)
        assert "s3" not in f"{parsed!r}{RedisBroker(address)!r}{parsed.connection(('h', 1))!r}"
        assert parsed.hosts[0] == ("h", 1)
        assert parsed.db == (0 if "cluster" in address else 2)


ADDRESSES = {
    "redis://": ("single", (("localhost", 6379),), "", 0),
    "redis://h": ("single", (("h", 6379),), "", 0),
    "redis://h:1/3": ("single", (("h", 1),), "", 3),
    "redis://[::1]:1?db=3": ("single", (("::1", 1),), "", 3),
    "rediss://h?ssl_cert_reqs=none": ("single", (("h", 6379),), "", 0),
    "unix:///run/redis.sock?db=2": ("single", (("/run/redis.sock", 0),), "", 2),
    "redis+cluster://h:1": ("cluster", (("h", 1),), "", 0),
    "redis+cluster://h,[::1]:2/0": ("cluster", (("h", 6379), ("::1", 2)), "", 0),
    "rediss+cluster://h:1": ("cluster", (("h", 1),), "", 0),
    "redis+sentinel://h/main": ("sentinel", (("h", 26379),), "main", 0),
    "redis+sentinel://h:1,g:2/main/4": ("sentinel", (("h", 1), ("g", 2)), "main", 4),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    """Every form, with and without what may be left out."""
    parsed = parse_address(address)
    got = (parsed.kind, parsed.hosts, parsed.service, parsed.db)
    assert got == ADDRESSES[address]


@pytest.mark.parametrize(
    "address",
    [
        "redis://u:s3cret@h:port",
        "redis://:s3cret/2@h",
        "redis://:s3cret@h/database",
        "redis://:s3cret@h?no_such_option=1",
        "redis://:s3cret@h?db=x",
        "unix://",
        "redis+cluster://:s3cret@h:1/2",
        "redis+cluster://:s3cret@h:1,",
        "redis+cluster://:s3cret@h:x",
        "redis+sentinel://:s3cret@h:1",
        "redis+sentinel://:s3cret@h:1/main/x",
        "redis+sentinel://:s3cret@/main",
        "redis+other://h",
        "other://h",
    ],
)
def test_address_that_cannot_be_read(address: str) -> None:
    """The cure is told, and nothing of what was written."""
    with pytest.raises(ConfigurationError, match="write it like") as caught:
        RedisBroker(address)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__
