"""Whole answers of the Responses form: read into our own, and written from it.

Source: https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from nexus.core.ids import new_id
from nexus.llm.errors import UpstreamMalformed, from_stream
from nexus.llm.forms.figures import count_of
from nexus.llm.forms.responses.items import Names, offered, read_output, write_output
from nexus.llm.forms.responses.requests import spare_tool
from nexus.llm.types import Choice, Completion, FinishReason, Foreign, Message, Refusal, ToolCall, Usage

_ECHO: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_TIERS = frozenset(("flex", "scale", "priority", "fast", "ultrafast"))
_INCOMPLETE: dict[FinishReason | None, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FINISH: dict[Any, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}


def echo_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a response repeats of its request, with this form's own defaults where it said nothing.

    Of the tools only those that the model was given.
    """
    told = {name: default if asked.get(name) is None else asked[name] for name, default in _ECHO.items()}
    text = asked.get("text") or {}
    reasoning = asked.get("reasoning") or {}
    told["text"] = {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"}
    told["reasoning"] = {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}
    told["service_tier"] = "default"
    told["tools"] = [_echo_tool(tool) for tool in asked.get("tools") or () if not spare_tool(tool)]
    return told


def _echo_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": None, "strict": False} | tool if tool.get("type") == "function" else tool


def response_head(model: str, echo: dict[str, Any]) -> dict[str, Any]:
    """Begin a response that is in progress."""
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
    } | echo


def write_response(
    completion: Completion, model: str, asked: dict[str, Any], history: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Write the first choice of a whole answer, to the request `asked` after the items of earlier ones."""
    choice = completion.choices[0] if completion.choices else None
    finish = choice.finish_reason if choice is not None else None
    ended = ending(finish)
    message = choice.message if choice is not None else Message(role="assistant", parts=())
    names = Names.of(offered(asked, history))
    logprobs = (choice.extra.get("logprobs") or {}).get("content") or () if choice is not None else ()
    head = response_head(completion.model or model, echo_of(asked)) | ended
    return (
        head
        | {
            "created_at": completion.created or head["created_at"],
            "output": write_output(message, names, ended["status"], logprobs, sources=wants_sources(asked)),
        }
        | counted(completion.usage)
    )


def wants_sources(asked: dict[str, Any]) -> bool:
    """Tell whether a request wants to know what searches in the web found."""
    return "web_search_call.action.sources" in (asked.get("include") or ())


def counted(usage: Usage | None) -> dict[str, Any]:
    """Return what a response says of its usage, and the service tier that was used, which its provider told with it."""
    if usage is None:
        return {"usage": None}
    tier = {"service_tier": usage.tier} if usage.tier in _TIERS else {}
    return {"usage": write_usage(usage)} | tier


def ending(finish: FinishReason | None) -> dict[str, Any]:
    """Return how a response says that it has ended."""
    if finish in _INCOMPLETE:
        return {"status": "incomplete", "incomplete_details": {"reason": _INCOMPLETE[finish]}}
    return {"status": "completed", "completed_at": int(time.time())}


def read_response(body: dict[str, Any]) -> Completion:
    """Read a whole answer. Raises `UpstreamMalformed`, or the error that it carries."""
    output = body.get("output")
    if body.get("error") is not None or body.get("status") in ("failed", "cancelled"):
        raise from_stream(body.get("error"))
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise UpstreamMalformed
    message = read_output(output)
    logprobs = message.extra.pop("logprobs", None)
    native = finish_of(body, message)
    choice = Choice(
        index=0,
        message=message,
        finish_reason=native,
        native_finish_reason=native,
        extra={"logprobs": {"content": logprobs}} if logprobs else {},
    )
    kept = ("id", "model", "created_at", "output", "usage", "object")
    return Completion(
        id=body.get("id") or "",
        model=body.get("model") or "",
        created=int(body.get("created_at") or time.time()),
        choices=(choice,),
        usage=read_usage(body.get("usage"), body.get("service_tier"), body.get("tool_usage")),
        extra={name: value for name, value in body.items() if name not in kept},
    )


def finish_of(body: dict[str, Any], message: Message) -> FinishReason:
    """Return why a response ended: it says so only where it is incomplete."""
    if body.get("status") == "incomplete":
        # For whatever reason: what is not whole must not look as if it were.
        return _FINISH.get((body.get("incomplete_details") or {}).get("reason"), "length")
    if any(isinstance(part, ToolCall) for part in message.parts):
        return "tool_calls"
    said = [part for part in message.parts if not isinstance(part, Foreign)]
    return "refusal" if said and isinstance(said[-1], Refusal) else "stop"


def read_usage(usage: Any, tier: Any = None, tools: Any = None) -> Usage | None:
    """Read a usage object, also one with missing or senseless figures; None when it says nothing.

    `tier` is the service tier that the answer names, `tools` what it says of the use of the provider's own.
    """
    if not isinstance(usage, dict):
        return None
    given, made = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if not given and not made:
        return None
    read, wrote = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    read, wrote = read if isinstance(read, dict) else {}, wrote if isinstance(wrote, dict) else {}
    searched = tools.get("web_search") if isinstance(tools, dict) else None
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=count_of(read.get("cached_tokens")),
        cache_write_tokens=count_of(read.get("cache_write_tokens")),
        reasoning_tokens=count_of(wrote.get("reasoning_tokens")),
        web_searches=count_of(searched.get("num_requests")) if isinstance(searched, dict) else 0,
        tier=tier if isinstance(tier, str) and tier != "default" else None,
    )


def write_usage(usage: Usage) -> dict[str, Any]:
    """Write a usage object."""
    read = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
