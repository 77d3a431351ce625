"""The README's settings, as they stand there, on a real instance; only the providers are fakes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from nexus.cli.instance import private
from nexus.testing.script import Script, Seen, response
from nexus.testing.upstream import FakeUpstream, answer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_OPENAI_API_KEY", "HF_TOKEN")
SETTINGS = {
    **dict.fromkeys(KEYS, "sk-of-the-readme-test"),
    "AWS_ACCESS_KEY_ID": "AKIAREADME",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-readme-test",
}
# Whose addresses end in a version, as their own do.
VERSIONED = ("openai", "azure", "huggingface")


def settings_of_the_readme(upstream: str) -> dict[str, Any]:
    """The block of providers and routes, with the address of the fake for each provider."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(llm:\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    settings: dict[str, Any] = yaml.safe_load(block)
    for provider in settings["llm"]["providers"]:
        provider["base_url"] = upstream + ("/v1" if provider["kind"] in VERSIONED else "")
    return settings


def where(seen: Seen) -> str:
    """Which of the route's deployments a request went to."""
    return "claude" if seen.path.startswith("/v1/messages") else "aws" if "/converse" in seen.path else seen.path


def test_the_route_of_the_readme_answers_every_client_and_fails_over(models: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(models, target_is_directory=True)
    with FakeUpstream() as upstream:
        settings = settings_of_the_readme(upstream.url)
        (tmp_path / "nexus.yaml").write_text(yaml.safe_dump(settings))
        with private(tmp_path, settings=SETTINGS, log=tmp_path / "instance.log") as (place, _process):
            headers = {"authorization": f"Bearer {place.key}"}
            with httpx2.Client(base_url=place.url, headers=headers, timeout=60, trust_env=False) as client:
                known = {model["id"] for model in client.get("/v1/models").json()["data"]}
                assert "smart" in known

                def ask(words: str, model: str = "smart") -> str:
                    body = {"model": model, "messages": [{"role": "user", "content": words}]}
                    said = client.post("/v1/chat/completions", json=body)
                    assert said.status_code == 200, said.text
                    return str(said.json()["choices"][0]["message"]["content"])

                for number in range(60):
                    assert f"words {number}" in ask(f"words {number}")
                shares = Counter(map(where, upstream.seen))
                assert shares["claude"] + shares["aws"] == 60
                assert shares["claude"] > 40, "nine in ten"
                assert {seen.json.get("model") for seen in upstream.seen if where(seen) == "claude"} == {
                    "claude-sonnet-4-5"
                }
                aws = settings["llm"]["routes"][0]["deployments"][1]["model"]
                assert all(aws in seen.path.replace("%3A", ":") for seen in upstream.seen if where(seen) == "aws")

                asked = {"max_tokens": 50, "messages": [{"role": "user", "content": "as Anthropic"}], "model": "smart"}
                said = client.post("/v1/messages", json=asked, headers={"anthropic-version": "2023-06-01"}).json()
                assert "as Anthropic" in said["content"][0]["text"]
                contents = [{"role": "user", "parts": [{"text": "as Google"}]}]
                said = client.post("/v1beta/models/smart:generateContent", json={"contents": contents}).json()
                assert "as Google" in said["candidates"][0]["content"]["parts"][0]["text"]
                for direct in ("openai/gpt-4o", "gemini/gemini-2.5-pro", "az/gpt-4o", "hf/org/model", "gpu/llama"):
                    assert f"to {direct}" in ask(f"to {direct}", direct)

                def broken(seen: Seen) -> Script:
                    return Script((response(503, b"{}"),)) if where(seen) == "claude" else answer(seen)

                upstream.answering = broken
                before = len(upstream.seen)
                for number in range(20):
                    assert f"again {number}" in ask(f"again {number}")
                after = Counter(map(where, upstream.seen[before:]))
                assert after["aws"] == 20
                assert after["claude"] > 0, "it was tried"
