"""The playground page in a real browser, against a real server process."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import jwt
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ProcessFactory

pytestmark = pytest.mark.browser

SOON = 10_000  # milliseconds; a deadline, not a wait
AFTER_RESTART = 30_000

CHAT = "/ws/chat/{room_id}"
SECURE = "/ws/secure/{client_id}"


def open_page(browser: Browser, url: str, tab: str = "console", width: int = 1280) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    page.set_default_timeout(SOON)
    page.goto(f"{url}/#/{tab}")
    expect(page.locator("html")).to_have_attribute("data-ready", "true", timeout=SOON)
    return page


def connect(page: Page, route: str, token: str | None = None) -> None:
    page.locator("#route").select_option(route)
    if token is not None:
        page.locator("#token").fill(token)
    page.locator("#connect").click()


def expect_connected(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Connected", timeout=SOON)


def send(page: Page, kind: str, text: str) -> None:
    page.locator("#kind").select_option(kind)
    page.locator("#message").fill(text)
    page.locator("#send").click()


def expect_verdict(page: Page, *parts: str) -> None:
    for part in parts:
        expect(page.locator("#verdict")).to_contain_text(part, timeout=SOON)


def expect_received(page: Page, text: str) -> None:
    received = page.locator("#log [data-direction=in] .content")
    expect(received.get_by_text(text, exact=True).first).to_be_visible(timeout=SOON)


def join(page: Page, room: int, name: str = "") -> None:
    page.locator("#chat-room").fill(str(room))
    page.locator("#chat-name").fill(name)
    page.locator("#chat-join").click()
    expect(page.locator("#chat-state")).to_have_text(f"Connected to room {room}", timeout=SOON)


def say(page: Page, text: str) -> None:
    page.locator("#chat-text").fill(text)
    page.locator("#chat-text").press("Enter")


def expect_said(page: Page, line: str) -> None:
    said = page.locator("#chat-log .chat-body")
    expect(said.get_by_text(line, exact=True)).to_be_visible(timeout=SOON)


def overflows(page: Page) -> bool:
    wide: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide


def test_it_loads_cleanly_and_asks_nobody_else(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    page = browser.new_page()
    troubles: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda said: troubles.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on(
        "response",
        lambda got: troubles.append(f"{got.status} {got.url}") if got.status >= 400 else None,
    )
    with page.expect_response("**/playground/config"):
        page.goto(server.url)
    expect(page.locator("html")).to_have_attribute("data-ready", "true", timeout=SOON)
    expect(page.get_by_role("heading", name="Pongee")).to_be_visible()
    page.get_by_role("tab", name="Chat").click()
    expect(page.get_by_role("tabpanel", name="Chat")).to_be_visible()
    expect(page.get_by_role("tabpanel", name="Console")).to_be_hidden()
    assert troubles == []
    assert hosts == {f"127.0.0.1:{server.port}"}


def test_two_pages_chat_in_a_room(browser: Browser, pongee_process: ProcessFactory) -> None:
    server = pongee_process()
    ada, grace, other = (open_page(browser, server.url, "chat") for _ in range(3))
    join(ada, 7, "Ada")
    join(grace, 7)
    join(other, 8)

    say(ada, "good morning")
    say(grace, "<b>hello</b>")
    say(other, "alone")

    for page in (ada, grace):
        expect_said(page, "Room 7: Ada: good morning")
        expect_said(page, "Room 7: <b>hello</b>")
        expect(page.locator("#chat-log")).not_to_contain_text("alone")
        expect(page.locator("#chat-log b")).to_have_count(0)
    expect_said(other, "Room 8: alone")

    grace.locator("#chat-leave").click()
    expect(grace.locator("#chat-state")).to_have_text("Closed")
    expect(grace.locator("#chat-join")).to_be_enabled()


def test_a_refused_token_shows_its_reason(browser: Browser, pongee_process: ProcessFactory) -> None:
    page = open_page(browser, pongee_process().url)

    connect(page, "/ws/auth", "not-a-jwt")
    expect_verdict(page, "1008", "Invalid credentials", "will not help")

    connect(page, "/ws/auth", "")
    expect_verdict(page, "1008", "Invalid credentials")

    connect(page, SECURE, "seven77")
    expect_verdict(page, "HTTP 422 Unprocessable Content", "token", "Refused before accept")

    connect(page, SECURE, "long-enough-but-wrong")
    expect_verdict(page, "HTTP 403 Forbidden", "Refused before accept", "will not help")
    expect(page.locator("#log")).not_to_contain_text("long-enough-but-wrong")


def test_a_path_of_the_wrong_shape_shows_its_reason(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    page = open_page(browser, pongee_process().url)
    page.locator("#param-room_id").fill("not a number")
    connect(page, CHAT)
    expect_verdict(page, "HTTP 422", "room_id")


def test_a_ticket_opens_one_secure_connection(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    page = open_page(browser, pongee_process().url)
    page.locator("#route").select_option(SECURE)
    page.locator("#user").fill("ada")
    page.locator("#get-token-button").click()
    expect(page.locator("#token-status")).to_contain_text("A ticket for one connection")

    page.locator("#connect").click()
    expect_connected(page)
    expect(page.locator("#token-status")).to_contain_text("used up")
    send(page, "text", "hello")
    expect(page.locator("#log [data-direction=out] .content")).to_have_text("hello")

    page.locator("#disconnect").click()
    expect_verdict(page, "1000", "You disconnected.")
    page.locator("#connect").click()
    expect_verdict(page, "HTTP 403")


def test_with_a_secret_of_its_own_the_server_wants_a_pasted_jwt(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    secret = "a secret of at least thirty-two bytes"
    page = open_page(browser, pongee_process({"PONGEE_JWT_SECRET": secret}).url)
    page.locator("#route").select_option(SECURE)
    expect(page.locator("#user")).to_be_hidden()
    page.locator("#jwt").fill(jwt.encode({"sub": "ada", "exp": time.time() + 600}, secret))
    page.locator("#get-token-button").click()
    expect(page.locator("#token-status")).to_contain_text("A ticket for one connection")
    page.locator("#connect").click()
    expect_connected(page)


def test_a_token_opens_the_authenticated_route(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    page = open_page(browser, pongee_process().url)
    page.locator("#route").select_option("/ws/auth")
    page.locator("#get-token-button").click()
    expect(page.locator("#token-status")).to_contain_text("A token for ada")
    page.locator("#connect").click()
    expect_connected(page)


def test_the_chat_comes_back_after_a_restart(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    pages = [open_page(browser, server.url, "chat") for _ in range(2)]
    for page in pages:
        join(page, 7)

    server.stop()
    for page in pages:
        expect(page.locator("#chat-state")).to_have_attribute(
            "data-state", "reconnecting", timeout=SOON
        )
    pongee_process(port=server.port)

    for page in pages:
        expect(page.locator("#chat-state")).to_have_text(
            "Connected to room 7", timeout=AFTER_RESTART
        )
    say(pages[0], "back again")
    for page in pages:
        expect_said(page, "Room 7: back again")


def test_a_server_that_is_gone_is_told_from_a_refusal(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    server = pongee_process()
    page = open_page(browser, server.url)
    connect(page, CHAT)
    expect_connected(page)
    server.stop()
    expect_verdict(page, "You may reconnect.")
    page.locator("#connect").click()
    expect_verdict(page, "The server cannot be reached")


def test_realtime_answers_bad_input_and_beats(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    page = open_page(browser, pongee_process({"PONGEE_HEARTBEAT_INTERVAL": "0.5"}).url)
    connect(page, "/ws/realtime")
    expect_connected(page)

    send(page, "text", "not json")
    expect_received(page, "ERROR: 仅支持JSON格式")

    beats = page.locator("#log [data-type=heartbeat]")
    expect(beats.first).to_contain_text("timestamp", timeout=SOON)
    expect(beats.nth(1)).to_be_visible(timeout=SOON)
    page.get_by_label("Hide heartbeats").check()
    expect(beats.first).to_be_hidden()
    expect(page.locator("#counter")).to_contain_text("heartbeats")
    expect_connected(page)


def test_what_cannot_be_sent_is_said_and_not_sent(
    browser: Browser, pongee_process: ProcessFactory
) -> None:
    page = open_page(browser, pongee_process().url)
    connect(page, CHAT)
    expect_connected(page)
    for kind, text, complaint in [
        ("json", "{broken", "Not JSON"),
        ("hex", "4x", "Hex holds only"),
        ("hex", "123", "two digits"),
    ]:
        send(page, kind, text)
        expect(page.locator("#message-error")).to_contain_text(complaint)
    expect(page.locator("#log [data-direction=out]")).to_have_count(0)

    send(page, "json", '{"a": 1}')
    expect(page.locator("#message-error")).to_be_empty()
    expect_received(page, 'Room 1: {"a": 1}')


def test_the_log_is_bounded(browser: Browser, pongee_process: ProcessFactory) -> None:
    page = open_page(browser, pongee_process().url)
    connect(page, CHAT)
    expect_connected(page)
    page.evaluate(
        """() => new Promise((done) => {
            const other = new WebSocket(`ws://${location.host}/ws/chat/1`);
            let left = 600;
            other.onopen = () => other.send("600 left");
            other.onmessage = () => {
                left -= 1;
                if (left) other.send(`${left} left`);
                else { other.close(); done(); }
            };
        })"""
    )
    expect_received(page, "Room 1: 1 left")
    expect(page.locator("#log li")).to_have_count(500)
    expect(page.locator("#log-dropped")).to_contain_text("102 earlier dropped")
    expect(page.locator("#counter")).to_contain_text("600 received")


@pytest.mark.parametrize("tab", ["console", "chat"])
def test_nothing_scrolls_sideways_on_a_small_phone(
    browser: Browser, pongee_process: ProcessFactory, tab: str
) -> None:
    page = open_page(browser, pongee_process().url, tab, width=360)
    if tab == "chat":
        join(page, 1, "Ada")
        say(page, "x" * 400)
        expect_said(page, f"Room 1: Ada: {'x' * 400}")
    else:
        connect(page, SECURE, "seven77")
        expect_verdict(page, "HTTP 422")
        page.get_by_text("What the close codes mean").click()
        for route in (CHAT, "/ws/auth", "/ws/status", "/ws/realtime"):
            page.locator("#route").select_option(route)
            assert not overflows(page)
    assert not overflows(page)


def test_the_keyboard_is_enough(browser: Browser, pongee_process: ProcessFactory) -> None:
    page = open_page(browser, pongee_process().url)
    keys = page.keyboard

    keys.press("Tab")
    expect(page.get_by_role("tab", name="Console")).to_be_focused()
    keys.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name="Chat")).to_be_visible()
    keys.press("ArrowLeft")
    expect(page.get_by_role("tabpanel", name="Console")).to_be_visible()

    keys.press("Tab")
    expect(page.locator("#route")).to_be_focused()
    keys.press("Tab")
    expect(page.locator("#param-room_id")).to_be_focused()
    keys.press("Enter")
    expect_connected(page)

    expect(page.locator("#message")).to_be_focused()  # the focus went where the next thing is typed
    keys.type("by hand")
    keys.press("Enter")
    expect_received(page, "Room 1: by hand")

    keys.press("Shift+Tab")
    expect(page.locator("#kind")).to_be_focused()
