"""Tools and calls of the chat-completions form, both ways: today's, free-form ones, and the older `functions`.

Models elsewhere know plain functions with an id for each call only. So a free-form ("custom") tool is read as one
with the single parameter `input`, and calls without an id get one; `Manner` turns answers back.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Literal

import msgspec

from nexus.llm.errors import InvalidRequest
from nexus.llm.forms.cache_marks import read_mark
from nexus.llm.forms.free_form import as_function, unwrapped, wrapped
from nexus.llm.forms.signatures import found_beside
from nexus.llm.types import Tool, ToolCall, ToolChoice

Mode = Literal["auto", "none", "required", "tool"]
_MODES: dict[str, Mode] = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


class Manner(msgspec.Struct, frozen=True):
    """How a client wants calls written: by the names of its free-form tools, and whether in the older way."""

    custom: frozenset[str] = frozenset()
    older: bool = False

    @classmethod
    def of(cls, asked: dict[str, Any]) -> Manner:
        """Read it off a request."""
        tools = [tool for tool in asked.get("tools") or () if isinstance(tool, dict)]
        named = (tool.get("custom") for tool in tools if tool.get("type") == "custom")
        custom = frozenset(str(tool.get("name")) for tool in named if isinstance(tool, dict))
        return cls(custom, older=bool(asked.get("functions")) and not tools)


PLAIN = Manner()


def read_tools(tools: Sequence[dict[str, Any]] | None, functions: Sequence[dict[str, Any]] | None) -> list[Tool]:
    """Read a request's tools, and its functions."""
    return [_read_tool(tool) for tool in tools or ()] + [_read_function(function) for function in functions or ()]


def _read_tool(tool: dict[str, Any]) -> Tool:
    kind = tool.get("type") or ("function" if "function" in tool else None)
    told = tool.get(kind) if isinstance(kind, str) else None
    if kind == "function" and isinstance(told, dict):
        return msgspec.structs.replace(_read_function(told), cache=read_mark(tool))
    if kind == "custom" and isinstance(told, dict):
        return as_function(
            str(told.get("name", "")), told.get("description"), (told.get("format") or {}).get("grammar")
        )
    return Tool(name=str(kind or ""), value=tool)


def _read_function(function: dict[str, Any]) -> Tool:
    known = {name: function.get(name) for name in ("description", "parameters", "strict")}
    return Tool(name=function.get("name", ""), **known)


def only_allowed(tools: Sequence[Tool], choice: Any) -> Sequence[Tool]:
    """Return the tools that a choice leaves: one of `allowed_tools` keeps the others from being used."""
    told = choice.get("allowed_tools") if isinstance(choice, dict) else None
    if not isinstance(told, dict):
        return tools
    return narrowed(tools, _names(told.get("tools")))


def narrowed(tools: Sequence[Tool], names: Container[Any]) -> Sequence[Tool]:
    """Return the tools of these names. Raises `InvalidRequest` where there are none."""
    left = [tool for tool in tools if tool.name in names]
    if not left:
        raise InvalidRequest("tool_choice: none of the allowed tools is among the tools.", field="tool_choice")
    return left


def _names(listed: Any) -> list[Any]:
    inner = [tool.get(tool.get("type")) for tool in listed or () if isinstance(tool, dict)]
    return [tool.get("name") for tool in inner if isinstance(tool, dict)]


def write_tool(tool: Tool) -> dict[str, Any]:
    """Write a tool."""
    if tool.value is not None:
        return tool.value
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def read_choice(choice: Any, parallel: bool | None, older: Any = None) -> ToolChoice | None:
    """Read which tool is to be used; `older` is a `function_call`."""
    if isinstance(older, dict):
        choice = {"type": "function", "function": older}
    elif choice is None:
        choice = older
    if choice is None and parallel is None:
        return None
    if not isinstance(choice, dict):
        mode = _MODES.get(choice or "auto")
        # Some servers take the name of a tool as it stands.
        return ToolChoice(mode=mode or "tool", name=None if mode else str(choice), parallel=parallel)
    kind = choice.get("type", "function")
    told = choice.get(kind) if isinstance(kind, str) else None
    told = told if isinstance(told, dict) else {}
    if kind != "allowed_tools":
        return ToolChoice(mode="tool", name=told.get("name"), parallel=parallel)
    names = _names(told.get("tools"))
    if told.get("mode") == "required" and len(names) == 1:
        return ToolChoice(mode="tool", name=names[0], parallel=parallel)
    return ToolChoice(mode="required" if told.get("mode") == "required" else "auto", parallel=parallel)


def check_choice(choice: ToolChoice | None, tools: Sequence[Tool]) -> None:
    """Raise `InvalidRequest` for a choice that insists on tools where there are none."""
    if not tools and choice is not None and choice.mode in ("required", "tool"):
        raise InvalidRequest("tool_choice is only allowed with tools.", field="tool_choice")


def write_choice(choice: ToolChoice) -> dict[str, Any]:
    """Write the fields that say which tool is to be used."""
    out: dict[str, Any] = {} if choice.parallel is None else {"parallel_tool_calls": choice.parallel}
    named = {"type": "function", "function": {"name": choice.name}}
    return out | {"tool_choice": named if choice.mode == "tool" else choice.mode}


def read_call(call: dict[str, Any]) -> ToolCall:
    """Read a call."""
    kind = call.get("type") or "function"
    told = call.get(kind) or call.get("function") or {}
    given = call.get("id")
    arguments = told.get("arguments")
    if kind == "custom":
        arguments = wrapped(str(told.get("input") or ""))
    elif arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCall(
        id="" if given is None else str(given),
        name=told.get("name") or "",
        arguments=arguments or "",
        signature=found_beside(call),
    )


def write_call(call: ToolCall, manner: Manner = PLAIN) -> dict[str, Any]:
    """Write a call."""
    if call.name in manner.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": unwrapped(call.arguments)}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
