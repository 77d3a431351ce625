"""Recorded Messages traffic through the real HTTP path: as it was to its own clients, without loss to OpenAI's."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion
from tests.llm.conftest import Gateway

from nexus.llm.errors import Unsupported
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.messages import requests as messages_requests
from nexus.testing.replay import Exchange, load_cassette, replay
from nexus.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow
# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()
ENDPOINT = "://api.anthropic.com/v1/messages"
STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


@cache
def recordings(shared: Path) -> tuple[list[tuple[str, Exchange]], Counter[str]]:
    """Every exchange with Anthropic's own host, and how many were left out for what reason."""
    found, left = [], Counter[str]()
    for path in sorted((shared / "data" / "llm" / "cassettes" / "anthropic").glob("*")):
        for item in load_cassette(path):
            if ENDPOINT in item.url:
                found.append((path.name, item))
            else:
                host = item.url.partition("://")[2].partition("/")
                left[f"another form: {host[0]}" if "anthropic.com" not in host[0] else f"no chat: /{host[2][:8]}"] += 1
    return found, left


@pytest.fixture
def claude(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    return make_gateway(
        providers=[{"name": "up", "kind": "anthropic", "base_url": upstream.url, "api_key": "sk-upstream-secret-key"}]
    )


def events(text: str) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in text.replace("\r\n", "\n").split("\n") if line.startswith("data:")]
    return [json.loads(line) for line in lines]


def joined(answer: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the events of a stream together as the documentation says, apart from our own reader."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in answer:
        if event["type"] == "message_start":
            message = event["message"] | {"content": []}
        elif event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            for name in ("text", "thinking", "signature"):
                if delta["type"] == f"{name}_delta":
                    block[name] = (block.get(name) or "") + delta[name]
            if delta["type"] == "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] = message["usage"] | {k: v for k, v in event["usage"].items() if v is not None}
    for index, told in inputs.items():
        if told:
            message["content"][index]["input"] = json.loads(told)
    return message


def recorded(exchange: Exchange) -> dict[str, Any]:
    return joined(events(exchange.body.decode())) if exchange.streamed else json.loads(exchange.body)


def meaning(message: dict[str, Any]) -> tuple[str, str, list[tuple[str, str, Any]]]:
    """The words, the thoughts and the calls of an answer in this form."""
    blocks = message["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thinking = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    return text, thinking, [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]


def tokens(usage: dict[str, Any]) -> tuple[int, int, int, int]:
    read, wrote = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return usage["input_tokens"] + read + wrote, usage["output_tokens"], read, wrote


def test_recorded_messages_arrive_as_they_were(claude: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(20_261_126)
    found, left = recordings(shared)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in found:
        claude.rows.clear()
        upstream.seen.clear()
        claude.llm.router._standing.clear()
        upstream.answering = replay([exchange], cut=cut)
        asked = json.loads(exchange.request)
        headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "one-2026-01-01,two-2026-01-01"}
        body = asked | {"model": f"up/{asked['model']}"}
        answer = HTTP.post(claude.url + exchange.path, json=body, headers=headers, timeout=20)
        try:
            sent = upstream.seen[0]
            assert sent.json == asked
            assert sent.headers["anthropic-beta"] == headers["anthropic-beta"]
            assert sent.headers["x-api-key"] == "sk-upstream-secret-key"
            counts[same(exchange, answer, claude)] += 1
        except (AssertionError, ValueError, KeyError, TypeError, IndexError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:300]}")
    print(dict(counts), "left out:", dict(left))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts == {"plain": 102, "streamed": 46, "counted": 5, "error": 6}
    assert sum(left.values()) == 39


def same(exchange: Exchange, answer: httpx.Response, gateway: Gateway) -> str:
    """Compare one answer with its recording, byte for byte where it is a stream, and say which kind it was."""
    row = gateway.row()
    if exchange.status != 200:
        assert answer.status_code == {401: 502}.get(exchange.status, exchange.status)
        told = answer.json()
        assert told["type"] == "error"
        assert (
            told["error"]["type"]
            == {401: "api_error", 404: "not_found_error", 400: "invalid_request_error"}[exchange.status]
        )
        assert row.status == "error"
        return "error"
    assert answer.status_code == 200, answer.text
    assert row.status == "ok"
    if exchange.path.endswith("count_tokens"):
        assert answer.json() == json.loads(exchange.body)
        return "counted"
    if exchange.streamed:
        assert answer.text.strip() == exchange.body.decode().replace("\r\n", "\n").strip()
    else:
        assert answer.json() == json.loads(exchange.body)
    assert not row.estimated
    figures = (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens)
    assert figures == tokens(recorded(exchange)["usage"])
    assert row.details["finish_reason"] == recorded(exchange)["stop_reason"]
    return "streamed" if exchange.streamed else "plain"


def restated(exchange: Exchange) -> dict[str, Any]:
    """The recorded request as a client of OpenAI's form would have put it. Raises `Unsupported`."""
    form = messages_requests.read_request(json.loads(exchange.request))
    body = chat_requests.write_request(form, f"up/{form.model}", stream=exchange.streamed)
    more = {name: body.pop(name) for name in ("top_k",) if name in body}
    body |= {"extra_body": more} if more else {}
    return body | ({"stream_options": {"include_usage": True}} if exchange.streamed else {})


def test_recorded_messages_reach_openai_s_clients_without_loss(
    claude: Gateway, upstream: FakeUpstream, shared: Path
) -> None:
    cut = random.Random(3)
    client = openai.OpenAI(base_url=f"{claude.url}/v1", api_key="k", max_retries=0)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared)[0]:
        if exchange.status != 200 or exchange.path.endswith("count_tokens"):
            counts["left out: no answer"] += 1
            continue
        try:
            body = restated(exchange)
        except Unsupported as refused:
            counts[f"left out: only Anthropic has the {refused.field}"] += 1
            body = {
                "model": "up/claude-sonnet-4-5",
                "messages": [{"role": "user", "content": "x"}],
                "stream": exchange.streamed,
            }
            body |= {"stream_options": {"include_usage": True}} if exchange.streamed else {}
            asked = None
        else:
            asked = json.loads(exchange.request)
        claude.rows.clear()
        upstream.seen.clear()
        upstream.answering = replay([exchange], cut=cut)
        try:
            answer = through_sdk(client, body)
            if asked is not None:
                carried(asked, upstream.seen[0].json)
            agree(recorded(exchange), answer)
            counts["streamed" if exchange.streamed else "plain"] += 1
        except (AssertionError, ValueError, KeyError, TypeError, openai.OpenAIError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] == 102
    assert counts["streamed"] == 46


def through_sdk(client: openai.OpenAI, body: dict[str, Any]) -> dict[str, Any]:
    """Ask with the official SDK and return one whole answer as plain data."""
    if not body.get("stream"):
        done = client.chat.completions.create(**body)
        ChatCompletion.model_validate(done.model_dump(), strict=False)
        return done.model_dump()
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    whole: dict[str, Any] = {"choices": [{"message": message}]}
    for chunk in client.chat.completions.create(**body):
        whole["usage"] = chunk.usage.model_dump() if chunk.usage else whole.get("usage")
        for choice in chunk.choices:
            delta = choice.delta
            message["content"] += delta.content or ""
            message["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
            message["annotations"] = [*message.get("annotations", []), *(getattr(delta, "annotations", None) or [])]
            for call in delta.tool_calls or ():
                if call.index == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": call.id, "function": {"name": None, "arguments": ""}})
                held = message["tool_calls"][call.index]["function"]
                held["name"] = (call.function and call.function.name) or held["name"]
                held["arguments"] += (call.function and call.function.arguments) or ""
            if choice.finish_reason:
                whole["choices"][0]["finish_reason"] = choice.finish_reason
    return whole


def agree(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Compare a recorded answer in Anthropic's form with one in OpenAI's."""
    message = ours["choices"][0]["message"]
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    said = (message["content"] or "", message.get("reasoning_content") or "", calls)
    assert said == meaning(theirs)
    cited = [note["url"] for block in theirs["content"] for note in block.get("citations") or () if note.get("url")]
    assert [note["url_citation"]["url"] for note in message.get("annotations") or ()] == cited
    assert ours["choices"][0]["finish_reason"] == STOPS[theirs["stop_reason"]]
    total, output, read, _ = tokens(theirs["usage"])
    assert ours["usage"]["prompt_tokens"] == total
    assert ours["usage"]["completion_tokens"] == output
    assert ours["usage"]["prompt_tokens_details"]["cached_tokens"] == read
    thought = (theirs["usage"].get("output_tokens_details") or {}).get("thinking_tokens") or 0
    assert ours["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought


def carried(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    """Check what was asked in Anthropic's form, restated in OpenAI's, against what reached Anthropic in the end."""
    for name in ("max_tokens", "top_p", "stop_sequences", "temperature", "stream"):
        if asked.get(name) and name in asked:
            assert sent.get(name) == asked[name], name
    assert words(sent) == words(asked)
    assert pieces(sent, "tool_use") == pieces(asked, "tool_use")
    assert pieces(sent, "tool_result") == pieces(asked, "tool_result")
    assert pieces(sent, "image") == pieces(asked, "image")
    tools = [tool["input_schema"] for tool in asked.get("tools") or ()]
    assert [tool["input_schema"] for tool in sent.get("tools") or ()] == tools
    if (asked.get("tool_choice") or {}).get("type") in ("any", "tool", "none"):
        assert sent["tool_choice"] == asked["tool_choice"]
    wanted = (asked.get("output_config") or {}).get("format") or asked.get("output_format")
    assert (sent.get("output_config") or {}).get("format") == wanted


def blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """All blocks, what the system says first: in OpenAI's form it may be said anywhere, and is gathered."""
    told = sorted(body["messages"], key=lambda message: message["role"] != "system")
    contents = [body.get("system") or [], *(message["content"] for message in told)]
    return [
        block
        for content in contents
        for block in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]


def words(body: dict[str, Any]) -> str:
    """All words in order; how they are cut into blocks is no matter, nor white space at their ends."""
    texts = []
    for block in blocks(body):
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "document" and block["source"]["type"] == "text":
            texts.append(block["source"]["data"])
    return "".join("".join(texts).split())


def pieces(body: dict[str, Any], kind: str) -> list[Any]:
    found = []
    inside = [part for block in blocks(body) if block["type"] == "tool_result" for part in block.get("content") or ()]
    for block in [*blocks(body), *(part for part in inside if isinstance(part, dict))]:
        if block["type"] != kind:
            continue
        content = block.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text") or part.get("tool_name") or "" for part in content)
        told = (block.get("id"), block.get("name"), block.get("input"), block.get("tool_use_id"), content or "")
        found.append(told)
    return found


@cache
def chats(shared: Path) -> list[tuple[str, Exchange]]:
    """Recorded answers in OpenAI's form that are whole and have a model."""
    from tests.llm.test_cassettes import recordings as others

    return [
        (name, item)
        for name, item in others(shared)
        if item.status == 200 and item.body and b'"choices"' in item.body and b'"error"' not in item.body
    ]


def test_recorded_chats_reach_anthropic_s_clients_without_loss(
    gateway: Gateway, upstream: FakeUpstream, shared: Path
) -> None:
    cut = random.Random(5)
    client = anthropic.Anthropic(base_url=gateway.url, api_key="k", max_retries=0)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in chats(shared):
        theirs = whole_chat(exchange)
        if theirs is None or theirs["choice"].get("finish_reason") == "function_call":
            counts["left out: no whole answer of one choice, or one to a field that only OpenAI's old form has"] += 1
            continue
        gateway.rows.clear()
        upstream.seen.clear()
        upstream.answering = replay([exchange], cut=cut)
        asked: dict[str, Any] = {
            "model": "up/m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}],
        }  # fmt: skip
        try:
            if exchange.streamed:
                with client.messages.stream(**asked) as stream:
                    kinds = [event.type for event in stream]
                    done = stream.get_final_message()
                assert kinds[0] == "message_start"
                assert kinds[-1] == "message_stop"
            else:
                done = client.messages.create(**asked)
            compare(theirs, done.model_dump())
            counts["streamed" if exchange.streamed else "plain"] += 1
        except (AssertionError, ValueError, KeyError, TypeError, anthropic.AnthropicError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 200
    assert counts["streamed"] >= 40


def whole_chat(exchange: Exchange) -> dict[str, Any] | None:
    """One recorded answer of OpenAI's form as plain data, read apart from our own code."""
    from tests.llm.test_translation import joined as chat_joined

    if not exchange.streamed:
        body = json.loads(exchange.body)
        choices = body["choices"]
        return {"choice": choices[0], "usage": body.get("usage")} if len(choices) == 1 else None
    text = exchange.body.decode().replace("\r\n", "\n")
    items = [json.loads(line[5:]) for line in text.split("\n") if line.startswith("data:") and "[DONE]" not in line]
    messages, finishes, usage = chat_joined(items)
    if set(messages) != {0} or 0 not in finishes:
        return None
    return {"choice": {"message": messages[0], "finish_reason": finishes[0]}, "usage": usage}


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Compare a recorded answer in OpenAI's form with one in Anthropic's."""
    message = theirs["choice"]["message"]
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] == "text")
    text, _, calls = meaning(ours)
    assert text == content + (message.get("refusal") or "")
    told = message.get("tool_calls") or []
    assert [name for _, name, _ in calls] == [(call.get("function") or call.get("custom"))["name"] for call in told]
    for (_, _, given), call in zip(calls, told, strict=True):
        if "function" in call:
            raw = call["function"].get("arguments") or "{}"
            assert given == (json.loads(raw) if isinstance(raw, str) else raw)
    finish = theirs["choice"].get("finish_reason")
    expected = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    if not message.get("refusal"):
        # Some servers say that an answer with calls simply stopped, in whatever word.
        wanted = expected.get(finish, "end_turn")
        assert ours["stop_reason"] == ("tool_use" if told and wanted == "end_turn" else wanted)
    usage = theirs["usage"]
    if usage and usage.get("prompt_tokens"):
        assert tokens(ours["usage"])[:2] == (usage["prompt_tokens"], usage.get("completion_tokens") or 0)
