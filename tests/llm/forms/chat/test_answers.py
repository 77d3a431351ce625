"""Whatever OpenAI's forms may answer, and what servers of them make of it, as clients of every other form hear it.

Each answer is read by the official clients: words, thoughts, calls, why it ended and usage must be those of the table,
and whole answers must be valid for the strict types of the client's own SDK.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from anthropic.types import Message as AnthropicMessage
from google.genai.types import GenerateContentResponse
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from tests.llm.conftest import Gateway
from tests.llm.official import CLIENTS
from tests.llm.openai_answers import (
    CHATS,
    ITEM,
    RESPONSES,
    ROW,
    STREAMS,
    chat_body,
    chunk_events,
    response_body,
    response_events,
    said,
)
from tests.llm.recorded import Told
from tests.llm.speakers import SPEAKERS, account
from tests.llm.test_matrix import compare

from nexus.testing.script import Script, response, streamed
from nexus.testing.upstream import FakeUpstream

HTTP = httpx.Client()
STRICT: dict[str, Callable[[Any], object]] = {
    "openai_chat": ChatCompletion.model_validate,
    "openai_completions": OpenAICompletion.model_validate,
    "openai_responses": Response.model_validate,
    "anthropic_messages": AnthropicMessage.model_validate,
    "gemini": lambda told: GenerateContentResponse._from_response(response=told, kwargs={}),
}
# Asking.

KINDS = {"chat": ("openai", "openai_chat"), "responses": ("openai_responses", "openai_responses")}
Make = Callable[..., Gateway]


@pytest.fixture(params=sorted(CLIENTS))
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def gateway_of(form: str, make_gateway: Make, upstream: FakeUpstream, dialect: str) -> tuple[Gateway, str]:
    kind, own = KINDS[form]
    if dialect == own:
        pytest.skip("within one form every byte passes as it is")
    options = {"responses": False, "completions": False} if kind == "openai" else {}
    return make_gateway(providers=[account(kind, upstream) | options], retries=0), f"{kind}/m"


def whole(upstream: FakeUpstream, body: dict[str, Any], status: int = 200) -> None:
    upstream.answering = lambda seen: Script((response(status, json.dumps(body).encode()),))


def wrong_of(
    cases: Iterable[tuple[str, Callable[[], None], Told]], ask: Callable[[Told], Told], dialect: str
) -> list[str]:
    wrong = []
    for name, prepare, expected in cases:
        prepare()
        try:
            compare(expected, ask(expected), CLIENTS[dialect])
        except (AssertionError, *CLIENTS[dialect].errors, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:500]}")
    return wrong


def asking(gateway: Gateway, dialect: str, model: str, *, stream: bool) -> Callable[[Told], Told]:
    def ask(expected: Told) -> Told:
        gateway.llm.router._standing.clear()
        if not stream:
            speaker = SPEAKERS[dialect]
            body = speaker.body(model, "hi", stream=False)
            told = HTTP.post(gateway.url + speaker.path(model, stream=False), json=body)
            assert told.status_code == 200, told.text
            STRICT[dialect](told.json())
        heard = CLIENTS[dialect].ask(gateway.url, model, [name for name, _ in expected.tools], stream=stream)
        if expected.usage is None:
            heard.usage = None  # an estimate, where the form must have one
        return heard

    return ask


def test_whole_chats(make_gateway: Make, upstream: FakeUpstream, dialect: str) -> None:
    gateway, model = gateway_of("chat", make_gateway, upstream, dialect)
    cases = [(name, partial(whole, upstream, chat_body(*body)), told) for name, (*body, told) in CHATS.items()]
    assert wrong_of(cases, asking(gateway, dialect, model, stream=False), dialect) == []


def stream_it(upstream: FakeUpstream, events: list[bytes]) -> None:
    upstream.answering = lambda seen: streamed(events)


def test_streamed_chats(make_gateway: Make, upstream: FakeUpstream, dialect: str) -> None:
    gateway, model = gateway_of("chat", make_gateway, upstream, dialect)
    cases = [(name, partial(stream_it, upstream, chunk_events(told)), heard) for name, (told, heard) in STREAMS.items()]
    assert wrong_of(cases, asking(gateway, dialect, model, stream=True), dialect) == []


def test_whole_responses(make_gateway: Make, upstream: FakeUpstream, dialect: str) -> None:
    gateway, model = gateway_of("responses", make_gateway, upstream, dialect)
    cases = [(name, partial(whole, upstream, response_body(*body)), told) for name, (*body, told) in RESPONSES.items()]
    assert wrong_of(cases, asking(gateway, dialect, model, stream=False), dialect) == []


def test_streamed_responses(make_gateway: Make, upstream: FakeUpstream, dialect: str) -> None:
    gateway, model = gateway_of("responses", make_gateway, upstream, dialect)
    cases = [
        (name, partial(stream_it, upstream, response_events(*body)), told) for name, (*body, told) in RESPONSES.items()
    ]
    assert wrong_of(cases, asking(gateway, dialect, model, stream=True), dialect) == []


BAD: dict[str, list[dict[str, Any]]] = {
    "chat": [{"choices": []}, {"choices": None}, {}, {"choices": [3]}, {"error": {"message": "x"}}],
    "responses": [
        {"output": None}, {}, {"output": [3]}, {"output": [], "status": "failed"},
        {"output": [], "status": "cancelled"},
        {"output": [], "status": "failed", "error": {"code": "server_error", "message": "x"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", BAD)
def test_what_is_no_answer_is_an_upstream_s_error(
    make_gateway: Make, upstream: FakeUpstream, dialect: str, form: str
) -> None:
    gateway, model = gateway_of(form, make_gateway, upstream, dialect)
    speaker, found = SPEAKERS[dialect], []
    for body in BAD[form]:
        whole(upstream, body)
        gateway.llm.router._standing.clear()
        asked = speaker.body(model, "hi", stream=False)
        told = HTTP.post(gateway.url + speaker.path(model, stream=False), json=asked)
        found.append((told.status_code, speaker.error(told.json()) != ""))
    assert {status for status, _ in found} <= {502, 503, 529}, found
    assert all(named for _, named in found)


# What only some forms have a place for.


def ask_raw(gateway: Gateway, dialect: str, model: str, **more: Any) -> Any:
    speaker = SPEAKERS[dialect]
    told = HTTP.post(
        gateway.url + speaker.path(model, stream=False), json=speaker.body(model, "hi", stream=False) | more
    )
    assert told.status_code == 200, told.text
    return told.json()


def test_what_stands_beside_an_answer_goes_where_there_is_a_place(make_gateway: Make, upstream: FakeUpstream) -> None:
    gateway, model = gateway_of("chat", make_gateway, upstream, "gemini")
    choice, more, _ = CHATS["notes and logprobs"]
    whole(upstream, chat_body(choice, more))
    told = ask_raw(gateway, "gemini", model)["candidates"][0]
    cited = {"uri": "https://x.test", "title": "t", "startIndex": 0, "endIndex": 2}
    assert told["citationMetadata"] == {"citations": [cited]}
    assert told["logprobsResult"]["chosenCandidates"] == [{"token": "hi", "logProbability": -0.5}]
    part = ask_raw(gateway, "openai_responses", model)["output"][0]["content"][0]
    assert (part["annotations"][0]["url"], part["logprobs"]) == ("https://x.test", [ROW])
    whole(upstream, chat_body(*CHATS["usage in tiers"][:2]))
    assert ask_raw(gateway, "openai_responses", model)["service_tier"] == "priority"
    usage = ask_raw(gateway, "anthropic_messages", model)["usage"]
    assert (usage["service_tier"], usage["cache_creation_input_tokens"]) == ("priority", 2)


def test_what_stands_beside_a_response_goes_where_there_is_a_place(make_gateway: Make, upstream: FakeUpstream) -> None:
    gateway, model = gateway_of("responses", make_gateway, upstream, "openai_chat")
    output, more, _ = RESPONSES["usage in tiers"]
    verdict = {"input": {"type": "error", "code": "c", "message": "m"}}
    whole(upstream, response_body(output, more | {"moderation": verdict}))
    told = ask_raw(gateway, "openai_chat", model)
    assert (told["service_tier"], told["moderation"]) == ("priority", verdict)
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 3, "audio_tokens": 0, "cache_write_tokens": 2}
    assert ask_raw(gateway, "anthropic_messages", model)["usage"]["server_tool_use"]["web_search_requests"] == 2


@pytest.mark.parametrize("stream", [False, True])
def test_sealed_thoughts_of_a_response_come_back_to_it(
    make_gateway: Make, upstream: FakeUpstream, stream: bool
) -> None:
    import anthropic

    gateway, _ = gateway_of("responses", make_gateway, upstream, "anthropic_messages")
    output, more, _ = RESPONSES["sealed thinking"]
    if stream:
        stream_it(upstream, response_events([*output, ITEM], more))
    else:
        whole(upstream, response_body([*output, ITEM], more))
    client = anthropic.Anthropic(base_url=gateway.url, api_key="nx", max_retries=0)
    asked: dict[str, Any] = {
        "model": "openai_responses/gpt-5.2", "max_tokens": 100, "thinking": {"type": "adaptive"},
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    }  # fmt: skip
    user: Any = {"role": "user", "content": "hi"}
    if stream:
        with client.messages.stream(**asked, messages=[user]) as pieces:
            answer = pieces.get_final_message()
    else:
        answer = client.messages.create(**asked, messages=[user])
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "42"}]}
    again: Any = [user, {"role": "assistant", "content": [block.model_dump() for block in answer.content]}, result]
    whole(upstream, response_body([said("42")], {}))
    client.messages.create(**asked, messages=again)
    items = upstream.seen[-1].json["input"]
    assert [item for item in items if item["type"] == "reasoning"] == [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
    ]


def test_a_chat_s_stream_tells_its_usage_once_and_last(make_gateway: Make, upstream: FakeUpstream) -> None:
    gateway, model = gateway_of("responses", make_gateway, upstream, "openai_chat")
    output, more, _ = RESPONSES["usage in tiers"]
    stream_it(upstream, response_events(output, more))
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="nx", max_retries=0)
    asked: Any = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    chunks = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert [bool(chunk.usage) for chunk in chunks].index(True) == len(chunks) - 1
    assert chunks[-1].service_tier == "priority"
    assert all(chunk.id == "resp_1" for chunk in chunks)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump())
