"""Recorded Bedrock traffic through the real HTTP path: by OpenAI clients and in our own form, plain and streamed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.llm.conftest import WHO, Gateway
from tests.llm.restated_converse import Unspeakable, as_chat, as_form, plain, read_answer

from nexus.core.errors import NexusError
from nexus.llm.types import ChatRequest, EmbeddingRequest, Text, Thinking, ToolCall, Usage
from nexus.testing.recordings import Exchange, load_cassette
from nexus.testing.replay import as_script
from nexus.testing.script import Seen
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
STREAM = "application/vnd.amazon.eventstream"


@cache
def recordings(shared: Path) -> list[tuple[str, Exchange]]:
    """Return every exchange with the Bedrock runtime, wherever it lies."""
    found = []
    for path in sorted((shared / "data" / "llm" / "cassettes").glob("*/*.y*ml")):
        if b"amazonaws" not in path.read_bytes():
            continue
        try:
            exchanges = load_cassette(path)
        except ValueError:
            continue
        found += [(path.name, item) for item in exchanges if "bedrock" in item.url.partition("/model/")[0]]
    return found


@pytest.fixture
def bedrock(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    provider = {"name": "up", "kind": "bedrock", "region": "us-east-1", "base_url": upstream.url}
    return make_gateway(providers=[provider | {"access_key_id": "AKIDEXAMPLE", "secret_access_key": KEY}])


def check_signature(seen: Seen) -> None:
    """Sign the request again with AWS's own library, from what arrived."""
    told = seen.headers["authorization"]
    names = told.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: seen.headers[name] for name in names}
    request = AWSRequest("POST", f"http://{seen.headers['host']}{seen.path}", data=seen.body, headers=headers)
    request.context["timestamp"] = seen.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", KEY), "bedrock", "us-east-1")
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    assert told.endswith(f"Signature={expected}")


@pytest.mark.slow
def test_recorded_conversations_asked_by_an_openai_client(
    bedrock: Gateway, upstream: FakeUpstream, shared: Path
) -> None:
    cut = random.Random(20_261_126)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        action = exchange.path.rpartition("/")[2]
        if action not in ("converse", "converse-stream"):
            counts[f"left out: {action} is no conversation"] += 1
            continue
        recorded = json.loads(exchange.request)
        try:
            body = as_chat(recorded)
        except Unspeakable as missing:
            counts[f"left out: OpenAI's form has no {missing}"] += 1
            continue
        bedrock.rows.clear()
        upstream.seen.clear()
        bedrock.llm.router._standing.clear()
        upstream.answering = lambda _, exchange=exchange: as_script(exchange, cut=cut)
        model = unquote(exchange.path.split("/")[2])
        asked = body | {"model": f"up/{model}"}
        if action == "converse-stream":
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        response = HTTP.post(f"{bedrock.url}/v1/chat/completions", json=asked, timeout=20)
        try:
            counts[check(name, exchange, recorded, response, upstream, bedrock)] += 1
        except (AssertionError, ValueError, KeyError, TypeError, IndexError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 60
    assert counts["streamed"] >= 9
    assert counts["error"] >= 5


def check(
    name: str,
    exchange: Exchange,
    recorded: dict[str, Any],
    response: httpx.Response,
    up: FakeUpstream,
    gateway: Gateway,
) -> str:
    check_signature(up.seen[0])
    assert up.seen[0].path.endswith(exchange.path)
    row = gateway.row()
    if exchange.status != 200:
        assert response.status_code == {403: 502}.get(exchange.status, exchange.status), response.text
        assert row.status == "error"
        assert response.json()["error"]["message"]
        return "error"
    assert response.status_code == 200, response.text
    sent, meant = plain(up.seen[0].json), plain(recorded)
    if "categorical" in name:
        # A model without structured output is asked by a tool instead; the recording is of a stand-in.
        assert "outputConfig" not in sent
    else:
        assert sent == meant
    expected = read_answer(exchange.body, streamed=exchange.headers["content-type"] == STREAM)
    found = read_stream(response.text) if exchange.headers["content-type"] == STREAM else read_whole(response.json())
    for key in ("text", "thinking", "calls", "finish"):
        assert found[key] == expected[key], (key, found[key], expected[key])
    used = expected["usage"]
    assert found["usage"]["prompt_tokens"] == used["input"]
    assert found["usage"]["completion_tokens"] == used["output"]
    assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == used["read"]
    assert row.status == "ok"
    assert (row.input_tokens, row.output_tokens) == (used["input"], used["output"])
    assert (row.cache_read_tokens, row.cache_write_tokens) == (used["read"], used["written"])
    assert row.details["finish_reason"] == expected["native"]
    return "streamed" if exchange.headers["content-type"] == STREAM else "plain"


def read_whole(body: dict[str, Any]) -> dict[str, Any]:
    message = body["choices"][0]["message"]
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    return {
        "text": message["content"] or "",
        "thinking": message.get("reasoning_content") or "",
        "calls": calls,
        "finish": body["choices"][0]["finish_reason"],
        "usage": body["usage"],
    }


def read_stream(text: str) -> dict[str, Any]:
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    out: dict[str, Any] = {"text": "", "thinking": "", "finish": None}
    calls: dict[int, list[str]] = {}
    for line in lines[:-1]:
        event = json.loads(line)
        if event.get("usage"):
            out["usage"] = event["usage"]
        for choice in event["choices"]:
            delta = choice["delta"]
            out["text"] += delta.get("content") or ""
            out["thinking"] += delta.get("reasoning_content") or ""
            out["finish"] = choice["finish_reason"] or out["finish"]
            for call in delta.get("tool_calls") or ():
                if "id" in call:
                    calls[call["index"]] = [call["id"], call["function"]["name"], ""]
                calls[call["index"]][2] += call["function"]["arguments"]
    out["calls"] = [(name, tool, json.loads(told)) for name, tool, told in calls.values()]
    return out


@pytest.mark.slow
def test_recorded_conversations_in_our_own_form(bedrock: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(20_261_126)
    wrong: list[str] = []
    counts: Counter[str] = Counter()

    async def run() -> None:
        for name, exchange in recordings(shared):
            action = exchange.path.rpartition("/")[2]
            if action not in ("converse", "converse-stream") or exchange.status != 200:
                continue
            upstream.seen.clear()
            bedrock.llm.router._standing.clear()
            upstream.answering = lambda _, exchange=exchange: as_script(exchange, cut=cut)
            recorded = json.loads(exchange.request)
            model = unquote(exchange.path.split("/")[2])
            asked = msgspec.structs.replace(as_form(recorded), model=f"up/{model}")
            try:
                found = await (whole(bedrock, asked) if action == "converse" else pieces(bedrock, asked))
                if "categorical" not in name:
                    assert plain(upstream.seen[0].json) == plain(recorded)
                expected = read_answer(exchange.body, streamed=exchange.framed)
                assert found == {key: expected[key] for key in found}
            except (AssertionError, ValueError, KeyError, TypeError, NexusError) as error:
                wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
            counts[action] += 1

    asyncio.run(run())
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["converse"] >= 75
    assert counts["converse-stream"] >= 12


async def whole(gateway: Gateway, asked: ChatRequest) -> dict[str, Any]:
    completion = await gateway.llm.chat(WHO, asked)
    choice = completion.choices[0]
    assert completion.usage is not None
    return told_by(choice.message.parts, choice.native_finish_reason, completion.usage)


async def pieces(gateway: Gateway, asked: ChatRequest) -> dict[str, Any]:
    parts: list[Any] = []
    calls: dict[int, list[str]] = {}
    async with gateway.llm.stream(WHO, asked) as stream:
        async for chunk in stream:
            parts += [Text(text=chunk.text)] if chunk.text else []
            parts += [Thinking(text=chunk.thinking or "", signature=chunk.signature)] if chunk.thinking else []
            parts += [Thinking(signature=chunk.signature)] if chunk.signature else []
            if (tool := chunk.tool) is not None:
                calls.setdefault(tool.position, [tool.id or "", tool.name or "", ""])[2] += tool.arguments
    usage = stream.entry.tally.usage
    assert usage is not None
    parts += [ToolCall(id=name, name=tool, arguments=told) for name, tool, told in calls.values()]
    return told_by(tuple(parts), stream.entry.tally.finish_reason, usage)


def told_by(parts: tuple[Any, ...], native: str | None, usage: Usage) -> dict[str, Any]:
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    signatures = [part.signature for part in thoughts if part.signature]
    return {
        "text": "".join(part.text for part in parts if isinstance(part, Text)),
        "thinking": "".join(part.text for part in thoughts),
        "signature": signatures[-1] if signatures else None,
        "redacted": "".join(part.redacted or "" for part in thoughts),
        "calls": [(part.id, part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        "native": native,
        "usage": {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "read": usage.cache_read_tokens,
            "written": usage.cache_write_tokens,
        },
    }


@pytest.mark.slow
def test_recorded_embeddings(bedrock: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    counts: Counter[str] = Counter()
    tasks = {"search_query": "query", "search_document": "document", "classification": "classification"}
    for name, exchange in recordings(shared):
        if "embed" not in exchange.path or exchange.status != 200:
            continue
        recorded, told = json.loads(exchange.request), json.loads(exchange.body)
        upstream.seen.clear()
        bedrock.rows.clear()
        upstream.answering = lambda _, exchange=exchange: as_script(exchange)
        model = exchange.path.split("/")[2].replace("%3A", ":")
        texts = recorded["texts"] if "texts" in recorded else [recorded["inputText"]]
        size = recorded.get("dimensions", recorded.get("output_dimension"))
        request = EmbeddingRequest(
            model=f"up/{model}", input=tuple(texts), dimensions=size, task=tasks.get(recorded.get("input_type", ""))
        )
        found = asyncio.run(bedrock.llm.embed(WHO, request))
        vectors = told.get("embeddings", [told.get("embedding")])
        vectors = vectors["float"] if isinstance(vectors, dict) else vectors
        assert len(found.vectors) == len(vectors), name
        for vector, expected in zip(found.vectors, vectors, strict=True):
            assert list(memoryview(vector).cast("f")) == pytest.approx(expected, rel=1e-6), name
        sent = upstream.seen[0].json
        sent.pop("embedding_types", None)
        optional = ("normalize", "truncate", "max_tokens")  # the models' defaults, or limits that our form has not
        assert sent == {key: value for key, value in recorded.items() if key not in optional}, name
        assert bedrock.row().input_tokens == int(exchange.headers["x-amzn-bedrock-input-token-count"]), name
        counts[model] += 1
    print(dict(counts))
    assert sum(counts.values()) >= 9
