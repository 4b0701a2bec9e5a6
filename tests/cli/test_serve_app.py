"""``pongee serve APP``: what is found, what is refused, what is added."""

from __future__ import annotations

from pathlib import Path

import pytest

from pongee.testing import connect
from tests.cli.process import SHOP, Served, run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SMALL = """
from fastapi import FastAPI
from pongee import Pongee, Session, public

app = FastAPI()
pongee = Pongee()


@pongee.endpoint("/ws", auth=public)
async def echo(session: Session[str, str]) -> None:
    async for text in session:
        await session.send(text)


def make() -> FastAPI:
    return app


{last}
"""
INSTALL = "pongee.install(app)\n"
CATCH_ALL = """
@app.get("/{path:path}")
async def page(path: str) -> str:
    return path
"""
OWN_HEALTH = """
@app.get("/healthz")
async def healthz() -> str:
    return "mine"
"""


def _write(directory: Path, last: str = INSTALL) -> Path:
    (directory / "small.py").write_text(SMALL.replace("{last}", last))
    return directory


async def test_application_is_served_as_the_playground_is(tmp_path: Path) -> None:
    """Our own wire with the setting of the command line, which the application sees too."""
    _write(tmp_path)
    async with (
        Served("small:app", "--max-message-size", "10", cwd=tmp_path) as served,
        connect(served.ws("/ws")) as client,
    ):
        assert "small:app is at http://127.0.0.1:" in served.output()
        await client.send("x" * 10)
        assert await client.receive() == "x" * 10
        await client.send("x" * 11)
        assert (await client.wait_closed()).code == 1009
        assert (await served.get("/healthz")).json() == {"status": "ok"}
        assert (await served.get("/readyz")).json() == {"status": "ready", "reasons": []}


async def test_factory_is_called(tmp_path: Path) -> None:
    """And found in the directory that was named."""
    _write(tmp_path)
    async with Served("small:make", "--factory", "--app-dir", str(tmp_path)) as served:
        assert (await served.get("/healthz")).status_code == 200


async def test_health_comes_before_a_route_that_takes_everything(tmp_path: Path) -> None:
    """Such as the pages of an application."""
    _write(tmp_path, CATCH_ALL + INSTALL)
    async with Served("small:app", cwd=tmp_path) as served:
        assert (await served.get("/readyz")).json() == {"status": "ready", "reasons": []}
        assert (await served.get("/else")).json() == "else"


async def test_own_health_is_left_alone(tmp_path: Path) -> None:
    """Who has one of the two answers both."""
    _write(tmp_path, OWN_HEALTH + INSTALL)
    async with Served("small:app", cwd=tmp_path) as served:
        assert (await served.get("/healthz")).json() == "mine"
        assert (await served.get("/readyz")).status_code == 404


@pytest.mark.parametrize(
    ("named", "last", "told"),
    [
        ("small", INSTALL, "module:attribute"),
        ("nowhere:app", INSTALL, "there is no module nowhere"),
        ("nowhere.small:app", INSTALL, "--app-dir"),
        ("small:missing", INSTALL, "has no missing"),
        ("small:pongee", INSTALL, "is no FastAPI application but of the type Pongee"),
        ("small:make", INSTALL, "add --factory"),
        ("small:app", "", "pongee.install(app)"),
        ("small:app", "app.state.pongee = 1", "pongee.install(app)"),
        ("small:app", INSTALL * 2, "install(app) was called before"),
    ],
)
def test_what_cannot_be_served_is_told_with_the_cure(
    tmp_path: Path, named: str, last: str, told: str
) -> None:
    """Exit status 2, one line, no traceback."""
    ended = run(named, cwd=_write(tmp_path, last))
    assert ended.returncode == 2, ended
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_fault_inside_the_application_is_shown_as_it_is(tmp_path: Path) -> None:
    """Its author needs the line."""
    ended = run("small:app", cwd=_write(tmp_path, "import no_such_thing"))
    assert ended.returncode == 1
    assert "small.py" in ended.stderr
    assert "No module named 'no_such_thing'" in ended.stderr


def test_reload_of_several_workers_is_refused() -> None:
    """There is one process to start again."""
    ended = run(SHOP, "--reload", "--workers", "2", PONGEE_BROKER="nats://127.0.0.1:1")
    assert ended.returncode == 2
    assert "PONGEE_WORKERS=2" in ended.stderr


def test_embedded_broker_is_for_this_command_only(tmp_path: Path) -> None:
    """An application that asks for it by itself is told who starts it."""
    last = INSTALL + "from pongee import Settings\nPongee(Settings(broker='nats://embedded'))\n"
    ended = run("small:app", cwd=_write(tmp_path, last))
    assert ended.returncode == 2
    assert "--broker nats://embedded" in ended.stderr
    assert "Traceback" not in ended.stderr
