"""The environment: every setting parsed, every bad value explained."""

from __future__ import annotations

import inspect
import os
from typing import Any

import pytest
from pydantic import SecretStr

from pongee.errors import ConfigurationError
from pongee.settings import Settings, load_settings

SECRET = "correct-horse-battery-staple-0123456789"
HIDDEN = "hunter2"
"""Too short for each setting that holds a secret with a length."""


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("PONGEE_"):
            monkeypatch.delenv(name)


PARSED: list[tuple[str, str, Any]] = [
    ("host", "0.0.0.0", "0.0.0.0"),
    ("port", "9000", 9000),
    ("broker", "memory://", SecretStr("memory://")),
    ("broker", "redis://:word@localhost", SecretStr("redis://:word@localhost")),
    ("broker_prefix", "shop-1", "shop-1"),
    ("broker_buffer", "65536", 65536),
    ("jwt_secret", SECRET, SecretStr(SECRET)),
    ("api_key", "0123456789abcdef", SecretStr("0123456789abcdef")),
    (
        "static_tokens",
        "device-one, device-two,",
        (SecretStr("device-one"), SecretStr("device-two")),
    ),
    ("allowed_origins", "https://a.example", ("https://a.example",)),
    ("allowed_origins", "*", ("*",)),
    ("trusted_proxies", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    ("forwarding_header", "forwarded", "forwarded"),
    ("heartbeat_interval", "1.5", 1.5),
    ("ping_interval", "5", 5.0),
    ("ping_timeout", "7", 7.0),
    ("max_message_size", "1024", 1024),
    ("compression", "true", True),
    ("max_connections", "3", 3),
    ("drain_window", "0", 0.0),
    ("drain_delay", "2.5", 2.5),
    ("workers", "4", 4),
]


@pytest.mark.parametrize(("name", "text", "value"), PARSED)
def test_setting_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    """``PONGEE_`` and the name in capitals; lists are parted by commas."""
    monkeypatch.setenv(f"PONGEE_{name.upper()}", text)

    assert getattr(load_settings(), name) == value


def test_every_setting_is_tried_and_explained() -> None:
    """No setting is added without a test above and a line in the documentation."""
    explained = inspect.getdoc(Settings) or ""

    assert {name for name, _, _ in PARSED} == set(Settings.model_fields)
    assert all(f"\n    {name}: " in explained for name in Settings.model_fields)


BAD = [
    ("port", "eighty", "valid integer"),
    ("port", "65536", "less than or equal to 65535"),
    ("port", "-1", "greater than or equal to 0"),
    ("broker", "amqp://localhost", "memory://"),
    ("broker", "redis", "redis://"),
    ("broker", "memory://x", "memory://"),
    ("broker_prefix", "a b", "1 to 32 letters"),
    ("allowed_origins", "a.example", "allowed are 'https://app.example.com'"),
    ("allowed_origins", "*,https://a.example", "give it alone"),
    ("trusted_proxies", "10.0.0.0/64", "10.0.0.0/64"),
    ("forwarding_header", "x-real-ip", "'x-forwarded-for' or 'forwarded'"),
    ("heartbeat_interval", "0", "greater than 0"),
    ("heartbeat_interval", "nan", "86400"),
    ("ping_interval", "inf", "less than or equal to 86400"),
    ("ping_timeout", "soon", "valid number"),
    ("max_message_size", "0", "greater than or equal to 1"),
    ("compression", "maybe", "valid boolean"),
    ("max_connections", "1.5", "valid integer"),
    ("drain_window", "-1", "greater than or equal to 0"),
    ("drain_delay", "later", "valid number"),
    ("workers", "0", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("name", "text", "allowed"), BAD)
def test_bad_value_names_the_setting_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, allowed: str
) -> None:
    """Whoever started the server can mend it from this line alone."""
    monkeypatch.setenv(f"PONGEE_{name.upper()}", text)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    message = str(caught.value)
    assert message.startswith(f"PONGEE_{name.upper()}=")
    assert text.partition(",")[0] in message
    assert allowed in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("jwt_secret", "at least 32 bytes"),
        ("api_key", "at least 16 ASCII characters"),
        ("static_tokens", "8 characters"),
    ],
)
def test_bad_secret_is_named_but_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, allowed: str
) -> None:
    """The message goes to a terminal and to logs."""
    monkeypatch.setenv(f"PONGEE_{name.upper()}", HIDDEN)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert f"PONGEE_{name.upper()}=(not shown): " in str(caught.value)
    assert allowed in str(caught.value)
    assert HIDDEN not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["jwt_secret", "api_key", "static_tokens"])
def test_settings_made_by_hand_do_not_show_a_bad_secret_either(name: str) -> None:
    """`Settings` is a public name: its own error ends in logs as well."""
    given: dict[str, Any] = {name: HIDDEN}
    with pytest.raises(ValueError) as caught:
        Settings(**given)
    assert HIDDEN not in str(caught.value)


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, so that a start is not tried once per mistake."""
    monkeypatch.setenv("PONGEE_PORT", "eighty")
    monkeypatch.setenv("PONGEE_MAX_CONNECTIONS", "0")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == [
        "PONGEE_PORT",
        "PONGEE_MAX_CONNECTIONS",
    ]


def test_given_value_wins_over_the_environment_and_none_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command-line option that was not used leaves the variable in force."""
    monkeypatch.setenv("PONGEE_PORT", "9000")

    assert load_settings(port=8001).port == 8001
    assert load_settings(port=None).port == 9000


def test_secrets_are_not_in_the_representation() -> None:
    """Printing the settings shows no secret."""
    settings = Settings(
        jwt_secret=SecretStr(SECRET),
        api_key=SecretStr(SECRET[::-1]),
        static_tokens=(SecretStr("device-one"),),
    )

    assert SECRET not in repr(settings)
    assert SECRET[::-1] not in repr(settings)
    assert "device-one" not in repr(settings)


def test_secret_of_exactly_32_bytes_is_enough() -> None:
    """Bytes count, not characters (RFC 7518 section 3.2)."""
    assert load_settings(jwt_secret="é" * 16).jwt_secret is not None


@pytest.mark.parametrize(
    "key", ["hunter2 hunter2 hunter2", "hunter2-hünter2-hunter2", "", "k\r" * 9]
)
def test_key_of_the_server_api_is_what_a_header_can_carry(key: str) -> None:
    """Another would be a key that nobody can show."""
    with pytest.raises(ConfigurationError, match="ASCII characters without spaces") as caught:
        load_settings(api_key=key)

    assert not key or key not in str(caught.value)


def test_password_of_a_broker_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of its address is."""
    monkeypatch.setenv("PONGEE_BROKER", "amqp://ann:pass/w@rd@host:1")
    with pytest.raises(ConfigurationError, match="PONGEE_BROKER='amqp://…@host:1'") as caught:
        load_settings()
    assert "pass" not in str(caught.value)
    assert "word" not in repr(load_settings(broker="redis://:word@localhost"))
