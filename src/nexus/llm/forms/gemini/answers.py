"""Gemini's answers and our own form, both ways: whole, and piece by piece.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. Every piece of a stream is a
whole answer object that holds what is new; its usage is that of the call so far.
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec

from nexus.llm.forms.figures import count_of
from nexus.llm.forms.gemini.logprobs import read_logprobs, write_logprobs
from nexus.llm.forms.gemini.notes import count_searches, read_notes, read_search, write_notes
from nexus.llm.forms.gemini.partial import PartialCall
from nexus.llm.forms.gemini.parts import made_id, read_answer_part, write_answer_part, write_signature
from nexus.llm.types import (
    AnyPart,
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Message,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

_BLOCKED = frozenset(
    (
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "JAILBREAK",
        "LANGUAGE",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
    )
)
# Google tells of these as ends of an answer; for all others they are none.
_FAILED = frozenset(
    (
        "OTHER",
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "IMAGE_OTHER",
        "NO_IMAGE",
    )
)
# An answer that may be continued by a token of Google's has come to its length for all others.
_FINISH: dict[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "pause": "STOP",
    "failed": "OTHER",
    "other": "OTHER",
}
# The old Vertex SDK asks for enums as numbers.
_FINISH_NUMBERS = {
    1: "STOP",
    2: "MAX_TOKENS",
    3: "SAFETY",
    4: "RECITATION",
    5: "OTHER",
    6: "BLOCKLIST",
    7: "PROHIBITED_CONTENT",
    8: "SPII",
    9: "MALFORMED_FUNCTION_CALL",
    10: "MODEL_ARMOR",
}
_AUDIO = ("AUDIO", 4)
_TEXT = "TEXT"
_IMAGE = ("IMAGE", 2)
_TIERS = frozenset(("flex", "priority"))


# From Gemini.


def finish_name(reason: Any) -> str | None:
    """Return a finish reason by name; None where the answer has not ended."""
    if isinstance(reason, int):
        return _FINISH_NUMBERS.get(reason)
    return reason if isinstance(reason, str) and reason not in ("", "FINISH_REASON_UNSPECIFIED") else None


def read_finish(reason: str | None, *, calls: bool) -> FinishReason | None:
    """Read a finish reason by name; an answer that `calls` tools stops for them, which Google does not say."""
    if reason is None:
        return None
    if reason in _BLOCKED:
        return "content_filter"
    if reason in _FAILED:
        return "failed"
    found = _FINISH.get(reason, "other")
    return "tool_calls" if found == "stop" and calls else found


def read_block(body: dict[str, Any]) -> str | None:
    """Return why a prompt was blocked, where it was."""
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return None if reason is None else str(reason)


def read_usage(usage: Any, searches: int = 0) -> Usage | None:
    """Read usage metadata, also with missing or senseless figures; None when it says nothing.

    What Google's own tools read counts as input, and thoughts as output. `searches` are those in the web, of which
    the metadata say nothing.
    """
    if not isinstance(usage, dict):
        return None
    prompt, tools = count_of(usage.get("promptTokenCount")), count_of(usage.get("toolUsePromptTokenCount"))
    said, thought = count_of(usage.get("candidatesTokenCount")), count_of(usage.get("thoughtsTokenCount"))
    if not prompt and not tools and not said and not thought:
        return None
    return Usage(
        input_tokens=prompt + tools,
        output_tokens=said + thought,
        cache_read_tokens=count_of(usage.get("cachedContentTokenCount")),
        reasoning_tokens=thought,
        audio_input_tokens=_of(_AUDIO, usage, "promptTokensDetails") + _of(_AUDIO, usage, "toolUsePromptTokensDetails"),
        audio_output_tokens=_of(_AUDIO, usage, "candidatesTokensDetails"),
        audio_cache_read_tokens=_of(_AUDIO, usage, "cacheTokensDetails"),
        image_output_tokens=_of(_IMAGE, usage, "candidatesTokensDetails"),
        web_searches=searches,
        tier=_tier(usage),
    )


def _tier(usage: dict[str, Any]) -> str | None:
    """Return the service tier: the Gemini API says `flex`, Vertex AI `ON_DEMAND_FLEX`."""
    told = str(usage.get("serviceTier") or usage.get("trafficType") or "").lower().removeprefix("on_demand_")
    return told if told in _TIERS else None


def _of(modality: tuple[Any, ...], usage: dict[str, Any], name: str) -> int:
    told = usage.get(name)
    if not told:
        return 0
    items = [item for item in told if isinstance(item, dict)] if isinstance(told, list) else []
    return sum(count_of(item.get("tokenCount")) for item in items if item.get("modality") in modality)


def read_completion(body: dict[str, Any]) -> Completion:
    """Read a whole answer. Raises KeyError and its like for what is none."""
    candidates, blocked = body.get("candidates") or [], read_block(body)
    if not candidates and blocked is None and "usageMetadata" not in body:
        raise KeyError("candidates")
    answer = str(body.get("responseId") or "")
    choices = []
    for place, candidate in enumerate(candidates):
        index = candidate.get("index", place)
        given = (candidate.get("content") or {}).get("parts") or ()
        parts = [read_answer_part(part, made_id(answer or str(given), index, j)) for j, part in enumerate(given)]
        native = finish_name(candidate.get("finishReason"))
        calls = any(isinstance(part, ToolCall) for part in parts)
        noted = read_notes(candidate, "".join(part.text for part in parts if isinstance(part, Text)))
        searched = read_search(candidate)
        whole = _joined(parts) if searched is None else (searched, *_joined(parts))
        said = Message(role="assistant", parts=whole, extra={"annotations": noted} if noted else {})
        # A whole answer has ended, whether it says why or not.
        finish = read_finish(native, calls=calls) or "other"
        choices.append(
            Choice(
                index=index,
                message=said,
                finish_reason=finish,
                native_finish_reason=native,
                extra=read_logprobs(candidate.get("logprobsResult")),
            )
        )
    if not choices:
        # A blocked prompt has no candidates; neither has an answer that came to nothing.
        finish = "content_filter" if blocked else "failed"
        said = Message(role="assistant", parts=())
        choices.append(Choice(index=0, message=said, finish_reason=finish, native_finish_reason=blocked))
    model = body.get("modelVersion") or ""
    grounds = [candidate.get("groundingMetadata") for candidate in candidates]
    return Completion(
        id=answer,
        model=model,
        created=int(time.time()),
        choices=tuple(choices),
        usage=read_usage(body.get("usageMetadata"), sum(count_searches(given, model) for given in grounds)),
    )


def _joined(parts: list[AnyPart]) -> tuple[AnyPart, ...]:
    """Return the parts without the empty texts that only end an answer."""
    return tuple(part for part in parts if not isinstance(part, Text) or part.text or part.signature)


class AnswerReader:
    """Reads the pieces of one stream."""

    def __init__(self) -> None:
        """Begin before the first piece."""
        self._answer = ""
        self._calls: dict[int, int] = {}
        self._open: dict[int, PartialCall] = {}
        self._parts = 0
        self._said: dict[int, list[str]] = {}
        self._seen: set[int] = set()
        self._over: set[int] = set()
        self._searched: set[int] = set()
        self._searches: dict[int, int] = {}
        self.usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """Tell whether every answer that has begun has ended."""
        return bool(self._over) and self._seen <= self._over

    def read(self, body: dict[str, Any]) -> list[Chunk]:
        """Return what is new in a piece, its usage aside. Raises TypeError and its like for what is none."""
        self._answer = self._answer or str(body.get("responseId") or "")
        head: dict[str, Any] = {"id": body.get("responseId"), "model": body.get("modelVersion")}
        chunks: list[Chunk] = []
        for place, candidate in enumerate(body.get("candidates") or ()):
            index = candidate.get("index", place)
            if grounds := candidate.get("groundingMetadata"):
                searches = count_searches(grounds, str(body.get("modelVersion") or ""))
                self._searches[index] = max(searches, self._searches.get(index, 0))
            if index not in self._seen:
                self._seen.add(index)
                chunks.append(Chunk(index=index, role="assistant", **head))
            for part in (candidate.get("content") or {}).get("parts") or ():
                chunks += self._part(part, index, head)
            if candidate.get("finishReason") and (cut := self._open.pop(index, None)) is not None:
                chunks += self._part(cut.whole(), index, head)
            if told := self._beside(candidate, index):
                if not chunks or chunks[-1].text is None or chunks[-1].index != index:
                    chunks.append(Chunk(index=index, **head))
                chunks[-1] = msgspec.structs.replace(chunks[-1], extra=told)
            if index not in self._searched and (searched := read_search(candidate)) is not None:
                self._searched.add(index)
                chunks.append(Chunk(index=index, part=searched, **head))
            if (native := finish_name(candidate.get("finishReason"))) is not None:
                self._over.add(index)
                finish = read_finish(native, calls=index in self._calls)
                chunks.append(Chunk(index=index, finish_reason=finish, native_finish_reason=native, **head))
        self.usage = read_usage(body.get("usageMetadata"), sum(self._searches.values())) or self.usage
        blocked = read_block(body)
        if blocked is not None and not self._seen:
            self._seen.add(0)
            self._over.add(0)
            chunks.append(Chunk(role="assistant", finish_reason="content_filter", native_finish_reason=blocked, **head))
        return chunks

    def _beside(self, candidate: dict[str, Any], index: int) -> dict[str, Any]:
        """Return what stands beside the words: log probabilities, and what they cite."""
        told = read_logprobs(candidate.get("logprobsResult"))
        noted = read_notes(candidate, "".join(self._said.get(index, ())))
        return told | ({"annotations": noted} if noted else {})

    def _part(self, part: dict[str, Any], index: int, head: dict[str, Any]) -> list[Chunk]:
        if "functionCall" in part and (index in self._open or part["functionCall"].get("willContinue")):
            whole = self._open.setdefault(index, PartialCall()).add(part)
            if whole is None:
                return []
            part = whole
            del self._open[index]
        self._parts += 1
        seed = self._answer or json.dumps(part, sort_keys=True)
        read = read_answer_part(part, made_id(seed, index, self._parts))
        if isinstance(read, ToolCall):
            position = self._calls.get(index, 0)
            self._calls[index] = position + 1
            tool = ToolDelta(
                position=position, id=read.id, name=read.name, arguments=read.arguments, signature=read.signature
            )
            return [Chunk(index=index, tool=tool, **head)]
        if isinstance(read, Thinking):
            return [Chunk(index=index, thinking=read.text, signature=read.signature, **head)]
        if isinstance(read, Text):
            self._said.setdefault(index, []).append(read.text)
            told = read.text or read.signature
            return [Chunk(index=index, text=read.text, signature=read.signature, **head)] if told else []
        return [Chunk(index=index, part=read, **head)]


# To Gemini.


def write_finish(reason: FinishReason | None, native: str | None = None) -> str | None:
    """Write a finish reason: the provider's own word where it is Google's, else the nearest."""
    if native in _BLOCKED or native in _FINISH:
        return native
    return None if reason is None else _FINISH_OUT[reason]


def write_usage(usage: Usage) -> dict[str, Any]:
    """Write usage metadata."""
    out: dict[str, Any] = {"promptTokenCount": usage.input_tokens}
    if usage.cache_read_tokens:
        out["cachedContentTokenCount"] = usage.cache_read_tokens
    out["candidatesTokenCount"] = max(usage.output_tokens - usage.reasoning_tokens, 0)
    if usage.reasoning_tokens:
        out["thoughtsTokenCount"] = usage.reasoning_tokens
    out["totalTokenCount"] = usage.input_tokens + usage.output_tokens
    if usage.tier in _TIERS:
        out["serviceTier"] = usage.tier
    said = {"AUDIO": usage.audio_output_tokens, "IMAGE": usage.image_output_tokens}
    for name, parts, whole in (
        ("promptTokensDetails", {"AUDIO": usage.audio_input_tokens}, usage.input_tokens),
        ("cacheTokensDetails", {"AUDIO": usage.audio_cache_read_tokens}, usage.cache_read_tokens),
        ("candidatesTokensDetails", said, out["candidatesTokenCount"]),
    ):
        if any(parts.values()):
            told = {_TEXT: max(whole - sum(parts.values()), 0)} | parts
            out[name] = [{"modality": kind, "tokenCount": count} for kind, count in told.items() if count]
    return out


def write_candidate(
    index: int, parts: list[dict[str, Any]], finish: str | None = None, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write one candidate, or what is new of it; of `extra`, its log probabilities."""
    out: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
    return out | ({"finishReason": finish} if finish else {}) | write_logprobs(extra or {})


def write_completion(completion: Completion) -> dict[str, Any]:
    """Write a whole answer."""
    candidates = []
    for choice in completion.choices:
        parts = [out for part in choice.message.parts if (out := write_answer_part(part)) is not None]
        finish = write_finish(choice.finish_reason, choice.native_finish_reason)
        cited = write_notes(choice.message.extra, choice.message.text)
        candidates.append(write_candidate(choice.index, parts, finish, choice.extra) | cited)
    body: dict[str, Any] = {"candidates": candidates}
    if completion.usage is not None:
        body["usageMetadata"] = write_usage(completion.usage)
    return body | {"modelVersion": completion.model, "responseId": completion.id}


class AnswerWriter:
    """The state of one stream that is being written.

    A call is written once it is whole, since this form has no pieces of one; reason and usage come last.
    """

    def __init__(self, model: str) -> None:
        """Begin; `model` is the name to give until the provider says its own."""
        self._head = {"modelVersion": model, "responseId": ""}
        self._calls: dict[tuple[int, int], ToolDelta] = {}
        self._over: dict[int, str] = {}
        self._said: dict[int, list[str]] = {}
        self._usage: Usage | None = None

    def write(self, chunk: Chunk) -> dict[str, Any] | None:
        """Return the answer object for one piece; None where it only brings the state forward."""
        self._head["responseId"] = chunk.id or self._head["responseId"]
        self._head["modelVersion"] = chunk.model or self._head["modelVersion"]
        self._usage = chunk.usage or self._usage
        parts: list[dict[str, Any]] = []
        if chunk.tool is not None:
            parts += self._call(chunk.index, chunk.tool)
        parts += _said(chunk)
        if chunk.finish_reason is not None:
            parts += self._whole_calls(chunk.index)
            self._over[chunk.index] = write_finish(chunk.finish_reason, chunk.native_finish_reason) or "STOP"
        if chunk.text:
            self._said.setdefault(chunk.index, []).append(chunk.text)
        cited = write_notes(chunk.extra, "".join(self._said.get(chunk.index, ()))) if chunk.extra else {}
        if not parts and not cited and not chunk.extra.get("logprobs"):
            return None
        return {"candidates": [write_candidate(chunk.index, parts, extra=chunk.extra) | cited]} | self._head

    def end(self) -> dict[str, Any]:
        """Return the last answer object."""
        calls = {index: self._whole_calls(index) for index in {index for index, _ in self._calls}}
        candidates = [
            write_candidate(index, calls.get(index) or [{"text": ""}], self._over.get(index, "STOP"))
            for index in sorted({*calls, *self._over} or {0})
        ]
        usage = {"usageMetadata": write_usage(self._usage)} if self._usage is not None else {}
        return {"candidates": candidates} | usage | self._head

    def _call(self, index: int, tool: ToolDelta) -> list[dict[str, Any]]:
        """Begin a call, which makes the one before whole, or go on with it."""
        key = (index, tool.position)
        held = self._calls.get(key)
        if held is not None and not (tool.id and tool.name and tool.id != held.id):
            self._calls[key] = ToolDelta(
                position=tool.position,
                id=held.id or tool.id,
                name=held.name or tool.name,
                arguments=held.arguments + tool.arguments,
                signature=held.signature or tool.signature,
            )
            return []
        # One position may be given to several calls, told apart by their ids.
        whole = [_write_call(self._calls.pop(key))] if held is not None else []
        self._calls[key] = tool
        return whole

    def _whole_calls(self, index: int) -> list[dict[str, Any]]:
        keys = sorted(key for key in self._calls if key[0] == index)
        return [_write_call(self._calls.pop(key)) for key in keys]


def _said(chunk: Chunk) -> list[dict[str, Any]]:
    """Write the words and other parts of a piece; its signature seals its text, else its thinking."""
    out: list[dict[str, Any]] = []
    if chunk.thinking or (chunk.signature and chunk.text is None and chunk.tool is None):
        seal = chunk.signature if chunk.text is None else None
        out.append({"text": chunk.thinking or "", "thought": True} | write_signature(seal))
    if chunk.text or (chunk.text is not None and chunk.signature):
        out.append({"text": chunk.text} | write_signature(chunk.signature))
    if chunk.refusal:
        out.append({"text": chunk.refusal})
    if chunk.part is not None and (part := write_answer_part(chunk.part)) is not None:
        out.append(part)
    return out


def _write_call(tool: ToolDelta) -> dict[str, Any]:
    call = ToolCall(id=tool.id or "", name=tool.name or "", arguments=tool.arguments, signature=tool.signature)
    written = write_answer_part(call)
    assert written is not None
    return written
