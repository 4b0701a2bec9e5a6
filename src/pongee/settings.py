"""Settings from the environment: ``PONGEE_*``.

A bad value stops the start with a message that names the setting, the value and what is allowed.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pongee.brokers.choose import check_address, without_password
from pongee.errors import ConfigurationError
from pongee.guards.client_ip import ForwardingHeader, TrustedProxies
from pongee.guards.origin import OriginPolicy
from pongee.limits import API_KEY_SIZE, MIN_SECRET_BYTES

__all__ = ["Settings", "load_settings"]


class Settings(BaseSettings):
    """What the environment says. Times are in seconds, sizes in bytes.

    Attributes:
        host: address to listen on.
        port: TCP port to listen on; 0 lets the system choose.
        workers: processes that ``pongee serve`` starts.
        broker: where channels live: ``memory://``, ``redis://…`` or ``nats://…``.
        broker_prefix: begins the names of everything that is kept there, so that applications can
            share a server.
        broker_buffer: bytes of publications that may wait while the broker's link is broken; 0
            fails them at once.
        jwt_secret: HS256 key for ``JWTBearer``; unset, ``pongee serve`` makes one for this run.
        api_key: what other programs show to use the server API; unset, there is none.
        static_tokens: tokens that ``/ws/secure`` of the playground takes, comma-separated.
        allowed_origins: origins beside the server's own, comma-separated; ``*`` is any.
        trusted_proxies: addresses or networks whose forwarding headers are believed,
            comma-separated.
        forwarding_header: which header they write: ``x-forwarded-for`` or ``forwarded``.
        heartbeat_interval: between two heartbeats of ``/ws/realtime``.
        ping_interval: between two protocol pings.
        ping_timeout: how long a pong may take.
        max_message_size: of one inbound message.
        compression: whether permessage-deflate is agreed on with clients that offer it.
        max_connections: sessions of one process.
        drain_window: over which closes are spread at shutdown.
        drain_delay: that ``/readyz`` says 503 before ``pongee serve`` stops listening.
    """

    model_config = SettingsConfigDict(
        env_prefix="PONGEE_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    broker: SecretStr = SecretStr("memory://")
    broker_prefix: str = "pongee"
    broker_buffer: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    jwt_secret: SecretStr | None = None
    api_key: SecretStr | None = None
    static_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    forwarding_header: ForwardingHeader = "x-forwarded-for"
    heartbeat_interval: Annotated[float, Field(gt=0, le=86400)] = 30.0
    ping_interval: Annotated[float, Field(gt=0, le=86400)] = 20.0
    ping_timeout: Annotated[float, Field(gt=0, le=86400)] = 20.0
    max_message_size: Annotated[int, Field(ge=1, le=1 << 30)] = 64 * 1024
    compression: bool = False
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    drain_window: Annotated[float, Field(ge=0, le=3600)] = 1.0
    drain_delay: Annotated[float, Field(ge=0, le=3600)] = 0.0

    @field_validator("static_tokens", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("broker")
    @classmethod
    def _known_broker(cls, value: SecretStr) -> SecretStr:
        check_address(value.get_secret_value())
        return value

    @field_validator("broker_prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if not re.fullmatch("[A-Za-z0-9_-]{1,32}", value):
            raise ValueError("1 to 32 letters, digits, - and _")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _long_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"at least {MIN_SECRET_BYTES} bytes, such as `openssl rand -hex 32` prints"
            )
        return value

    @field_validator("api_key")
    @classmethod
    def _usable_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else value.get_secret_value()
        # Headers carry nothing else unchanged from every client to every server.
        fits = key.isascii() and key.isprintable() and " " not in key
        if value is not None and (len(key) < API_KEY_SIZE or not fits):
            raise ValueError(
                f"at least {API_KEY_SIZE} ASCII characters without spaces, such as "
                "`openssl rand -hex 32` prints"
            )
        return value

    @field_validator("static_tokens")
    @classmethod
    def _long_tokens(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(token.get_secret_value()) < 8 for token in value):
            raise ValueError("each token has at least 8 characters")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _valid_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _checked(OriginPolicy, value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _valid_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _checked(TrustedProxies, value)
        return value


def load_settings(**given: Any) -> Settings:
    """Read the environment; `given` (where not `None`) wins over it.

    Raises:
        ConfigurationError: a value is not allowed; the message names each.
    """
    unknown = given.keys() - Settings.model_fields.keys()
    if unknown:
        raise ConfigurationError(f"no such settings: {', '.join(sorted(unknown))}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [_explain(dict(detail)) for detail in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(lines)) from None


def _explain(detail: dict[str, Any]) -> str:
    name = f"PONGEE_{str(detail['loc'][0]).upper()}" if detail["loc"] else "settings"
    secret = detail["loc"] and detail["loc"][0] in ("jwt_secret", "api_key", "static_tokens")
    came = "(not shown)" if secret else repr(without_password(detail.get("input")))
    return f"{name}={came}: {detail['msg'].removeprefix('Value error, ')}"


def _checked(make: Any, value: tuple[str, ...]) -> None:
    try:
        make(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
