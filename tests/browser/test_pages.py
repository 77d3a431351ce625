from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect
from tests.browser.tab import Tab, violations

PAGES = {"/": "Overview", "/chat": "Chat", "/models": "Models", "/runs": "Runs", "/approvals": "Approvals"}
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 375, "height": 812}}

PERFORMANCE = """() => new Promise(done => {
  const found = {lcp: 0, cls: 0};
  new PerformanceObserver(list => { found.lcp = list.getEntries().at(-1).startTime })
    .observe({type: 'largest-contentful-paint', buffered: true});
  new PerformanceObserver(list => list.getEntries().forEach(e => { if (!e.hadRecentInput) found.cls += e.value }))
    .observe({type: 'layout-shift', buffered: true});
  setTimeout(() => {
    const entries = performance.getEntriesByType('resource');
    const size = ending => entries.filter(e => new URL(e.name).pathname.endsWith(ending))
      .reduce((sum, e) => sum + e.encodedBodySize, 0);
    const requests = entries.filter(e => e.name.includes('/api/')).map(e => new URL(e.name).pathname);
    done({...found, js: size('.js'), css: size('.css'), requests});
  }, 800);
})"""


@pytest.fixture(scope="module")
def run_id(http: httpx2.Client) -> str:
    """A run that fails at once: this installation is offline, and so is the model's source."""
    started = http.post("/api/v1/models/nanodet-m/pull")
    assert started.status_code == 202, started.text
    run = http.get(f"/api/v1/runs/{started.json()['id']}")
    assert run.status_code == 200
    return str(run.json()["id"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_clean(tab: Tab, axe: str, run_id: str, scheme: Any, size: str) -> None:
    tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    tab.page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    findings: dict[str, list[str]] = {}
    for path, title in {**PAGES, "/models?model=yolox-nano": "Models", f"/runs/{run_id}": ""}.items():
        page = tab.open(path)
        expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
        page.wait_for_load_state("load")
        page.wait_for_timeout(500)
        if "model=" in path:
            expect(page.get_by_role("dialog")).to_be_visible()
        if found := violations(page, axe):
            findings[path] = found
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} scrolls sideways by {overflow} px"
    assert findings == {}
    tab.assert_clean()


@pytest.mark.parametrize(("path", "title"), PAGES.items())
def test_deep_links_and_titles(tab: Tab, path: str, title: str) -> None:
    page = tab.open(path)
    expect(page).to_have_title(f"{title} · NEXUS")
    expect(page.get_by_role("link", name=title).first).to_have_attribute("data-status", "active")
    page.reload()
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()


def test_loads_quickly(tab: Tab) -> None:
    tab.open("/")
    expect(tab.page.get_by_test_id("figure-cpu")).to_contain_text("%", timeout=15_000)
    found = tab.page.evaluate(PERFORMANCE)
    assert found["js"] <= 250_000
    assert found["css"] <= 60_000
    assert found["cls"] < 0.1
    assert found["lcp"] < 4000
    asked = [path for path in found["requests"] if not path.endswith("/events")]
    assert len(asked) == len(set(asked)), f"asked twice: {asked}"
    assert len(asked) <= 9


def test_shows_live_figures(tab: Tab) -> None:
    page = tab.open("/")
    figure = page.get_by_test_id("figure-cpu")
    expect(figure).to_contain_text("%", timeout=15_000)
    seen = set()
    for _ in range(12):
        seen.add((figure.inner_text(), page.get_by_test_id("figure-memory").inner_text()))
        page.wait_for_timeout(500)
    assert len(seen) > 1, "the figures stand still"
    expect(page.get_by_test_id("figure-gpu")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^CPU, memory"))).to_be_visible()
    expect(page.locator(".uplot canvas").first).to_be_visible()
    expect(page.get_by_text("Database")).to_be_visible()
    tab.assert_clean()


def test_says_when_live_data_stops_and_comes_back(tab: Tab) -> None:
    page = tab.page
    cut = True

    def gate(route: Any) -> None:
        route.abort() if cut else route.continue_()

    page.route(re.compile("/api/v1/events"), gate)
    tab.open("/")
    badge = page.get_by_text("reconnecting").first
    expect(badge).to_be_visible(timeout=15_000)
    cut = False
    expect(badge).not_to_be_visible(timeout=30_000)
    expect(page.get_by_test_id("figure-cpu")).to_contain_text("%")


def test_lists_models_and_keeps_the_filter_in_the_address(tab: Tab) -> None:
    page = tab.open("/models")
    expect(page.get_by_role("link", name="yolox-nano")).to_be_visible()
    page.get_by_label("Filter models").fill("yolox")
    expect(page).to_have_url(re.compile(r"q=yolox"))
    expect(page.get_by_role("link", name="minilm-l6-v2")).not_to_be_visible()
    page.reload()
    expect(page.get_by_label("Filter models")).to_have_value("yolox")
    page.get_by_role("link", name="yolox-nano").click()
    drawer = page.get_by_role("dialog", name="yolox-nano")
    expect(drawer).to_contain_text("Apache-2.0")
    expect(drawer.get_by_role("button", name="Pull")).to_be_visible()
    expect(drawer).to_contain_text("v1")
    page.keyboard.press("Escape")
    expect(drawer).not_to_be_visible()
    tab.assert_clean()


def test_pulls_a_model_and_tells_how_it_went(tab: Tab) -> None:
    page = tab.open("/models?q=centernet")
    page.get_by_role("button", name="Pull centernet").click()
    expect(page.get_by_text("centernet is being pulled")).to_be_visible()
    page.get_by_role("link", name="Runs").first.click()
    expect(page.get_by_role("link", name=re.compile("centernet")).first).to_be_visible()


def test_lists_runs_and_shows_one(tab: Tab, run_id: str) -> None:
    page = tab.open("/runs")
    page.locator(f'a[href$="{run_id}"]').click()
    expect(page).to_have_url(re.compile(run_id))
    expect(page.get_by_role("heading", name="Steps")).to_be_visible()
    expect(page.get_by_role("log", name="Log")).to_be_visible()
    page.get_by_role("link", name="Runs").first.click()
    page.get_by_role("combobox", name="Status").click()
    page.get_by_role("option", name="succeeded").click()
    expect(page).to_have_url(re.compile("status=succeeded"))
    page.reload()
    expect(page.get_by_role("combobox", name="Status")).to_have_value("succeeded")
    tab.assert_clean()


def test_tells_what_is_wrong_with_an_address(tab: Tab) -> None:
    page = tab.open("/nowhere")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    page.get_by_role("link", name="To the overview", exact=True).click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    tab.open("/runs/run_000000000000000000000000")
    expect(page.get_by_role("alert")).to_contain_text("Not found")
    expect(page.get_by_role("alert")).to_contain_text("Request req_")


def test_command_palette_by_keyboard(tab: Tab) -> None:
    page = tab.open("/")
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name=re.compile("^Search pages"))
    expect(field).to_be_focused()
    field.fill("yolox-nano")
    expect(page.get_by_role("option", name=re.compile("yolox-nano")).first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("model=yolox-nano"))
    # The drawer takes the focus as it opens and gives it back as it closes: a person sees both before going on.
    details = page.get_by_role("dialog").filter(has_text="yolox-nano")
    expect(details.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)
    page.keyboard.press("Control+k")
    expect(field).to_be_focused()
    field.fill("dark")
    expect(page.get_by_role("option", name=re.compile("Dark colours"))).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    tab.assert_clean()


def test_keyboard_reaches_the_content_first(tab: Tab) -> None:
    page = tab.open("/models")
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Filter models")).to_be_focused()
