"""Requests of the Messages form into ours and out of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.forms.converse.families import family_of
from nexus.llm.forms.converse.requests import write_request as write_converse
from nexus.llm.forms.gemini.requests import write_request as write_gemini
from nexus.llm.forms.messages.requests import DIALECT, read_arguments, read_request, write_request
from nexus.llm.forms.signatures import sealed_id
from nexus.llm.forms.unsaid import CHAT
from nexus.llm.types import (
    ChatRequest,
    Foreign,
    Media,
    Message,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

SONNET = "claude-sonnet-4-5-20250929"
HELLO = (Message(role="user", parts=(Text(text="hello"),)),)


def said(role: Any, *parts: Any) -> Message:
    return Message(role=role, parts=parts)


def asked(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(**({"dialect": "other", "model": "m", "messages": messages or HELLO} | more))


def written(request: ChatRequest, model: str = SONNET) -> dict[str, Any]:
    return write_request(request, model, stream=False)


def content(*parts: Any, role: str = "user") -> list[dict[str, Any]]:
    return written(asked(said(role, *parts)))["messages"][0]["content"]


def test_every_kind_of_block_survives_the_way_there_and_back() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body: dict[str, Any] = {
        "model": SONNET,
        "max_tokens": 100,
        "stream": True,
        "system": [{"type": "text", "text": "be brief"} | mark],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"} | hour,
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                    {"type": "image", "source": {"type": "file", "file_id": "file_1"}} | mark,
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"},
                        "title": "a.pdf",
                    },
                    {"type": "container_upload", "file_id": "file_2"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2VhbA=="},
                    {"type": "redacted_thinking", "data": "c2VjcmV0"},
                    {"type": "text", "text": "two calls"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1, "b": [{"c": None}]}} | mark,
                    {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"} | mark,
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "content": [
                            {"type": "text", "text": "seen"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                        ],
                        "is_error": True,
                    },
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
        "tools": [
            {"name": "f", "description": "", "input_schema": {"type": "object", "properties": {}}, "strict": True}
            | mark,
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "output_config": {
            "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
        },
        "service_tier": "auto",
        "container": "container_1",
        "context_management": {"edits": []},
    }
    form = read_request(json.loads(json.dumps(body)))
    assert form.dialect == DIALECT
    assert form.extra.keys() == {"service_tier", "container", "context_management"}
    assert [message.role for message in form.messages] == ["system", "user", "assistant", "tool", "user"]
    assert form.messages[1].parts[1] == Media(kind="image", media_type="image/png", data="QUJD")
    assert form.messages[1].parts[5] == Foreign(dialect=DIALECT, value=body["messages"][0]["content"][5])
    assert isinstance(form.messages[2].parts[3], ToolCall)
    assert json.loads(form.messages[2].parts[3].arguments) == {"a": 1, "b": [{"c": None}]}
    assert form.messages[3].parts[1] == ToolResult(
        id="toolu_2",
        content=(Text(text="seen"), Media(kind="image", media_type="image/png", data="QUJD")),
        is_error=True,
    )
    again = write_request(form, SONNET, stream=True)
    # A system prompt and a result of one plain text are the text itself.
    assert again == body


def test_extra_fields_travel_only_within_the_form() -> None:
    own = {"service_tier": "auto", "container": "c"}
    for dialect, expected in ((DIALECT, own), ("", own), ("other", {})):
        request = ChatRequest(dialect=dialect, model="m", messages=HELLO, extra=own)
        assert {name: value for name, value in written(request).items() if name in own} == expected


SYSTEM_AND_TURNS: list[tuple[tuple[Message, ...], Any, list[tuple[str, int]]]] = [
    (HELLO, None, [("user", 1)]),
    ((said("system", Text(text="a")), *HELLO), "a", [("user", 1)]),
    (
        (said("system", Text(text="a")), *HELLO, said("developer", Text(text="b"))),
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [("user", 1)],
    ),
    ((said("system", Text(text="alone")),), None, [("user", 1)]),
    ((*HELLO, said("user", Text(text="more"))), None, [("user", 2)]),
    (
        (*HELLO, said("assistant", Text(text="a")), said("assistant", Text(text="b"))),
        None,
        [("user", 1), ("assistant", 2)],
    ),
    ((*HELLO, said("assistant", Text(text="")), said("user", Text(text="x"))), None, [("user", 2)]),
    ((*HELLO, said("assistant", Thinking(text="unsealed"), Text(text="a"))), None, [("user", 1), ("assistant", 1)]),
    ((said("user", Text(text=" \n"), Text(text="x")),), None, [("user", 1)]),
]


@pytest.mark.parametrize(("messages", "system", "turns"), SYSTEM_AND_TURNS)
def test_prompts_are_gathered_and_roles_alternate(
    messages: tuple[Message, ...], system: Any, turns: list[tuple[str, int]]
) -> None:
    body = written(asked(*messages))
    assert body.get("system") == system
    assert [(turn["role"], len(turn["content"])) for turn in body["messages"]] == turns


def test_results_of_parallel_calls_come_first_in_one_turn() -> None:
    calls = (ToolCall(id="call.1:0", name="f", arguments=""), ToolCall(id="c2", name="g", arguments="[1]"))
    body = written(
        asked(
            *HELLO,
            said("assistant", *calls),
            said("tool", ToolResult(id="call.1:0", content=(Text(text="1"),))),
            said("tool", ToolResult(id="c2", is_error=True)),
            said("user", Text(text="and now?")),
        )
    )
    written_calls, results = body["messages"][1]["content"], body["messages"][2]["content"]
    assert [(call["id"], call["input"]) for call in written_calls] == [("call_1_0", {}), ("c2", {"input": [1]})]
    assert results == [
        {"type": "tool_result", "tool_use_id": "call_1_0", "content": "1"},
        {"type": "tool_result", "tool_use_id": "c2", "is_error": True},
        {"type": "text", "text": "and now?"},
    ]
    mixed = written(asked(said("user", Text(text="before"), ToolResult(id="c", content=(Text(text="x"),)))))
    assert [block["type"] for block in mixed["messages"][0]["content"]] == ["tool_result", "text"]


def test_only_seals_of_this_look_go_back() -> None:
    thoughts = (
        Thinking(text="a", signature="RXE="),
        Thinking(text="b", signature="rs_1:gAAAAA"),
        Thinking(text="c"),
        Thinking(redacted="RXE="),
        Thinking(redacted="rs_2:gAAAAA"),
    )
    turn = written(asked(*HELLO, said("assistant", *thoughts, Text(text="x"))))["messages"][1]["content"]
    assert turn == [
        {"type": "thinking", "thinking": "a", "signature": "RXE="},
        {"type": "redacted_thinking", "data": "RXE="},
        {"type": "text", "text": "x"},
    ]


def test_a_begun_answer_ends_without_white_space() -> None:
    body = written(asked(*HELLO, said("assistant", Text(text="The answer is: "))))
    assert body["messages"][1]["content"] == [{"type": "text", "text": "The answer is:"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ('{"a": 1}', {"a": 1}),
        ("[1]", {"input": [1]}),
        ("{broken", {"input": "{broken"}),
        ("[" * 9999, {"input": "[" * 9999}),
    ],
)
def test_arguments_are_an_object_whatever_the_model_wrote(text: str, expected: dict[str, Any]) -> None:
    assert read_arguments(text) == expected


PARTS: list[tuple[Any, dict[str, Any] | None]] = [
    (Text(text="a", cache="1h"), {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
    (Refusal(text="no"), {"type": "text", "text": "no"}),
    (
        Media(kind="image", media_type="image/jpg", data="QUJD"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
    ),
    (Media(kind="image", url="https://x/y"), {"type": "image", "source": {"type": "url", "url": "https://x/y"}}),
    (
        Media(kind="document", url="https://x/y.pdf", name="y"),
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}, "title": "y"},
    ),
    (
        Media(kind="document", media_type="text/markdown", data=base64.b64encode("é".encode()).decode()),
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
    ),
    (Media(kind="document", file_id="f"), {"type": "document", "source": {"type": "file", "file_id": "f"}}),
]


@pytest.mark.parametrize(("part", "block"), PARTS)
def test_parts_become_blocks(part: Any, block: dict[str, Any]) -> None:
    assert content(part) == [block]


@pytest.mark.parametrize(
    ("part", "error", "field"),
    [
        (Media(kind="audio", media_type="audio/wav", data="QUJD"), Unsupported, "messages.0.content.0"),
        (Media(kind="video", url="https://x"), Unsupported, "messages.0.content.0"),
        (Media(kind="document", media_type="application/msword", data="QUJD"), Unsupported, "messages.0.content.0"),
        (Media(kind="document", media_type="text/plain", data="/w=="), InvalidRequest, "messages.0.content.0"),
        (Media(kind="image", url="ftp://x/y"), InvalidRequest, "messages.0.content.0"),
        (Media(kind="image"), InvalidRequest, "messages.0.content.0"),
        (Foreign(dialect="other", value={"type": "hologram"}), Unsupported, "messages.0.content.0"),
    ],
)
def test_what_no_block_can_say_is_refused_by_name(part: Any, error: type[InvalidRequest], field: str) -> None:
    with pytest.raises(error) as refused:
        content(part)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"choices": 2}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1.0}, "frequency_penalty"),
        ({"seed": 0}, "seed"),
        ({"extra": {"logit_bias": {"1": 5}}, "dialect": CHAT}, "logit_bias"),
        ({"extra": {"web_search_options": {"a": 1}}, "dialect": CHAT}, "web_search_options"),
        ({"tools": (Tool(name="code", value={"type": "code"}),)}, "tools"),
        ({"tools": (Tool(name="f"),), "tool_choice": ToolChoice(mode="tool")}, "tool_choice"),
        ({"messages": (said("system", Media(kind="image", data="x")), *HELLO)}, "messages.0.content"),
    ],
)
def test_parameters_without_a_word_here_are_refused_by_name(more: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported) as refused:
        written(asked(*more.pop("messages", HELLO), **more))
    assert refused.value.field == field


def test_what_changes_nothing_may_stay_behind() -> None:
    harmless = {"presence_penalty": 0.0, "extra": {"store": True, "logit_bias": {}}, "dialect": CHAT}
    assert written(asked(**harmless)).keys() == {"model", "max_tokens", "messages"}


CHOICES: list[tuple[dict[str, Any], ToolChoice | None]] = [
    ({"type": "auto"}, ToolChoice(mode="auto")),
    ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice(mode="required", parallel=False)),
    ({"type": "tool", "name": "f"}, ToolChoice(mode="tool", name="f")),
    ({"type": "none"}, ToolChoice(mode="none")),
]


@pytest.mark.parametrize(("wire", "form"), CHOICES)
def test_tool_choices_both_ways(wire: dict[str, Any], form: ToolChoice) -> None:
    tools = (Tool(name="f"),)
    read = read_request({"model": "m", "messages": [], "max_tokens": 1, "tool_choice": wire})
    assert read.tool_choice == form
    body = written(asked(tools=tools, tool_choice=form))
    assert body["tool_choice"] == wire
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    assert "tool_choice" not in written(asked(tool_choice=form))


# Thinking. Budgets for the older generations, "adaptive" with an effort for the newer.


def test_forms_of_the_answer() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}
    wanted = ResponseFormat(kind="json_schema", name="x", schema=inner, strict=True)
    schema = written(asked(response_format=wanted))["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"]["items"]["additionalProperties"] is False
    told = written(asked(response_format=ResponseFormat(kind="json_object")))
    assert "JSON" in told["system"]
    assert "output_config" not in written(asked(response_format=ResponseFormat(kind="text")))


def test_seals_of_other_makers_come_back_out_of_the_ids() -> None:
    call_id = sealed_id("call_1", "c2VhbA==")
    body = {
        "model": "m",
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id}]},
        ],
    }
    form = read_request(body)
    assert form.messages[0].parts[0] == ToolCall(id="call_1", name="f", arguments="{}", signature="c2VhbA==")
    assert form.messages[1].parts[0] == ToolResult(id="call_1")


def test_documents_of_words_are_words_to_every_model() -> None:
    blocks = [
        {
            "type": "document",
            "title": "T",
            "context": "C",
            "source": {"type": "text", "media_type": "text/plain", "data": "D"},
        },
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inside"}]}},
        {"type": "search_result", "title": "S", "source": "https://s", "content": [{"type": "text", "text": "found"}]},
    ]
    form = read_request({"model": "m", "messages": [{"role": "user", "content": blocks}]})
    assert form.messages[0].text == "T\nC\nDinsideS\nhttps://s\nfound"


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: text.strip() == text)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
values = st.dictionaries(names, st.one_of(texts, st.integers(-5, 5), st.booleans(), st.none()), max_size=3)


@given(st.lists(st.tuples(texts, st.lists(st.tuples(names, values), max_size=3), texts), min_size=1, max_size=4))
def test_a_conversation_keeps_its_meaning_through_openai_s_form_and_back(turns: list[Any]) -> None:
    """Text, parallel calls and their results: Messages -> ours -> chat completions -> ours -> Messages."""
    messages: list[dict[str, Any]] = []
    count = 0
    for question, calls, answer in turns:
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
        spoken: list[dict[str, Any]] = [{"type": "text", "text": answer}]
        results: list[dict[str, Any]] = []
        for name, arguments in calls:
            count += 1
            spoken.append({"type": "tool_use", "id": f"toolu_{count}", "name": name, "input": arguments})
            results.append({"type": "tool_result", "tool_use_id": f"toolu_{count}", "content": f"r{count}"})
        messages.append({"role": "assistant", "content": spoken})
        if results:
            messages.append({"role": "user", "content": results})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": "so"}]})
    body = {"model": "m", "max_tokens": 9, "messages": messages}
    chat = chat_requests.write_request(read_request(body), "m", stream=False)
    again = write_request(chat_requests.read_request(json.loads(json.dumps(chat))), "m", stream=False)
    assert again["messages"] == messages


# Errors name a place as the client knows it: here a system prompt and results of tools are messages of their own.

PLACED = {
    "model": "m",
    "max_tokens": 10,
    "system": "be brief",
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "x"},
                {"type": "text", "text": "look"},
                {"type": "document", "context": "a bill", "source": {"type": "file", "file_id": "f"}},
            ],
        },
    ],
}


@pytest.mark.parametrize(
    "write",
    [
        lambda request: write_gemini(request, "gemini-2.5-flash"),
        lambda request: write_converse(request, "amazon.nova-2-pro-v1:0", family_of("amazon.nova-2-pro-v1:0")),
    ],
)
def test_an_error_in_translation_names_the_client_s_own_place(write: Callable[[ChatRequest], object]) -> None:
    with pytest.raises(Unsupported) as refused:
        write(read_request(json.loads(json.dumps(PLACED))))
    assert refused.value.field == "messages.2.content.2"
    assert "messages.3" not in refused.value.message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tool_choice": {"type": "most"}}, "tool_choice.type"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"output_config": {"task_budget": {"total": 1}}}, "output_config.task_budget"),
        ({"tools": [{"name": "f", "input_schema": {}, "novel": 1}]}, "tools.0.novel"),
        ({"messages": [{"role": "user", "content": "x", "novel": 1}]}, "messages.0.novel"),
    ],
)
def test_what_only_anthropic_does_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_request({"model": "m", "messages": [{"role": "user", "content": "x"}]} | change)
    assert refused.value.field == field


def test_a_mark_on_the_whole_request_is_one_on_its_end() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "cache_control": {"type": "ephemeral"}}
    request = read_request(body)
    assert request.messages[-1].parts[-1].cache == "5m"
    assert "cache_control" not in request.extra


def reminded(*after: dict[str, Any], **more: Any) -> ChatRequest:
    """A request with a system message in the midst of its conversation."""
    system = {"role": "system"} | more
    messages = [{"role": "user", "content": "a"}, system, *after]
    return read_request({"model": "m", "messages": messages, "output_config": {"effort": "high"}})


ON = ({"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})


def test_a_system_message_may_be_for_its_own_turn_only() -> None:
    said = [
        reminded(*after, content="x", clear_at=until) for after in ((), ON) for until in ("next_user_message", "never")
    ]
    assert [[m.role for m in one.messages].count("system") for one in said] == [1, 1, 0, 1]
    assert [one.places and [len(place) for place in one.places()] for one in said] == [
        [len(m.parts) for m in one.messages] for one in said
    ]


def test_a_system_message_may_set_the_effort_of_its_turn() -> None:
    assert [reminded(*after, output_config={"effort": "low"}).reasoning for after in ((), ON)] == [
        Reasoning(effort="low"),
        Reasoning(effort="high"),
    ]
    with pytest.raises(Unsupported) as refused:
        reminded(content="x", output_config={"effort": "low", "format": {"type": "json_schema"}})
    assert refused.value.field == "messages.1.output_config.format"


def test_marks_reach_servers_of_chat_completions_that_take_them() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "y"}]}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "x"} | mark]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result | {"cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
    ]
    system = [{"type": "text", "text": "s"} | mark]
    tools = [{"name": "f", "input_schema": {"type": "object"}} | mark]
    request = read_request({"model": "m", "system": system, "messages": messages, "tools": tools})
    taken = chat_requests.write_request(request, "m", stream=False, ways=chat_requests.Ways(cache_control=True))
    assert [message["content"] for message in taken["messages"] if message["content"]] == [
        [{"type": "text", "text": "s"} | mark],
        [{"type": "text", "text": "x"} | mark],
        [{"type": "text", "text": "y", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    ]
    assert taken["tools"][0]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in json.dumps(chat_requests.write_request(request, "m", stream=False))


ANSWERED = (said("user", Text(text="hi")), said("assistant", Text(text="hello")))


@pytest.mark.parametrize("before", [(), (said("system", Text(text="be brief")),), ANSWERED])
def test_a_question_without_words_is_still_asked(before: tuple[Message, ...]) -> None:
    request = asked(*before, said("user", Text(text="")))
    here, there = written(request), write_gemini(request, "gemini-2.5-flash")
    assert here["messages"][-1] == {"role": "user", "content": [{"type": "text", "text": "."}]}
    assert there["contents"][-1] == {"role": "user", "parts": [{"text": ""}]}
    converse = write_converse(request, SONNET, family_of(SONNET))["messages"]
    assert converse[-1] == {"role": "user", "content": [{"text": "."}]}
    turns = [message for message in request.messages if message.role != "system"]
    assert len(here["messages"]) == len(there["contents"]) == len(converse) == len(turns)
    assert here.get("system") == ("be brief" if len(before) == 1 else None)
