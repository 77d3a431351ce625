"""The documentation says the same as the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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
