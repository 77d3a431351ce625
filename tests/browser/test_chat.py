from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, expect
from tests.browser.tab import Tab

from nexus.testing.upstream import FakeUpstream

MARKDOWN = "# Title\n\n- one\n- two\n\n```python\nprint('hello')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
HOSTILE = (
    '<img src=x onerror="window.broken = 1"> <script>window.broken = 2</script> '
    "[click](javascript:window.broken=3) ![spy](http://192.0.2.1/?secret) <iframe src='http://192.0.2.1'></iframe> "
    "<form action='http://192.0.2.1'><input name=a></form> "
    "[ok](https://example.com \"title\") <a href='https://example.org' onclick='window.broken=4'>raw</a>"
)


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


@pytest.fixture
def chat(tab: Tab) -> Page:
    """The chat page with the echo model."""
    page = tab.open("/chat?model=echo")
    expect(page.get_by_role("combobox", name="Model")).to_have_value("echo")
    return page


def test_streams_an_answer_with_its_figures(tab: Tab, chat: Page) -> None:
    ask(chat, "hello from the dashboard")
    answer = chat.get_by_role("article", name="Answer")
    expect(answer).to_contain_text("hello from the dashboard")
    expect(answer).to_contain_text(re.compile(r"\d+ tokens"))
    expect(answer).to_contain_text("first token")
    chat.reload()
    expect(chat.get_by_role("article", name="Answer")).to_contain_text("hello from the dashboard")
    chat.get_by_role("button", name="New chat").click()
    expect(chat.get_by_role("article")).to_have_count(0)
    tab.assert_clean()


def test_draws_markdown(tab: Tab, chat: Page) -> None:
    ask(chat, MARKDOWN)
    answer = chat.get_by_role("article", name="Answer")
    expect(answer.get_by_role("listitem")).to_have_count(2)
    expect(answer.get_by_role("cell", name="2")).to_be_visible()
    expect(answer.locator("figure code")).to_have_text("print('hello')")
    expect(answer.get_by_role("button", name="Copy the code")).to_be_visible()
    tab.assert_clean()


def test_hostile_text_stays_text(tab: Tab, chat: Page) -> None:
    ask(chat, HOSTILE)
    answer = chat.get_by_role("article", name="Answer")
    expect(answer).to_contain_text("<script>window.broken = 2</script>")
    link = answer.get_by_role("link", name="ok")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(answer.locator(".prose").locator("img, script, iframe, form, [onclick], [onerror], [style]")).to_have_count(
        0
    )
    assert answer.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href')).filter(Boolean)") == [
        "https://example.com"
    ]
    assert chat.evaluate("window.broken") is None
    tab.assert_clean()


def test_stops_an_answer_and_the_provider_notices(tab: Tab, upstream: FakeUpstream) -> None:
    page = tab.open("/chat?model=slow")
    ask(page, "one two three four five six seven eight nine ten " * 6)
    answer = page.get_by_role("article", name="Answer")
    expect(answer).to_contain_text("one two", timeout=15_000)
    page.get_by_role("button", name="Stop").click()
    expect(answer).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    until = time.monotonic() + 10
    while upstream.seen[-1].closed is None and time.monotonic() < until:
        page.wait_for_timeout(100)
    assert upstream.seen[-1].closed is not None
    assert not upstream.seen[-1].finished


def test_tells_when_an_answer_breaks_off(tab: Tab) -> None:
    page = tab.open("/chat?model=broken")
    ask(page, "one two three four five six seven eight")
    answer = page.get_by_role("article", name="Answer")
    expect(answer.get_by_role("alert")).to_be_visible(timeout=30_000)
    expect(answer.get_by_role("button", name="Answer again")).to_be_enabled()


def test_edits_a_question_and_answers_again(tab: Tab, chat: Page, upstream: FakeUpstream) -> None:
    ask(chat, "first words")
    answer = chat.get_by_role("article", name="Answer")
    expect(answer).to_contain_text("first words")
    chat.get_by_role("button", name="Edit the message").click()
    chat.get_by_label("Edit the message").fill("second words")
    chat.get_by_role("button", name="Send").first.click()
    expect(answer).to_contain_text("second words")
    expect(chat.get_by_role("article")).to_have_count(2)
    asked = len(upstream.seen)
    answer.get_by_role("button", name="Answer again").click()
    expect(answer).to_contain_text("second words")
    expect(chat.get_by_role("article")).to_have_count(2)
    assert len(upstream.seen) == asked + 1
    tab.assert_clean()


def test_sends_the_parameters_and_shows_them_as_code(tab: Tab, chat: Page, upstream: FakeUpstream) -> None:
    chat.get_by_role("button", name="Parameters").click()
    chat.get_by_label("System prompt").fill("Speak like a pirate.")
    chat.get_by_label("Temperature").fill("0.3")
    chat.keyboard.press("Escape")
    ask(chat, "it's me")
    expect(chat.get_by_role("article", name="Answer")).to_contain_text("it's me")
    sent = upstream.seen[-1].json
    assert sent["messages"][0] == {"role": "system", "content": "Speak like a pirate."}
    assert sent["temperature"] == pytest.approx(0.3)
    chat.get_by_role("button", name="Show as code").click()
    code = chat.get_by_role("dialog").locator("pre:visible")
    expect(code).to_contain_text("/v1/chat/completions")
    expect(code).to_contain_text("Speak like a pirate.")
    chat.get_by_role("tab", name="Python").click()
    expect(code).to_contain_text("client.chat.completions.create")
    tab.assert_clean()


def test_five_hundred_messages_stay_quick(tab: Tab, chat: Page) -> None:
    messages = [
        {"id": f"m{n}", "role": "user" if n % 2 == 0 else "assistant", "content": MARKDOWN * 2, "state": "done"}
        for n in range(500)
    ]
    chat.evaluate("text => sessionStorage.setItem('nexus-chat', text)", json.dumps(messages))
    chat.reload()
    expect(chat.get_by_role("article").last).to_be_visible()
    assert chat.get_by_role("article").count() <= 120
    chat.evaluate(
        "() => { window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach(e => "
        "{ window.longest = Math.max(window.longest, e.duration) })).observe({type: 'longtask'}) }"
    )
    ask(chat, "quick? " * 40)
    expect(chat.get_by_role("article").last).to_contain_text("tokens", timeout=20_000)
    assert chat.evaluate("window.longest") < 1000, "typing or streaming blocks the page"
    before = chat.get_by_role("article").count()
    chat.get_by_role("log").evaluate("box => { box.scrollTop = 0 }")
    expect(chat.get_by_role("article")).not_to_have_count(before)
    assert chat.get_by_role("article").count() > before
    tab.assert_clean()
