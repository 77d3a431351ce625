"""Gemini's doors as their users see them: Google's own SDK to providers of every form, and raw HTTP."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel
from tests.llm.conftest import Gateway
from tests.llm.speakers import KINDS, account

from nexus.testing.script import Script, Seen, chunked, response, stream_head
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client(timeout=20)
TLS = HTTP._transport._pool._ssl_context  # type: ignore[attr-defined]
HELLO = {"contents": [{"role": "user", "parts": [{"text": "alpha beta gamma delta"}]}]}


@cache
def client_of(url: str, version: str | None) -> genai.Client:
    args = {"verify": TLS}
    options = types.HttpOptions(base_url=url, api_version=version, client_args=args, async_client_args=args)
    return genai.Client(api_key="nx_test", http_options=options)


def sdk(gateway: Gateway, version: str | None = None) -> genai.Client:
    return client_of(gateway.url, version)


def ask(gateway: Gateway, body: Any, *, model: str = "up/echo", operation: str = "generateContent") -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return HTTP.post(f"{gateway.url}/v1beta/models/{model}:{operation}", content=content)


def says(upstream: FakeUpstream, message: dict[str, Any], **more: Any) -> None:
    """Let the fake provider, which speaks chat completions, answer with this message."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"} | more
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "echo", "choices": [choice]}
    body["usage"] = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    upstream.answering = lambda _seen: Script((response(200, json.dumps(body).encode()),))


# The SDK, with a provider that speaks another form.


def test_sdk_chats(gateway: Gateway) -> None:
    answer = sdk(gateway).models.generate_content(model="up/gpt-4o", contents="alpha beta gamma delta")
    assert answer.text == "alpha beta gamma delta"
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    used = answer.usage_metadata
    assert used is not None
    assert (used.prompt_token_count, used.candidates_token_count, used.cached_content_token_count) == (12, 4, 4)
    row = gateway.row()
    assert (row.status, row.kind, row.model, row.input_tokens, row.output_tokens) == ("ok", "chat", "up/gpt-4o", 12, 4)


def test_sdk_streams(gateway: Gateway) -> None:
    chunks = list(sdk(gateway).models.generate_content_stream(model="up/echo", contents="alpha beta gamma delta"))
    assert "".join(chunk.text or "" for chunk in chunks) == "alpha beta gamma delta"
    assert len(chunks) >= 4
    last = chunks[-1]
    assert last.candidates is not None
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata is not None
    assert (last.usage_metadata.prompt_token_count, last.usage_metadata.total_token_count) == (12, 16)


async def test_async_sdk_streams(gateway: Gateway) -> None:
    async with sdk(gateway).aio as client:
        stream = await client.models.generate_content_stream(model="up/echo", contents="alpha beta")
        assert "".join([chunk.text or "" async for chunk in stream]) == "alpha beta"


def test_sdk_calls_tools_and_brings_their_results(gateway: Gateway, upstream: FakeUpstream) -> None:
    call = {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    says(upstream, {"content": None, "tool_calls": [call]}, finish_reason="tool_calls")
    client, seen = sdk(gateway), []

    def weather(city: str) -> dict[str, str]:
        """Tell the weather."""
        seen.append(city)
        says(upstream, {"content": "It is sunny."})
        return {"sky": "clear"}

    answer = client.models.generate_content(
        model="up/echo", contents="How is it in Rome?", config=types.GenerateContentConfig(tools=[weather])
    )
    assert answer.text == "It is sunny."
    assert seen == ["Rome"]
    first, second = (request.json for request in upstream.seen)
    schema = first["tools"][0]["function"]["parameters"]
    assert first["tools"][0]["function"]["name"] == "weather"
    assert (schema["type"], schema["properties"]["city"]["type"]) == ("object", "string")
    assert second["messages"][1]["tool_calls"] == [
        call | {"function": call["function"] | {"arguments": '{"city":"Rome"}'}}
    ]
    assert second["messages"][2]["tool_call_id"] == "call_7"
    assert json.loads(second["messages"][2]["content"]) == {"result": {"sky": "clear"}}


def test_sdk_streams_parallel_calls(gateway: Gateway, upstream: FakeUpstream) -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]},
    ]
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    pieces = [chunked(b"data: " + json.dumps(event).encode() + b"\n\n") for event in events]
    upstream.answering = lambda _seen: Script((stream_head(), *pieces, chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n"))
    chunks = list(sdk(gateway).models.generate_content_stream(model="up/echo", contents="x"))
    calls = [call for chunk in chunks for call in chunk.function_calls or ()]
    assert [(call.id, call.name, call.args) for call in calls] == [("a", "f", {"x": 1}), ("b", "g", {})]


def test_sdk_sees_thoughts(gateway: Gateway, upstream: FakeUpstream) -> None:
    says(upstream, {"content": "42", "reasoning_content": "Six times seven."})
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW)
    )
    answer = sdk(gateway).models.generate_content(model="up/o3", contents="6 * 7?", config=config)
    assert answer.candidates is not None
    assert answer.candidates[0].content is not None
    parts = answer.candidates[0].content.parts or []
    assert [(part.text, bool(part.thought)) for part in parts] == [("Six times seven.", True), ("42", False)]
    assert upstream.seen[0].json["reasoning_effort"] == "low"


class City(BaseModel):
    """What is asked of a city."""

    name: str
    people: int | None


def test_sdk_gets_json_of_a_schema(gateway: Gateway, upstream: FakeUpstream) -> None:
    says(upstream, {"content": '{"name": "Rome", "people": 3}'})
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = sdk(gateway).models.generate_content(model="up/echo", contents="x", config=config)
    assert answer.parsed == City(name="Rome", people=3)
    form = upstream.seen[0].json["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["properties"]["people"]["type"] == ["integer", "null"]


def test_sdk_embeds_and_counts(gateway: Gateway) -> None:
    client = sdk(gateway)
    config = types.EmbedContentConfig(output_dimensionality=4)
    embedded = client.models.embed_content(model="up/any", contents=["a", "b"], config=config)
    assert embedded.embeddings is not None
    assert [item.values for item in embedded.embeddings] == [[0, 1, 2, 3], [1, 2, 3, 4]]
    counted = client.models.count_tokens(model="up/echo", contents="alpha beta gamma delta")
    assert counted.total_tokens == 6


def test_sdk_lists_models(make_gateway: Callable[..., Gateway]) -> None:
    routes = [{"name": f"org/m{i:03}", "deployments": [{"provider": "up", "model": "echo"}]} for i in range(120)]
    gateway = make_gateway(routes=routes)
    client = sdk(gateway)
    assert [model.name for model in client.models.list()] == [f"models/org/m{i:03}" for i in range(120)]
    one = client.models.get(model="org/m007")
    assert one.name == "models/org/m007"
    assert one.supported_actions is not None
    assert "generateContent" in one.supported_actions
    with pytest.raises(errors.ClientError) as caught:
        client.models.get(model="org/none")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("model", "code", "status"),
    [
        ("up/fault-400", 400, "INVALID_ARGUMENT"),
        ("up/fault-401", 502, "INTERNAL"),
        ("up/fault-404", 404, "NOT_FOUND"),
        ("up/fault-429_retry_after", 429, "RESOURCE_EXHAUSTED"),
        ("up/fault-503", 503, "UNAVAILABLE"),
        ("nope", 404, "NOT_FOUND"),
    ],
)
def test_sdk_raises_what_google_would(gateway: Gateway, model: str, code: int, status: str) -> None:
    models = sdk(gateway).models
    for ask_for in (models.generate_content, models.generate_content_stream):
        gateway.llm.router._standing.clear()
        with pytest.raises(errors.APIError) as caught:
            list(ask_for(model=model, contents="x"))
        assert (caught.value.code, caught.value.status) == (code, status)
        assert "secret" not in str(caught.value)
        if code == 429:
            assert "'retryDelay': '7s'" in str(caught.value.details)


@pytest.mark.slow
def test_sdk_bears_a_long_silence(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> None:
    gateway = make_gateway(heartbeat=0.05)
    body = chunked(b'data: {"choices":[{"index":0,"delta":{"content":"late"},"finish_reason":"stop"}]}\n\n')
    upstream.answering = lambda _seen: Script((stream_head(), 0.4, body, chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n"))
    chunks = list(sdk(gateway).models.generate_content_stream(model="up/echo", contents="x"))
    assert "".join(chunk.text or "" for chunk in chunks) == "late"
    array = ask(gateway, HELLO, operation="streamGenerateContent")
    assert array.content.startswith(b"\n")
    assert array.json()[0]["candidates"][0]["content"]["parts"] == [{"text": "late"}]


def test_a_stream_that_breaks_ends_in_an_error(gateway: Gateway) -> None:
    with pytest.raises(errors.APIError):
        list(sdk(gateway).models.generate_content_stream(model="up/fault-truncated", contents="a b c d e f"))
    array = ask(gateway, HELLO, model="up/fault-truncated", operation="streamGenerateContent").json()
    assert array[0]["candidates"][0]["content"]["parts"] == [{"text": "alpha "}]
    assert array[-1]["error"]["status"] == "INTERNAL"


@pytest.mark.parametrize("name", ["up/echo", "up%2Fecho", "models/up/echo"])
def test_names_with_a_slash_stand_in_the_path(gateway: Gateway, upstream: FakeUpstream, name: str) -> None:
    assert ask(gateway, HELLO, model=name).status_code == 200
    assert upstream.seen[0].model == "echo"


def test_either_spelling_is_taken(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = {
        "system_instruction": {"parts": {"text": "Be brief."}},
        "contents": {"parts": [{"text": "look"}, {"inline_data": {"mime_type": "image/png", "data": "QUJD"}}]},
        "generation_config": {"max_output_tokens": "7", "stop_sequences": ["x"], "top_p": "0.5", "candidate_count": 1},
        "tools": {"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {}}}]},
        "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
    }
    assert ask(gateway, body).status_code == 200
    sent = upstream.seen[0].json
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["messages"][1]["content"][1]["image_url"]["url"] == "data:image/png;base64,QUJD"
    assert (sent["max_tokens"], sent["stop"], sent["top_p"]) == (7, ["x"], 0.5)
    assert sent["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}


def contents(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"contents": [{"role": role, "parts": list(parts)}]}


def config(**fields: Any) -> dict[str, Any]:
    return HELLO | {"generationConfig": fields}


BAD: list[tuple[Any, str | None]] = [
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b'{"contents": [{"parts": [{"text": "\\u0000"}]}]}', None),
    (b'{"contents": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
    ({}, "contents"),
    ({"contents": None}, "contents"),
    ({"contents": []}, "contents"),
    ({"contents": "hi"}, "contents"),
    ({"contents": ["hi"]}, "contents.0"),
    ({"contents": [{"parts": "hi"}]}, "contents.0.parts"),
    ({"contents": [{"parts": ["hi"]}]}, "contents.0.parts.0"),
    (contents({"text": 5}), "contents.0.parts.0.text"),
    (contents({"text": "x"}, role="king"), "contents.0.role"),
    (contents({"inlineData": {"mimeType": "image/png", "data": 5}}), "contents.0.parts.0.inlineData.data"),
    (contents({"functionCall": {}}), "contents.0.parts.0.functionCall.name"),
    (contents({"functionCall": {"name": "f", "args": []}}), "contents.0.parts.0.functionCall.args"),
    (contents({"functionResponse": {"name": "f", "response": "x"}}), "contents.0.parts.0.functionResponse.response"),
    (
        contents({"functionResponse": {"name": "f", "parts": [{"inlineData": "x"}]}}),
        "contents.0.parts.0.functionResponse.parts.0.inlineData",
    ),
    (config(responseSchema={"properties": []}), "generationConfig.responseSchema"),
    (contents({"executableCode": {"code": "1"}}), "contents.0.parts.0.executableCode"),
    (contents({"fileData": {"fileUri": "gs://bucket/a.png"}}), "contents.0.parts.0.fileData"),
    (contents({"text": "x", "videoMetadata": {"fps": 1}}), "contents.0.parts.0.videoMetadata"),
    (HELLO | {"systemInstruction": "brief"}, "systemInstruction"),
    (HELLO | {"systemInstruction": {"parts": [{"inlineData": {}}]}}, "systemInstruction.parts.0"),
    (HELLO | {"cachedContent": "cachedContents/1"}, "cachedContent"),
    (HELLO | {"tools": [{"googleSearch": {}, "functionDeclarations": []}], "x": 1}, "x"),
    (HELLO | {"tools": [{"codeExecution": {"a": 1}}]}, "tools.0.codeExecution"),
    (HELLO | {"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name"),
    (HELLO | {"tools": [{"functionDeclarations": "f"}]}, "tools.0.functionDeclarations"),
    (HELLO | {"toolConfig": {"functionCallingConfig": {"mode": "X"}}}, "toolConfig.functionCallingConfig.mode"),
    (config(temperature="hot"), "generationConfig.temperature"),
    (config(candidateCount=0), "generationConfig.candidateCount"),
    (config(maxOutputTokens=1.5), "generationConfig.maxOutputTokens"),
    (config(stopSequences="x"), "generationConfig.stopSequences"),
    (config(responseModalities=["IMAGE"]), "generationConfig.responseModalities.0"),
    (config(responseMimeType="text/x.enum"), "generationConfig.responseMimeType"),
    (config(speechConfig={"voice": "x"}), "generationConfig.speechConfig"),
    (config(thinkingConfig={"thinkingBudget": "many"}), "generationConfig.thinkingConfig.thinkingBudget"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_bad_input_is_named(gateway: Gateway, upstream: FakeUpstream, body: Any, field: str | None) -> None:
    for operation in ("generateContent", "streamGenerateContent", "countTokens"):
        answer = ask(gateway, body, operation=operation)
        if operation == "countTokens" and answer.status_code == 200:
            continue  # an estimate of ours needs no translation
        told = answer.json()["error"]
        assert (answer.status_code, told["code"], told["status"]) == (400, 400, "INVALID_ARGUMENT"), answer.text
        violations = [item["fieldViolations"][0]["field"] for item in told["details"] if "fieldViolations" in item]
        assert violations == ([field] if field else []), answer.text
    assert not upstream.seen


EMBED_BAD: list[tuple[str, Any, str]] = [
    ("embedContent", {}, "content"),
    ("embedContent", {"content": {}}, "content.parts"),
    ("embedContent", {"content": {"parts": [{"text": "x"}]}, "taskType": ["CLUSTERING"]}, "taskType"),
    ("embedContent", {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 0}, "outputDimensionality"),
    ("embedContent", {"content": {"parts": [{"inlineData": {"data": "QUJD"}}]}}, "content"),
    ("batchEmbedContents", {}, "requests"),
    ("batchEmbedContents", {"requests": []}, "requests"),
    ("batchEmbedContents", {"requests": [{"content": {"parts": [{"text": "x"}]}}, 1]}, "requests.1.content"),
    (
        "batchEmbedContents",
        {
            "requests": [
                {"content": {"parts": [{"text": "x"}]}},
                {"content": {"parts": [{"text": "y"}]}, "taskType": "CLUSTERING"},
            ]
        },
        "requests.1.taskType",
    ),
]


@pytest.mark.parametrize(("operation", "body", "field"), EMBED_BAD)
def test_bad_requests_to_embed_are_named(
    gateway: Gateway, upstream: FakeUpstream, operation: str, body: Any, field: str
) -> None:
    answer = ask(gateway, body, operation=operation)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["details"][-1]["fieldViolations"][0]["field"] == field
    assert not upstream.seen


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1beta/models/up/echo:predict", 404),
        ("POST", "/v1beta/models/up/echo", 404),
        ("POST", "/v1beta/models/:generateContent", 400),
        ("POST", "/v1beta/models/up/echo:generateContent?alt=proto", 400),
        ("GET", "/v1beta/models/up/echo:generateContent", 404),
        ("GET", "/v1beta/models?pageSize=many", 400),
        ("GET", "/v1beta/cachedContents", 404),
        ("DELETE", "/v1beta/models", 405),
    ],
)
def test_what_is_not_there_is_said_in_googles_shape(gateway: Gateway, method: str, path: str, status: int) -> None:
    answer = HTTP.request(method, gateway.url + path, content=json.dumps(HELLO) if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status), answer.text


# A provider of Google's own.


@pytest.fixture
def google(make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    base = {"base_url": upstream.url.removesuffix("/v1") + "/v1beta", "api_key": "AIza-upstream-secret-key"}
    return make_gateway(providers=[{"name": "up", "kind": "google"} | base])


def tells(upstream: FakeUpstream, *pieces: dict[str, Any], status: int = 200) -> None:
    """Let the fake provider, which is Google's, answer with these; events where a stream was asked for."""

    def answer(seen: Seen) -> Script:
        if ":streamGenerateContent" in seen.path and "alt=sse" not in seen.path and status == 200:
            return Script((response(200, json.dumps(pieces).encode()),))
        if "alt=sse" not in seen.path or status != 200:
            return Script((response(status, json.dumps(pieces[0]).encode()),))
        events = [chunked(b"data: " + json.dumps(piece).encode() + b"\r\n\r\n") for piece in pieces]
        return Script((stream_head(), *events, b"0\r\n\r\n"))

    upstream.answering = answer


def candidate(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    one: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}} | (
        {"finishReason": finish} if finish else {}
    )
    return {"candidates": [one], "responseId": "r1", "modelVersion": "g"} | more


KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
ERRORS: list[tuple[int, dict[str, Any], int, str]] = [
    (400, {"message": "API key not valid. Please pass one.", "details": [KEY_INVALID]}, 502, "upstream_credentials"),
    (400, {"message": "User location is not supported for the API use."}, 502, "upstream_credentials"),
    (400, {"message": "The input token count (9) exceeds the maximum number (8)."}, 400, "context_length_exceeded"),
    (400, {"message": "The file is not ACTIVE", "status": "FAILED_PRECONDITION"}, 400, "upstream_rejected"),
    (403, {"message": "x", "status": "PERMISSION_DENIED"}, 502, "upstream_credentials"),
    (404, {"message": "models/x is not found for API version v1beta"}, 404, "model_not_found"),
    (429, {"message": "x", "details": [RETRY]}, 429, "upstream_rate_limited"),
    (499, {"message": "x", "status": "CANCELLED"}, 503, "upstream_unavailable"),
    (500, {"message": "at 10.0.0.7", "status": "INTERNAL"}, 503, "upstream_unavailable"),
    (503, {"message": "The model is overloaded.", "status": "UNAVAILABLE"}, 503, "upstream_unavailable"),
    (504, {"message": "Deadline expired", "status": "DEADLINE_EXCEEDED"}, 504, "upstream_timeout"),
]


@pytest.mark.parametrize(("status", "told", "expected", "code"), ERRORS)
@pytest.mark.parametrize("in_array", [False, True])
def test_googles_errors_become_ours(
    google: Gateway, upstream: FakeUpstream, status: int, told: dict[str, Any], expected: int, code: str, in_array: bool
) -> None:
    body: Any = {"error": {"code": status} | told}
    tells(upstream, [body] if in_array else body, status=status)  # type: ignore[arg-type]
    chat = {"model": "up/gemini-2.5-flash", "messages": [{"role": "user", "content": "x"}]}
    answer = HTTP.post(f"{google.url}/v1/chat/completions", json=chat)
    assert (answer.status_code, answer.json()["error"]["code"]) == (expected, code), answer.text
    if expected == 429:
        assert answer.headers["retry-after"] == "4"
    if expected >= 500:
        assert told["message"] not in answer.text
    if expected == 400:
        assert told["message"] in answer.text


def test_an_error_within_a_stream(google: Gateway, upstream: FakeUpstream) -> None:
    tells(upstream, candidate({"text": "a"}, finish=None), {"error": {"code": 503, "message": "at 10.0.0.7"}})
    for operation in ("streamGenerateContent?alt=sse", "streamGenerateContent"):
        answer = ask(google, HELLO, operation=operation)
        assert '"UNAVAILABLE"' in answer.text
        assert "10.0.0.7" not in answer.text
    chat = {"model": "up/g", "messages": [{"role": "user", "content": "x"}], "stream": True}
    answer = HTTP.post(f"{google.url}/v1/chat/completions", json=chat)
    assert '"upstream_unavailable"' in answer.text
    assert "[DONE]" not in answer.text


def test_a_blocked_prompt(google: Gateway, upstream: FakeUpstream) -> None:
    tells(upstream, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}})
    assert sdk(google).models.generate_content(model="up/g", contents="x").prompt_feedback is not None
    for stream in (False, True):
        chat = {"model": "up/g", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        answer = HTTP.post(f"{google.url}/v1/chat/completions", json=chat)
        assert '"finish_reason":"content_filter"' in answer.text, answer.text
        assert [row.status for row in google.rows[-1:]] == ["ok"]


def test_a_signature_comes_back_from_a_client_of_chat_completions(google: Gateway, upstream: FakeUpstream) -> None:
    seal = base64.b64encode(b"\xfb\xff sealed").decode()
    tells(upstream, candidate({"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": seal}))
    chat: dict[str, Any] = {"model": "up/gemini-3-pro", "messages": [{"role": "user", "content": "x"}]}
    said = HTTP.post(f"{google.url}/v1/chat/completions", json=chat).json()["choices"][0]
    assert said["finish_reason"] == "tool_calls"
    call = said["message"]["tool_calls"][0]
    assert call["extra_content"] == {"google": {"thought_signature": seal}}
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"b": 2}'}
    HTTP.post(
        f"{google.url}/v1/chat/completions", json=chat | {"messages": [*chat["messages"], said["message"], result]}
    )
    sent = upstream.seen[-1].json["contents"]
    assert sent[1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": call["id"]}, "thoughtSignature": seal}
    ]
    assert sent[2]["parts"] == [{"functionResponse": {"name": "f", "response": {"b": 2}, "id": call["id"]}}]


def test_unknown_fields_pass_both_ways(google: Gateway, upstream: FakeUpstream) -> None:
    odd = '{"contents":[{"parts":[{"text":"hi","x":1.0}]}],"safetySettings": [{"threshold":1.50}],"vendor":"\\u00e9"}'
    told = candidate({"text": "a", "odd": 1}, promptFeedback={"safetyRatings": []}, vendor=[1.5])
    tells(upstream, told)
    answer = ask(google, odd)
    assert upstream.seen[0].body.decode() == odd
    assert answer.content == json.dumps(told).encode()


def test_vectors_of_google_for_clients_of_openai(google: Gateway, upstream: FakeUpstream) -> None:
    tells(
        upstream, {"embeddings": [{"values": [0.5, 1]}, {"values": [2, 3]}], "usageMetadata": {"promptTokenCount": 6}}
    )
    body = {"model": "up/gemini-embedding-001", "input": ["a", "b"], "dimensions": 2, "encoding_format": "base64"}
    answer = HTTP.post(f"{google.url}/v1/embeddings", json=body).json()
    vector = struct.unpack("<2f", base64.b64decode(answer["data"][1]["embedding"]))
    assert (vector, answer["usage"]["prompt_tokens"]) == ((2, 3), 6)
    name = "models/gemini-embedding-001"
    asked = [{"model": name, "content": {"parts": [{"text": text}]}, "outputDimensionality": 2} for text in "ab"]
    assert upstream.seen[0].json == {"requests": asked}
    refused = HTTP.post(f"{google.url}/v1/embeddings", json={"model": "up/x", "input": [1, 2]})
    assert refused.json()["error"]["param"] == "input"


def test_tokens_are_counted_by_the_provider(google: Gateway, upstream: FakeUpstream) -> None:
    tells(upstream, {"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]})
    inner = {"model": "models/up/g", "contents": HELLO["contents"], "systemInstruction": {"parts": [{"text": "s"}]}}
    answer = ask(google, {"generateContentRequest": inner}, model="up/g", operation="countTokens")
    assert answer.json()["promptTokensDetails"][0]["tokenCount"] == 31
    assert upstream.seen[0].json["generateContentRequest"] == inner | {"model": "models/g"}
    assert google.row().kind == "count"


# The SDK, with every kind of provider.


@pytest.fixture(params=sorted(KINDS))
def any_kind(request: pytest.FixtureRequest, make_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Gateway:
    return make_gateway(providers=[account(request.param, upstream) | {"name": "up"}])


def test_sdk_works_with_every_kind(any_kind: Gateway) -> None:
    models = sdk(any_kind).models
    answer = models.generate_content(model="up/echo", contents="alpha beta")
    assert answer.text == "alpha beta"
    assert answer.usage_metadata is not None
    chunks = list(models.generate_content_stream(model="up/echo", contents="alpha beta"))
    assert "".join(chunk.text or "" for chunk in chunks) == "alpha beta"
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.prompt_token_count == answer.usage_metadata.prompt_token_count
    weather = types.FunctionDeclaration(
        name="weather", parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}}
    )
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[weather])], max_output_tokens=500)
    whole = models.generate_content(model="up/tools", contents="Rome?", config=config)
    streamed = list(models.generate_content_stream(model="up/tools", contents="Rome?", config=config))
    calls = [call for chunk in streamed for call in chunk.function_calls or ()]
    for found in (whole.function_calls or [], calls):
        assert [call.name for call in found][:1] == ["weather"]
    assert [call.args for call in whole.function_calls or ()] == [call.args for call in calls]
    said = whole.candidates[0].content if whole.candidates else None
    assert said is not None
    results = [
        types.Part.from_function_response(name=call.name or "", response={"sky": "clear"})
        for call in whole.function_calls or ()
    ]
    history = [
        types.Content(role="user", parts=[types.Part(text="Rome?")]),
        said,
        types.Content(role="user", parts=results),
    ]
    assert models.generate_content(model="up/tools", contents=history, config=config).text


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"candidateCount": 2}, "generationConfig.candidateCount"),
        ({"presencePenalty": 0.5}, "generationConfig.presencePenalty"),
        ({"responseLogprobs": True}, "generationConfig.responseLogprobs"),
    ],
)
def test_what_another_provider_refuses_is_named_in_googles_words(
    make_gateway: Callable[..., Gateway], upstream: FakeUpstream, config: dict[str, Any], field: str
) -> None:
    gateway = make_gateway(providers=[account("anthropic", upstream) | {"name": "up"}])
    told = ask(gateway, HELLO | {"generationConfig": config})
    assert told.status_code == 400
    assert told.json()["error"]["details"][-1]["fieldViolations"][0]["field"] == field
