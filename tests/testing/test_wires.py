"""The official clients read what the fake says, in every wire format: it is as real as they can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types

from nexus.testing.scenes import THOUGHT
from nexus.testing.upstream import WIRES, FakeUpstream

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}}}
WANTED = {"city": "text", "days": 2}
ENDS = ("response.completed", "response.incomplete", "response.failed")
SAYS = "grüße aus köln ☃"


class Told:
    """What a client understood, whatever it is called there."""

    def __init__(self) -> None:
        self.text = self.thinking = self.finish = ""
        self.tools: list[tuple[str, Any]] = []
        self.usage: tuple[int, int, int] = (0, 0, 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))


def _chat(client: openai.OpenAI, model: str, *, stream: bool) -> Told:
    tools = [{"type": "function", "function": {"name": "forecast", "parameters": SCHEMA}}]
    ask: Any = {"model": model, "messages": [{"role": "user", "content": SAYS}], "tools": tools}
    told = Told()
    if not stream:
        choice = (answer := client.chat.completions.create(**ask)).choices[0]
        told.text, told.finish = choice.message.content or "", choice.finish_reason
        told.thinking = getattr(choice.message, "reasoning_content", "")
        told.tools = [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or []]
        usage = answer.usage
    else:
        calls: dict[int, list[str]] = {}
        usage = None
        for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                told.text += choice.delta.content or ""
                told.thinking += getattr(choice.delta, "reasoning_content", None) or ""
                told.finish = choice.finish_reason or told.finish
                for call in choice.delta.tool_calls or []:
                    held = calls.setdefault(call.index, ["", ""])
                    held[0] += call.function.name or ""
                    held[1] += call.function.arguments or ""
        told.tools = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    assert usage is not None
    told.usage = (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens or 0, usage.completion_tokens)
    return told


def _responses(client: openai.OpenAI, model: str, *, stream: bool) -> Told:
    tools: Any = [{"type": "function", "name": "forecast", "parameters": SCHEMA, "strict": False}]
    ask: Any = {"model": model, "input": SAYS, "tools": tools}
    if stream:
        answer = next(e.response for e in client.responses.create(**ask, stream=True) if e.type in ENDS)
    else:
        answer = client.responses.create(**ask)
    told = Told()
    told.text, told.finish = answer.output_text, answer.status or ""
    told.thinking = "".join(part.text for item in answer.output if item.type == "reasoning" for part in item.summary)
    told.tools = [(i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
    usage = answer.usage
    told.usage = (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens)
    return told


def _messages(client: anthropic.Anthropic, model: str, *, stream: bool) -> Told:
    tools = [{"name": "forecast", "input_schema": SCHEMA}]
    ask: Any = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": SAYS}], "tools": tools}
    if stream:
        with client.messages.stream(**ask) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask)
    told = Told()
    told.finish = answer.stop_reason or ""
    for block in answer.content:
        if block.type == "text":
            told.text += block.text
        elif block.type == "thinking":
            told.thinking += block.thinking
            assert block.signature
        elif block.type == "tool_use":
            told.tools.append((block.name, block.input))
    usage = answer.usage
    read = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    told.usage = (read, usage.cache_read_input_tokens or 0, usage.output_tokens)
    return told


def _gemini(client: genai.Client, model: str, *, stream: bool) -> Told:
    declared = types.FunctionDeclaration(name="forecast", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    ask: Any = {"model": model, "contents": SAYS, "config": config}
    models = client.models
    answers = list(models.generate_content_stream(**ask)) if stream else [models.generate_content(**ask)]
    told = Told()
    for answer in answers:
        candidate = answer.candidates[0]
        told.finish = candidate.finish_reason.value if candidate.finish_reason else told.finish
        for part in candidate.content.parts or []:
            if part.function_call:
                told.tools.append((part.function_call.name, part.function_call.args))
            elif part.thought:
                told.thinking += part.text or ""
            else:
                told.text += part.text or ""
    usage = answers[-1].usage_metadata
    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    told.usage = (usage.prompt_token_count, usage.cached_content_token_count or 0, written)
    return told


def _converse(client: Any, model: str, *, stream: bool) -> Told:
    spec = {"toolSpec": {"name": "forecast", "inputSchema": {"json": SCHEMA}}}
    messages = [{"role": "user", "content": [{"text": SAYS}]}]
    ask: Any = {"modelId": model, "messages": messages, "toolConfig": {"tools": [spec]}}
    told = Told()
    if not stream:
        answer = client.converse(**ask)
        blocks, usage = answer["output"]["message"]["content"], answer["usage"]
        told.finish = answer["stopReason"]
        for block in blocks:
            told.text += block.get("text", "")
            if "reasoningContent" in block:
                told.thinking += block["reasoningContent"]["reasoningText"]["text"]
            if "toolUse" in block:
                told.tools.append((block["toolUse"]["name"], block["toolUse"]["input"]))
    else:
        calls: dict[int, list[str]] = {}
        for event in client.converse_stream(**ask)["stream"]:
            if start := event.get("contentBlockStart"):
                calls[start["contentBlockIndex"]] = [start["start"]["toolUse"]["name"], ""]
            if piece := event.get("contentBlockDelta"):
                delta = piece["delta"]
                told.text += delta.get("text", "")
                told.thinking += delta.get("reasoningContent", {}).get("text", "")
                if "toolUse" in delta:
                    calls[piece["contentBlockIndex"]][1] += delta["toolUse"]["input"]
            told.finish = event.get("messageStop", {}).get("stopReason", told.finish)
            usage = event.get("metadata", {}).get("usage")
        told.tools = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    read = usage["inputTokens"] + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"]
    told.usage = (read, usage["cacheReadInputTokens"], usage["outputTokens"])
    return told


CLIENTS: dict[str, tuple[str, Callable[..., Told], tuple[str, str, str]]] = {
    "openai_chat": ("openai_client", _chat, ("stop", "tool_calls", "length")),
    "openai_responses": ("openai_client", _responses, ("completed", "completed", "incomplete")),
    "anthropic": ("anthropic_client", _messages, ("end_turn", "tool_use", "max_tokens")),
    "gemini": ("gemini_client", _gemini, ("STOP", "STOP", "MAX_TOKENS")),
    "bedrock": ("bedrock_client", _converse, ("end_turn", "tool_use", "max_tokens")),
}


def test_every_wire_format_has_its_client() -> None:
    assert {*CLIENTS, "huggingface"} == set(WIRES.names())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("wire", CLIENTS)
def test_the_official_client_reads_every_scene(request: pytest.FixtureRequest, wire: str, stream: bool) -> None:
    fixture, ask, (stop, tool, length) = CLIENTS[wire]
    client = request.getfixturevalue(fixture)
    told = ask(client, "echo", stream=stream)
    assert (told.text, told.thinking, told.tools, told.finish) == (SAYS, "", [], stop)
    assert told.usage == (12, 4, 4)
    told = ask(client, "thinking", stream=stream)
    assert (told.text, told.thinking) == (SAYS, THOUGHT)
    told = ask(client, "thinking+parallel", stream=stream)
    assert (told.text, told.tools, told.finish) == ("", [("forecast", WANTED)] * 2, tool)
    told = ask(client, "cached+length", stream=stream)
    assert (told.finish, told.usage) == (length, (2000, 1500, 4))
    assert ask(client, "long-50", stream=stream).text.split()[-1] == "word49"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_official_clients_raise_for_its_errors(
    openai_client: openai.OpenAI,
    anthropic_client: anthropic.Anthropic,
    gemini_client: genai.Client,
    bedrock_client: Any,
    stream: bool,
) -> None:
    with pytest.raises(openai.RateLimitError):
        _chat(openai_client, "fault-429", stream=stream)
    with pytest.raises(openai.BadRequestError):
        _responses(openai_client, "fault-400", stream=stream)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as caught:
        _messages(anthropic_client, "fault-529", stream=stream)
    assert caught.value.status_code == 529
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED") as refused:
        _gemini(gemini_client, "fault-429_retry_after", stream=stream)
    assert "7s" in str(refused.value.details)
    with pytest.raises(bedrock_client.exceptions.ThrottlingException):
        _converse(bedrock_client, "fault-429", stream=stream)
    if stream:
        for client, ask, error in (
            (openai_client, _chat, openai.APIError),
            (openai_client, _responses, Exception),
            (anthropic_client, _messages, anthropic.APIStatusError),
            (gemini_client, _gemini, errors.ServerError),
            (bedrock_client, _converse, Exception),
        ):
            with pytest.raises(error):
                ask(client, "fault-error_event", stream=True)


def test_the_official_clients_embed_count_and_list(
    openai_client: openai.OpenAI,
    anthropic_client: anthropic.Anthropic,
    gemini_client: genai.Client,
    bedrock_client: Any,
    upstream: FakeUpstream,
) -> None:
    assert openai_client.embeddings.create(model="e", input=["a", "b"]).data[1].embedding[:2] == [1.0, 2.0]
    assert [model.id for model in openai_client.models.list()] == ["echo", "tools", "thinking"]
    assert openai_client.completions.create(model="echo", prompt="so").choices[0].text == "so"
    counted = anthropic_client.messages.count_tokens(model="echo", messages=[{"role": "user", "content": "a"}])
    assert counted.input_tokens == 12
    assert [model.id for model in anthropic_client.models.list()] == ["echo", "tools", "thinking"]
    embedded = gemini_client.models.embed_content(model="e", contents=["a", "b"])
    assert [one.values[0] for one in embedded.embeddings or [] if one.values] == [0.0, 1.0]
    assert gemini_client.models.count_tokens(model="echo", contents="a").total_tokens == 12
    titan = bedrock_client.invoke_model(
        modelId="amazon.titan-embed-text-v2:0", body=b'{"inputText":"a","dimensions":4}'
    )
    assert json.loads(titan["body"].read())["embedding"] == [0.0, 1.0, 2.0, 3.0]
    asked = {"converse": {"messages": [{"role": "user", "content": [{"text": "a"}]}]}}
    assert bedrock_client.count_tokens(modelId="echo", input=asked)["inputTokens"] == 12
    vectors = httpx.post(f"{upstream.address}/embed", json={"inputs": ["a", "b"]}).json()
    assert [vector[0] for vector in vectors] == [0.0, 1.0]


def test_an_answer_to_a_schema_fits_it(openai_client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    ask: Any = [{"role": "user", "content": "?"}]
    answer = openai_client.chat.completions.create(model="echo", messages=ask, response_format=form)
    assert json.loads(answer.choices[0].message.content or "") == WANTED


def test_a_loop_of_tools_comes_to_an_end(openai_client: openai.OpenAI) -> None:
    ask: Any = [{"role": "user", "content": "?"}]
    call = openai_client.chat.completions.create(model="tools", messages=ask).choices[0].message
    assert call.tool_calls
    ask += [call, {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "rain"}]
    answer = openai_client.chat.completions.create(model="tools", messages=ask).choices[0]
    assert (answer.message.content, answer.finish_reason) == ("The tool said: rain", "stop")
