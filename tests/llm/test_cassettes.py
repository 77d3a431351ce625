"""Recorded chat-completions traffic through the real HTTP path: what was recorded is what arrives, and is counted."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.llm.conftest import Gateway

from nexus.llm.forms.chat import answers as chat_answers
from nexus.testing.replay import Exchange, load_cassette, replay
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()
FOLDERS = ("openai", "groq", "deepseek", "openrouter", "mistral", "cohere", "ollama", "huggingface", "embeddings")


@cache
def recordings(shared: Path, path_end: str = "/chat/completions") -> list[tuple[str, Exchange]]:
    found = []
    for folder in FOLDERS:
        for path in sorted((shared / "data" / "llm" / "cassettes" / folder).glob("*")):
            try:
                exchanges = load_cassette(path)
            except ValueError:
                continue
            found += [(path.name, item) for item in exchanges if item.path.endswith(path_end)]
    return found


@pytest.mark.slow
def test_recorded_chats_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(20_261_123)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        try:
            asked = json.loads(exchange.request)
        except ValueError:
            counts["left out: the request was not recorded"] += 1
            continue
        if not asked.get("model") or (not exchange.body and exchange.status == 200):
            counts["left out: no model or no answer on record"] += 1
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        body = asked | {"model": f"up/{asked['model']}"}
        response = HTTP.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=20)
        try:
            counts[check(name, exchange, asked, response, upstream, gateway)] += 1
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name}: {str(error)[:300]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 150
    assert counts["streamed"] >= 40
    assert counts["error"] >= 10


def check(
    name: str, exchange: Exchange, asked: dict[str, Any], response: httpx.Response, up: FakeUpstream, gateway: Gateway
) -> str:
    """Compare one answer with its recording and say which kind it was."""
    if exchange.status == response.status_code == 400 and not up.seen:
        assert "error" in response.json(), name
        return "refused here as it was there"
    row = gateway.row()
    sent = up.seen[0].json
    if asked.get("stream"):
        sent.pop("stream_options")
        asked = {key: value for key, value in asked.items() if key != "stream_options"} | {"stream": True}
    assert sent == asked, name
    if exchange.status != 200:
        assert response.status_code == {401: 502, 404: 404}.get(exchange.status, exchange.status), name
        assert "error" in response.json(), name
        assert row.status == "error"
        return "error"
    if not exchange.streamed and "choices" not in json.loads(exchange.body):
        assert response.json()["error"]["code"] == "upstream_malformed"
        return "no chat answer on record"
    assert response.status_code == 200, (name, response.text)
    failed = [item for item in events(exchange.body.decode()) if exchange.streamed and "error" in item]
    assert row.status == ("error" if failed else "ok"), name
    if not exchange.streamed:
        recorded = json.loads(exchange.body)
        assert response.json() == recorded, name
        compare_usage(name, recorded.get("usage"), row)
        completion = chat_answers.read_completion(recorded)
        again = chat_answers.read_completion(json.loads(json.dumps(chat_answers.write_completion(completion))))
        assert [choice.message.text for choice in again.choices] == [c.message.text for c in completion.choices], name
        return "plain"
    theirs = events(exchange.body.decode())
    ours = events(response.text)
    wants = (json.loads(exchange.request).get("stream_options") or {}).get("include_usage")
    if not wants:
        theirs = [item for item in theirs if item == "[DONE]" or item.get("choices") or not item.get("usage")]
    if failed:
        theirs = theirs[: theirs.index(failed[0]) + 1]
    elif theirs[-1] != "[DONE]":
        theirs.append("[DONE]")
    assert ours == theirs, name
    usages = [item["usage"] for item in events(exchange.body.decode()) if item != "[DONE]" and item.get("usage")]
    compare_usage(name, usages[-1] if usages else None, row)
    return "streamed"


def events(text: str) -> list[Any]:
    lines = [line[5:].strip() for line in text.replace("\r\n", "\n").split("\n") if line.startswith("data:")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def compare_usage(name: str, recorded: Any, row: Any) -> None:
    if not recorded or not recorded.get("prompt_tokens"):
        assert row.estimated, name
        return
    assert (row.input_tokens, row.output_tokens) == (recorded["prompt_tokens"], recorded["completion_tokens"] or 0), (
        name
    )
    assert row.cache_read_tokens == ((recorded.get("prompt_tokens_details") or {}).get("cached_tokens") or 0) or name


@pytest.mark.slow
def test_recorded_embeddings_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    count = 0
    for name, exchange in recordings(shared, "/embeddings"):
        asked = json.loads(exchange.request or b"{}")
        if exchange.status != 200 or not asked.get("model") or not exchange.body:
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        upstream.answering = replay([exchange])
        body = asked | {"model": f"up/{asked['model']}"}
        response = HTTP.post(f"{gateway.url}/v1/embeddings", json=body, timeout=20)
        recorded = json.loads(exchange.body)
        if "embedding" not in (recorded.get("data") or [{}])[0]:
            continue
        assert response.status_code == 200, (name, response.text[:300])
        assert response.json() == recorded, name
        assert upstream.seen[0].json == asked, name
        row = gateway.row()
        if (recorded.get("usage") or {}).get("prompt_tokens"):
            assert row.input_tokens == recorded["usage"]["prompt_tokens"], name
        count += 1
    print(count, "embeddings")
    assert count >= 10
