"""OpenAI's Responses. Source: https://platform.openai.com/docs/api-reference/responses, and `-streaming`."""

from __future__ import annotations

import re
from typing import Any

from nexus.testing.said import Said, ToolUse, pieces
from nexus.testing.script import Seen
from nexus.testing.wire import Asked, OfferedTool, Refused, Wire, cut, encode, event, words_of
from nexus.testing.wires.openai_chat import refusal

_CREATED = 1_700_000_000


class OpenAIResponses(Wire):
    """Responses."""

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        if seen.method == "POST" and seen.route.endswith("/responses/input_tokens"):
            return Asked(seen, "count", seen.model)
        if seen.method != "POST" or not re.search(r"/responses(/compact)?$", seen.route):
            return None
        fields = seen.fields
        given = fields.get("input")
        items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        last = items[-1] if items else {}
        form = (fields.get("text") or {}).get("format") or {}
        tools = [tool for tool in fields.get("tools") or [] if tool.get("type") == "function"]
        return Asked(
            seen,
            "chat",
            seen.model,
            stream=bool(fields.get("stream")),
            words=given if isinstance(given, str) else words_of(last.get("content")) or str(last.get("output") or ""),
            after_tool=last.get("type") == "function_call_output",
            tools=tuple(OfferedTool(tool.get("name", ""), tool.get("parameters")) for tool in tools),
            schema=form.get("schema"),
        )

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a response."""
        return encode(_response(asked, said, _items(said)))

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write the events of a response, numbered."""
        items = _items(said)
        begun = _response(asked, said, [], status="in_progress")
        told: list[dict[str, Any]] = [
            {"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")
        ]
        for position, item in enumerate(items):
            told += _item_events(position, item)
        whole = _response(asked, said, items)
        told.append({"type": f"response.{whole['status']}", "response": whole})
        return [event(item | {"sequence_number": number}, item["type"]) for number, item in enumerate(told)]

    def other(self, asked: Asked) -> bytes:
        """Write how many tokens a request has."""
        return encode({"object": "response.input_tokens", "input_tokens": 12})

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error."""
        return refusal(status, message, wait=wait, reason=reason)

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error in the middle of a stream."""
        code = "rate_limit_exceeded" if status == 429 else "server_error"
        told = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 99}
        return event(told, "error")


def _items(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if said.thinking:
        summary = [{"type": "summary_text", "text": said.thinking}]
        items.append({"id": "rs_fake", "type": "reasoning", "summary": summary, "encrypted_content": "c2VhbGVk"})
    if said.text:
        refused = said.finish == "refusal"
        part: dict[str, Any] = {"type": "refusal", "refusal": said.text}
        if not refused:
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": said.text}
        items.append(
            {"id": "msg_fake", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        )
    items += [_call(tool) for tool in said.tools]
    return items


def _call(tool: ToolUse) -> dict[str, Any]:
    return {
        "id": f"fc_{tool.id}",
        "type": "function_call",
        "status": "completed",
        "call_id": tool.id,
        "name": tool.name,
        "arguments": encode(tool.arguments).decode(),
    }


def _response(asked: Asked, said: Said, items: list[dict[str, Any]], status: str = "") -> dict[str, Any]:
    reasons = {"length": "max_output_tokens", "filter": "content_filter"}
    reason = None if status else reasons.get(said.finish)
    fields = asked.fields
    kept = ("instructions", "max_output_tokens", "temperature", "top_p", "tools", "tool_choice", "metadata", "text")
    body: dict[str, Any] = {
        "id": "resp_fake",
        "object": "response",
        "created_at": _CREATED,
        "status": status or ("incomplete" if reason else "completed"),
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": asked.model,
        "output": items,
        "parallel_tool_calls": fields.get("parallel_tool_calls", True),
        "previous_response_id": fields.get("previous_response_id"),
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    body |= {name: fields[name] for name in kept if name in fields}
    if said.usage and not status:
        body["usage"] = said.claimed(
            {
                "input_tokens": said.prompt_tokens,
                "input_tokens_details": {"cached_tokens": said.cached_tokens},
                "output_tokens": said.written_tokens,
                "output_tokens_details": {"reasoning_tokens": said.thought_tokens},
                "total_tokens": said.prompt_tokens + said.written_tokens,
            }
        )
    return body | said.extra


_EMPTY: dict[str, dict[str, Any]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "reasoning": {"summary": []},
}


def _item_events(position: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"output_index": position, "item_id": item["id"]}
    opened = {"status": "in_progress"} if "status" in item else {}
    empty = _EMPTY[item["type"]]
    out: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": position, "item": item | empty | opened}
    ]
    if item["type"] == "function_call":
        kind = "response.function_call_arguments.delta"
        out += [{"type": kind, **place, "delta": piece} for piece in cut(item["arguments"])]
        done = {"arguments": item["arguments"], "name": item["name"]}
        out.append({"type": "response.function_call_arguments.done", **place, **done})
    elif item["type"] == "reasoning":
        out += _summary_events(place | {"summary_index": 0}, item["summary"][0])
    else:
        out += _part_events(place | {"content_index": 0}, item["content"][0])
    out.append({"type": "response.output_item.done", "output_index": position, "item": item})
    return out


def _part_events(place: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    field = "refusal" if part["type"] == "refusal" else "text"
    kind = "refusal" if field == "refusal" else "output_text"
    more: dict[str, Any] = {} if field == "refusal" else {"logprobs": []}
    return [
        {"type": "response.content_part.added", **place, "part": part | {field: ""}},
        *({"type": f"response.{kind}.delta", **place, "delta": word, **more} for word in pieces(part[field])),
        {"type": f"response.{kind}.done", **place, field: part[field], **more},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def _summary_events(place: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "response.reasoning_summary_part.added", **place, "part": part | {"text": ""}},
        *({"type": "response.reasoning_summary_text.delta", **place, "delta": word} for word in pieces(part["text"])),
        {"type": "response.reasoning_summary_text.done", **place, "text": part["text"]},
        {"type": "response.reasoning_summary_part.done", **place, "part": part},
    ]


plug = OpenAIResponses()
