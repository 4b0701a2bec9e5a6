"""The command line: bad settings, tokens, the version."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

import pongee
from pongee.testing import connect
from tests.conftest import ProcessFactory
from tests.playground.conftest import SECRET

pytestmark = pytest.mark.anyio


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PONGEE_")}
    return subprocess.run(
        [sys.executable, "-m", "pongee", *arguments],
        env=clean | settings,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "http", "integer"),
        ("PORT", "70000", "65535"),
        ("PORT", "-1", "0"),
        ("BROKER", "kafka://x", "memory://"),
        ("HEARTBEAT_INTERVAL", "0", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "nan", "0"),
        ("PING_INTERVAL", "-3", "greater than 0"),
        ("PING_INTERVAL", "often", "number"),
        ("PING_TIMEOUT", "1e9", "86400"),
        ("MAX_MESSAGE_SIZE", "0", "greater than or equal to 1"),
        ("MAX_MESSAGE_SIZE", "64KiB", "integer"),
        ("MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("DRAIN_WINDOW", "-1", "greater than or equal to 0"),
        ("DRAIN_WINDOW", "inf", "3600"),
        ("ALLOWED_ORIGINS", "example.com", "http"),
        ("ALLOWED_ORIGINS", "https://a.example/path", "path"),
        ("TRUSTED_PROXIES", "10.0.0.0/99", "10.0.0.0/8"),
        ("TRUSTED_PROXIES", "nginx.example", "IP address"),
    ],
)
def test_bad_setting_stops_the_start(name: str, value: str, allowed: str) -> None:
    """Exit status 2; the message names the setting, the value and what is allowed."""
    ended = run("serve", **{"PONGEE_PORT": "0", f"PONGEE_{name}": value})
    assert ended.returncode == 2, ended
    assert f"PONGEE_{name}" in ended.stderr
    assert value in ended.stderr
    assert allowed in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("JWT_SECRET", "too-short-secret", "32 bytes"),
        ("JWT_SECRET", "é" * 15, "32 bytes"),
        ("STATIC_TOKENS", "long-enough-token,short", "8 characters"),
    ],
)
def test_bad_secret_is_not_shown(name: str, value: str, allowed: str) -> None:
    """What is wrong with it is told, not what it is."""
    ended = run("serve", "--port", "0", **{f"PONGEE_{name}": value})
    assert ended.returncode == 2, ended
    assert f"PONGEE_{name}" in ended.stderr
    assert allowed in ended.stderr
    for part in value.split(","):
        assert part not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_all_bad_settings_are_told_at_once() -> None:
    """Nobody has to try again for each of them."""
    ended = run("serve", PONGEE_PORT="x", PONGEE_MAX_CONNECTIONS="y")
    assert "PONGEE_PORT" in ended.stderr
    assert "PONGEE_MAX_CONNECTIONS" in ended.stderr


def test_bad_option_is_told_by_its_name() -> None:
    """What was typed is what is named."""
    ended = run("serve", "--port", "http")
    assert ended.returncode == 2
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use_is_told_clearly() -> None:
    """Exit status 2, the port, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run("serve", PONGEE_PORT=port)
    assert ended.returncode == 2, ended
    assert f"PONGEE_PORT={port}" in ended.stderr
    assert "in use" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1", "::zz"])
def test_address_that_is_not_ours_is_told_clearly(host: str) -> None:
    """A name that leads nowhere, somebody else's address, no address."""
    ended = run("serve", "--port", "0", PONGEE_HOST=host)
    assert ended.returncode == 2, ended
    assert f"PONGEE_HOST={host!r}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_version_is_that_of_the_package() -> None:
    """One line, for people and for scripts."""
    ended = run("--version")
    assert (ended.returncode, ended.stdout) == (0, f"{pongee.__version__}\n")


def test_no_command_shows_the_help() -> None:
    """With the two commands in it."""
    ended = run()
    assert "serve" in ended.stdout + ended.stderr
    assert "token" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_token_without_a_secret_says_what_is_missing() -> None:
    """A token nobody accepts is not printed."""
    ended = run("token", "ada")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "PONGEE_JWT_SECRET" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("ada", "--expires-in", "0"),
        ("ada", "--expires-in", "nan"),
        ("ada", "--expires-in", "inf"),
    ],
)
def test_token_for_nobody_or_for_no_time_is_refused(arguments: tuple[str, ...]) -> None:
    """Said so, exit status 2."""
    ended = run("token", *arguments, PONGEE_JWT_SECRET=SECRET)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


async def test_token_opens_a_server_with_the_same_secret(pongee_process: ProcessFactory) -> None:
    """One line, ready for a script."""
    process = pongee_process({"PONGEE_JWT_SECRET": SECRET})
    ended = run("token", "ada", PONGEE_JWT_SECRET=SECRET)
    assert ended.returncode == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", ended.stdout)
    async with connect(process.ws("/ws/auth"), token=ended.stdout.strip()) as client:
        await client.send("x")
        assert await client.receive() == "x"
