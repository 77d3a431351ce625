"""The documentation says the same as the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nexus.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\((?!https?://|#)([^)#]+)")


@pytest.mark.slow
def test_generated_tables_are_fresh() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/docs", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr + "\nrun scripts/docs"


@pytest.mark.parametrize("page", [*sorted(path.name for path in ROOT.glob("*.md")), "docs"])
def test_links_lead_somewhere(page: str) -> None:
    pages = sorted((ROOT / "docs").glob("*.md")) if page == "docs" else [ROOT / page]
    broken = [
        f"{path.name}: {target}"
        for path in pages
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken


def test_the_readme_names_only_commands_that_exist() -> None:
    from nexus.cli.main import app

    known = {
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    }
    known |= {group.name or "" for group in app.registered_groups} | {"test"}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\./nexus ([a-z]+)", text))
    assert named <= known, named - known


def test_glossary_words_are_in_use() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([a-z]+)", text, re.MULTILINE)
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "nexus").rglob("*.py"))
    assert not [word for word in words if word != "word" and not re.search(word, source, re.IGNORECASE)]


@pytest.mark.parametrize("page", ["README.md", "docs/providers.md", "docs/routing.md", "docs/testing.md"])
def test_blocks_of_settings_are_settings(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = YAML.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        found = yaml.safe_load(block)
        # A list shows ways to write one provider, of which each stands for itself.
        parts = [found] if isinstance(found, dict) else [{"llm": {"providers": [one]}} for one in found]
        for number, part in enumerate(parts):
            for name in re.findall(r"\$\{(\w+)\}", str(part)):
                monkeypatch.setenv(name, "a-key-of-some-length")
            routes, providers = part["llm"].get("routes", []), part["llm"].setdefault("providers", [])
            if not providers:  # the page is about routes: whom they name stands elsewhere
                names = {one["provider"] for route in routes for one in route["deployments"]}
                providers += [{"name": name, "kind": "openai", "api_key": "k"} for name in sorted(names)]
                others = {name for route in routes for name in route.get("fallbacks", [])}
                routes += [{**routes[0], "name": name, "fallbacks": []} for name in sorted(others)]
            (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(part))
            monkeypatch.setenv("NEXUS_CONFIG", str(tmp_path / f"{number}.yaml"))
            llm = load_settings(data_dir=tmp_path).llm
            assert [provider.name for provider in llm.providers] == [one["name"] for one in providers]
            assert [route.name for route in llm.routes] == [one["name"] for one in routes]
