from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Browser, expect
from tests.browser.tab import EMAIL, PASSWORD, Tab, data_dir_with, violations

from nexus.access.service import AccessService
from nexus.cli.instance import Place
from nexus.cli.options import settings_of
from nexus.composition import build
from nexus.testing.upstream import FakeUpstream


def test_signs_in_and_out(chromium: Browser, instance: Place, axe: str) -> None:
    context = chromium.new_context()
    tab = Tab(context.new_page(), instance.url).watch()
    page = tab.open("/runs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page).to_have_title("Sign in · NEXUS")
    assert violations(page, axe) == []
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Runs", level=1)).to_be_visible()
    page.get_by_role("button", name="Account of Administrator").first.click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    tab.assert_clean()
    context.close()


def test_says_that_the_password_is_wrong(chromium: Browser, instance: Place) -> None:
    page = chromium.new_context().new_page()
    page.goto(instance.url)
    page.get_by_label("E-mail").fill("nobody@example.com")
    page.get_by_label("Password", exact=True).fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(alert).to_contain_text(re.compile(r"Request req_\w+"))
    page.context.close()


def test_session_that_ended_leads_back_to_sign_in(tab: Tab) -> None:
    page = tab.open("/models")
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()
    page.context.clear_cookies()
    page.evaluate("document.querySelector('nav a[href$=runs]')?.click()")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@contextmanager
def instance_without_admin(folder: Path, upstream: FakeUpstream) -> Iterator[tuple[str, str]]:
    """Serve an installation that nobody can sign in to yet; yield its address and its one-time token."""
    environment = {**os.environ, **data_dir_with(folder, upstream)}
    del environment["NEXUS_ADMIN_PASSWORD_FILE"]
    program = [sys.executable, "-m", "nexus"]
    place = ["--data-dir", str(folder)]
    subprocess.run([*program, "migrate", *place], env=environment, check=True, capture_output=True)
    token = in_thread(setup_token(folder))
    with (folder / "instance.log").open("wb") as log:
        process = subprocess.Popen([*program, "serve", "--port", "0", *place], env=environment, stdout=log, stderr=log)
    try:
        yield address_of(folder, process), token
    finally:
        process.terminate()
        process.wait(40)


def in_thread(work: Coroutine[Any, Any, str]) -> str:
    """Run `work` on a loop of its own: Playwright's is running in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def setup_token(folder: Path) -> str:
    parts = build(settings_of(folder), children=1)
    try:
        token = await parts.services.get(AccessService).accounts.issue_setup_token()
        assert token is not None
        return token.reveal()
    finally:
        await parts.stop()


def address_of(folder: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, ValueError, httpx2.HTTPError):
            url = str(json.loads((folder / "run" / "server.json").read_text())["url"])
            if httpx2.get(url + "/livez", trust_env=False).status_code == 200:
                return url
        time.sleep(0.1)
    raise AssertionError((folder / "instance.log").read_text()[-2000:])


def test_makes_the_first_administrator(chromium: Browser, built: Path, upstream: FakeUpstream, tmp_path: Path) -> None:
    with instance_without_admin(tmp_path, upstream) as (url, token):
        tab = Tab(chromium.new_context().new_page(), url).watch()
        page = tab.open("/")
        expect(page.get_by_role("heading", name="Welcome to NEXUS")).to_be_visible()
        page.get_by_label("Set-up token").fill(token)
        page.get_by_label("E-mail").fill("ada@example.com")
        page.get_by_label("Password", exact=True).fill("short")
        expect(page.get_by_role("button", name="Create administrator")).to_be_disabled()
        page.get_by_label("Password", exact=True).fill("an unusual long pass phrase")
        page.get_by_role("button", name="Create administrator").click()
        expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
        tab.assert_clean()
        page.context.close()
