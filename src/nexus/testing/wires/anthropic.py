"""Messages and token counts as Anthropic has them, Vertex AI's `rawPredict` of the same included.

Source: https://docs.anthropic.com/en/api/messages, `messages-streaming` and `errors`.
"""

from __future__ import annotations

import re
from typing import Any

from nexus.testing.said import Said, pieces
from nexus.testing.script import Seen
from nexus.testing.wire import Asked, OfferedTool, Refused, Wire, cut, encode, event, words_of

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FINISH = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "filter": "refusal", "refusal": "refusal"}
_SIGNATURE = "RmFrZVNpZ25hdHVyZQ=="


class Anthropic(Wire):
    """Messages."""

    usage_place = -2

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        if seen.method == "POST" and seen.route.endswith("/messages/count_tokens"):
            return Asked(seen, "count", seen.model)
        if seen.method == "GET" and re.search(r"/models(/[^/]+)?$", seen.route) and "anthropic-version" in seen.headers:
            return Asked(seen, "models", "")
        raw = re.search(r":(rawPredict|streamRawPredict)$", seen.route)
        if seen.method != "POST" or not (raw or seen.route.endswith("/messages")):
            return None
        return read(seen, stream=bool(seen.fields.get("stream")) or (raw is not None and raw[1] == "streamRawPredict"))

    def missing(self, asked: Asked) -> str | None:
        """Refuse what the real server refuses."""
        if asked.operation != "chat":
            return None
        if "anthropic-version" not in asked.seen.headers and "anthropic_version" not in asked.fields:
            return "anthropic-version: header is required"
        lacking = (name for name in ("max_tokens", "messages") if name not in asked.fields)
        return next((f"{name}: Field required" for name in lacking), None)

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a message."""
        return encode(message(asked.model, said))

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write the events of a message."""
        return [event(item, item["type"]) for item in message_events(asked.model, said)]

    def other(self, asked: Asked) -> bytes:
        """Write a count of tokens, or the list of models."""
        if asked.operation == "count":
            return encode({"input_tokens": 12})
        cards = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"}
            for name in ("echo", "tools", "thinking")
        ]
        return encode({"data": cards, "has_more": False, "first_id": "echo", "last_id": "thinking"})

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error."""
        kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        words = {
            "model": "model: no-such-model",
            "context": "prompt is too long: 250000 tokens > 200000 maximum",
            "quota": "Your credit balance is too low to access the Anthropic API.",
            "field": "temperature: Input should be less than or equal to 1",
        }.get(reason, "Overloaded" if status == 529 else message)
        headers = ("request-id: req_fake",) if wait is None else ("request-id: req_fake", f"retry-after: {wait}")
        return Refused(encode(_error(kind, words)), headers)

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error in the middle of a stream."""
        return event(_error(_KINDS.get(status, "api_error"), message), "error")


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}


def read(seen: Seen, *, stream: bool) -> Asked:
    """Read a request for a message, wherever it came in."""
    fields = seen.fields
    messages = [item for item in fields.get("messages") or [] if isinstance(item, dict)]
    content = messages[-1].get("content") if messages else ""
    results = [part for part in content if part.get("type") == "tool_result"] if isinstance(content, list) else []
    form = (fields.get("output_config") or {}).get("format") or fields.get("output_format") or {}
    tools = [tool for tool in fields.get("tools") or [] if "input_schema" in tool]
    return Asked(
        seen,
        "chat",
        seen.model,
        stream=stream,
        words=words_of(results[-1].get("content")) if results else words_of(content),
        after_tool=bool(results),
        tools=tuple(OfferedTool(tool.get("name", ""), tool["input_schema"]) for tool in tools),
        schema=form.get("schema"),
    )


def _blocks(said: Said) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.thinking:
        blocks.append({"type": "thinking", "thinking": said.thinking, "signature": _SIGNATURE})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    blocks += [{"type": "tool_use", "id": tool.id, "name": tool.name, "input": tool.arguments} for tool in said.tools]
    return blocks


def _usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": said.fresh_tokens,
        "cache_creation_input_tokens": said.stored_5m_tokens + said.stored_1h_tokens,
        "cache_read_input_tokens": said.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": said.stored_5m_tokens,
            "ephemeral_1h_input_tokens": said.stored_1h_tokens,
        },
        "output_tokens": said.written_tokens,
        "service_tier": "standard",
    }


def message(model: str, said: Said) -> dict[str, Any]:
    """Write a message."""
    body: dict[str, Any] = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(said),
        "stop_reason": _FINISH[said.finish],
        "stop_sequence": None,
    }
    if said.usage:
        body["usage"] = said.claimed(_usage(said))
    return body | said.extra


def message_events(model: str, said: Said) -> list[dict[str, Any]]:
    """Write the events of a message as objects."""
    begun = message(model, said) | {"content": [], "stop_reason": None}
    if isinstance(begun.get("usage"), dict):
        begun["usage"] = begun["usage"] | {"output_tokens": 1}
    out: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(_blocks(said)):
        out.append({"type": "content_block_start", "index": index, "content_block": block | _EMPTY[block["type"]]})
        if index == 0:
            out.append({"type": "ping"})
        out += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
        out.append({"type": "content_block_stop", "index": index})
    last: dict[str, Any] = {"type": "message_delta"}
    last["delta"] = {"stop_reason": _FINISH[said.finish], "stop_sequence": None}
    if said.usage:
        last["usage"] = said.claimed(_usage(said))
    return [*out, last, {"type": "message_stop"}]


_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": word} for word in pieces(block["text"])]
    if block["type"] == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": word} for word in pieces(block["thinking"])]
        return [*thoughts, {"type": "signature_delta", "signature": block["signature"]}]
    parts = ["", *cut(encode(block["input"]).decode())]
    return [{"type": "input_json_delta", "partial_json": part} for part in parts]


plug = Anthropic()
