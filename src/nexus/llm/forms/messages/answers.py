"""Answers in the Messages JSON form and in our own, both ways: whole ones, streams, usage, stop reasons and errors.

Source: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/streaming, .../api/errors.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from nexus.core.errors import NexusError, TooLarge
from nexus.core.ids import new_id
from nexus.llm.errors import ContextTooLong, UpstreamRejected, UpstreamTimeout, from_status
from nexus.llm.forms.figures import count_of
from nexus.llm.forms.messages.blocks import read_block
from nexus.llm.forms.messages.requests import DIALECT, read_arguments
from nexus.llm.forms.messages.searches import Searches
from nexus.llm.forms.notes import Note, notes_in, url_note
from nexus.llm.forms.signatures import sealed_id
from nexus.llm.types import (
    Advice,
    AnyPart,
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Foreign,
    Message,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    Usage,
)

_STOPS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    # A stream that the provider broke off; a model's own refusal is in its words.
    "refusal": "content_filter",
    "pause_turn": "pause",
    "compaction": "pause",
}
_STOPS_OUT: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "other": "end_turn",
}
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# What is text in every block that has it.
_WORDS = ("text", "thinking", "signature", "data", "id", "name")
_TIERS = frozenset(("priority", "batch"))
_TOO_LONG = re.compile(r"prompt is too long|exceeds? (?:the )?context (?:limit|window)", re.IGNORECASE)
_NO_CREDIT = re.compile(r"credit balance is too low", re.IGNORECASE)
# What may be missing besides a model.
_OTHER_THING = re.compile(r"(?:file|container|skill|session)s?\b", re.IGNORECASE)
_FIELD = re.compile(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*): ")


# Usage, stop reasons, errors.


def read_usage(usage: Any) -> Usage | None:
    """Read a usage object, also one with missing, null or senseless figures; None when it says nothing.

    A summary that was made of the conversation is read for the same price, and is in none of the other figures;
    neither is the advice of another model, whose price is another one: that stands apart.
    """
    if not isinstance(usage, dict):
        return None
    found = _read_figures(usage)
    turns = usage.get("iterations")
    for turn in turns if isinstance(turns, list) else ():
        summed = isinstance(turn, dict) and turn.get("type") == "compaction"
        if summed and (more := _read_figures(turn)) is not None:
            found = more if found is None else _sum(found, more)
        advised = isinstance(turn, dict) and turn.get("type") == "advisor_message"
        if advised and found is not None and (other := _read_figures(turn)) is not None:
            advice = Advice(model=str(turn.get("model") or ""), usage=other)
            found = msgspec.structs.replace(found, advice=(*found.advice, advice))
    return found


def _sum(usage: Usage, more: Usage) -> Usage:
    names = (name for name in Usage.__struct_fields__ if name.endswith("_tokens"))
    return msgspec.structs.replace(usage, **{name: getattr(usage, name) + getattr(more, name) for name in names})


def _read_figures(usage: dict[str, Any]) -> Usage | None:
    tiers, wrote = usage.get("cache_creation"), usage.get("output_tokens_details")
    tiers, wrote = tiers if isinstance(tiers, dict) else {}, wrote if isinstance(wrote, dict) else {}
    read = count_of(usage.get("cache_read_input_tokens"))
    long = count_of(tiers.get("ephemeral_1h_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens")) or long + count_of(
        tiers.get("ephemeral_5m_input_tokens")
    )
    fresh, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if not fresh + read + written + output:
        return None
    searched = usage.get("server_tool_use")
    tier = usage.get("speed") if usage.get("speed") not in (None, "standard") else usage.get("service_tier")
    return Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(long, written),
        reasoning_tokens=count_of(wrote.get("thinking_tokens")),
        web_searches=count_of(searched.get("web_search_requests")) if isinstance(searched, dict) else 0,
        tier=tier if isinstance(tier, str) and tier != "standard" else None,
    )


def merge_usage(known: dict[str, Any], usage: Any) -> None:
    """Bring the figures of a later event into `known`: they are cumulative, so the last one counts."""
    if isinstance(usage, dict):
        known |= {name: value for name, value in usage.items() if value is not None}


def write_usage(usage: Usage) -> dict[str, Any]:
    """Write a usage object. In this form input counts only what no cache tier counts, and tiers do not overlap."""
    read = min(usage.cache_read_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - read)
    out: dict[str, Any] = {
        "input_tokens": usage.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    if written:
        long = min(usage.cache_write_1h_tokens, written)
        out["cache_creation"] = {"ephemeral_5m_input_tokens": written - long, "ephemeral_1h_input_tokens": long}
    if usage.reasoning_tokens:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.web_searches:
        out["server_tool_use"] = {"web_search_requests": usage.web_searches, "web_fetch_requests": 0}
    if usage.tier in _TIERS:
        out["service_tier"] = usage.tier
    return out


def read_stop(reason: Any) -> FinishReason | None:
    """Read a stop reason; unknown words are `other`."""
    return _STOPS.get(reason, "other") if isinstance(reason, str) and reason else None


def write_stop(reason: FinishReason | None, native: str | None = None, *, tools: bool = False) -> str:
    """Write a stop reason: the provider's own word where this form has it, else the nearest.

    With `tools` the answer calls some, which this form always gives as the reason, though others say
    that it simply stopped.
    """
    if tools and reason in ("stop", "tool_calls"):
        return "tool_use"
    return native if native is not None and native in _STOPS else _STOPS_OUT[reason or "stop"]


def read_error(
    told: Any, status: int | None = None, *, body: bytes = b"", event: bytes = b"", retry_after: float | None = None
) -> NexusError:
    """Turn an error object into ours; without a `status` its type says which one it stands for.

    The provider's words are kept only where the fault is the caller's: `body` (the JSON that holds them) and
    `event` (the raw event of a stream) for callers who speak this form.
    """
    told = told if isinstance(told, dict) else {}
    kind, message = str(told.get("type") or ""), told.get("message")
    message = message[:2000] if isinstance(message, str) and message else None
    code = status if status is not None else _STATUS.get(kind, 500)
    if code in (400, 413) and _TOO_LONG.search(message or ""):
        return ContextTooLong(message, field="messages")
    if code == 413:
        return TooLarge("The provider finds the request too large.")
    if code == 504:
        return UpstreamTimeout(retry_after=retry_after)
    if code == 404 and _OTHER_THING.match(message or ""):
        error: NexusError = UpstreamRejected(message, upstream_status=404, body=body)
    else:
        spent = code == 400 and _NO_CREDIT.search(message or "") is not None
        error = from_status(402 if spent else code, message=message, body=body, retry_after=retry_after)
    if isinstance(error, UpstreamRejected):
        found = _FIELD.match(message or "")
        error.field, error.event = found.group(1) if found else None, event
    return error


# Whole answers.


def read_answer(body: dict[str, Any]) -> Completion:
    """Read a whole answer. Raises KeyError, TypeError and the like for one out of form."""
    native = _word(body.get("stop_reason"))
    for block in body["content"]:
        for name in _WORDS:
            _word(block.get(name))
    noted = _read_notes(body["content"])
    why = _read_refusal(body)
    message = Message(
        role="assistant",
        parts=(*_parts(body["content"]), *([Refusal(text=why)] if why else ())),
        extra={"annotations": noted} if noted else {},
    )
    more = {"stop_sequence": stopped} if (stopped := body.get("stop_sequence")) is not None else {}
    # A whole answer has ended, whether it says why or not.
    reason = read_stop(native) or "other"
    choice = Choice(index=0, message=message, finish_reason=reason, native_finish_reason=native, extra=more)
    known = ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")
    return Completion(
        id=_word(body.get("id")) or "",
        model=_word(body.get("model")) or "",
        created=int(time.time()),
        choices=(choice,),
        usage=read_usage(body.get("usage")),
        extra={name: value for name, value in body.items() if name not in known},
    )


def _parts(content: list[dict[str, Any]]) -> Iterator[AnyPart]:
    searches = Searches()
    for i, block in enumerate(content):
        yield from read_block(block, f"content.{i}")
        if (searched := searches.hear(block)) is not None:
            yield searched


def _word(value: Any) -> str | None:
    """Return a text, or None where there is none. Raises TypeError for what is neither."""
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


def _read_notes(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the texts of an answer cite from the web, as notes on the whole text of it."""
    noted: list[dict[str, Any]] = []
    begin = 0
    for block in content:
        if block.get("type") == "text":
            end = begin + len(block["text"])
            noted += [note for cited in block.get("citations") or () if (note := read_note(cited, begin, end))]
            begin = end
    return noted


def read_note(cited: dict[str, Any], begin: int, end: int) -> dict[str, Any] | None:
    """Return a citation of the web as the note that chat completions have for it; None for other sources."""
    url = cited.get("url") or (cited.get("source") if cited.get("type") == "search_result_location" else None)
    return url_note(url, cited.get("title"), begin, end) if isinstance(url, str) else None


def write_citation(note: Note) -> dict[str, Any]:
    """Write a note as the citation that this form has for places in the web."""
    told = {"url": note.url, "title": note.title or None, "cited_text": "", "encrypted_index": ""}
    return {"type": "web_search_result_location"} | told


def _write_content(message: Message) -> list[dict[str, Any]]:
    """Write the blocks of an answer, each text with what it cites."""
    blocks = []
    notes, begin = list(notes_in(message.extra)), 0
    for part in message.parts:
        block = write_block(part)
        if isinstance(part, Text):
            end = begin + len(part.text)
            cited = [write_citation(note) for note in notes if begin <= note.begin < end]
            if block is not None and cited:
                block["citations"] = cited
            begin = end
        blocks += [block] if block is not None else []
    return blocks


def write_answer(completion: Completion, usage: Usage) -> dict[str, Any]:
    """Write a whole answer: the first choice, and the `usage` to state, since this form always has one."""
    choice = completion.choices[0]
    parts = choice.message.parts
    refused = "".join(part.text for part in parts if isinstance(part, Refusal))
    reason = "refusal" if refused else choice.finish_reason
    tools = any(isinstance(part, ToolCall) for part in parts)
    body = write_head(completion.id, completion.model) | {
        "content": _write_content(choice.message),
        "stop_reason": write_stop(reason, None if refused else choice.native_finish_reason, tools=tools),
        "stop_sequence": choice.extra.get("stop_sequence"),
        "usage": write_usage(usage),
    }
    if refused:
        body["stop_details"] = write_refusal(refused)
    return body


def write_head(message_id: str | None, model: str | None) -> dict[str, Any]:
    """Write an answer with nothing in it yet."""
    return {
        "id": message_id or new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def write_block(part: AnyPart) -> dict[str, Any] | None:
    """Write one part of an answer; None for what has no block here."""
    if isinstance(part, Text | Refusal):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, Thinking):
        if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
    if isinstance(part, ToolCall):
        return write_call(part.id, part.name, part.signature) | {"input": read_arguments(part.arguments)}
    return dict(part.value) if isinstance(part, Foreign) and part.dialect == DIALECT else None


def write_call(call_id: str | None, name: str, seal: str | None) -> dict[str, Any]:
    """Write a call without its input; a seal of another provider's travels in the id."""
    return {"type": "tool_use", "id": sealed_id(call_id or new_id("toolu"), seal), "name": name, "input": {}}


def _read_refusal(told: dict[str, Any]) -> str | None:
    """Return why an answer was refused, in the provider's words."""
    details = told.get("stop_details") if told.get("stop_reason") == "refusal" else None
    return _word(details.get("explanation")) if isinstance(details, dict) else None


def write_refusal(text: str) -> dict[str, Any]:
    """Write the details of a refusal that the model put into words."""
    return {"type": "refusal", "category": None, "explanation": text}


# Streams, read.


class _Block:
    """One block that is being streamed."""

    __slots__ = ("begin", "cited", "given", "pieces", "position", "start")

    def __init__(self, start: dict[str, Any], position: int | None) -> None:
        self.start = start
        self.position = position
        self.pieces: list[str] = []
        self.given: dict[str, Any] = {}
        self.cited: list[dict[str, Any]] = list(start.get("citations") or ())
        self.begin = 0


class AnswerReader:
    """Puts the events of one stream into pieces of our form; the figures of usage are kept together."""

    def __init__(self) -> None:
        """Begin before the first event."""
        self._head: dict[str, Any] = {}
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._searches = Searches()
        self._usage: dict[str, Any] = {}
        self._said = 0
        self._begun = False
        self._ended: dict[str, Any] | None = None

    @property
    def usage(self) -> Usage | None:
        """Return the usage as far as it is known."""
        return read_usage(self._usage)

    def read(self, event: dict[str, Any]) -> list[Chunk]:
        """Return the pieces of one event, none for most kinds. Raises KeyError and the like for one out of form."""
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._begin(self._delta(event["index"], event["delta"]))
        if kind == "content_block_start":
            return self._begin(self._start(event["index"], event["content_block"]))
        if kind == "content_block_stop":
            return self._begin(self._stop(event["index"]))
        if kind == "message_start":
            message = event["message"]
            named = {name: _word(message.get(name)) for name in ("id", "model")}
            self._head = named | {"created": int(time.time())}
            merge_usage(self._usage, message.get("usage"))
            return self._whole(message) if message.get("content") else []
        if kind == "message_delta":
            merge_usage(self._usage, event.get("usage"))
            self._ended = None
            return self._begin(self._finish(event.get("delta") or {}))
        if kind == "message_stop" and self._ended is not None:
            return self._begin(self._finish(self._ended))
        return []

    def _whole(self, message: dict[str, Any]) -> list[Chunk]:
        """Return what stands in a message from its start: results of code that ran on, and calls that it made."""
        chunks: list[Chunk] = []
        for i, block in enumerate(message["content"]):
            place = ("whole", i)
            chunks += [*self._start(place, block), *self._stop(place)]
        self._ended = message if message.get("stop_reason") else None
        return self._begin(chunks)

    def _begin(self, chunks: list[Chunk]) -> list[Chunk]:
        """Let the first piece of all say who speaks."""
        if chunks and not self._begun:
            self._begun = True
            return [Chunk(role="assistant", text="", **self._head), *chunks]
        return chunks

    def _start(self, index: Any, start: dict[str, Any]) -> list[Chunk]:
        kind = start["type"]
        for name in _WORDS:
            _word(start.get(name))
        block = self._blocks[index] = _Block(start, None)
        block.begin = self._said
        if kind == "tool_use":
            block.position = self._calls
            self._calls += 1
            tool = ToolDelta(position=block.position, id=start["id"], name=start["name"], kind="function")
            return [Chunk(tool=tool, **self._head)]
        if kind == "text":
            self._said += len(start.get("text") or "")
            return [Chunk(text=start["text"], **self._head)] if start.get("text") else []
        if kind == "thinking":
            said = [Chunk(thinking=start["thinking"], **self._head)] if start.get("thinking") else []
            return said + ([Chunk(signature=start["signature"], **self._head)] if start.get("signature") else [])
        return []

    def _delta(self, index: Any, delta: dict[str, Any]) -> list[Chunk]:
        kind = delta["type"]
        if kind == "text_delta":
            text = _word(delta["text"]) or ""
            self._said += len(text)
            return [Chunk(text=text, **self._head)]
        if kind == "thinking_delta":
            return [Chunk(thinking=_word(delta["thinking"]), **self._head)]
        if kind == "signature_delta":
            return [Chunk(signature=_word(delta["signature"]), **self._head)]
        block = self._blocks[index]
        if kind == "input_json_delta" and _word(delta["partial_json"]):
            block.pieces.append(delta["partial_json"])
            if block.position is not None:
                tool = ToolDelta(position=block.position, arguments=delta["partial_json"])
                return [Chunk(tool=tool, **self._head)]
        elif kind == "citations_delta":
            block.cited.append(delta["citation"])
        elif kind != "input_json_delta":
            block.given |= {name: value for name, value in delta.items() if name != "type"}
        return []

    def _stop(self, index: Any) -> list[Chunk]:
        block = self._blocks.pop(index)
        start = block.start
        if block.position is not None:
            if block.pieces:
                return []
            whole = msgspec.json.encode(start.get("input") or {}).decode()
            return [Chunk(tool=ToolDelta(position=block.position, arguments=whole), **self._head)]
        if start["type"] == "redacted_thinking":
            return [Chunk(part=Thinking(redacted=start["data"]), **self._head)]
        if start["type"] in ("text", "thinking"):
            noted = [note for cited in block.cited if (note := read_note(cited, block.begin, self._said))]
            return [Chunk(extra={"annotations": noted}, **self._head)] if noted else []
        value = start | block.given
        if block.pieces:
            value["input"] = read_arguments("".join(block.pieces))
        parts = [Foreign(dialect=DIALECT, value=value), self._searches.hear(value)]
        return [Chunk(part=part, **self._head) for part in parts if part is not None]

    def _finish(self, delta: dict[str, Any]) -> list[Chunk]:
        native = _word(delta.get("stop_reason"))
        more = {"stop_sequence": delta["stop_sequence"]} if delta.get("stop_sequence") is not None else {}
        reason, why = read_stop(native), _read_refusal(delta)
        refused = [Chunk(refusal=why, **self._head)] if why else []
        return [
            *refused,
            Chunk(finish_reason=reason, native_finish_reason=native, usage=self.usage, extra=more, **self._head),
        ]
