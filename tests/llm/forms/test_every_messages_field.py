"""Every field that Anthropic's SDK lets a client send, and what becomes of it with every other kind of provider."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsBase
from anthropic.types.message_create_params import MessageCreateParamsBase as Stable
from tests.llm.every_field import TARGETS, Row, Table, fields_of

from nexus.llm.dialects.anthropic_messages import plug

OTHERS = [target for target in TARGETS if target != "messages"]
BASE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 20_000,
    "system": [{"type": "text", "text": "be brief"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "a call"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "42"}]},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "assistant", "content": "It is 42."},
        {"role": "user", "content": "And now?"},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}],
}
SAID, REFUSED = "said", "refused"
MARK = "left: a hint for a cache, which others keep unasked"
RECORD = "left: a record of what a model did at its maker"
SOON = "left: how soon and at what price an answer comes"
CLAUDE_ONLY = {"claude": SAID}
CACHED = {"claude": SAID, "nova": SAID}
TEXT = {"type": "text", "text": "x"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
URL = "https://host.example/a"
USER, ASSISTANT, RESULT = "messages.0.content.1", "messages.1.content.2", "messages.2.content.0"
FILES = {"gemini": REFUSED, "claude": REFUSED, "nova": REFUSED}
FETCHED = {"claude": REFUSED, "nova": REFUSED}

USUAL = dict.fromkeys(("claude", "nova"), "left: the default")
SHOWN = {"gemini": SAID, "responses": SAID}

# Where one of each type stands, what it is at least, and its fate.
SHAPES: dict[str, tuple[str, Row]] = {
    "MessageCreateParamsBase": ("", Row(BASE, SAID)),
    "UserMessage": ("messages.4", Row({"role": "user", "content": "another"}, SAID)),
    "AssistantMessage": ("messages.5", Row({"role": "assistant", "content": "The answer is"}, SAID)),
    "SystemMessage": ("messages.5", Row({"role": "system", "content": "x"}, SAID)),
    "TextBlock": (USER, Row(TEXT, SAID)),
    "CacheControlEphemeral": (
        "messages.0.content.0.cache_control",
        Row({"type": "ephemeral"}, MARK, CACHED),
    ),
    "ImageBlock": (USER, Row({"type": "image", "source": PNG}, SAID)),
    "Base64ImageSource": (USER, Row({"type": "image", "source": PNG}, SAID)),
    "URLImageSource": (USER, Row({"type": "image", "source": {"type": "url", "url": URL}}, SAID, FETCHED)),
    "FileImageSource": (
        USER,
        Row({"type": "image", "source": {"type": "file", "file_id": "f"}}, SAID, FILES | {"chat": REFUSED}),
    ),
    "ImageTransformations": (
        "ImageBlock.transformations",
        Row({"oversized_image": "error"}, REFUSED),
    ),
    "DocumentBlock": (USER, Row({"type": "document", "source": PDF}, SAID)),
    "Base64PDFSource": (USER, Row({"type": "document", "source": PDF}, SAID)),
    "PlainTextSource": (
        USER,
        Row({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}, SAID),
    ),
    "ContentBlockSource": (
        USER,
        Row({"type": "document", "source": {"type": "content", "content": [TEXT]}}, SAID),
    ),
    "URLPDFSource": (
        USER,
        Row({"type": "document", "source": {"type": "url", "url": URL}}, SAID, FETCHED),
    ),
    "FileDocumentSource": (USER, Row({"type": "document", "source": {"type": "file", "file_id": "f"}}, SAID, FILES)),
    "CitationsConfig": ("DocumentBlock.citations", Row({"enabled": True}, REFUSED)),
    "SearchResultBlock": (
        USER,
        Row({"type": "search_result", "source": "y", "title": "t", "content": [TEXT]}, SAID),
    ),
    "ThinkingBlock": (
        ASSISTANT,
        Row(
            {"type": "thinking", "thinking": "hm", "signature": "c2VhbA=="},
            "left: thoughts are their own model's",
            {"gemini": SAID, "claude": SAID},
        ),
    ),
    "RedactedThinkingBlock": (
        ASSISTANT,
        Row({"type": "redacted_thinking", "data": "c2VjcmV0"}, "left: thoughts are their own model's", CLAUDE_ONLY),
    ),
    "ToolUseBlock": ("messages.1.content.2", Row({"type": "tool_use", "id": "t2", "name": "g", "input": {}}, SAID)),
    "ToolResultBlock": (
        "messages.2.content.0",
        Row({"type": "tool_result", "tool_use_id": "toolu_1", "content": "7"}, SAID),
    ),
    "ToolReferenceBlock": (f"{RESULT}.content.1", Row({"type": "tool_reference", "tool_name": "t"}, SAID)),
    "BrowserStateBlock": (f"{RESULT}.content.1", Row({"type": "browser_state", "tabs": []}, REFUSED)),
    "ServerToolUseBlock": (
        "messages.1.content.2",
        Row({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, RECORD),
    ),
    "MCPToolUseBlock": (
        "messages.1.content.2",
        Row({"type": "mcp_tool_use", "id": "s", "name": "n", "input": {}, "server_name": "m"}, RECORD),
    ),
    "ContainerUploadBlock": (USER, Row({"type": "container_upload", "file_id": "f"}, REFUSED)),
    "MCPToolListingBlock": (USER, Row({"type": "mcp_tool_listing", "mcp_server_name": "m", "tools": []}, REFUSED)),
    "ToolAdditionBlock": (
        "messages.5",
        Row(
            {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "t"}}]},
            REFUSED,
        ),
    ),
    "ToolRemovalBlock": (
        "messages.5",
        Row(
            {"role": "system", "content": [{"type": "tool_removal", "tool": {"type": "tool_reference", "name": "t"}}]},
            REFUSED,
        ),
    ),
    "CompactionBlock": (ASSISTANT, Row({"type": "compaction", "content": "so far"}, SAID)),
    "FallbackBlock": ("messages.1.content.2", Row({"type": "fallback", "from": {}, "to": {}}, RECORD)),
    "BillingPolicy": ("billing_policy", Row({"type": "billing_policy", "bill_to": "self"}, REFUSED)),
    "CompactionConfig": ("compaction", Row({"type": "summarize"}, REFUSED)),
    "ContainerParams": ("container", Row({"id": "c"}, REFUSED)),
    "ContextManagementConfig": ("context_management", Row({"edits": []}, "left: nothing is asked")),
    "ClearToolUses20250919Edit": (
        "context_management",
        Row({"edits": [{"type": "clear_tool_uses_20250919"}]}, "left: what is not taken out is read"),
    ),
    "ClearThinking20251015Edit": (
        "context_management",
        Row({"edits": [{"type": "clear_thinking_20251015"}]}, "left: thoughts go to no other model"),
    ),
    "Compact20260112Edit": ("context_management", Row({"edits": [{"type": "compact_20260112"}]}, REFUSED)),
    "Diagnostics": ("diagnostics", Row({"previous_message_id": "m"}, "left: tells about its maker's cache")),
    "FallbackCreditToken": ("fallback_credit_token", Row({"token": "t"}, "left: a credit at its maker")),
    "Fallback": ("fallbacks", Row([{"model": "claude-haiku-4-5"}], REFUSED)),
    "MCPServerURLDefinition": ("mcp_servers", Row([{"name": "m", "type": "url", "url": URL}], REFUSED)),
    "Metadata": ("metadata", Row({}, "left: says nothing")),
    "OutputConfig": ("output_config", Row({}, "left: says nothing")),
    "JSONOutputFormat": (
        "output_config",
        Row({"format": {"type": "json_schema", "schema": {"type": "object"}}}, SAID),
    ),
    "TokenTaskBudget": ("output_config", Row({"task_budget": {"type": "tokens", "total": 20_000}}, REFUSED)),
    "SystemMessageOutputConfig": (
        "messages.5",
        Row({"role": "system", "output_config": {"effort": "low"}}, SAID),
    ),
    "ThinkingConfigEnabled": ("thinking", Row({"type": "enabled", "budget_tokens": 2000}, SAID)),
    "ThinkingConfigDisabled": ("thinking", Row({"type": "disabled"}, SAID, USUAL)),
    "ThinkingConfigBetweenTools": ("thinking", Row({"type": "between_tools"}, "left: the model's own affair", SHOWN)),
    "ThinkingConfigAdaptive": ("thinking", Row({"type": "adaptive"}, "left: the model's own affair", SHOWN)),
    "ThinkingBlockBinding": (
        "ThinkingConfigEnabled.block_binding",
        Row({}, "left: thoughts go to no other model"),
    ),
    "ThreadCreateParams": ("thread", Row({"type": "create"}, REFUSED)),
    "ThreadContinueParams": ("thread", Row({"type": "continue", "previous_message_id": "m"}, REFUSED)),
    "ToolChoiceAuto": ("tool_choice", Row({"type": "auto"}, SAID, USUAL)),
    "ToolChoiceAny": ("tool_choice", Row({"type": "any"}, SAID)),
    "ToolChoiceTool": ("tool_choice", Row({"type": "tool", "name": "f"}, SAID)),
    "ToolChoiceNone": ("tool_choice", Row({"type": "none"}, SAID, {"nova": REFUSED})),
    "Tool": ("tools.1", Row({"name": "g", "input_schema": {"type": "object"}}, SAID)),
    "InputSchemaTyped": ("tools.1", Row({"name": "g", "input_schema": {"type": "object"}}, SAID)),
}  # fmt: skip
# Blocks in which a model's maker says what its own tools found, and the tools themselves, by the kind in them.
FOUND = [
    "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result", "tool_search_tool_result", "advisor_tool_result", "mcp_tool_result",
]  # fmt: skip
SHAPES |= {
    "".join({"mcp": "MCP"}.get(word, word.title()) for word in kind.split("_")) + "Block": (
        "messages.1.content.2",
        Row({"type": kind, "tool_use_id": "s", "content": []}, RECORD),
    )
    for kind in FOUND
}
TOOLS = {
    "ToolBash20241022": "bash_20241022", "ToolBash20250124": "bash_20250124",
    "CodeExecutionTool20250522": "code_execution_20250522", "CodeExecutionTool20250825": "code_execution_20250825",
    "CodeExecutionTool20260120": "code_execution_20260120", "CodeExecutionTool20260521": "code_execution_20260521",
    "BrowserToolset20260801": "browser_toolset_20260801", "ComputerToolset20260801": "computer_toolset_20260801",
    "ToolComputerUse20241022": "computer_20241022", "ToolComputerUse20250124": "computer_20250124",
    "ToolComputerUse20251124": "computer_20251124", "MemoryTool20250818": "memory_20250818",
    "ToolTextEditor20241022": "text_editor_20241022", "ToolTextEditor20250124": "text_editor_20250124",
    "ToolTextEditor20250429": "text_editor_20250429", "ToolTextEditor20250728": "text_editor_20250728",
    "WebSearchTool20250305": "web_search_20250305", "WebSearchTool20260209": "web_search_20260209",
    "WebSearchTool20260318": "web_search_20260318", "WebFetchTool20250910": "web_fetch_20250910",
    "WebFetchTool20260209": "web_fetch_20260209", "WebFetchTool20260309": "web_fetch_20260309",
    "WebFetchTool20260318": "web_fetch_20260318", "AdvisorTool20260301": "advisor_20260301",
    "ToolSearchToolBm25_20251119": "tool_search_tool_bm25_20251119",
    "ToolSearchToolRegex20251119": "tool_search_tool_regex_20251119", "MCPToolset": "mcp_toolset",
}  # fmt: skip
SHAPES |= {
    f"Citation{source}Location": ("TextBlock.citations", Row([{"type": "char_location"}], RECORD))
    for source in ("Char", "Page", "ContentBlock", "SearchResult", "WebSearchResult")
}
SHAPES |= {
    name: ("ToolUseBlock.caller", Row({"type": "code_execution_20250825", "tool_id": "t"}, RECORD))
    for name in ("ServerToolCaller", "ServerToolCaller20260120", "DirectCaller")
}
SHAPES |= {name: ("tools.1", Row({"type": kind, "name": "x"}, REFUSED)) for name, kind in TOOLS.items()}
# Types of which nothing is told to others, whatever is in them.
PARTLY = {"ImageTransformations", "CitationsConfig"}
WHOLE = {name for name, (_, row) in SHAPES.items() if row.fate in (REFUSED, RECORD)} - PARTLY
WHOLE |= {
    "FallbackCreditToken",
    "ClearToolUses20250919Edit",
    "ClearThinking20251015Edit",
    "Diagnostics",
    "ThinkingBlockBinding",
}

# What else there is in a type, besides the kind that it is.
FIELDS: dict[str, Row] = {
    "MessageCreateParamsBase.max_tokens": Row(7, SAID),
    "MessageCreateParamsBase.messages": Row([{"role": "user", "content": "x"}], SAID),
    "MessageCreateParamsBase.model": Row("n", "left: the route says who answers"),
    "MessageCreateParamsBase.billing_policy": Row({"type": "billing_policy"}, REFUSED),
    "MessageCreateParamsBase.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "MessageCreateParamsBase.compaction": Row({"type": "summarize"}, REFUSED),
    "MessageCreateParamsBase.container": Row("c", REFUSED),
    "MessageCreateParamsBase.context_management": Row({}, "left: says nothing"),
    "MessageCreateParamsBase.diagnostics": Row({}, "left: tells about its maker's cache"),
    "MessageCreateParamsBase.fallback_credit_token": Row("t", "left: a credit at its maker"),
    "MessageCreateParamsBase.fallbacks": Row("default", "left: means nothing to a model without any"),
    "MessageCreateParamsBase.inference_geo": Row("eu", REFUSED),
    "MessageCreateParamsBase.mcp_servers": Row([{"type": "url"}], REFUSED),
    "MessageCreateParamsBase.metadata": Row({}, "left: says nothing"),
    "MessageCreateParamsBase.output_config": Row({}, "left: says nothing"),
    "MessageCreateParamsBase.service_tier": Row(None, SOON),
    "MessageCreateParamsBase.speed": Row(None, SOON),
    "MessageCreateParamsBase.stop_sequences": Row(["END"], SAID, {"responses": REFUSED}),
    "MessageCreateParamsBase.system": Row("other", SAID),
    "MessageCreateParamsBase.thinking": Row({"type": "enabled", "budget_tokens": 2000}, SAID),
    "MessageCreateParamsBase.thread": Row({"type": "create"}, REFUSED),
    "MessageCreateParamsBase.tool_choice": Row({"type": "any"}, SAID),
    "MessageCreateParamsBase.tools": Row([], SAID),
    "UserMessage.content": Row("other", SAID),
    "UserMessage.role": Row("assistant", SAID),
    "AssistantMessage.content": Row("other", SAID),
    "AssistantMessage.role": Row("user", SAID),
    "SystemMessage.content": Row("other", SAID),
    "SystemMessage.role": Row("user", SAID),
    "SystemMessage.clear_at": Row(None, "left: it is shown in its own turn"),
    "SystemMessage.output_config": Row({"effort": "low"}, SAID),
    "SystemMessageOutputConfig.effort": Row(None, SAID),
    "SystemMessageOutputConfig.effort=low": Row(None, "left: so it was"),
    "TextBlock.text": Row("other", SAID),
    "TextBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "TextBlock.citations": Row([{"type": "char_location"}], RECORD),
    "CacheControlEphemeral.ttl=5m": Row(None, "left: the default"),
    "CacheControlEphemeral.ttl=1h": Row(None, MARK, CACHED),
    "ImageBlock.source": Row(PNG | {"data": "R0lGODlh"}, SAID),
    "ImageBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "ImageBlock.transformations": Row({"oversized_image": "downsize"}, "left: what all do"),
    "ImageTransformations.oversized_image=downsize": Row(None, SAID),
    "ImageTransformations.oversized_image=error": Row(None, REFUSED),
    "Base64ImageSource.data": Row("/9j/", SAID),
    "Base64ImageSource.media_type": Row(None, SAID),
    "Base64ImageSource.media_type=image/png": Row(None, "left: so it was"),
    "URLImageSource.url": Row("https://host.example/b", SAID, FETCHED),
    "FileImageSource.file_id": Row("g", SAID, FILES | {"chat": REFUSED}),
    "Base64PDFSource.media_type": Row("application/pdf", "left: the only one"),
    "PlainTextSource.media_type": Row("text/plain", "left: the only one"),
    "ContextManagementConfig.edits": Row([], "left: nothing is asked"),
    "DocumentBlock.source": Row(PDF | {"data": "JVBERi1="}, SAID),
    "DocumentBlock.cache_control": Row({"type": "ephemeral"}, MARK, CLAUDE_ONLY | {"nova": SAID}),
    "DocumentBlock.citations": Row({"enabled": False}, "left: says nothing"),
    "DocumentBlock.context": Row("a bill", SAID),
    "DocumentBlock.title": Row("bill", SAID, {"gemini": "left: files have no names there"}),
    "Base64PDFSource.data": Row("JVBERi1=", SAID),
    "PlainTextSource.data": Row("other", SAID),
    "ContentBlockSource.content": Row("other", SAID),
    "URLPDFSource.url": Row("https://host.example/b", SAID, FETCHED),
    "FileDocumentSource.file_id": Row("g", SAID, FILES),
    "CitationsConfig.enabled": Row(False, SAID),
    "SearchResultBlock.content": Row([{"type": "text", "text": "other"}], SAID),
    "SearchResultBlock.source": Row("other", SAID),
    "SearchResultBlock.title": Row("other", SAID),
    "SearchResultBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "SearchResultBlock.citations": Row({"enabled": True}, REFUSED),
    "ThinkingBlock.signature": Row("b3RoZXI=", "left: a seal is for its own model", CLAUDE_ONLY),
    "ThinkingBlock.thinking": Row("other", "left: thoughts are their own model's", {"gemini": SAID, "claude": SAID}),
    "RedactedThinkingBlock.data": Row("b3RoZXI=", "left: thoughts are their own model's", CLAUDE_ONLY),
    "ToolUseBlock.id": Row("t3", SAID),
    "ToolUseBlock.input": Row({"b": 1}, SAID),
    "ToolUseBlock.name": Row("h", SAID),
    "ToolUseBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "ToolUseBlock.caller": Row({"type": "direct"}, RECORD),
    "ToolUseBlock.toolset_name": Row("browser", RECORD),
    "ToolResultBlock.tool_use_id": Row("t2", SAID, {"gemini": REFUSED}),
    "ToolResultBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "ToolResultBlock.content": Row("other", SAID),
    "ToolResultBlock.is_error": Row(True, "left: its words say so", {"gemini": SAID, "claude": SAID, "nova": SAID}),
    "ToolResultBlock.toolset_name": Row("browser", RECORD),
    "ToolReferenceBlock.tool_name": Row("u", SAID),
    "ToolReferenceBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "CompactionBlock.content": Row("other", SAID),
    "CompactionBlock.encrypted_content": Row("e", "left: the same in a seal"),
    "CompactionBlock.signature": Row("s", "left: the same in a seal"),
    "CompactionBlock.cache_control": Row({"type": "ephemeral"}, MARK, CACHED),
    "CompactionBlock.tool_changes": Row([], "left: says nothing"),
    "Metadata.user_id": Row("u", SAID, dict.fromkeys(("gemini", "claude", "nova"), "left: no word for it there")),
    "OutputConfig.effort": Row(None, SAID),
    "OutputConfig.format": Row({"type": "json_schema", "schema": {"type": "object"}}, SAID),
    "OutputConfig.task_budget": Row({"type": "tokens", "total": 20_000}, REFUSED),
    "JSONOutputFormat.schema": Row({"type": "object", "title": "t"}, SAID),
    "ThinkingConfigEnabled.budget_tokens": Row(16_000, SAID),
    "ThinkingConfigEnabled.display": Row(None, "left: it is shown"),
    "ThinkingConfigEnabled.display=omitted": Row(None, "left: not to be told", SHOWN),
    "ThinkingConfigEnabled.block_binding": Row({}, "left: thoughts go to no other model"),
    "ThinkingConfigAdaptive.display": Row(None, "left: it is shown"),
    "ThinkingConfigAdaptive.display=omitted": Row(None, "left: not to be told", SHOWN),
    "ThinkingConfigAdaptive.block_binding": Row({}, "left: thoughts go to no other model"),
    "ToolChoiceAuto.disable_parallel_tool_use": Row(True, SAID, {"gemini": REFUSED, "nova": REFUSED}),
    "ToolChoiceAny.disable_parallel_tool_use": Row(True, SAID, {"gemini": REFUSED, "nova": REFUSED}),
    "ToolChoiceTool.disable_parallel_tool_use": Row(True, SAID, {"gemini": REFUSED, "nova": REFUSED}),
    "ToolChoiceTool.name": Row("h", SAID),
    "Tool.input_schema": Row({"type": "object", "title": "t"}, SAID),
    "Tool.name": Row("h", SAID),
    "Tool.allowed_callers": Row(None, REFUSED),
    "Tool.allowed_callers=direct": Row(None, "left: so do all"),
    "Tool.cache_control": Row({"type": "ephemeral"}, MARK, CLAUDE_ONLY),
    "Tool.defer_loading": Row(True, "left: the tool is there from the start"),
    "Tool.description": Row("other", SAID),
    "Tool.eager_input_streaming": Row(True, "left: others stream as they do"),
    "Tool.input_examples": Row([{"a": 1}], SAID),
    "Tool.strict": Row(True, SAID, dict.fromkeys(("gemini", "nova"), "left: a hint by nature")),
    "InputSchemaTyped.properties": Row({"a": {"type": "string"}}, SAID),
    "InputSchemaTyped.required": Row(["a"], SAID),
}  # fmt: skip
# Parameters of the SDK that go out as headers.
HEADERS = {"betas", "user_profile_id", "workspace_id"}
# Where an instance of a type lies deeper than the place that it is put in.
INSIDE = {
    "Base64ImageSource": "source", "URLImageSource": "source", "FileImageSource": "source", "Base64PDFSource": "source",
    "PlainTextSource": "source", "ContentBlockSource": "source", "URLPDFSource": "source",
    "SystemMessageOutputConfig": "output_config",
    "FileDocumentSource": "source", "JSONOutputFormat": "format", "InputSchemaTyped": "input_schema",
}  # fmt: skip


@cache
def listed() -> list[str]:
    """What the types of the SDK have, but for what is no part of the body."""
    names = list(fields_of(MessageCreateParamsBase, WHOLE, set()))[1:]
    return [name for name in names if name.partition(".")[2].partition("=")[0] not in HEADERS]


TABLE = Table(plug, "/v1/messages", BASE, SHAPES, FIELDS, INSIDE, ("allowed_callers",))


@pytest.mark.parametrize("target", OTHERS)
def test_every_field_has_its_fate(target: str) -> None:
    wrong = TABLE.wrong(listed(), target)
    assert not wrong, "\n".join(wrong)


def test_the_same_answer_serves_only_the_same_question() -> None:
    for name in listed():
        before, after, row, _ = TABLE.pair(name)
        if before != after and TABLE.same_answer(before, after):
            assert row.fate.startswith("left") or name == "Metadata.user_id", name


def test_our_own_kind_gets_every_field_as_it_is() -> None:
    for name in listed():
        _, after, _, _ = TABLE.pair(name)
        assert TABLE.write(after, "messages") == after | {"model": "claude-sonnet-4-5"}, name


def test_no_row_is_left_over() -> None:
    names = listed()
    assert set(SHAPES) - {"MessageCreateParamsBase"} <= set(names)
    known = {name.partition("=")[0] for name in names}
    assert {name.partition("=")[0] for name in FIELDS} <= known


def test_the_stable_types_are_among_these() -> None:
    assert set(fields_of(Stable, WHOLE, set())) <= set(fields_of(MessageCreateParamsBase, WHOLE, set()))
