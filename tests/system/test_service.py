"""The effective settings are shown without their secrets."""

from __future__ import annotations

from pathlib import Path

from nexus.settings import load_settings
from nexus.system.service import SystemService


def test_no_secret_of_a_provider_is_shown(tmp_path: Path) -> None:
    provider = {
        "name": "up", "kind": "openai", "api_key": "sk-canary-1",
        "headers": {"Authorization": "Bearer sk-canary-2", "x-org": "canary-3"},
    }  # fmt: skip
    url = "postgresql://user:canary-4@host/db"
    settings = load_settings(data_dir=tmp_path, llm={"providers": [provider]}, database_url=url)
    shown = SystemService(settings=settings, sampler=None, checks={}).config()  # type: ignore[arg-type]
    assert "canary" not in str(shown)
    assert shown["llm"]["timeouts"]["first_token"] == 30
    assert shown["database_url"] == "set"
