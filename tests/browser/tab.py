"""What the browser tests share: a watched page, signing in, accessibility findings, a data dir with a fake provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page

from nexus.testing.upstream import FakeUpstream

EMAIL, PASSWORD = "admin@localhost", "a long enough password"


@dataclass
class Tab:
    """A page together with everything that went wrong on it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self) -> Tab:
        """Collect console errors, exceptions and requests to other hosts."""
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: None if self._own(request.url) else self.foreign.append(request.url))
        return self

    def _own(self, url: str) -> bool:
        return url.startswith((self.url, "data:", "blob:"))

    def open(self, path: str) -> Page:
        """Go to a page of the dashboard."""
        self.page.goto(self.url + path)
        return self.page

    def assert_clean(self) -> None:
        """Nothing was complained of, nobody else was asked."""
        assert not self.complaints, "\n".join(self.complaints)
        assert not self.foreign, "\n".join(self.foreign)


def sign_in(page: Page) -> None:
    """Fill in the sign-in form."""
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()


def violations(page: Page, axe: str) -> list[str]:
    """The serious and critical findings on a page, each with its first element."""
    page.evaluate(axe)
    found: list[str] = page.evaluate(
        "async () => (await axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}))"
        ".violations.filter(v => v.impact === 'serious' || v.impact === 'critical')"
        ".map(v => `${v.id}: ${v.nodes[0].html.slice(0, 160)} ${v.nodes[0].any.map(a => a.message).join('; ')}`)"
    )
    return found


def data_dir_with(folder: Path, upstream: FakeUpstream) -> dict[str, str]:
    """Prepare a data dir whose routes lead to the fake provider; return the settings to start with."""

    def route(name: str, model: str) -> dict[str, Any]:
        return {"name": name, "deployments": [{"provider": "fake", "model": model}]}

    provider = {"name": "fake", "kind": "openai", "base_url": upstream.url, "api_key": "sk-fake"}
    routes = [route("echo", "echo"), route("slow", "slow-150"), route("broken", "fault-reset_mid_stream")]
    config = {"llm": {"providers": [provider], "routes": routes}}
    (folder / "nexus.yaml").write_text(yaml.safe_dump(config))
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    return {"NEXUS_ADMIN_PASSWORD_FILE": str(password), "NEXUS_OFFLINE": "1"}
