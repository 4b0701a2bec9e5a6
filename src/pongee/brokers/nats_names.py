"""Addresses of NATS servers, and what everything is called there. ◇

A channel's name becomes one token of a subject: letters and digits of ASCII, ``-`` and ``_`` stay,
every other byte of its UTF-8 becomes ``=`` and two hexadecimal digits. No two names share a token.
A token that would be longer than `TOKEN` is ``=h`` and the name's SHA-256 instead, which no other
token begins with.

    <prefix>.c.<channel>             what subscribers of a channel get
    <prefix>.s.<channel>.d.p         publications of its stream; the server repeats them on ….c.…
    <prefix>.s.<channel>.d.<key>     those with a key in a channel without a stream; repeated too
    <prefix>.s.<channel>.q.<key>     posts of keys in one with a stream; not repeated
    <prefix>.h.<channel>.<client>    who is there
    <prefix>.n.<name>                notes
    <prefix>.control, .node.<node>   to all nodes, to one
"""

from __future__ import annotations

import re
from hashlib import blake2b, sha256
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from pongee.errors import ConfigurationError

__all__ = ["Address", "Names", "parse_address", "token"]

TOKEN = 180
"""Characters of a token at most, so that subjects fit a server's line of 4096 bytes many times."""

_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_WRITTEN = [chr(byte) if byte in _KEPT else f"={byte:02X}" for byte in range(256)]

_REPLICAS = re.compile("[1-5]")
_QUERY = re.compile(r"\?(?=(?:replicas|ssl_ca_certs)=)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


class Address(NamedTuple):
    """Where servers are, and how to be let in.

    Attributes:
        name: for people, without secrets.
        servers: one address each, without secrets.
        user: or `None`.
        password: or `None`.
        token: or `None`.
        replicas: servers of a cluster that keep each stream, where Pongee makes it.
        ca_certs: file with the certificates that servers' are signed by; `None` for the system's.
    """

    name: str
    servers: list[str]
    user: str | None
    password: str | None
    token: str | None
    replicas: int
    ca_certs: str | None

    @property
    def tls(self) -> bool:
        """Whether nothing, least of all a password, may be sent in clear."""
        return self.name.startswith("tls://")

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Address({self.name})"


class Names:
    """What everything of one application is called.

    Args:
        prefix: begins every name.
    """

    def __init__(self, prefix: str) -> None:
        prefix = token(prefix)
        self.prefix = prefix
        self.log = prefix
        self.state = f"{prefix}-state"
        self.control = f"{prefix}.control"

    def delivery(self, channel: str) -> str:
        """Name the subject that subscribers of `channel` listen to."""
        return f"{self.prefix}.c.{token(channel)}"

    def publications(self, channel: str) -> str:
        """Name the subject of its stream."""
        return f"{self.prefix}.s.{token(channel)}.d.p"

    def key(self, channel: str, key: str, *, alone: bool) -> str:
        """Name the subject of an idempotency key; `alone` in a channel without a stream."""
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{self.prefix}.s.{token(channel)}.{'d' if alone else 'q'}.{digest}"

    def present(self, channel: str, client: str | None = None) -> str:
        """Name the subject of a client's entry, or of all entries."""
        return f"{self.prefix}.h.{token(channel)}.{'*' if client is None else token(client)}"

    def note(self, name: str) -> str:
        """Name the subject of a note."""
        return f"{self.prefix}.n.{token(name)}"

    def node(self, node: str) -> str:
        """Name the subject of a node."""
        return f"{self.prefix}.node.{token(node)}"


def token(name: str) -> str:
    """Write `name` as one token of a subject. ▲"""
    if not name:
        return "=e"
    encoded = name.encode("utf-8", "surrogatepass")
    written = "".join([_WRITTEN[byte] for byte in encoded])
    return written if len(written) <= TOKEN else f"=h{sha256(encoded).hexdigest()}"


def parse_address(address: str) -> Address:
    """Take ``nats://[user:password@|token@]host[:port][,host[:port]…][?option=…]`` apart.

    There are two options: ``replicas``, how many servers of a cluster (1 to 5) keep each stream
    that Pongee makes; and, with ``tls://``, ``ssl_ca_certs``, a file of the certificates that the
    servers' are signed by, instead of those that the system trusts (or ``SSL_CERT_FILE`` names).

    Raises:
        ConfigurationError: it is none; tells no secret.
    """
    scheme, _, rest = address.partition("://")
    # A password may hold a ? that is not written as %3F, and the name of a file an @.
    rest, *queries = _QUERY.split(rest, maxsplit=1)
    login, found, rest = rest.rpartition("@")
    hosts, _, query = rest.partition("?")
    query = queries[0] if queries else query
    hosts = hosts.removesuffix("/")
    servers = []
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        port = int(match[2] or 4222) if match else 0
        if scheme not in ("nats", "tls") or not match or not 0 < port < 65536:
            raise ConfigurationError(
                f"broker: {scheme}://{'…@' if found else ''}{hosts} is no address of a NATS "
                "server; allowed: nats://host:4222, nats://user:password@host:4222, "
                "nats://token@host1:4222,host2:4222 (and tls://); special characters in a "
                "password are written as %XX"
            )
        servers.append(f"{scheme}://{match[1]}:{port}")
    user, colon, password = login.partition(":")
    return Address(
        f"{scheme}://{hosts}",
        servers,
        unquote(user) if colon else None,
        unquote(password) if colon else None,
        unquote(user) if found and not colon else None,
        *_options(scheme, query),
    )


def _options(scheme: str, query: str) -> tuple[int, str | None]:
    """Read how many replicas are wanted, and the file of certificates."""
    try:
        plus = query.replace("+", "%2B")  # it is no space in the name of a file
        pairs = parse_qsl(plus, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        pairs = [("", "")]
    options = dict(pairs)
    replicas = options.pop("replicas", "1")
    ca_certs = options.pop("ssl_ca_certs", None)
    misplaced = ca_certs is not None and scheme != "tls"
    if options or misplaced or ca_certs == "" or not _REPLICAS.fullmatch(replicas):
        raise ConfigurationError(
            "broker: what follows the ? in the NATS address cannot be used; allowed: replicas=3 "
            "(1 to 5) and, with tls://, ssl_ca_certs=/path/of/ca.pem, joined by &"
        )
    return int(replicas), ca_certs
