"""What only one form has a word for: said otherwise, refused by name, or left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.llm.forms.test_every_openai_field import AT, EMBEDDERS, MODELS, PROVIDERS

from nexus.core.errors import NexusError
from nexus.llm.dialects.openai_chat import plug as chat
from nexus.llm.dialects.openai_responses import plug as responses

ASK: list[dict[str, Any]] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]


def sent(provider: str, model: str = "", **fields: Any) -> Any:
    """The body that a chat request becomes."""
    call = chat.parse(json.dumps({"model": "m", "messages": ASK} | fields).encode())
    return json.loads(PROVIDERS.get(provider).chat(AT, model or MODELS[provider], call).body)


def sent_items(provider: str, items: Any, model: str = "", **fields: Any) -> Any:
    """The body that a Responses request becomes."""
    call = responses.parse(json.dumps({"model": "m", "input": items} | fields).encode())
    return json.loads(PROVIDERS.get(provider).chat(AT, model or MODELS[provider], call).body)


def at(body: Any, path: str) -> Any:
    """What stands at a place in a body, None where nothing does."""
    for name in path.split("."):
        body = body[int(name)] if isinstance(body, list) else body.get(name) if isinstance(body, dict) else None
    return body


BRIEF = "Keep your answer brief."
SAID: list[tuple[dict[str, Any], str, str, Any]] = [
    ({"verbosity": "low"}, "anthropic", "system.1.text", BRIEF),
    ({"verbosity": "low"}, "google", "systemInstruction.parts.1.text", BRIEF),
    ({"verbosity": "low"}, "bedrock", "system.1.text", BRIEF),
    ({"verbosity": "low"}, "openai_responses", "text", {"verbosity": "low"}),
    ({"verbosity": "medium"}, "anthropic", "system", "Be kind."),
    ({"service_tier": "flex"}, "google", "serviceTier", "flex"),
    ({"service_tier": "fast"}, "google", "serviceTier", "priority"),
    ({"service_tier": "flex"}, "bedrock", "serviceTier", {"type": "flex"}),
    ({"service_tier": "priority"}, "anthropic", "service_tier", "auto"),
    ({"service_tier": "flex"}, "openai_responses", "service_tier", "flex"),
    ({"service_tier": "on_demand"}, "bedrock", "serviceTier", None),
    ({"safety_identifier": "u1"}, "anthropic", "metadata.user_id", "u1"),
    ({"safety_identifier": "u1", "user": "u2"}, "anthropic", "metadata.user_id", "u2"),
    ({"prompt_cache_key": "k", "metadata": {"a": "b"}}, "openai_responses", "prompt_cache_key", "k"),
    ({"prompt_cache_key": "k", "metadata": {"a": "b"}}, "anthropic", "metadata", None),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "anthropic", "thinking.budget_tokens", 2048),
    ({"thinking": {"type": "disabled"}}, "google", "generationConfig.thinkingConfig.thinkingBudget", 0),
    ({"reasoning": {"effort": "low"}}, "anthropic", "thinking.budget_tokens", 4096),
    ({"reasoning": {"enabled": False}}, "openai_responses", "reasoning.effort", "none"),
    ({"web_search_options": {}}, "openai_responses", "tools.0.type", "web_search"),
    ({"web_search_options": {}}, "anthropic", "tools.0.type", "web_search_20250305"),
    ({"web_search_options": {}}, "google", "tools.0", {"googleSearch": {}}),
    (
        {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Ulm"}}}},
        "openai_responses",
        "tools.0.user_location",
        {"type": "approximate", "city": "Ulm"},
    ),
]


@pytest.mark.parametrize(("asked", "provider", "place", "expected"), SAID)
def test_what_another_form_says_otherwise(asked: dict[str, Any], provider: str, place: str, expected: Any) -> None:
    assert at(sent(provider, **asked), place) == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"min_p": 0.1}, "min_p"),
    ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
    ({"moderation": {"model": "omni"}}, "moderation"),
    ({"service_tier": "ultrafast"}, "service_tier"),
    ({"messages": [ASK[1], {"role": "assistant", "audio": {"id": "a"}}, ASK[1]]}, "messages.1.audio"),
]


@pytest.mark.parametrize("provider", ["anthropic", "google", "bedrock"])
@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_what_only_one_form_has_is_refused_by_name(asked: dict[str, Any], field: str, provider: str) -> None:
    with pytest.raises(NexusError) as refused:
        sent(provider, **asked)
    assert (refused.value.status, (refused.value.field or "").removesuffix(".search_context_size")) == (400, field)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"reasoning_effort": "banana"}, "reasoning_effort"),
    ({"verbosity": "loud"}, "verbosity"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"top_logprobs": 2}, "top_logprobs"),
]


@pytest.mark.parametrize("provider", ["anthropic", "google", "bedrock"])
@pytest.mark.parametrize(("asked", "field"), WRONG)
def test_a_word_that_nobody_knows_is_wrong_everywhere(asked: dict[str, Any], field: str, provider: str) -> None:
    with pytest.raises(NexusError) as refused:
        sent(provider, **asked)
    assert (refused.value.status, refused.value.field) == (400, field)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_a_field_that_asks_for_nothing_is_no_matter(value: Any) -> None:
    assert sent("anthropic", vendor=value) == sent("anthropic")


def test_a_short_answer_is_asked_of_chats_by_their_parameter_or_in_words() -> None:
    items = [{"role": "developer", "content": "Be kind."}, ASK[1]]
    text = {"verbosity": "low"}
    assert sent_items("openai", items, "gpt-5.2", text=text)["verbosity"] == "low"
    told = sent_items("openai", items, "llama", text=text)
    assert "verbosity" not in told
    assert told["messages"] == [{"role": "system", "content": f"Be kind.\n\n{BRIEF}"}, ASK[1]]
    assert sent_items("openai", "hi", "llama", text=text)["messages"][0] == {"role": "system", "content": BRIEF}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}} | more


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_tools_that_are_not_allowed_are_not_offered(mode: str) -> None:
    three = [tool(name) for name in "fgh"]
    whole = [{"type": "function", "function": one} for one in three]
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": name}} for name in "fh"]}
    told = sent("anthropic", tools=whole, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [one["name"] for one in told["tools"]] == ["f", "h"]
    named = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": name} for name in "fh"]}
    again = sent_items("anthropic", "hi", tools=three, tool_choice=named)
    assert [one["name"] for one in again["tools"]] == ["f", "h"]
    assert again["tool_choice"] == told["tool_choice"] == {"type": "any" if mode == "required" else "auto"}
    nobody = {"type": "allowed_tools", "allowed_tools": allowed | {"tools": [{"type": "x"}]}}
    with pytest.raises(NexusError) as refused:
        sent("anthropic", tools=whole, tool_choice=nobody)
    assert refused.value.field == "tool_choice"


def test_items_that_bring_tools_or_change_settings_take_effect() -> None:
    added = {
        "type": "additional_tools",
        "role": "developer",
        "tools": [tool("late"), {"type": "custom", "name": "free"}],
    }
    first = {"type": "configuration_update", "reasoning": {"effort": "high"}}
    then = {"type": "configuration_update", "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}}
    form = {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}}
    told = sent_items("openai", [ASK[1], added, first, then], "gpt-5.2", tools=[tool("early")], text=form)
    assert [one["function"]["name"] for one in told["tools"]] == ["early", "late", "free"]
    assert told["reasoning_effort"] == "low"
    assert "response_format" not in told
    assert told["messages"] == [ASK[1]]
    wrong = {"type": "additional_tools", "role": "developer", "tools": [tool("x"), {"type": "mcp"}]}
    with pytest.raises(NexusError) as refused:
        sent_items("openai", [ASK[1], wrong])
    assert refused.value.field == "input.1.tools.1.type"


def test_what_a_tool_returns_and_where_it_belongs_is_told_in_words() -> None:
    inner = [tool("a", description="A."), tool("b", output_schema={"type": "string"})]
    told = sent_items(
        "anthropic", "hi", tools=[{"type": "namespace", "name": "n", "description": "N.", "tools": inner}]
    )
    assert [one.get("description") for one in told["tools"]] == [
        "N.\n\nA.",
        'It returns JSON of this schema: {"type":"string"}',
    ]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"id": "msg_1"}, "input.0.type"),
        ({"type": "compaction_trigger"}, "input.0.type"),
        ({"type": "function_call_output", "output": "x"}, "input.0.call_id"),
        ({"type": "additional_tools", "role": "developer"}, "input.0.tools"),
    ],
)
def test_items_that_cannot_be_read_elsewhere_are_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(NexusError) as refused:
        sent_items("anthropic", [item, ASK[1]])
    assert (refused.value.status, refused.value.field) == (400, field)


DOCUMENT = {"type": "input_file", "file_data": "data:application/x-odd;base64,QUJD"}
CALLED = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([{"role": "user", "content": [{"type": "input_text", "text": "x"}, DOCUMENT]}], "input.0.content.1"),
        (
            [
                ASK[1],
                {"role": "assistant", "content": "a"},
                {"type": "additional_tools", "role": "developer", "tools": []},
                CALLED,
                {"type": "function_call_output", "call_id": "c", "output": [DOCUMENT]},
            ],
            "input.4.output",
        ),
        ([{"role": "user", "content": [{"type": "weird"}]}], "input.0.content.0"),
    ],
)
def test_what_cannot_be_said_is_named_by_its_item(items: list[dict[str, Any]], field: str, provider: str) -> None:
    with pytest.raises(NexusError) as refused:
        sent_items(provider, items, instructions="Be kind.")
    assert refused.value.field == field


def test_a_reference_by_its_id_alone_passes_to_its_own_provider() -> None:
    body = {"model": "m", "input": [{"id": "msg_1"}, ASK[1]]}
    assert sent_items("openai_responses", body["input"], "m")["input"] == body["input"]


@pytest.mark.parametrize("provider", EMBEDDERS)
def test_an_embedding_s_further_fields_are_refused_by_name(provider: str) -> None:
    def embed(**more: Any) -> Any:
        request = chat.parse_embedding(json.dumps({"model": "m", "input": "hi"} | more).encode())
        at_pipeline = AT.__class__(base_url=AT.base_url, secret=AT.secret, options=AT.options | {"embeddings": "tei"})
        return json.loads(PROVIDERS.get(provider).embed(at_pipeline, EMBEDDERS[provider], request).body)

    assert embed(truncate=None, user="u") == embed()
    with pytest.raises(NexusError) as refused:
        embed(truncate="END")
    assert (refused.value.status, refused.value.field) == (400, "truncate")


def test_what_vectors_are_for_reaches_models_that_tell_uses_apart() -> None:
    request = chat.parse_embedding(b'{"model": "m", "input": "hi", "input_type": "search_query"}')
    told = json.loads(PROVIDERS.get("google").embed(AT, "gemini-embedding-001", request).body)
    assert told["requests"][0]["taskType"] == "RETRIEVAL_QUERY"
