"""A real Chromium in front of a real `nexus serve`, which has a fake provider of language models."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright
from tests.browser.tab import Tab, data_dir_with, sign_in

from nexus.cli.instance import Place, private
from nexus.testing.upstream import FakeUpstream

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives a browser and starts a server."""
    for item in items:
        if Path(str(item.fspath)).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def built() -> Path:
    """The built dashboard."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hatch_build"] = module
    spec.loader.exec_module(module)
    try:
        module.build(ROOT)
    except module.DashboardBuildError as error:
        pytest.skip(f"the dashboard cannot be built here: {error}")
    folder = ROOT / "src" / "nexus" / "_ui"
    if not (folder / "index.html").exists():
        pytest.skip("the dashboard is not built (NEXUS_SKIP_UI)")
    return folder


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    """A provider that repeats what it is told."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def instance(built: Path, upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running NEXUS with an administrator."""
    folder = tmp_path_factory.mktemp("browser")
    settings = data_dir_with(folder, upstream)
    with private(folder, settings=settings, log=folder / "instance.log") as (place, _process):
        yield place


@pytest.fixture(scope="module")
def http(instance: Place) -> Iterator[httpx2.Client]:
    """The API of that instance, with the administrator's key."""
    headers = {"authorization": f"Bearer {instance.key}"}
    with httpx2.Client(base_url=instance.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium: NEXUS_TEST_CHROMIUM, or the first on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("NEXUS_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on PATH (NEXUS_TEST_CHROMIUM names one)")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        except Error as error:
            pytest.skip(f"Chromium does not start here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, instance: Place) -> dict[str, Any]:
    """Cookies and storage of a browser in which the administrator has signed in."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(instance.url)
    sign_in(page)
    state: dict[str, Any] = context.storage_state()  # type: ignore[assignment]
    context.close()
    return state


@pytest.fixture
def context_options() -> dict[str, Any]:
    """What a test may change of its browser: size, colours."""
    return {"viewport": {"width": 1440, "height": 900}}


@pytest.fixture
def context(chromium: Browser, signed_in: dict[str, Any], context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    """A browser window of an administrator."""
    made = chromium.new_context(storage_state=signed_in, **context_options)  # type: ignore[arg-type]
    yield made
    with suppress(Error):
        made.close()


@pytest.fixture
def tab(context: BrowserContext, instance: Place) -> Tab:
    """A fresh page of that window, watched."""
    return Tab(context.new_page(), instance.url).watch()


@pytest.fixture(scope="module")
def axe() -> str:
    """The accessibility checker, from the dashboard's packages."""
    script = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        pytest.skip("axe-core is not installed: npm ci in dashboard/")
    return script.read_text()
