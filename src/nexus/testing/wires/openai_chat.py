"""Chat completions, legacy completions, embeddings and models, as OpenAI, Azure and all compatible servers have them.

Source: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import re
from typing import Any

from nexus.testing.said import Said, ToolUse
from nexus.testing.script import Seen
from nexus.testing.wire import (
    Asked,
    OfferedTool,
    Operation,
    Refused,
    Wire,
    cut,
    encode,
    event,
    packed,
    vectors,
    words_of,
)

_FINISH = {"stop": "stop", "length": "length", "tools": "tool_calls", "filter": "content_filter", "refusal": "stop"}
_KINDS = {401: "invalid_request_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_PLACES: tuple[tuple[str, str, Operation], ...] = (
    ("POST", r"/chat/completions$", "chat"),
    ("POST", r"/completions$", "chat"),
    ("POST", r"/embeddings$", "embed"),
    ("GET", r"/models(/.+)?$", "models"),
)


def refusal(status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
    """Write OpenAI's error object. Source: https://platform.openai.com/docs/guides/error-codes."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}
    if reason == "context":
        error |= {"param": "messages", "code": "context_length_exceeded"}
    elif reason == "quota":
        error |= {"type": "insufficient_quota", "code": "insufficient_quota"}
    elif reason == "field":
        error |= {"param": "temperature", "code": "invalid_value"}
    headers = ("x-request-id: req_fake",)
    return Refused(encode({"error": error}), headers if wait is None else (*headers, f"retry-after: {wait}"))


class OpenAIChat(Wire):
    """Chat completions."""

    end = b"data: [DONE]\n\n"

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        operation = next((op for verb, end, op in _PLACES if verb == seen.method and re.search(end, seen.route)), None)
        if operation is None:
            return None
        fields = seen.fields
        messages = [item for item in fields.get("messages") or [] if isinstance(item, dict)]
        last = messages[-1] if messages else {}
        functions = [tool.get("function") or {} for tool in fields.get("tools") or []]
        form = fields.get("response_format") or {}
        return Asked(
            seen,
            operation,
            seen.model,
            stream=bool(fields.get("stream")),
            words=words_of(last.get("content")) or words_of(fields.get("prompt")),
            after_tool=last.get("role") == "tool",
            tools=tuple(OfferedTool(tool.get("name", ""), tool.get("parameters")) for tool in functions),
            schema=(form.get("json_schema") or {}).get("schema"),
        )

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a completion."""
        legacy = _legacy(asked)
        body: dict[str, Any] = {
            "id": "chatcmpl-fake",
            "object": "text_completion" if legacy else "chat.completion",
            "created": 1_700_000_000,
            "model": asked.model,
            "choices": [
                {"index": index, **({"text": said.text} if legacy else {"message": _message(said)}), **_ending(said)}
                for index in range(_choices(asked))
            ],
            "system_fingerprint": "fp_fake",
            "x_vendor_field": {"kept": True},
        }
        if said.usage:
            body["usage"] = said.claimed(usage_of(said))
        return encode(body | said.extra)

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write the chunks of a completion; one with the usage comes last where the request wants it."""
        count, legacy = _choices(asked), _legacy(asked)
        options = asked.fields.get("stream_options") or {}
        deltas: list[dict[str, Any]] = [] if legacy else [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in _pieces(said.thinking)]
        told = "refusal" if said.finish == "refusal" else "content"
        deltas += [{"text": word} if legacy else {told: word} for word in said.words]
        for position, tool in enumerate(said.tools):
            deltas += _tool_deltas(position, tool)
        out = [_chunk(asked, said, index, delta) for delta in deltas for index in range(count)]
        out += [_chunk(asked, said, index, {}, _FINISH[said.finish]) for index in range(count)]
        if options.get("include_usage") and said.usage:
            out.append(event(_head(asked, said) | {"choices": [], "usage": said.claimed(usage_of(said))}))
        return out

    def other(self, asked: Asked) -> bytes:
        """Write embeddings, or the list of models."""
        if asked.operation == "models":
            card = {"object": "model", "created": 1_700_000_000, "owned_by": "fake"}
            named = re.search(r"/models/(.+)$", asked.seen.route)
            if named:
                return encode({"id": named.group(1), **card})
            return encode({"object": "list", "data": [{"id": name, **card} for name in ("echo", "tools", "thinking")]})
        fields = asked.fields
        given = fields.get("input")
        one = isinstance(given, str) or (isinstance(given, list) and bool(given) and isinstance(given[0], int))
        count = 1 if one else len(given or [])
        data = []
        for index, vector in enumerate(vectors(count, fields.get("dimensions") or 8)):
            value = packed(vector) if fields.get("encoding_format") == "base64" else vector
            data.append({"object": "embedding", "index": index, "embedding": value})
        usage = {"prompt_tokens": 3 * count, "total_tokens": 3 * count}
        return encode({"object": "list", "data": data, "model": asked.model, "usage": usage, "x_vendor": 1})

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error."""
        return refusal(status, message, wait=wait, reason=reason)

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error in the middle of a stream."""
        return event({"error": {"message": message, "type": "server_error", "param": None, "code": status}})


def usage_of(said: Said) -> dict[str, Any]:
    """Write the usage of a completion."""
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.written_tokens,
        "total_tokens": said.prompt_tokens + said.written_tokens,
        "prompt_tokens_details": {"cached_tokens": said.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": said.thought_tokens, "audio_tokens": 0},
    }


def _legacy(asked: Asked) -> bool:
    return not asked.seen.route.endswith("/chat/completions")


def _choices(asked: Asked) -> int:
    given = asked.fields.get("n")
    return given if isinstance(given, int) and 0 < given < 100 else 1


def _ending(said: Said) -> dict[str, Any]:
    return {"logprobs": None, "finish_reason": _FINISH[said.finish]}


def _pieces(text: str) -> list[str]:
    return Said(text=text).words


def _message(said: Said) -> dict[str, Any]:
    refused = said.finish == "refusal"
    message: dict[str, Any] = {"role": "assistant", "content": None if refused else said.text}
    message["refusal"] = said.text if refused else None
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.tools:
        message["content"] = said.text or None
        message["tool_calls"] = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": _arguments(tool)}}
            for tool in said.tools
        ]
    return message


def _arguments(tool: ToolUse) -> str:
    return encode(tool.arguments).decode()


def _tool_deltas(position: int, tool: ToolUse) -> list[dict[str, Any]]:
    first = {"index": position, "id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
    rest = [{"index": position, "function": {"arguments": piece}} for piece in cut(_arguments(tool))]
    return [{"tool_calls": [call]} for call in (first, *rest)]


def _head(asked: Asked, said: Said) -> dict[str, Any]:
    kind = "text_completion" if _legacy(asked) else "chat.completion.chunk"
    head = {"id": "chatcmpl-fake", "object": kind, "created": 1_700_000_000, "model": asked.model}
    return head | said.extra


def _chunk(asked: Asked, said: Said, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
    told = {"text": "", **delta} if _legacy(asked) else {"delta": delta}
    choice = {"index": index, **told, "logprobs": None, "finish_reason": finish}
    return event(_head(asked, said) | {"choices": [choice]})


plug = OpenAIChat()
