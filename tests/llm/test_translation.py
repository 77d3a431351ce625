"""The way through our own message form: what a provider of another dialect would get and give.

The provider here speaks the same JSON but says that it speaks another dialect, so every request and answer
goes through the neutral form and back.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.llm.conftest import Gateway
from tests.llm.test_cassettes import events, recordings

from nexus.llm.errors import Unsupported
from nexus.llm.forms.chat import answers as chat_answers
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.responses.items import write_media
from nexus.llm.forms.unsaid import RESPONSES
from nexus.llm.providers.openai import OpenAIProvider
from nexus.llm.types import (
    ChatRequest,
    Choice,
    Completion,
    Foreign,
    Media,
    Message,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from nexus.testing.replay import replay
from nexus.testing.upstream import FakeUpstream

# One client: making one reads every certificate of the machine.
HTTP = httpx.Client()


class OtherDialect(OpenAIProvider):
    dialect = "test.other"


@pytest.fixture
def translated(make_gateway: Callable[..., Gateway]) -> Gateway:
    gateway = make_gateway()
    account, _ = gateway.llm.registry.account("up")
    gateway.llm.registry._accounts["up"] = (account, OtherDialect())
    return gateway


def meaning(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = tuple(
        (
            str(call.get("id")),
            told_of(call).get("name"),
            parsed(told_of(call).get("arguments", told_of(call).get("input")) or ""),
        )
        for call in message.get("tool_calls") or ()
    )
    if isinstance(call := message.get("function_call"), dict):
        calls = (("call_1", call["name"], parsed(call["arguments"])),)
    return words(message.get("content")), calls, message.get("refusal") or None


def words(content: Any) -> str:
    """The text of a content, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def parsed(arguments: Any) -> Any:
    """Arguments, which some servers send as an object."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def told_of(call: dict[str, Any]) -> dict[str, Any]:
    return call.get("function") or call.get(call.get("type", "")) or {}


def joined(items: list[Any]) -> tuple[dict[int, dict[str, Any]], dict[int, str | None], Any]:
    """Put the chunks of a stream together, by choice."""
    messages: dict[int, dict[str, Any]] = {}
    finishes: dict[int, str | None] = {}
    usage = None
    for item in items:
        if item == "[DONE]":
            continue
        usage = item.get("usage") or usage
        for choice in item.get("choices") or ():
            index, delta = choice.get("index") or 0, choice.get("delta") or {}
            message = messages.setdefault(index, {"content": "", "tool_calls": []})
            message["content"] += words(delta.get("content"))
            if isinstance(older := delta.get("function_call"), dict):
                held = message.setdefault("function_call", {"name": None, "arguments": ""})
                held["name"] = older.get("name") or held["name"]
                held["arguments"] += older.get("arguments") or ""
            for position, call in enumerate(delta.get("tool_calls") or ()):
                place = call.get("index", position)
                while len(message["tool_calls"]) <= place:
                    message["tool_calls"].append({"function": {"name": None, "arguments": ""}})
                held = message["tool_calls"][place]
                held["id"] = call.get("id") or held.get("id")
                function = call.get("function") or {}
                held["function"]["name"] = function.get("name") or held["function"]["name"]
                held["function"]["arguments"] += function.get("arguments") or ""
            if choice.get("finish_reason"):
                finishes[index] = choice["finish_reason"]
    return messages, finishes, usage


def with_names(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages as they arrive: what comes as data has a name by then, since OpenAI refuses it without."""

    def named(part: Any) -> Any:
        if not isinstance(part, Media) or part.kind != "document" or part.data is None:
            return part
        return msgspec.structs.replace(part, name=part.name or "document.pdf")

    return tuple(msgspec.structs.replace(one, parts=tuple(named(part) for part in one.parts)) for one in messages)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Media(kind="document", media_type="application/pdf", data="QUJD"), "document.pdf"),
        (Media(kind="document", media_type="application/x-nobody-knows", data="QUJD"), "document"),
        (Media(kind="document", media_type="application/pdf", data="QUJD", name="a.pdf"), "a.pdf"),
        (Media(kind="document", file_id="file-1"), None),
    ],
)
def test_documents_at_hand_have_names(part: Media, name: str | None) -> None:
    assert chat_requests.write_part(part)["file"].get("filename") == name
    assert write_media(part).get("filename") == name


@pytest.mark.slow
def test_recorded_chats_keep_their_meaning(translated: Gateway, upstream: FakeUpstream, shared: Path) -> None:
    cut = random.Random(7)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, exchange in recordings(shared):
        try:
            asked = json.loads(exchange.request)
        except ValueError:
            continue
        if exchange.status != 200 or not asked.get("model") or not exchange.body:
            continue
        if not exchange.streamed and "choices" not in json.loads(exchange.body):
            continue
        if exchange.streamed and any("error" in item for item in events(exchange.body.decode())):
            continue
        translated.rows.clear()
        upstream.seen.clear()
        upstream.answering = replay([exchange], cut=cut)
        more = {"stream_options": {"include_usage": True}} if asked.get("stream") else {}
        response = HTTP.post(
            f"{translated.url}/v1/chat/completions", json=asked | {"model": f"up/{asked['model']}"} | more, timeout=20
        )
        try:
            assert response.status_code == 200, response.text
            sent = upstream.seen[0].json
            assert chat_requests.read_request(sent).messages == with_names(chat_requests.read_request(asked).messages)
            said = {key for key, value in asked.items() if value is not None and value is not False and value != []}
            renamed = {"max_completion_tokens", "stream_options"} | ({"n"} if asked.get("n") == 1 else set())
            renamed |= {"functions", "function_call"}
            assert said - renamed <= sent.keys()
            if exchange.streamed:
                counts["streamed"] += 1
                assert response.text.endswith("data: [DONE]\n\n")
                ours, theirs = joined(events(response.text)), joined(events(exchange.body.decode()))
                assert {i: meaning(m) for i, m in ours[0].items()} == {i: meaning(m) for i, m in theirs[0].items()}
                assert set(ours[1]) == set(theirs[1])
                usages = ours[2], theirs[2]
            else:
                counts["plain"] += 1
                recorded, answer = json.loads(exchange.body), response.json()
                for ours_, theirs_ in zip(answer["choices"], recorded["choices"], strict=True):
                    assert meaning(ours_["message"]) == meaning(theirs_["message"])
                    assert ours_["finish_reason"] in (theirs_.get("finish_reason"), "stop")
                usages = answer.get("usage"), recorded.get("usage")
            if usages[1] and usages[1].get("prompt_tokens"):
                assert usages[0]["prompt_tokens"] == usages[1]["prompt_tokens"]
                assert usages[0]["completion_tokens"] == (usages[1].get("completion_tokens") or 0)
        except (AssertionError, KeyError, ValueError) as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:400]}")
    print(dict(counts))
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong])
    assert counts["plain"] >= 150
    assert counts["streamed"] >= 40


def test_every_kind_of_part_survives_the_way_there_and_back() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
                {"type": "file", "file": {"file_id": "file_1"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
                {"type": "hologram", "hologram": {"beam": 3}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "tool", "tool_call_id": "c2", "name": "g", "content": "43"},
        {"role": "assistant", "content": "done", "refusal": "no", "reasoning_content": "hm"},
    ]
    read = [chat_requests.read_message(message) for message in messages]
    assert [out for message in read for out in chat_requests.write_message(message)] == messages
    image, sound = read[1].parts[1], read[1].parts[3]
    assert isinstance(image, Media)
    assert (image.media_type, image.data, image.detail) == ("image/png", "QUJD", "low")
    assert isinstance(sound, Media)
    assert sound.media_type == "audio/mp3"
    assert isinstance(read[2].parts[0], ToolCall)
    assert isinstance(read[3].parts[0], ToolResult)
    assert isinstance(read[5].parts[0], Thinking)
    request = ChatRequest(dialect="other", model="m", messages=(read[4],))
    assert chat_requests.write_request(request, "m", stream=False)["messages"] == [messages[4]]
    assert msgspec.json.decode(msgspec.json.encode(read), type=type(read)) is not None


def test_parameters_survive_the_way_there_and_back() -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}},
            {"type": "web_search", "depth": 2},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["a", "b"],
        "seed": 1,
        "n": 2,
        "presence_penalty": 0.1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "reasoning_effort": "low",
        "user": "u",
        "logit_bias": {"5": 1},
        "vendor": [1],
    }
    request = chat_requests.read_request({"model": "a"} | body)
    assert chat_requests.write_request(request, "b", stream=False) == {"model": "b"} | body


MISTRAL = chat_requests.Ways(rename={"seed": "random_seed", "user": "", "top_k": "", "logprobs": ""}, document_url=True)


def test_a_server_s_own_parts_for_documents() -> None:
    by_url = Media(kind="document", url="https://x.test/a.pdf", name="a")
    by_data = Media(kind="document", media_type="application/pdf", data="QUJD")
    shown = ToolResult(id="c1", content=(by_url,))
    messages = (Message(role="tool", parts=(shown,)), Message(role="user", parts=(Text(text="read"), by_data)))
    request = ChatRequest(dialect="other", model="m", messages=messages)
    parts = [
        {"type": "document_url", "document_url": "https://x.test/a.pdf", "document_name": "a"},
        {"type": "text", "text": "read"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,QUJD"},
    ]
    said = chat_requests.write_request(request, "m", stream=False, ways=MISTRAL)["messages"]
    assert [part for message in said if message["role"] == "user" for part in message["content"]] == parts
    assert chat_requests.write_request(request, "m", stream=False)["messages"][-1]["content"][-1]["type"] == "file"


@pytest.mark.parametrize(("more", "field"), [({"top_k": 1}, "top_k"), ({"logprobs": 0}, "logprobs")])
def test_what_a_server_has_no_name_for_is_refused(more: dict[str, Any], field: str) -> None:
    asked = (Message(role="user", parts=(Text(text="x"),)),)
    request = ChatRequest(dialect="other", model="m", messages=asked, seed=1, user="u")
    body = chat_requests.write_request(request, "m", stream=False, ways=MISTRAL)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "x"}], "random_seed": 1}
    with pytest.raises(Unsupported) as refused:
        chat_requests.write_request(msgspec.structs.replace(request, **more), "m", stream=False, ways=MISTRAL)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 5}, (5, 0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": None, "prompt_tokens_details": None}, (5, 0, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}, (9, 4, 3, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 3}, (9, 4, 3, 0)),
        (
            {"prompt_tokens": 1, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 3}},
            (1, 4, 0, 3),
        ),
        ({"prompt_tokens": True, "completion_tokens": 2.5}, None),
    ],
)
def test_usage_is_read_whatever_it_looks_like(usage: Any, expected: tuple[int, ...] | None) -> None:
    found = chat_answers.read_usage(usage)
    got = found and (found.input_tokens, found.output_tokens, found.cache_read_tokens, found.reasoning_tokens)
    assert got == expected


def test_another_form_s_own_words_stay_out_or_are_refused_by_name() -> None:
    picture = Media(kind="image", media_type="image/png", data="QUJD")
    results = (
        ToolResult(id="c1", content=(Text(text="seen", cache="5m"), picture)),
        ToolResult(id="c2", content=(Text(text="42"),)),
    )
    words = Text(text="go on", cache="1h")
    record = Foreign(dialect="other", value={"type": "search_done"})
    said = Message(role="assistant", parts=(record, Text(text="a")), extra={"x": 1})
    asked = Message(role="user", parts=(*results, words))
    request = ChatRequest(dialect="other", model="m", messages=(said, asked), extra={"y": 1}, user="u" * 99)
    body = chat_requests.write_request(request, "gpt-4o", stream=False)
    assert body["messages"] == [
        {"role": "assistant", "content": "a"},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        {"role": "tool", "tool_call_id": "c2", "content": "42"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "text", "text": "go on"},
            ],
        },
    ]
    assert "y" not in body
    assert len(body["user"]) == 64
    for more, field in (
        ({"dialect": RESPONSES}, "y"),
        ({"tools": (Tool(name="search", value={"type": "search_1"}),)}, "tools"),
        ({"messages": (Message(role="user", parts=(record,)),)}, "messages"),
    ):
        with pytest.raises(Unsupported) as refused:
            chat_requests.write_request(msgspec.structs.replace(request, **more), "m", stream=False)
        assert refused.value.field == field


def test_an_answer_of_several_texts_is_one_text_here() -> None:
    record = Foreign(dialect="other", value={"type": "search_done"})
    picture = Media(kind="image", media_type="image/png", data="QUJD")
    message = Message(role="assistant", parts=(Text(text="a"), record, Text(text="b"), picture))
    done = Completion(id="1", model="m", created=1, choices=(Choice(index=0, message=message),))
    told = chat_answers.write_completion(done)["choices"][0]["message"]
    assert told["content"] == "ab"
    assert told["images"][0]["image_url"]["url"] == "data:image/png;base64,QUJD"
