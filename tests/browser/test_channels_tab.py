"""The tab of rooms in a real browser: the SDK, who is there, and a line that is cut."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from websockets.sync.client import connect

from tests.browser.test_page import AFTER_RESTART, SOON, overflows
from tests.conftest import PongeeProcess, ProcessFactory

pytestmark = pytest.mark.browser

CUT = 5  # seconds, as the page proposes
AFTER_CUT = CUT * 1000 + SOON
TOO_LONG = "x" * 501


class Visitor:
    """One tab of the page, on the rooms."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.troubles: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(SOON)
        self.page.on("console", lambda said: self.troubles.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.goto(f"{url}/#/channels")
        expect(self.page.locator("html")).to_have_attribute("data-ready", "true", timeout=SOON)

    def enter(self, room: int, name: str = "") -> None:
        self.page.locator("#channels-name").fill(name)
        self.page.locator("#channels-room").fill(str(room))
        self.page.locator("#channels-connect").click()
        expect(self.page.locator("#channels-state")).to_have_text(
            f"Connected as {name or 'anonymous'}", timeout=SOON
        )
        self.expect_in(room)

    def expect_in(self, room: int) -> None:
        expect(self.page.locator("#channels-room-state")).to_have_text(
            f"In room {room}", timeout=SOON
        )

    def say(self, text: str) -> None:
        self.page.locator("#channels-text").fill(text)
        self.page.locator("#channels-text").press("Enter")

    def expect_complaint(self, words: str) -> None:
        expect(self.page.locator("#channels-text-error")).to_contain_text(words, timeout=SOON)

    def expect_people(self, total: str, *entries: str) -> None:
        """The list, sorted by name: what each line of it reads."""
        expect(self.page.locator("#channels-people li")).to_have_text(list(entries), timeout=SOON)
        expect(self.page.locator("#channels-people-total")).to_have_text(total)

    def expect_said(self, *texts: str, recovered: bool | None = None) -> None:
        """Exactly these messages, in this order."""
        lines = "#channels-log li:not([data-kind=note], [data-kind=warning])"
        if recovered is not None:
            lines += "[data-recovered]" if recovered else ":not([data-recovered])"
        expect(self.page.locator(f"{lines} .text")).to_have_text(list(texts), timeout=SOON)

    def expect_caught_up(self, words: str) -> None:
        expect(self.page.locator("#channels-catch-up")).to_have_text(words, timeout=AFTER_CUT)


@contextmanager
def another(server: PongeeProcess, room: int) -> Iterator[Callable[[str], None]]:
    """Speak in `room` as another client, on the bare protocol and in no browser."""
    numbers = itertools.count(1)
    with connect(server.ws("/connection/websocket")) as socket:

        def command(**command: Any) -> None:
            """Send, and wait for the answer; pushes on the way are of no interest."""
            number = next(numbers)
            socket.send(json.dumps({"id": number, **command}))
            while True:
                for line in str(socket.recv(10)).splitlines():
                    reply = json.loads(line)
                    if not reply:
                        socket.send("{}")
                    elif reply.get("id") == number:
                        assert "error" not in reply, reply
                        return

        command(connect={})
        command(subscribe={"channel": f"chat:{room}"})
        yield lambda text: command(publish={"channel": f"chat:{room}", "data": {"text": text}})


def test_two_tabs_of_one_user_count_once(browser: Browser, pongee_process: ProcessFactory) -> None:
    server = pongee_process()
    context = browser.new_context()
    first, second, nameless = (Visitor(context, server.url) for _ in range(3))
    first.enter(7, "ada")
    first.expect_people("1 user", "ada (you)1 connection")
    second.enter(7, "ada")
    nameless.enter(7)

    for visitor in (first, second):
        visitor.expect_people(
            "1 user, 1 anonymous", "anonymous1 connection", "ada (you)2 connections"
        )
    nameless.expect_people(
        "1 user, 1 anonymous", "anonymous (you among them)1 connection", "ada2 connections"
    )

    second.page.close()
    first.expect_people("1 user, 1 anonymous", "anonymous1 connection", "ada (you)1 connection")
    assert first.troubles == second.troubles == nameless.troubles == []


def test_joining_leaving_and_switching_keep_the_list_true(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    context = browser.new_context()
    ada, grace = (Visitor(context, server.url) for _ in range(2))
    ada.enter(7, "ada")
    grace.enter(7, "grace")
    ada.expect_people("2 users", "ada (you)1 connection", "grace1 connection")
    ada.say("good morning")
    grace.expect_said("good morning")
    expect(grace.page.locator("#channels-log .who")).to_have_text("ada")

    expect(grace.page.locator("#channels-join")).to_be_disabled()
    grace.page.locator("#channels-room").fill("8")
    grace.page.get_by_role("button", name="Switch").click()
    grace.expect_in(8)
    grace.expect_people("1 user", "grace (you)1 connection")
    ada.expect_people("1 user", "ada (you)1 connection")
    ada.say("alone now")
    ada.expect_said("good morning", "alone now")
    grace.say("<b>here too</b>")
    grace.expect_said("good morning", "<b>here too</b>")

    grace.page.locator("#channels-leave").click()
    expect(grace.page.locator("#channels-room-state")).to_contain_text("Out of room 8")
    expect(grace.page.locator("#channels-people li")).to_have_count(0)
    expect(grace.page.locator("#channels-send")).to_be_disabled()
    grace.page.locator("#channels-room").fill("7")
    grace.page.get_by_role("button", name="Join").click()
    grace.expect_in(7)
    ada.expect_people("2 users", "ada (you)1 connection", "grace1 connection")

    grace.page.locator("#channels-disconnect").click()
    expect(grace.page.locator("#channels-state")).to_have_text(
        "Disconnected (0: disconnect called)"
    )
    ada.expect_people("1 user", "ada (you)1 connection")
    grace.enter(7, "grace")
    assert ada.troubles == grace.troubles == []


def test_what_the_server_refuses_is_said_and_the_text_stays(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    visitor = Visitor(browser.new_context(), pongee_process().url)
    text = visitor.page.locator("#channels-text")
    visitor.enter(1, "ada")

    visitor.say("")
    visitor.expect_complaint("bad request: text: ")
    visitor.say(TOO_LONG)
    visitor.expect_complaint("500 characters")
    visitor.expect_complaint("(107)")
    expect(text).to_have_value(TOO_LONG)
    expect(text).to_have_attribute("aria-invalid", "true")
    expect(text).to_be_focused()

    visitor.say(TOO_LONG[:500])
    visitor.expect_said(TOO_LONG[:500])
    expect(visitor.page.locator("#channels-text-error")).to_be_empty()
    expect(text).to_have_value("")

    text.fill("two words")
    visitor.page.locator("#channels-count").click()
    expect(visitor.page.locator("#channels-answer")).to_have_text("9 characters, 2 words.")
    expect(text).to_have_value("two words")
    assert visitor.troubles == []


def test_nothing_said_while_the_line_is_cut_is_missing(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    visitor = Visitor(browser.new_context(), server.url)
    visitor.enter(7, "ada")
    with another(server, 7) as say:
        say("before")
        visitor.expect_said("before")

        page = visitor.page
        expect(page.locator("#channels-seconds")).to_have_value(str(CUT))
        page.locator("#channels-cut").click()
        expect(page.locator("#channels-state")).to_have_text(
            "Connecting (1: transport closed)", timeout=SOON
        )
        missed = [f"message {number}" for number in range(1, 101)]
        for text in missed:
            say(text)
        visitor.expect_said("before")  # neither of them has come through
        expect(page.locator("#channels-room-state")).to_contain_text("Coming back to room 7")
        expect(page.locator("#channels-cut")).to_be_disabled()
        expect(page.locator("#channels-line-state")).to_contain_text("Cut. Mended in")

        visitor.expect_caught_up("100 messages recovered, none lost.")
        visitor.expect_said(*missed, recovered=True)
        say("after")
        visitor.expect_said("before", "after", recovered=False)
        visitor.expect_said("before", *missed, "after")
        expect(page.locator("#channels-line-state")).to_have_text("Mended.")
        visitor.expect_in(7)
        visitor.expect_people(
            "1 user, 1 anonymous", "anonymous1 connection", "ada (you)1 connection"
        )
        assert visitor.troubles == []


def test_a_line_is_mended_by_hand_and_a_text_survives_it(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    visitor, other = (Visitor(browser.new_context(), server.url) for _ in range(2))
    page = visitor.page
    visitor.enter(7)
    other.enter(7)
    both = ("2 anonymous", "anonymous (you among them)2 connections")
    other.expect_people(*both)
    page.locator("#channels-seconds").fill("600")
    page.locator("#channels-cut").click()
    visitor.say("into the dark")
    visitor.expect_complaint("No answer from the server")
    expect(page.locator("#channels-text")).to_have_value("into the dark")
    other.expect_people(*both)  # nobody told the server

    page.locator("#channels-mend").click()
    visitor.expect_caught_up("Back, and nothing was missed.")
    expect(page.locator("#channels-cut")).to_be_enabled()
    page.locator("#channels-send").click()
    visitor.expect_said("into the dark")
    other.expect_said("into the dark")
    other.expect_people(*both)  # the dead connection is gone, the new one is there
    assert visitor.troubles == other.troubles == []


def test_a_history_that_is_too_short_is_said(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    visitor = Visitor(browser.new_context(), server.url)
    visitor.enter(7)
    with another(server, 7) as say:
        visitor.page.locator("#channels-seconds").fill("600")
        visitor.page.locator("#channels-cut").click()
        for number in range(1010):  # the room keeps 1,000
            say(str(number))
        visitor.page.locator("#channels-mend").click()
        visitor.expect_caught_up("Not recovered: the history was too short, 1,010 messages lost.")
        say("after")
        visitor.expect_said("after")
        assert visitor.troubles == []


def test_a_restart_of_the_server_is_survived_and_its_new_history_is_said(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    visitor = Visitor(browser.new_context(), server.url)
    visitor.enter(7)
    server.stop()
    expect(visitor.page.locator("#channels-state")).to_contain_text("Connecting (", timeout=SOON)
    pongee_process(port=server.port)
    expect(visitor.page.locator("#channels-catch-up")).to_contain_text(
        "the history begins anew", timeout=AFTER_RESTART
    )
    visitor.expect_in(7)
    visitor.expect_people("1 anonymous", "anonymous (you among them)1 connection")
    visitor.say("back again")
    visitor.expect_said("back again")


def test_with_a_secret_of_its_own_the_server_wants_a_pasted_jwt(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    secret = "a secret of at least thirty-two bytes"
    visitor = Visitor(browser.new_context(), pongee_process({"PONGEE_JWT_SECRET": secret}).url)
    page = visitor.page
    expect(page.locator("#channels-name")).to_be_hidden()
    page.locator("#channels-token").fill("not.a.jwt")
    page.locator("#channels-connect").click()
    expect(page.locator("#channels-state")).to_contain_text("Disconnected (3500: invalid token")
    expect(page.locator("#channels-connect")).to_be_enabled()

    page.locator("#channels-token").fill(
        jwt.encode({"sub": "ada", "exp": time.time() + 600}, secret)
    )
    page.locator("#channels-connect").click()
    expect(page.locator("#channels-state")).to_have_text("Connected as ada")
    visitor.expect_people("1 user", "ada (you)1 connection")
    assert visitor.troubles == []


def test_nothing_scrolls_sideways_on_a_small_phone(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    visitor = Visitor(context, pongee_process().url)
    assert not overflows(visitor.page)
    visitor.enter(1, "n" * 64)
    visitor.say("x" * 400)
    visitor.expect_said("x" * 400)
    visitor.say(TOO_LONG)
    visitor.expect_complaint("(107)")
    visitor.expect_people("1 user", f"{'n' * 64} (you)1 connection")
    assert not overflows(visitor.page)
