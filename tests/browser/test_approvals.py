"""The page of what workflows ask people."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect
from tests.browser.tab import Tab, violations


@pytest.fixture(scope="module")
def workflow(http: httpx2.Client) -> str:
    """A workflow that asks whether to pay."""
    asks = {"message": "Pay {{ inputs.amount }}?", "data": {"to": "the shop"}, "expires": 3600}
    step: dict[str, Any] = {"key": "ask", "uses": "approval", "with": asks}
    made = http.post("/api/v1/workflows", json={"name": "pay", "inputs": {"amount": {}}, "steps": [step]})
    assert made.status_code == 201, made.text
    return "pay"


def ask(http: httpx2.Client, workflow: str, amount: int) -> str:
    started = http.post(f"/api/v1/workflows/{workflow}/runs", json={"inputs": {"amount": amount}})
    assert started.status_code == 202, started.text
    return str(started.json()["id"])


def ended(http: httpx2.Client, run_id: str) -> str:
    until = time.monotonic() + 20
    while (run := http.get(f"/api/v1/runs/{run_id}").json())["status"] not in ("succeeded", "failed"):
        assert time.monotonic() < until, run
        time.sleep(0.1)
    return str(run["status"])


def test_a_question_shows_up_by_itself_and_is_answered(tab: Tab, http: httpx2.Client, workflow: str, axe: str) -> None:
    page = tab.open("/approvals")
    expect(page.get_by_text("Nothing waits for an answer")).to_be_visible()
    run_id = ask(http, workflow, 5)
    question = page.get_by_role("listitem", name="Pay 5?")
    expect(question).to_be_visible(timeout=20_000)
    expect(question).to_contain_text("the shop")
    expect(question).to_contain_text(re.compile("(min|h).* left"))
    assert violations(page, axe) == []
    question.get_by_label("Comment").fill("looks right")
    question.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Approved: Pay 5?")).to_be_visible()
    expect(question).not_to_be_visible()
    assert ended(http, run_id) == "succeeded"
    page.get_by_role("combobox", name="Status").click()
    page.get_by_role("option", name="approved").click()
    expect(page).to_have_url(re.compile("status=approved"))
    expect(question).to_contain_text("looks right")
    question.get_by_role("link", name="Step ask").click()
    expect(page).to_have_url(re.compile(run_id))
    tab.assert_clean()


def test_what_others_have_decided_is_told(tab: Tab, http: httpx2.Client, workflow: str) -> None:
    run_id = ask(http, workflow, 7)
    page = tab.open("/approvals")
    question = page.get_by_role("listitem", name="Pay 7?")
    expect(question).to_be_visible(timeout=20_000)
    (asked,) = http.get("/api/v1/approvals", params={"run_id": run_id}).json()["data"]
    decided: list[str] = []
    page.on("request", lambda request: decided.extend([request.url] if request.method == "POST" else []))
    # The page must not know before the button is pressed.
    lists = re.compile(r"/api/v1/approvals\?")
    page.route(lists, lambda route: route.continue_() if decided else route.abort())
    http.post(f"/api/v1/approvals/{asked['id']}/approve").raise_for_status()
    question.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("This could not be decided")).to_be_visible()
    expect(question).not_to_be_visible()
