"""Recorded Responses traffic through the real HTTP path, in its own dialect: what was recorded is what arrives."""

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
from tests.llm.test_cassettes import events

from nexus.testing.replay import Exchange, load_cassette, replay
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()
FOLDERS = ("openai-responses", "openai", "openrouter", "gemini", "anthropic", "bedrock")
PATHS = ("/v1/responses", "/v1/responses/input_tokens")


@cache
def recorded_responses(shared: Path) -> list[tuple[str, Exchange]]:
    """Every recorded call of the two endpoints, wherever it lies."""
    found = []
    for folder in FOLDERS:
        for path in sorted((shared / "data" / "llm" / "cassettes" / folder).glob("*")):
            try:
                exchanges = load_cassette(path)
            except ValueError:
                continue
            found += [(path.name, item) for item in exchanges if item.method == "POST" and item.path.endswith(PATHS)]
    return found


@pytest.mark.slow
def test_recorded_responses_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(11)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recorded_responses(shared):
        try:
            asked = json.loads(exchange.request)
        except ValueError:
            counts["left out: the request was not recorded"] += 1
            continue
        if not asked.get("model") or not exchange.body:
            counts["left out: no model or no answer on record"] += 1
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        gateway.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        path = exchange.path[exchange.path.index("/v1/") :]
        response = HTTP.post(f"{gateway.url}{path}", json=asked | {"model": f"up/{asked['model']}"}, timeout=20)
        try:
            counts[check(name, exchange, asked, response, upstream, gateway)] += 1
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:300]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 45
    assert counts["streamed"] >= 10
    assert counts["error"] >= 2
    assert counts["counted"] >= 3


def check(
    name: str, exchange: Exchange, asked: dict[str, Any], response: httpx.Response, up: FakeUpstream, gateway: Gateway
) -> str:
    """Compare one answer with its recording and say which kind it was."""
    if exchange.status == response.status_code == 400 and not up.seen:
        assert response.json()["error"]["param"] == json.loads(exchange.body)["error"]["param"]
        return "refused here"
    row = gateway.row()
    assert up.seen[0].json == asked, name
    if exchange.status != 200:
        assert response.status_code == {401: 502}.get(exchange.status, exchange.status), (name, response.text)
        assert response.json() == json.loads(exchange.body)
        assert row.status == "error"
        return "error"
    assert response.status_code == 200, (name, response.text)
    if exchange.path.endswith("input_tokens"):
        assert response.json() == json.loads(exchange.body)
        return "counted"
    assert row.status == "ok", name
    if not exchange.streamed:
        recorded = json.loads(exchange.body)
        assert response.json() == recorded, name
        compare_usage(name, recorded.get("usage"), row)
        return "plain"
    theirs, ours = events(exchange.body.decode()), events(response.text)
    assert ours == [item for item in theirs if item != "[DONE]" or "[DONE]" in ours], name
    compare_usage(name, [item for item in theirs if item != "[DONE]"][-1]["response"]["usage"], row)
    return "streamed"


def compare_usage(name: str, recorded: Any, row: Any) -> None:
    """Compare what was written down with what was recorded."""
    if not recorded or not recorded.get("input_tokens"):
        return
    assert (row.input_tokens, row.output_tokens) == (recorded["input_tokens"], recorded["output_tokens"]), name
    assert row.cache_read_tokens == recorded["input_tokens_details"]["cached_tokens"], name
    assert row.reasoning_tokens == recorded["output_tokens_details"]["reasoning_tokens"], name
