"""Recorded Gemini and Vertex AI traffic through the real HTTP path, to Google's own clients and to others."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.llm.conftest import Gateway
from tests.llm.test_cassettes import recordings as chat_recordings

from nexus.testing.replay import Exchange, load_cassette
from nexus.testing.script import Script, Seen, chunked
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client(timeout=20)
OPERATIONS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")
FINISHES = {
    "STOP": "stop",
    1: "stop",
    "MAX_TOKENS": "length",
    2: "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "UNEXPECTED_TOOL_CALL": "stop",
    None: None,
}


@cache
def recordings(shared: Path) -> list[tuple[str, Exchange]]:
    found = []
    for folder in ("gemini", "vertexai"):
        for path in sorted((shared / "data" / "llm" / "cassettes" / folder).glob("*")):
            found += [(path.name, exchange) for exchange in load_cassette(path)]
    return found


def operation_of(exchange: Exchange) -> str | None:
    operation = exchange.path.rpartition(":")[2]
    return operation if "googleapis.com" in exchange.url and operation in OPERATIONS else None


def model_of(exchange: Exchange) -> str:
    return exchange.path.rpartition("/")[2].rpartition(":")[0]


def chats(shared: Path, counts: Counter[str]) -> Iterator[tuple[str, Exchange, list[dict[str, Any]]]]:
    """Every recorded chat that was answered, with the pieces of its answer."""
    for name, exchange in recordings(shared):
        operation = operation_of(exchange)
        if operation is None:
            counts["left out: no call of a model of Google's"] += 1
        elif not operation.endswith("enerateContent"):
            counts["left out: no chat"] += 1
        elif exchange.status != 200:
            counts["left out: an error"] += 1
        else:
            yield name, exchange, pieces_of(exchange)


def pieces_of(exchange: Exchange) -> list[dict[str, Any]]:
    text = exchange.body.decode()
    if exchange.streamed:
        return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    told = json.loads(text)
    return told if isinstance(told, list) else [told]


def answering(exchange: Exchange, cut: random.Random) -> Callable[[Seen], Script]:
    """Answer as recorded, in pieces cut anywhere."""

    def answer(_request: Seen) -> Script:
        kind = exchange.headers.get("content-type", "application/json")
        head = f"HTTP/1.1 {exchange.status} X\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        body = exchange.body
        places = sorted({0, len(body), *(cut.randrange(len(body)) for _ in range(min(len(body) // 30 + 1, 200)))})
        pieces = [chunked(body[start:end]) for start, end in pairwise(places)]
        return Script((head.encode(), *pieces, b"0\r\n\r\n"))

    return answer


# An independent reading of what a recording says.


def meaning(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Return text, thoughts, calls, seals of calls, finish and usage of the first candidate."""
    text = thought = ""
    calls, seals, finish, usage = [], [], None, {}
    for piece in pieces:
        usage = piece.get("usageMetadata") or usage
        for candidate in piece.get("candidates") or ():
            finish = candidate.get("finishReason") or finish
            for part in (candidate.get("content") or {}).get("parts") or ():
                if "functionCall" in part:
                    calls.append((part["functionCall"]["name"], part["functionCall"].get("args") or {}))
                    seals.append(part.get("thoughtSignature"))
                elif part.get("thought"):
                    thought += part.get("text", "")
                else:
                    text += part.get("text", "")
    read = usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0)
    wrote = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
    return {
        "text": text,
        "thought": thought,
        "calls": calls,
        "seals": seals,
        "finish": "tool_calls" if calls and finish in ("STOP", 1) else FINISHES[finish],
        "usage": (read, wrote, usage.get("cachedContentTokenCount", 0), usage.get("thoughtsTokenCount", 0)),
    }


@pytest.fixture
def google(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    base = {"base_url": upstream.url.removesuffix("/v1") + "/v1beta", "api_key": "AIza-upstream-secret-key"}
    return make_gateway(providers=[{"name": "up", "kind": "google"} | base])


def ready(gateway: Gateway, upstream: FakeUpstream, exchange: Exchange, cut: random.Random) -> None:
    gateway.rows.clear()
    upstream.seen.clear()
    gateway.llm.router._standing.clear()
    upstream.answering = answering(exchange, cut)


@pytest.mark.slow
def test_recorded_traffic_is_transparent(google: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(20_261_126)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        operation = operation_of(exchange)
        if operation is None:
            counts["left out: no call of a model of Google's"] += 1
            continue
        if not exchange.request:
            counts["left out: the request was not recorded"] += 1
            continue
        ready(google, upstream, exchange, cut)
        query = exchange.url.partition("?")[2]
        url = f"{google.url}/v1beta/models/up%2F{model_of(exchange)}:{operation}" + (f"?{query}" if query else "")
        response = HTTP.post(url, content=exchange.request)
        try:
            counts[transparent(exchange, response, upstream, google)] += 1
        except (AssertionError, ValueError, KeyError, IndexError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts == {
        "generateContent": 100,
        "left out: the request was not recorded": 3,
        "events": 16,
        "array": 5,
        "countTokens": 2,
        "embedContent": 1,
        "batchEmbedContents": 9,
        "error 400": 4,
        "error 404": 3,
        "left out: no call of a model of Google's": counts["left out: no call of a model of Google's"],
    }


def transparent(exchange: Exchange, response: httpx.Response, upstream: FakeUpstream, gateway: Gateway) -> str:
    """Compare one answer with its recording, byte for byte, and say which kind it was."""
    sent, operation = upstream.seen[0], operation_of(exchange)
    assert sent.json == json.loads(exchange.request)
    assert operation == "batchEmbedContents" or sent.body == exchange.request
    assert sent.path.partition("?")[0] == f"/v1beta/models/{model_of(exchange)}:{operation}"
    assert sent.path.partition("?")[2].lower() == exchange.url.partition("?")[2].lower()
    assert sent.headers["x-goog-api-key"] == "AIza-upstream-secret-key"
    if exchange.status != 200:
        assert response.status_code == exchange.status
        told, recorded = response.json()["error"], json.loads(exchange.body)["error"]
        assert (told["code"], told["status"]) == (recorded["code"], recorded["status"])
        assert exchange.status != 400 or response.content == exchange.body
        return f"error {exchange.status}"
    assert response.status_code == 200, response.text
    row = gateway.row()
    assert row.status == "ok"
    if operation in ("generateContent", "streamGenerateContent"):
        said = meaning(pieces_of(exchange))
        assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.reasoning_tokens) == said["usage"]
    if exchange.streamed:
        assert response.headers["content-type"].startswith("text/event-stream")
        ours = [event for event in response.content.split(b"\n\n") if event]
        assert ours == [e for e in exchange.body.replace(b"\r\n", b"\n").split(b"\n\n") if e.strip()]
        return "events"
    assert response.content == exchange.body
    return "array" if operation == "streamGenerateContent" else str(operation)


@pytest.mark.slow
def test_recorded_traffic_of_vertex_is_transparent(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, shared: Path
) -> None:
    base = {"base_url": f"{upstream.address}/v1beta1", "api_key": "AQ.upstream-secret-key"}
    vertex = make_gateway(providers=[{"name": "up", "kind": "vertex"} | base])
    cut = random.Random(3)
    counts: Counter[str] = Counter()
    for name, exchange in recordings(shared):
        operation = operation_of(exchange)
        if operation is None or "aiplatform" not in exchange.url or not exchange.request:
            counts["left out: not asked of Vertex AI, or not recorded"] += 1
            continue
        ready(vertex, upstream, exchange, cut)
        query = exchange.url.partition("?")[2]
        place = f"publishers/google/models/{model_of(exchange)}:{operation}"
        url = f"{vertex.url}/v1beta/models/up/{model_of(exchange)}:{operation}" + (f"?{query}" if query else "")
        response = HTTP.post(url, content=exchange.request)
        assert response.status_code == exchange.status, name
        assert response.content.replace(b"\r\n", b"\n") == exchange.body.replace(b"\r\n", b"\n"), name
        assert exchange.path.endswith(place), name
        assert upstream.seen[0].path.partition("?")[0] == f"/v1beta1/{place}", name
        assert upstream.seen[0].body == exchange.request, name
        row = vertex.row()
        if exchange.status == 200 and operation.endswith("enerateContent"):
            used = meaning(pieces_of(exchange))["usage"]
            assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.reasoning_tokens) == used, name
        counts[f"{operation} {exchange.status}"] += 1
    print(dict(counts))
    assert counts["generateContent 200"] == 34
    assert counts["generateContent 400"] == 4
    assert counts["streamGenerateContent 200"] == counts["embedContent 200"] == 1
    assert counts["countTokens 200"] == 2


@pytest.mark.slow
def test_recorded_answers_reach_clients_of_chat_completions(
    google: Gateway, upstream: FakeUpstream, shared: Path
) -> None:
    cut = random.Random(7)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange, pieces in chats(shared, counts):
        ready(google, upstream, exchange, cut)
        stream = operation_of(exchange) == "streamGenerateContent"
        body: dict[str, Any] = {"model": f"up/{model_of(exchange)}", "messages": [{"role": "user", "content": "x"}]}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        response = HTTP.post(f"{google.url}/v1/chat/completions", json=body)
        if re.search(rb'"finishReason": ?"UNEXPECTED_TOOL_CALL"', exchange.body):
            assert (response.status_code, response.json()["error"]["code"]) == (502, "answer_failed")
            counts["failed"] += 1
            continue
        try:
            assert response.status_code == 200, response.text
            said = meaning(pieces)
            message = streamed(response.text) if stream else whole(response.json())
            assert message == said
            counts["events" if exchange.streamed else "array" if stream else "plain"] += 1
        except (AssertionError, ValueError, KeyError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert (counts["plain"], counts["events"], counts["array"], counts["failed"]) == (102, 16, 5, 1)


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """Read an answer as the official SDK does, in the terms of `meaning`."""
    completion = ChatCompletion.model_validate(body)
    choice = completion.choices[0]
    calls = choice.message.tool_calls or []
    return {
        "text": choice.message.content or "",
        "thought": (choice.message.model_extra or {}).get("reasoning_content") or "",
        "calls": [(call.function.name, json.loads(call.function.arguments)) for call in calls],
        "seals": [seal_of(call.model_extra) for call in calls],
        "finish": choice.finish_reason,
        "usage": used(completion.usage),
    }


def streamed(text: str) -> dict[str, Any]:
    """Read a stream as the official SDK does."""
    assert text.endswith("data: [DONE]\n\n")
    said: dict[str, Any] = {"text": "", "thought": "", "calls": [], "seals": [], "finish": None, "usage": (0, 0, 0, 0)}
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        chunk = ChatCompletionChunk.model_validate_json(line[6:])
        if chunk.usage is not None:
            said["usage"] = used(chunk.usage)
        for choice in chunk.choices:
            said["text"] += choice.delta.content or ""
            said["thought"] += (choice.delta.model_extra or {}).get("reasoning_content") or ""
            for call in choice.delta.tool_calls or ():
                assert call.id
                assert call.function is not None
                assert call.index == len(said["calls"])
                said["calls"].append((call.function.name, json.loads(call.function.arguments or "")))
                said["seals"].append(seal_of(call.model_extra))
            said["finish"] = choice.finish_reason or said["finish"]
    return said


def seal_of(extra: dict[str, Any] | None) -> str | None:
    seal: str | None = (extra or {}).get("extra_content", {}).get("google", {}).get("thought_signature")
    return seal


def used(usage: Any) -> tuple[int, int, int, int]:
    if usage is None:
        return 0, 0, 0, 0
    thought = usage.completion_tokens_details.reasoning_tokens
    return usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens, thought


# The other way round: recordings of chat completions, answered to Google's own client.


@pytest.mark.slow
def test_recorded_chat_completions_reach_googles_client(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(11)
    options = types.HttpOptions(base_url=gateway.url, client_args={"verify": HTTP._transport._pool._ssl_context})  # type: ignore[attr-defined]
    client = genai.Client(api_key="nx_test", http_options=options)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in chat_recordings(shared):
        if exchange.status != 200 or not exchange.body:
            counts["left out: no answer on record"] += 1
            continue
        told = events_of(exchange) if exchange.streamed else [json.loads(exchange.body)]
        if any("error" in item or "choices" not in item for item in told):
            counts["left out: no chat answer on record"] += 1
            continue
        ready(gateway, upstream, exchange, cut)
        try:
            if exchange.streamed:
                chunks = list(client.models.generate_content_stream(model="up/m", contents="x"))
            else:
                chunks = [client.models.generate_content(model="up/m", contents="x")]
            assert heard(chunks) == spoken(told)
            counts["streamed" if exchange.streamed else "plain"] += 1
        except (AssertionError, ValueError, KeyError, TypeError, genai.errors.APIError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 150
    assert counts["streamed"] >= 40


FINISHES_OUT = {"length": "MAX_TOKENS", "content_filter": "SAFETY", None: None}


def events_of(exchange: Exchange) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in exchange.body.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def spoken(told: list[dict[str, Any]]) -> dict[int, Any]:
    """Return what each choice of a chat completion says, by an independent reading; -1 is the usage."""
    said: dict[int, Any] = {}
    usage: dict[str, Any] = {}
    for item in told:
        usage = item.get("usage") or (item.get("x_groq") or {}).get("usage") or usage
        for choice in item["choices"]:
            one = said.setdefault(choice.get("index") or 0, {"text": "", "thought": "", "calls": {}, "finish": None})
            delta = choice.get("delta") or choice.get("message") or {}
            content = delta.get("content") or ""
            if isinstance(content, list):
                thoughts = [part for item in content if item.get("type") == "thinking" for part in item["thinking"]]
                one["thought"] += "".join(part.get("text") or "" for part in thoughts)
                content = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
            one["text"] += content + (delta.get("refusal") or "")
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            one["thought"] += thought if isinstance(thought, str) else ""
            older = [{"function": delta["function_call"]}] if delta.get("function_call") else []
            for place, call in enumerate(delta.get("tool_calls") or older):
                inner = call.get("function") or call.get("custom") or {}
                free = {"input": inner["input"]} if "input" in inner else None
                arguments = json.dumps(free) if free else inner.get("arguments") or ""
                held = one["calls"].setdefault((call.get("index", place)), ["", ""])
                held[0] = held[0] or inner.get("name") or ""
                held[1] += arguments if isinstance(arguments, str) else json.dumps(arguments)
            one["finish"] = choice.get("finish_reason") or one["finish"]
    for one in said.values():
        one["calls"] = [(name, json.loads(arguments or "{}")) for name, arguments in one["calls"].values()]
        one["finish"] = FINISHES_OUT.get(one["finish"], "STOP")
    said[-1] = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
    return said


def heard(chunks: list[types.GenerateContentResponse]) -> dict[int, Any]:
    """Read what Google's client was told, in the terms of `spoken`."""
    said: dict[int, Any] = {}
    usage: Any = None
    for chunk in chunks:
        usage = chunk.usage_metadata or usage
        for candidate in chunk.candidates or ():
            empty: dict[str, Any] = {"text": "", "thought": "", "calls": [], "finish": None}
            one = said.setdefault(candidate.index or 0, empty)
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.function_call is not None:
                    one["calls"].append((part.function_call.name, part.function_call.args))
                else:
                    one["thought" if part.thought else "text"] += part.text or ""
            if candidate.finish_reason is not None:
                one["finish"] = candidate.finish_reason.value
    read, wrote = (usage.prompt_token_count or 0, usage.candidates_token_count or 0) if usage else (0, 0)
    said[-1] = (read, wrote + (usage.thoughts_token_count or 0 if usage else 0))
    return said


# What is asked, in the words of the other side.


@pytest.mark.slow
def test_recorded_requests_reach_google_in_its_own_types(google: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in chat_recordings(shared):
        try:
            asked = json.loads(exchange.request)
        except ValueError:
            counts["left out: the request was not recorded"] += 1
            continue
        upstream.seen.clear()
        google.llm.router._standing.clear()
        response = HTTP.post(f"{google.url}/v1/chat/completions", json=asked | {"model": "up/gemini-2.5-flash"})
        try:
            if response.status_code == 400:
                told = response.json()["error"]
                assert told["param"] or exchange.status == 400, told
                assert not upstream.seen
                counts[f"refused: {told['param']}"] += 1
                continue
            assert response.status_code == 200, response.text
            sent = upstream.seen[0].json
            check_types(sent)
            assert texts_sent(sent) == texts_asked(asked)
            counts["asked"] += 1
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["asked"] >= 250


def check_types(sent: dict[str, Any]) -> None:
    """Let Google's own types, which forbid what they do not know, read a request."""
    known = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
    assert sent.keys() <= known
    for content in [*sent["contents"], *([sent["systemInstruction"]] if "systemInstruction" in sent else [])]:
        types.Content.model_validate(content)
        assert content["parts"]
    for tool in sent.get("tools") or ():
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(sent.get("toolConfig") or {})
    types.GenerationConfig.model_validate(sent.get("generationConfig") or {})


def texts_sent(sent: dict[str, Any]) -> list[str]:
    parts = [part for content in sent["contents"] for part in content["parts"]]
    parts += (sent.get("systemInstruction") or {}).get("parts") or []
    said = [part["text"] for part in parts if part.get("text") and not part.get("thought")]
    return sorted(said)


def texts_asked(asked: dict[str, Any]) -> list[str]:
    said: list[str] = []
    for message in asked["messages"]:
        content = message.get("content")
        if message["role"] in ("tool", "function"):
            continue
        if isinstance(content, str):
            said.append(content)
        said += [part["text"] for part in content or () if isinstance(part, dict) and part.get("type") == "text"]
        said += [message["refusal"]] if message.get("refusal") else []
    return sorted(text for text in said if text)


@pytest.mark.slow
def test_recorded_requests_of_gemini_reach_others(gateway: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        operation = operation_of(exchange)
        if operation is None or not operation.endswith("enerateContent") or not exchange.request:
            continue
        upstream.seen.clear()
        url = f"{gateway.url}/v1beta/models/up/echo:{operation}?alt=sse"
        response = HTTP.post(url, content=exchange.request)
        try:
            if response.status_code == 400:
                told = response.json()["error"]
                (field,) = [
                    item["fieldViolations"][0]["field"] for item in told["details"] if "fieldViolations" in item
                ]
                assert not upstream.seen
                counts[f"refused: {field.rpartition('.')[2]}"] += 1
                continue
            assert response.status_code == 200, response.text
            sent, asked = upstream.seen[0].json, json.loads(exchange.request)
            parts = [part for content in listed(asked["contents"]) for part in listed(content["parts"])]
            parts += ((asked.get("systemInstruction") or {}).get("parts")) or []
            said = sorted(part["text"] for part in parts if part.get("text") and not part.get("thought"))
            assert texts_asked(sent) == said
            results = [part for part in parts if "functionResponse" in part or "function_response" in part]
            calls = [call["id"] for message in sent["messages"] for call in message.get("tool_calls") or ()]
            answered = [message["tool_call_id"] for message in sent["messages"] if message["role"] == "tool"]
            assert len(answered) == len(results)
            assert set(answered) <= set(calls)
            assert len(set(calls)) == len(calls)
            counts["asked"] += 1
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["asked"] >= 90


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
