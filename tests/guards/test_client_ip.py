"""Whose connection is it, behind proxies."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pongee.errors import ConfigurationError
from pongee.guards.client_ip import ClientAddress, TrustedProxies, resolve_client

PROXIES = TrustedProxies(["10.0.0.0/8", "fd00::/8", "192.0.2.1"])
STANDARD = TrustedProxies(["10.0.0.0/8"], header="forwarded")


def xff(*lines: str, proto: str | None = None) -> list[tuple[bytes, bytes]]:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line.encode("latin-1")) for line in lines)]
    return headers if proto is None else [*headers, (b"x-forwarded-proto", proto.encode())]


def forwarded(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", line.encode("latin-1")) for line in lines]


def test_an_untrusted_peer_is_the_client_whatever_it_claims() -> None:
    """Headers of a peer that is no trusted proxy are ignored, the scheme's as well."""
    headers = xff("1.2.3.4", proto="https") + forwarded("for=1.2.3.4;proto=https")

    for trusted in (PROXIES, STANDARD, TrustedProxies()):
        client = resolve_client("203.0.113.9", "ws", headers, trusted)
        assert client == ClientAddress("203.0.113.9", "ws")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (["6.6.6.6, 198.51.100.7, 10.0.0.9"], "198.51.100.7"),
        (["6.6.6.6", "198.51.100.7", "10.0.0.9, 192.0.2.1"], "198.51.100.7"),
        (["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
        (["198.51.100.7:51234"], "198.51.100.7"),
        (["[2001:db8::7]:51234"], "2001:db8::7"),
        (["[2001:DB8:0::7]"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7,::ffff:10.0.0.9"], "198.51.100.7"),
        (["198.51.100.7, fd00::1, "], "198.51.100.7"),
        ([""], "10.0.0.1"),
        ([" , ,"], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_right_most_untrusted_hop_is_the_client(lines: list[str], expected: str) -> None:
    """What stands left of the first address we do not trust may be made up."""
    assert resolve_client("10.0.0.1", "ws", xff(*lines), PROXIES).ip == expected


@pytest.mark.parametrize(
    "garbage",
    [
        "nonsense",
        "unknown",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4:port",
        "1.2.3.4:123456",
        "fe80::1%eth0<script>",
        "[::1",
        "::1]",
        '"1.2.3.4"',
        "1.2.3.4 5.6.7.8",
        "\xff\x00",
    ],
)
def test_garbage_ends_the_walk_at_the_last_good_hop(garbage: str) -> None:
    """The last address vouched for counts; nothing is raised."""
    headers = xff(f"198.51.100.7, {garbage}, 10.0.0.9")

    assert resolve_client("10.0.0.1", "ws", headers, PROXIES).ip == "10.0.0.9"
    assert resolve_client("10.0.0.1", "ws", xff(garbage), PROXIES).ip == "10.0.0.1"


@pytest.mark.parametrize(
    ("scheme", "proto", "expected"),
    [
        ("ws", "https", "wss"),
        ("ws", "WSS", "wss"),
        ("wss", "http", "ws"),
        ("wss", "ws", "ws"),
        ("http", "https", "https"),
        ("ws", "http, https", "wss"),
        ("ws", "https, http", "ws"),
        ("ws", "gopher", "ws"),
        ("wss", "", "wss"),
        ("odd", "https", "odd"),
    ],
)
def test_the_scheme_is_the_nearest_proxys(scheme: str, proto: str, expected: str) -> None:
    """The right-most X-Forwarded-Proto of a trusted peer decides how the client came."""
    headers = xff("198.51.100.7", proto=proto)

    assert resolve_client("10.0.0.1", scheme, headers, PROXIES).scheme == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=198.51.100.7"], ("198.51.100.7", "ws")),
        (["For=198.51.100.7;Proto=https;by=10.0.0.1"], ("198.51.100.7", "wss")),
        (['for="198.51.100.7:51234" ; host=x'], ("198.51.100.7", "ws")),
        (['for="[2001:db8::7]:4711";proto=wss'], ("2001:db8::7", "wss")),
        ([r'for="198.51\.100.7"'], ("198.51.100.7", "ws")),
        (["for=6.6.6.6, for=198.51.100.7;proto=https, for=10.0.0.9"], ("198.51.100.7", "wss")),
        (["for=6.6.6.6", "for=198.51.100.7;proto=https"], ("198.51.100.7", "wss")),
        (["for=198.51.100.7, for=unknown;proto=https"], ("10.0.0.1", "wss")),
        (["for=198.51.100.7, for=_hidden, for=10.0.0.9"], ("10.0.0.9", "ws")),
        (["for=198.51.100.7, proto=https"], ("10.0.0.1", "wss")),
        (["for=198.51.100.7;for=198.51.100.8"], ("10.0.0.1", "ws")),
        (["for"], ("10.0.0.1", "ws")),
        (["198.51.100.7"], ("10.0.0.1", "ws")),
        (["for=198.51.100.7;;"], ("10.0.0.1", "ws")),
        ([""], ("10.0.0.1", "ws")),
    ],
)
def test_the_standard_header_is_read_like_the_old_one(
    lines: list[str], expected: tuple[str, str]
) -> None:
    """RFC 7239: quotes, ports, hidden names; address and scheme come from the same element."""
    client = resolve_client("10.0.0.1", "ws", forwarded(*lines), STANDARD)

    assert (client.ip, client.scheme) == expected


@pytest.mark.parametrize("opening", ['for="', 'for="6.6.6.6', r'for="\\', 'for=6.6.6.6;x="'])
def test_an_unclosed_quote_cannot_swallow_what_a_proxy_appends(opening: str) -> None:
    """The element on the right is the proxy's, whatever the client wrote before it."""
    headers = forwarded(f"{opening}, for=198.51.100.7;proto=https")

    client = resolve_client("10.0.0.1", "ws", headers, STANDARD)

    assert client == ClientAddress("198.51.100.7", "wss")


def test_only_the_chosen_header_is_read() -> None:
    """A proxy passes on the header it does not write, as the client made it up."""
    headers = xff("198.51.100.7", proto="https") + forwarded("for=6.6.6.6;proto=http")

    assert resolve_client("10.0.0.1", "ws", headers, PROXIES).ip == "198.51.100.7"
    assert resolve_client("10.0.0.1", "wss", headers, STANDARD) == ClientAddress("6.6.6.6", "ws")


def test_a_mapped_ipv4_peer_is_matched_and_shown_as_ipv4() -> None:
    """A dual-stack socket reports IPv4 peers in IPv6 spelling."""
    assert resolve_client("::ffff:10.0.0.1", "ws", xff("1.2.3.4"), PROXIES).ip == "1.2.3.4"
    assert resolve_client("::ffff:203.0.113.9", "ws", [], PROXIES).ip == "203.0.113.9"
    mapped = TrustedProxies(["::ffff:10.0.0.0/104"])
    assert resolve_client("10.9.9.9", "ws", xff("1.2.3.4"), mapped).ip == "1.2.3.4"


def test_a_star_trusts_every_hop_and_a_unix_socket() -> None:
    """With `*` the left-most address counts, and a peer without address is trusted too."""
    trusted = TrustedProxies(["*"])

    assert resolve_client(None, "ws", xff("1.2.3.4, 5.6.7.8"), trusted).ip == "1.2.3.4"
    assert resolve_client("testclient", "ws", [], trusted).ip == "testclient"


def test_a_peer_without_address_is_not_trusted_otherwise() -> None:
    """A Unix socket or a name is in no network."""
    assert resolve_client(None, "ws", xff("1.2.3.4"), PROXIES) == ClientAddress(None, "ws")
    assert resolve_client("testclient", "ws", xff("1.2.3.4"), PROXIES).ip == "testclient"


def test_a_chain_of_thousands_is_read_only_at_its_end() -> None:
    """The work per handshake is bounded."""
    headers = xff(",".join(["6.6.6.6"] + ["10.0.0.2"] * 5000))

    assert resolve_client("10.0.0.1", "ws", headers, PROXIES).ip == "10.0.0.2"


def test_a_single_network_may_be_given_as_a_string() -> None:
    """A string is one network, not a sequence of letters."""
    trusted = TrustedProxies("10.0.0.0/8")

    assert resolve_client("10.0.0.1", "ws", xff("1.2.3.4"), trusted).ip == "1.2.3.4"


@pytest.mark.parametrize("network", ["", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0-10.0.0.9"])
def test_an_unusable_network_stops_the_start(network: str) -> None:
    """The message names the value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        TrustedProxies([network])

    assert repr(network) in str(caught.value)
    assert "10.0.0.0/8" in str(caught.value)


def test_an_unknown_header_stops_the_start() -> None:
    """Two headers are known; another one would be trusted for nothing."""
    with pytest.raises(ConfigurationError, match="x-real-ip"):
        TrustedProxies(header="x-real-ip")  # type: ignore[arg-type]


_PARTS = st.sampled_from(
    ["10.0.0.2", "1.2.3.4", "[::1]:80", "for=", "proto=https", '"', "\\", ",", ";", "=", " ", "_x"]
)
_VALUES = st.one_of(
    st.binary(max_size=40),
    st.lists(_PARTS, max_size=12).map(lambda parts: "".join(parts).encode()),
)
_NAMES = st.sampled_from(
    [b"x-forwarded-for", b"X-Forwarded-For", b"forwarded", b"x-forwarded-proto"]
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=5), st.sampled_from([PROXIES, STANDARD]))
def test_any_header_gives_an_address_and_a_scheme(
    headers: list[tuple[bytes, bytes]], trusted: TrustedProxies
) -> None:
    """Nothing is raised, and what comes out is a real address without a zone."""
    client = resolve_client("10.0.0.1", "ws", headers, trusted)

    assert client.ip is not None
    assert str(ip_address(client.ip)) == client.ip
    assert client.scheme in ("ws", "wss")


@given(_VALUES)
def test_a_client_cannot_change_what_the_proxy_appends(made_up: bytes) -> None:
    """Whatever the client sends, the address its proxy saw is the answer."""
    old = [(b"x-forwarded-for", made_up + b", 198.51.100.7")]
    standard = [(b"forwarded", made_up + b", for=198.51.100.7")]

    assert resolve_client("10.0.0.1", "ws", old, PROXIES).ip == "198.51.100.7"
    assert resolve_client("10.0.0.1", "ws", standard, STANDARD).ip == "198.51.100.7"
