"""Every field that OpenAI's own types know, to every other form: translated, refused by name, or left behind.

The types are those of the installed `openai` package, so a new version with a new field fails here until its row in
`openai_fields.toml` is decided. `python -m tests.llm.forms.test_every_openai_field` writes the rows as things stand.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chat
from openai.types.completion_create_params import CompletionCreateParamsBase as Completions
from openai.types.embedding_create_params import EmbeddingCreateParams as Embeddings
from openai.types.responses.response_create_params import ResponseCreateParamsBase as Responses
from tests.llm.forms.typed_fields import ALONE, Body, Case, cases, under

from nexus.core.errors import NexusError
from nexus.core.plugins import PluginFolder
from nexus.core.secrets import Secret
from nexus.llm.account import Account, Endpoint
from nexus.llm.dialect import Dialect
from nexus.llm.dialects.openai_chat import plug as chat
from nexus.llm.dialects.openai_completions import plug as completions
from nexus.llm.dialects.openai_responses import plug as responses
from nexus.llm.provider import Provider

ROWS = Path(__file__).with_name("openai_fields.toml")
PROVIDERS: PluginFolder[Provider] = PluginFolder("nexus.llm.providers", Provider, noun="kind")  # type: ignore[type-abstract]
AT = Endpoint(base_url="https://host.example/v1", secret=Secret("s"), options={"region": "us-east-1"})
MODELS = {
    "openai": "gpt-5.6",
    "openai_responses": "gpt-5.6",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-pro",
    "bedrock": "anthropic.claude-sonnet-4-5-v1:0",
}
EMBEDDERS = {"google": "gemini-embedding-001", "bedrock": "amazon.titan-embed-text-v2:0", "huggingface": "m"}

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
PNG, PDF = "data:image/png;base64,QUJD", "data:application/pdf;base64,QUJD"
# By the label of a table, by a field in one, or by a field anywhere.
SAMPLES: dict[str, Any] = {
    ALONE: ("file_id", "file_data", "file_url", "image_url"),
    "url": PNG, "image_url": PNG, "data": "QUJD", "file_data": PDF, "file_url": "https://x.test/a.pdf",
    "filename": "a.pdf", "FileFile": {"file_data": PDF}, "input_file": {"type": "input_file", "file_data": PDF},
    "input_image": {"type": "input_image", "detail": "auto", "image_url": PNG},
    "arguments": "{}", "parameters": SCHEMA, "schema": SCHEMA, "output_schema": SCHEMA, "name": "f",
    "id": "call_1", "call_id": "call_1", "tool_call_id": "call_1", "n": 2, "best_of": 3, "dimensions": 256,
    "max_output_tokens": 2000, "max_tokens": 2000, "max_completion_tokens": 2000,
    "tools": {"type": "function", "name": "f", "function": {"name": "f"}},
    "function_call_output": {"type": "function_call_output", "call_id": "call_1", "output": "x"},
}  # fmt: skip
USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OLDER = {"name": "f", "arguments": "{}"}
ITEM = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
FREE = {"type": "custom_tool_call", "call_id": "call_1", "name": "f", "input": "x"}

Around = tuple[list[Body], list[Body]]


class Form(NamedTuple):
    """One of OpenAI's forms: its dialect, its type, where its conversation stands, and who else is asked in it."""

    dialect: Dialect
    shape: Any
    talk: str
    around: Callable[[Body], Around]
    others: tuple[str, ...]


def around_message(message: Body) -> Around:
    """What must stand before and after a message to make a conversation of it."""
    role = message["role"]
    if role == "tool":
        return [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}], []
    if role == "function":
        return [USER, {"role": "assistant", "content": None, "function_call": OLDER}], []
    if role == "assistant" and message.get("tool_calls"):
        return [USER], [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]
    if role == "assistant" and message.get("function_call"):
        return [USER], [{"role": "function", "name": "f", "content": "x"}]
    return ([USER], [USER]) if role == "assistant" else ([], [] if role == "user" else [USER])


def around_item(item: Body) -> Around:
    """The same for an item."""
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        return [USER], [{"type": f"{kind}_output", "call_id": "call_1", "output": "x"}]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [USER, ITEM if kind == "function_call_output" else FREE], []
    return ([], []) if item.get("role") == "user" else ([USER], [USER])


NOBODY: Callable[[Body], Around] = lambda item: ([], [])  # noqa: E731  a default, no name worth a def
FORMS = {
    "chat": Form(chat, Chat, "messages", around_message, ("openai_responses", "anthropic", "google", "bedrock")),
    "responses": Form(responses, Responses, "input", around_item, ("openai", "anthropic", "google", "bedrock")),
    "completions": Form(completions, Completions, "prompt", NOBODY, tuple(MODELS)),
    "embeddings": Form(chat, Embeddings, "input", NOBODY, tuple(EMBEDDERS)),
}


def requests_of(name: str, case: Case) -> tuple[Body, Body]:
    """Make whole requests of a case: what it needs around it, in both."""
    form = FORMS[name]
    more: Body = {"model": "m"}
    if case.path.startswith(("tool_choice", "parallel_tool_calls")):
        shapes = [{"type": "function", "name": one, "parameters": SCHEMA} for one in "fg"]
        more["tools"] = [tool | {"function": tool} for tool in shapes] if name == "chat" else shapes
    if case.path.startswith("function_call"):
        more["functions"] = [{"name": "f"}]
    if case.path == "top_logprobs":
        more |= {"logprobs": True} if name == "chat" else {"include": ["message.output_text.logprobs"]}
    given, bare = case.given.get(form.talk), case.bare.get(form.talk)
    if name in ("completions", "embeddings"):
        return case.given | more, case.bare | more | {form.talk: bare or "hello"}
    if isinstance(given, list) and given and case.path.startswith(form.talk):
        before, after = form.around(given[0])
        return (
            case.given | more | {form.talk: [*before, *given, *after]},
            case.bare | more | {form.talk: [*before, *(bare or ()), *after] or [USER]},
        )
    talk = [USER] if not isinstance(given, str) else given
    return case.given | more | {form.talk: talk}, case.bare | more | {form.talk: [USER]}


class Sent(NamedTuple):
    """What became of a request: the body for the provider, or the field that it was refused for."""

    body: Any = None
    field: str | None = None
    refused: bool = False


def sent(name: str, provider: str, body: Body) -> Sent:
    """Write a request for a provider. What is neither written nor refused with a 400 is an accident, and goes on."""
    form, raw = FORMS[name], json.dumps(body).encode()
    try:
        if name == "embeddings":
            asked = form.dialect.parse_embedding(raw)
            request = PROVIDERS.get(provider).embed(AT, EMBEDDERS[provider], asked)
        else:
            call = form.dialect.parse(raw, path=form.dialect.path)
            request = PROVIDERS.get(provider).chat(AT, MODELS[provider], call)
    except NexusError as error:
        if error.status not in (400, 404):
            raise
        return Sent(field=form.dialect.naming(error).field, refused=True)
    return Sent(body=json.loads(request.body))


def verdict(name: str, provider: str, case: Case) -> str:
    """Say what becomes of a field at a provider: translated, refused or ignored; "" where the rest is refused too."""
    given, bare = requests_of(name, case)
    told, without = sent(name, provider, given), sent(name, provider, bare)
    if told.refused:
        if without.refused and without.field == told.field:
            return ""
        assert names(told.field, case.path), f"{case.path} at {provider} is refused for {told.field}"
        return "refused"
    return "translated" if without.refused or told.body != without.body else "ignored"


def names(field: str | None, path: str) -> bool:
    """Tell whether a refusal names what the path is about."""
    top = re.split(r"[.\[=:]", path)[0]
    also = {"top_logprobs": "logprobs", "include": "top_logprobs"}
    return field is not None and field.partition(".")[0] in (top, also.get(top))


@cache
def found(name: str) -> dict[str, str]:
    """Return what becomes of every field of a form; nothing is told apart below what all refuse or ignore."""
    form = FORMS[name]
    rows: dict[str, str] = {}
    settled: set[str] = set()
    for case in cases(form.shape, SAMPLES, lambda body: body):
        if under(case.path, settled) or case.path.startswith("model"):
            continue
        each = {provider: verdict(name, provider, case) for provider in form.others}
        kinds = {kind for kind in each.values() if kind}
        if kinds == {"refused"} or (kinds == {"ignored"} and not case.idle):
            settled.add(case.path)
        rows[case.path] = "; ".join(_told(kind, each, alone=len(kinds) == 1) for kind in sorted(kinds))
    return rows


def _told(kind: str, each: dict[str, str], *, alone: bool) -> str:
    return kind if alone else f"{kind} by {', '.join(sorted(name for name, one in each.items() if one == kind))}"


@cache
def decided() -> dict[str, dict[str, str]]:
    """Return the rows that somebody has decided."""
    rows: dict[str, dict[str, str]] = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    return rows


# Why a field may be left behind, by its form and path. A new row that says "ignored" needs one of these, or its own.
REASONS: list[tuple[str, str]] = [
    (r"=(auto|default|text|standard|disabled|implicit|in_memory|soonest|medium|30m)$", "what is usual anyway"),
    (r"format\[text\]$|modalities=\[text\]|\.text$|encoding_format=float", "text is what all answer in"),
    (r"(text|reasoning|prompt_cache_options|access_programs|image|background_options|update\])$", "a table of options"),
    (r"messages\[assistant\]$", "a turn in which nothing was said"),
    (r"(prompt_cache_breakpoint|ttl=12h|cache_options\.mode=explicit)$", "a cache of another kind saves no less"),
    (r"(metadata|store|safety_identifier|user)$", "says who asks and where it is filed; the ledger here has it too"),
    (r"prompt_cache_(key|options|retention)", "helps a cache to find its entry, and changes no word"),
    (r"\b(prediction|stream_options(\.\w+)?)$", "makes the answer come sooner, and changes no word"),
    (r"background(_options\.(completion_window=|continuation_id))?", "served at once, or by a run of our own"),
    (r"service_tier=scale", "what was bought at one maker holds nowhere else"),
    (
        r"responses store$|truncation=auto|encoding_format=base64",
        "done here, whoever serves; a context too long is a 400",
    ),
    (r"messages\[\w+\]\.name$", "no other form tells several users apart"),
    (r"detail=(low|high|original|auto)$", "how sharp pictures are seen is the model's own affair elsewhere"),
    (r"(effort=(none|minimal)|reasoning\.effort=minimal)$", "these models do not think unless they are told to"),
    (r"reasoning\.(context=|summary=|generate_summary=)", "what is shown of thoughts, where there are any"),
    (r"(tool_choice|function_call)=auto$|chat parallel_tool_calls$|responses parallel_tool_calls$", "what is usual"),
    (r"json_schema\]\S*\.(strict|description)$", "a schema is always kept to; its words stand in it"),
    (r"strict$", "Google's tools have no such mode"),
    (r"include=\[(\w+_call|computer|message\.input|reasoning)", "more about what only its provider's tools do"),
    (r"allowed_callers=\[direct\]$|defer_loading$", "here all tools are there, and called by the model itself"),
    (r"max_tool_calls$", "counts calls of the provider's own tools, of which there are none"),
    (r"image_generation_call\]\.", "how a picture was made; the picture itself is shown"),
    (r"input\[\w+\]\.(phase|status|id|async|caller|name|namespace)\b", "notes of the provider that made the item"),
    (r"(annotations|logprobs)\[\w+\]$", "notes on what was said"),
    (
        r"input\[(file_search|computer|web_search|code_interpreter|mcp|tool_search)_call\]",
        "a record of work done elsewhere",
    ),
    (
        r"input\[(local_shell_call|shell_call|apply_patch_call|program|mcp_\w+)\]",
        "the same; what came of it is refused",
    ),
    (r"input\[additional_tools\]\.id$", "an item's name"),
    (r"input\[reasoning\]", "thoughts of one model are closed to another; Google takes their words"),
    (r"filename$", "Google gives files no names"),
    (r"search_context_size=medium$|search_content_types=\[text\]$", "what is usual"),
    (r"web_search\w*\]?\.(filters|user_location)$", "empty, it narrows nothing"),
    (r"web_search\]\.external_web_access$", "what is usual; a search in an old copy of the web is spared"),
]


@pytest.mark.parametrize("name", FORMS)
def test_every_field_passes_as_it_is_within_its_form(name: str) -> None:
    form, model = FORMS[name], "another"
    account = Account(name="a", kind="openai", base_url=AT.base_url, options={"responses": True, "completions": True})
    changed = []
    for case in cases(form.shape, SAMPLES, lambda body: body):
        given, _ = requests_of(name, case)
        raw = json.dumps(given).encode()
        if name == "embeddings":
            request = PROVIDERS.get("openai").embed(AT, model, form.dialect.parse_embedding(raw))
        else:
            call = form.dialect.parse(raw, path=form.dialect.path)
            request = PROVIDERS.get("openai").serving(account, model, call).chat(AT, model, call)
        if json.loads(request.body) != given | {"model": model}:
            changed.append(case.path)
    assert changed == []


@pytest.mark.parametrize("name", FORMS)
def test_every_field_has_become_what_was_decided(name: str) -> None:
    rows, now = decided()[name], found(name)
    new, gone = sorted(set(now) - set(rows)), sorted(set(rows) - set(now))
    assert not new, f"fields that nobody has decided about: {new}"
    assert not gone, f"rows of fields that are no more: {gone}"
    assert {path: now[path] for path in now if now[path] != rows[path]} == {}


def test_what_is_left_behind_has_a_reason() -> None:
    ignored = [f"{name} {path}" for name, rows in decided().items() for path, told in rows.items() if "ignored" in told]
    patterns = [re.compile(pattern) for pattern, _ in REASONS]
    assert [path for path in ignored if not any(pattern.search(path) for pattern in patterns)] == []
    assert [pattern.pattern for pattern in patterns if not any(pattern.search(path) for path in ignored)] == []


def written() -> Iterator[str]:
    """Yield the lines of the rows as things stand."""
    yield "# What becomes of OpenAI's request fields at providers of other forms."
    yield "# Written by `python -m tests.llm.forms.test_every_openai_field`; what a new row says is to be decided."
    for name in FORMS:
        yield f"\n[{name}]"
        yield from (f"{json.dumps(path)} = {json.dumps(told)}" for path, told in found(name).items())


if __name__ == "__main__":
    ROWS.write_text("\n".join(written()) + "\n", encoding="utf-8")
