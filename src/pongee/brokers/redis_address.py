"""What an address of Redis means, and connections to it. ◇"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import RedisError

from pongee.errors import ConfigurationError
from pongee.limits import BROKER_TIMEOUT

__all__ = ["Address", "Host", "parse_address"]

Host = tuple[str, int]

_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the servers are, and how to connect to them.

    Attributes:
        kind: one server; some nodes of a cluster; or the sentinels of a server.
        hosts: of them; for a unix socket its path and 0.
        service: which server the sentinels shall tell of.
        db: number of the database.
        name: for people, without secrets.
    """

    kind: Literal["single", "cluster", "sentinel"]
    hosts: tuple[Host, ...]
    service: str
    db: int
    name: str
    _type: type[AbstractConnection]
    _options: dict[str, Any] = field(repr=False)

    def certificates(self) -> ssl.SSLContext | None:
        """Read what TLS needs, for many connections: it takes long; `None` without TLS.

        Raises:
            ConfigurationError: a file cannot be read, or an option is wrong.
        """
        made = self.connection(self.hosts[0])
        if not isinstance(made, SSLConnection):
            return None
        try:
            return made.ssl_context.get()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self.name}: TLS cannot be used: {error}; look at the files and options that "
                "begin with ssl_ in the broker's address"
            ) from None

    def connection(
        self, host: Host, tls: ssl.SSLContext | None = None, *, sentinel: bool = False
    ) -> AbstractConnection:
        """Make a connection, not connected yet, that neither decodes, retries nor times out.

        Args:
            host: to which.
            tls: what `certificates` has read; `None` lets the connection read it itself.
            sentinel: it is one: the login and the database are not for it.
        """
        options = dict(self._options)
        if sentinel:
            for name in ("username", "password"):
                options.pop(name, None)
        elif self.db:
            options["db"] = self.db
        if issubclass(self._type, UnixDomainSocketConnection):
            options["path"] = host[0]
        else:
            options |= {"host": host[0], "port": host[1]}
        made = self._type(**options)
        if isinstance(made, SSLConnection):
            made.ssl_context.context = tls
        return made


def parse_address(address: str) -> Address:
    """Read an address.

    Raises:
        ConfigurationError: it is wrong; says how to write it, and nothing of what stands there.
    """
    scheme = address.partition("://")[0]
    base, _, kind = scheme.partition("+")
    try:
        if kind:
            return _parse_several(address, base, kind)
        return _parse_one(address, base)
    except (ValueError, TypeError, KeyError, RedisError):
        raise ConfigurationError(_cure(scheme)) from None


def _parse_one(address: str, scheme: str) -> Address:
    options: dict[str, Any] = dict(parse_url(address))
    path = urlsplit(address).path.strip("/")
    db = options.pop("db", 0)
    if scheme == "unix":
        place = options.pop("path")
        name, hosts = f"unix://{place}", ((place, 0),)
    else:
        if path and not path.isdecimal():
            raise ValueError
        host = options.pop("host", "localhost"), options.pop("port", 6379)
        name, hosts = _named(*host), (host,)
    return _made("single", hosts, "", db, name, options)


def _parse_several(address: str, base: str, kind: str) -> Address:
    if kind not in ("cluster", "sentinel"):
        raise ValueError
    login, _, rest = address.partition("://")[2].rpartition("@")
    places, _, query = rest.partition("?")
    names, _, path = places.partition("/")
    # What is read is an address of one server that has all but its hosts.
    options: dict[str, Any] = dict(parse_url(f"{base}://{login and login + '@'}host?{query}"))
    options.pop("host")
    hosts = tuple(_host(one, _PORTS[kind]) for one in names.split(","))
    service, _, number = unquote(path).partition("/")
    if kind == "cluster":
        service, number = "", service
        if number not in ("", "0"):
            raise ValueError
        return _made("cluster", hosts, "", 0, f"cluster {_named(*hosts[0])}", options)
    if not service:
        raise ValueError
    db = int(number or options.pop("db", 0))
    return _made("sentinel", hosts, service, db, f"{service} (sentinel)", options)


def _made(
    kind: Literal["single", "cluster", "sentinel"],
    hosts: tuple[Host, ...],
    service: str,
    db: int,
    name: str,
    options: dict[str, Any],
) -> Address:
    type_ = options.pop("connection_class", Connection)
    options |= {
        "socket_timeout": None,  # what waits is watched over all at once
        "socket_connect_timeout": BROKER_TIMEOUT,
        "protocol": 2,
        "driver_info": None,
    }
    made = Address(kind, hosts, service, db, f"Redis at {name}", type_, options)
    made.connection(hosts[0])  # an option that there is not shows here
    return made


def _host(text: str, port: int) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.query:
        raise ValueError
    return parts.hostname, parts.port or port


def _named(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cure(scheme: str) -> str:
    forms = {
        "unix": "unix:///path/of/socket?db=0",
        "redis+cluster": "redis+cluster://user:password@host1:6379,host2:6379",
        "rediss+cluster": "rediss+cluster://user:password@host1:6379,host2:6379",
        "redis+sentinel": "redis+sentinel://user:password@host1:26379,host2:26379/service/0",
    }
    form = forms.get(scheme, f"{scheme}://user:password@host:6379/0")
    return (
        f"the broker's address {scheme}://… cannot be read: write it like {form}, with the "
        "characters @ : / ? # % of a user name or password as %40 %3A %2F %3F %23 %25"
    )
