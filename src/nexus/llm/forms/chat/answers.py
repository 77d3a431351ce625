"""Answers of the chat-completions form, whole and streamed, and our own, both ways.

Source: https://platform.openai.com/docs/api-reference/chat/object, and `/streaming`.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec

from nexus.core.ids import new_id
from nexus.llm.forms.assembly import OF_MESSAGE
from nexus.llm.forms.chat.calls import Calls
from nexus.llm.forms.chat.requests import read_content, read_message, read_part, with_call_ids, write_part, write_spoken
from nexus.llm.forms.chat.tools import PLAIN, Manner
from nexus.llm.forms.figures import count_of
from nexus.llm.forms.signatures import beside
from nexus.llm.types import (
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Media,
    Text,
    Thinking,
    ToolCall,
    Usage,
)

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
    # In the words of servers that keep their own.
    "complete": "stop",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "sensitive": "content_filter",
    # Some servers tell of failures as ends.
    "error": "failed",
    "abort": "failed",
    "insufficient_system_resource": "failed",
    "network_error": "failed",
}
_NATIVE = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter"))
_ANSWER_EXTRAS = ("service_tier", "system_fingerprint", "moderation")
_TIERS = frozenset(("flex", "scale", "priority", "fast"))
_FINISH_OUT = {"pause": "stop", "other": "stop", "refusal": "content_filter"}


_Count = Annotated[int, msgspec.Meta(ge=0)] | None


class InputFigures(msgspec.Struct):
    """`prompt_tokens_details`, with the names of all servers."""

    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    cache_creation_tokens: _Count = None
    audio_tokens: _Count = None


class OutputFigures(msgspec.Struct):
    """`completion_tokens_details`."""

    reasoning_tokens: _Count = None
    audio_tokens: _Count = None


class Figures(msgspec.Struct):
    """A usage object of the usual shape, with the names of all servers."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    prompt_tokens_details: InputFigures | None = None
    completion_tokens_details: OutputFigures | None = None
    prompt_cache_hit_tokens: _Count = None
    cached_tokens: _Count = None
    num_cached_tokens: _Count = None

    def usage(self, tier: Any = None) -> Usage | None:
        """Return the tokens, None where there are none; `tier` is the service tier that the answer names."""
        prompt, completion = self.prompt_tokens or 0, self.completion_tokens or 0
        if not prompt and not completion:
            return None
        usage = Usage(input_tokens=prompt, output_tokens=completion)
        if (read := self.prompt_tokens_details) is not None:
            usage.cache_read_tokens = read.cached_tokens or 0
            usage.audio_input_tokens = read.audio_tokens or 0
        if not usage.cache_read_tokens:
            usage.cache_read_tokens = self.prompt_cache_hit_tokens or self.cached_tokens or self.num_cached_tokens or 0
        if read is not None:
            stored = read.cache_creation_tokens if read.cache_write_tokens is None else read.cache_write_tokens
            if stored:
                # Some count what was read from a cache as written to it too; no token of the input counts twice.
                usage.cache_write_tokens = min(stored, max(prompt - usage.cache_read_tokens, 0))
        if (wrote := self.completion_tokens_details) is not None:
            usage.reasoning_tokens = wrote.reasoning_tokens or 0
            usage.audio_output_tokens = wrote.audio_tokens or 0
        if tier is not None and isinstance(tier, str) and tier != "default":
            usage.tier = tier
        return usage


def read_usage(usage: Any, tier: Any = None) -> Usage | None:
    """Read a usage object, also one with missing, null or senseless figures; None when it says nothing."""
    if not isinstance(usage, dict):
        return usage.usage(tier) if isinstance(usage, Figures) else None
    read, wrote = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    details = {
        "prompt_tokens_details": InputFigures(**_figures(InputFigures, read)),
        "completion_tokens_details": OutputFigures(**_figures(OutputFigures, wrote)),
    }
    return Figures(**_figures(Figures, usage) | details).usage(tier)


def _figures(shape: type[msgspec.Struct], given: Any) -> dict[str, Any]:
    """Return the counts in what may be anything."""
    given = given if isinstance(given, dict) else {}
    return {name: count_of(given[name]) for name in shape.__struct_fields__ if isinstance(given.get(name), int)}


def write_usage(usage: Usage) -> dict[str, Any]:
    """Write a usage object."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "audio_tokens": usage.audio_input_tokens,
        }
        | ({"cache_write_tokens": usage.cache_write_tokens} if usage.cache_write_tokens else {}),
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }


def read_finish(reason: Any) -> FinishReason | None:
    """Read a finish reason; unknown words are `other`."""
    return _FINISH.get(reason.lower(), "other") if isinstance(reason, str) and reason else None


def write_finish(reason: FinishReason | None, native: str | None = None) -> str | None:
    """Write a finish reason: the provider's own word where this form has it, else the nearest."""
    if native in _NATIVE:
        return native
    return None if reason is None else _FINISH_OUT.get(reason, reason)


def strange_end(reason: FinishReason | None, native: str | None) -> dict[str, str]:
    """Return the provider's own word for an end that is none of ours, as routers of this form tell it."""
    return {"native_finish_reason": native} if reason == "other" and native else {}


def read_completion(body: dict[str, Any]) -> Completion:
    """Read a whole answer. Raises ValueError and its like for what is none."""
    rest = dict(body)
    choices = []
    for position, choice in enumerate(rest.pop("choices")):
        more = dict(choice)
        message = read_message(with_call_ids([more.pop("message", None) or {}])[0])
        native = more.pop("finish_reason", None) or None
        index = more.pop("index", None)
        choices.append(
            Choice(
                index=position if index is None else index,
                message=message,
                finish_reason=read_finish(native),
                native_finish_reason=native,
                extra=more,
            )
        )
    if not choices:
        raise ValueError("choices")
    rest.pop("object", None)
    return Completion(
        id=rest.pop("id", None) or "",
        model=rest.pop("model", None) or "",
        created=rest.pop("created", None) or int(time.time()),
        choices=tuple(choices),
        usage=read_usage(rest.pop("usage", None), rest.get("service_tier")),
        extra=rest,
    )


def write_completion(completion: Completion, manner: Manner = PLAIN) -> dict[str, Any]:
    """Write a whole answer, calls in the client's `manner`."""
    body = {
        "id": completion.id or new_id("chatcmpl"),
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [_write_choice(choice, manner) for choice in completion.choices],
    }
    usage = completion.usage
    body |= {} if usage is None else tier_told(usage) | {"usage": write_usage(usage)}
    return body | {name: completion.extra[name] for name in _ANSWER_EXTRAS if completion.extra.get(name) is not None}


def tier_told(usage: Usage) -> dict[str, Any]:
    """Return the service tier that was used, where this form has a word for it."""
    return {"service_tier": usage.tier} if usage.tier in _TIERS else {}


def _write_choice(choice: Choice, manner: Manner) -> dict[str, Any]:
    """Write one answer: here its content is one text, and pictures stand beside it."""
    message, finish = choice.message, write_finish(choice.finish_reason, choice.native_finish_reason)
    told = {"refusal": None} | write_spoken(message, message.parts, manner)
    if isinstance(told["content"], list):
        told["content"] = message.text or None
    if images := [write_part(part) for part in message.parts if isinstance(part, Media)]:
        told["images"] = images
    told |= {name: message.extra[name] for name in OF_MESSAGE if message.extra.get(name) is not None}
    calls = (part for part in message.parts if isinstance(part, ToolCall))
    for written, part in zip(told.get("tool_calls") or (), calls, strict=True):
        written |= beside(part.signature)
    seals = [part.signature for part in message.parts if isinstance(part, Text) and part.signature]
    told |= beside(seals[-1] if seals else None)
    if manner.older and (older := told.pop("tool_calls", None)):
        told["function_call"], finish = older[0]["function"], "function_call"
    logprobs = choice.extra.get("logprobs")
    ended = {"finish_reason": finish} | strange_end(choice.finish_reason, choice.native_finish_reason)
    return {"index": choice.index, "message": told, "logprobs": logprobs} | ended


def read_chunk(body: dict[str, Any], calls: dict[int, Calls]) -> list[Chunk]:
    """Read one event of a stream into the pieces that it carries; `calls` are those of each choice so far."""
    head: dict[str, Any] = {"id": body.get("id"), "model": body.get("model"), "created": body.get("created")}
    chunks: list[Chunk] = []
    for choice in body.get("choices") or ():
        delta, index = choice.get("delta") or {}, choice.get("index") or 0
        text, thinking = _read_delta(delta)
        logprobs = choice.get("logprobs")
        extra = {name: delta[name] for name in OF_MESSAGE if delta.get(name) is not None}
        said = Chunk(
            index=index,
            role=delta.get("role") or None,
            text=text,
            thinking=thinking,
            refusal=delta.get("refusal"),
            extra=extra | ({"logprobs": logprobs} if logprobs else {}),
            **head,
        )
        if delta.get("tool_calls") or delta.get("function_call"):
            tools = calls.setdefault(index, Calls()).read(delta)
            # What is said in the same breath is said before the calls.
            chunks += [said, *(Chunk(index=index, tool=tool, **head) for tool in tools)]
            said = Chunk(index=index, **head)
        if native := choice.get("finish_reason"):
            said = msgspec.structs.replace(said, finish_reason=read_finish(native), native_finish_reason=native)
        chunks.append(said)
        for image in delta.get("images") or ():
            chunks.append(Chunk(index=index, part=read_part(image), **head))
    told = body.get("usage") or (body.get("x_groq") or {}).get("usage")
    if (usage := read_usage(told, body.get("service_tier"))) is not None:
        chunks.append(Chunk(usage=usage, **head))
    return chunks


def _read_delta(delta: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return what is said and what is thought; some servers send parts in the place of a text."""
    content, thinking = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(content, list | dict):
        parts = read_content(content)
        thinking = "".join(part.text for part in parts if isinstance(part, Thinking)) or thinking
        content = "".join(part.text for part in parts if isinstance(part, Text)) or None
    return content if isinstance(content, str) else None, thinking if isinstance(thinking, str) else None


def write_delta(chunk: Chunk) -> dict[str, Any]:
    """Write the delta of one piece."""
    delta: dict[str, Any] = {}
    if chunk.role is not None:
        delta["role"] = chunk.role
    if chunk.text is not None:
        delta["content"] = chunk.text
    if chunk.thinking is not None:
        delta["reasoning_content"] = chunk.thinking
    if chunk.refusal is not None:
        delta["refusal"] = chunk.refusal
    if chunk.tool is not None:
        function = {"arguments": chunk.tool.arguments} | ({"name": chunk.tool.name} if chunk.tool.name else {})
        call: dict[str, Any] = {"index": chunk.tool.position, "function": function}
        if chunk.tool.id is not None:
            call |= {"id": chunk.tool.id, "type": chunk.tool.kind or "function"}
        delta["tool_calls"] = [call | beside(chunk.tool.signature)]
    if chunk.text is not None:
        delta |= beside(chunk.signature)
    if isinstance(chunk.part, Media) and chunk.part.kind == "image":
        delta["images"] = [write_part(chunk.part)]
    delta |= {name: chunk.extra[name] for name in OF_MESSAGE if chunk.extra.get(name) is not None}
    return delta
