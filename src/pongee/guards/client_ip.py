"""Whose connection is it: the client's address and scheme behind trusted proxies. ◇

Called once per handshake; limits, audit, logs and the origin check all use its answer. A peer that
is not trusted is the client, whatever its headers say. A trusted peer's forwarding header is read
from the right, that is from the proxy nearest to us, up to the first address that is no trusted
proxy: that one was seen by a proxy we trust; everything left of it the client may have made up.

Promises: it never raises, whatever the headers hold; text that is no address ends the walk, and the
last address vouched for counts. It takes on trust that the proxies it was told about append to (or
overwrite) the one header it was told to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, get_args

from pongee.errors import ConfigurationError
from pongee.limits import MAX_HOPS

__all__ = ["ClientAddress", "ForwardingHeader", "TrustedProxies", "resolve_client"]

ForwardingHeader = Literal["x-forwarded-for", "forwarded"]
Headers = Sequence[tuple[bytes, bytes]]
Address = IPv4Address | IPv6Address

_SECURE = {"http": False, "ws": False, "https": True, "wss": True}
_HOP = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?|([0-9a-f:.]+)", re.I | re.A)
# RFC 7239 section 4: token "=" ( token / quoted-string ). Unquoted colons and brackets are against
# the RFC but common. Commas and semicolons never get here: see `_forwarded_hops`.
_PAIR = re.compile(
    r"([!#$%&'*+.^_`|~0-9a-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\"\\=]*))", re.I | re.A
)


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The client as the first trusted proxy saw it, or as our socket did.

    Attributes:
        ip: IPv4 or IPv6 in its usual spelling; `None` if unknown (a Unix socket).
        scheme: ``ws`` or ``wss``; ``http`` or ``https`` if the connection is no WebSocket.
    """

    ip: str | None
    scheme: str


class TrustedProxies:
    """The proxies whose word is taken, and the one header they speak in.

    Only one header is read, because a proxy that writes one passes the other on as the client sent
    it: nginx and most others write ``X-Forwarded-For`` and leave a made-up ``Forwarded`` alone, and
    a proxy that writes ``Forwarded`` may do the reverse. Reading both would let the client choose.

    Args:
        networks: IP addresses and CIDR networks, v4 and v6. ``*`` trusts every peer and every hop,
            so that the left-most address counts, which a client can make up: right only where
            nobody but a proxy that overwrites the header can reach the server.
        header: ``x-forwarded-for`` (with ``X-Forwarded-Proto``) or ``forwarded`` (RFC 7239).

    Raises:
        ConfigurationError: a network or header that cannot be used.
    """

    def __init__(
        self, networks: Sequence[str] = (), *, header: ForwardingHeader = "x-forwarded-for"
    ) -> None:
        if header not in get_args(ForwardingHeader):
            allowed = " or ".join(map(repr, get_args(ForwardingHeader)))
            raise ConfigurationError(f"TrustedProxies(header={header!r}): allowed is {allowed}")
        texts = (networks,) if isinstance(networks, str) else tuple(networks)
        self.header: ForwardingHeader = header
        self.trusts_all = "*" in texts
        self._networks = tuple(_parse_network(text) for text in texts if text != "*")

    def _trusts(self, address: Address | None) -> bool:
        if self.trusts_all:
            return True
        return address is not None and any(address in network for network in self._networks)


def resolve_client(
    peer: str | None,
    scheme: str,
    headers: Sequence[tuple[bytes, bytes]],
    trusted: TrustedProxies,
) -> ClientAddress:
    """Find the client's address and scheme. Never raises.

    The scheme is that of the right-most ``X-Forwarded-Proto``, or of the same ``Forwarded`` element
    as the address.

    Args:
        peer: the socket's remote address without port; `None` for a Unix socket.
        scheme: the socket's scheme: ``ws``, ``wss``, ``http`` or ``https``.
        headers: the request's headers, as in an ASGI scope.
        trusted: whom to believe.
    """
    address = None if peer is None else _parse_address(peer)
    ip = peer if address is None else str(address)
    if not trusted._trusts(address):
        return ClientAddress(ip, scheme)
    if trusted.header == "forwarded":
        hops, proto = _forwarded_hops(headers), ""
    else:
        hops = ((hop, "") for hop in _from_right(headers, b"x-forwarded-for"))
        proto = next(_from_right(headers, b"x-forwarded-proto"), "")
    for _, (hop, hop_proto) in zip(range(MAX_HOPS), hops, strict=False):
        # An element was written by the proxy right of it, which is trusted, even if its address is
        # hidden: "unknown" or an obfuscated name (RFC 7239 section 6).
        proto = hop_proto or proto
        address = _parse_hop(hop)
        if address is None:
            break
        ip = str(address)
        if not trusted._trusts(address):
            break
    return ClientAddress(ip, _with_proto(scheme, proto))


def _from_right(headers: Headers, name: bytes) -> Iterator[str]:
    """Give the members of a list header, last first; several lines are one list (RFC 9110 5.2)."""
    for key, value in reversed(headers):
        if key.lower() == name:
            for member in reversed(value.decode("latin-1").split(",")):
                if stripped := member.strip(" \t"):  # empty members: RFC 9110 section 5.6.1
                    yield stripped


def _forwarded_hops(headers: Headers) -> Iterator[tuple[str, str]]:
    """Give ``for`` and ``proto`` of each Forwarded element, last first, up to the first bad one.

    Commas are taken as they stand, even within quotes: no address holds one, and a parser that
    starts on the left could be led by a client's unclosed quote to swallow what a proxy appended.
    """
    for element in _from_right(headers, b"forwarded"):
        pairs: dict[str, str] = {}
        for text in element.split(";"):
            match = _PAIR.fullmatch(text.strip(" \t"))
            if match is None or match[1].lower() in pairs:
                return
            quoted = match[2]
            pairs[match[1].lower()] = (
                match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            )
        yield pairs.get("for", ""), pairs.get("proto", "")


def _parse_hop(text: str) -> Address | None:
    match = _HOP.fullmatch(text)
    return None if match is None else _parse_address(match[1] or match[2] or match[3])


@lru_cache(maxsize=4096)  # parsing costs 5 µs a handshake, and clients come back
def _parse_address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket reports 192.0.2.1 as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"trusted proxy {text!r}: {error}; allowed are an IP address, a network such as "
            "'10.0.0.0/8' or 'fd00::/8', and '*' for every peer"
        ) from None
    mapped = _parse_address(str(network.network_address))
    if isinstance(network, IPv6Network) and isinstance(mapped, IPv4Address):
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _with_proto(scheme: str, proto: str) -> str:
    """Return the scheme of the same kind, WebSocket or HTTP, that is as secure as `proto` says."""
    secure = _SECURE.get(proto.lower())
    if secure is None or scheme not in _SECURE:
        return scheme
    return ("ws" if scheme in ("ws", "wss") else "http") + ("s" if secure else "")
