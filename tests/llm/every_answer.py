"""Answers of every provider kind, whole and streamed, as each dialect's official types understand them. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from nexus.core.plugins import PluginFolder
from nexus.core.secrets import Secret
from nexus.llm.account import Account
from nexus.llm.dialect import Dialect
from nexus.llm.errors import AnswerFailed
from nexus.llm.flow import Translation
from nexus.llm.provider import Provider
from nexus.llm.types import Call
from nexus.llm.wire.client import HttpAnswer
from nexus.llm.wire.eventstream import encode

DIALECTS: PluginFolder[Dialect] = PluginFolder("nexus.llm.dialects", Dialect, noun="dialect")  # type: ignore[type-abstract]
PROVIDERS: PluginFolder[Provider] = PluginFolder("nexus.llm.providers", Provider, noun="kind")  # type: ignore[type-abstract]
# How each dialect asks for the same, and at which path.
ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "openai_responses": ("/v1/responses", {"model": "m", "input": "hi", "store": False}),
    "anthropic_messages": (
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    ),
    "gemini": ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
}
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
STREAMED = "/v1beta/models/m:streamGenerateContent?alt=sse"


@dataclass
class Understood:
    """What a client makes of an answer; `cites` are addresses, `tokens` all that were read, cached and written."""

    text: str = ""
    thinking: str = ""
    tools: list[tuple[str, Any]] = field(default_factory=list)
    finish: str | None = None
    cites: list[str] = field(default_factory=list)
    tokens: tuple[int, int, int] | None = None
    raw: list[Any] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)


def asked(dialect: str, *, stream: bool) -> Call:
    """Return a call of a client."""
    path, body = ASKS[dialect]
    if dialect == "gemini":
        path = STREAMED if stream else path
    elif stream:
        body = (
            body | {"stream": True} | ({"stream_options": {"include_usage": True}} if dialect == "openai_chat" else {})
        )
    return DIALECTS.get(dialect).parse(json.dumps(body).encode(), path=path)


def answered(kind: str, body: dict[str, Any], dialect: str, *, stream: bool, cut: int = 0) -> Understood:
    """Let a provider answer with `body` (see `STREAMS` for how it is streamed), and the client of a dialect read it."""
    told = events_of(kind, STREAMS[kind](body) if stream else body, dialect, cut=cut)
    return READ[dialect](told, whole=not stream)


def events_of(kind: str, given: dict[str, Any] | bytes, dialect: str, *, cut: int = 0) -> list[Any]:
    """Let a provider answer, whole or with the bytes of a stream, and return what the client gets, piece by piece."""
    speaks, call = DIALECTS.get(dialect), asked(dialect, stream=isinstance(given, bytes))
    options = {"api": "converse"} if kind == "bedrock" else {}
    account = Account(name="a", kind=kind, base_url="https://host.example", secret=Secret("s"), options=options)
    provider = PROVIDERS.get(kind).serving(account, "anthropic.claude-sonnet-4-5" if kind == "bedrock" else "m", call)
    if not isinstance(given, bytes):
        completion = provider.completion(HttpAnswer(status=200, headers={}, body=json.dumps(given).encode()))
        AnswerFailed.check(completion.failed)
        return [json.loads(speaks.completion(completion, call))]
    sink = Translation(provider.decoder(call), speaks.answering(call).writer(call))
    out = b""
    for piece in [given[i : i + cut] for i in range(0, len(given), cut)] if cut else [given]:
        out += sink.feed(piece)
    out += sink.end()
    if sink.tally.failure is not None:
        raise sink.tally.failure
    assert sink.tally.done, "the answer came to its end"
    events = [block.partition("data: ")[2] for block in out.decode().split("\n\n") if "data: " in block]
    return [json.loads(event) for event in events if event != "[DONE]"]


# How providers stream what they would say at once.


Change = Callable[[dict[str, Any]], dict[str, Any]]


def _as_it_is(event: dict[str, Any]) -> dict[str, Any]:
    return event


def _sse(events: list[dict[str, Any]]) -> bytes:
    return b"".join(f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


def stream_messages(body: dict[str, Any], change: Change = _as_it_is) -> bytes:
    """Stream an answer of Anthropic's, each event with a `change`."""
    usage = body.get("usage") or {}
    head = body | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head}, {"type": "ping"}]
    for index, block in enumerate(body["content"]):
        start, deltas = dict(block), []
        kind = block["type"]
        if kind in DELTAS:
            start[kind] = ""
            deltas += [{"type": DELTAS[kind], kind: piece} for piece in (block[kind][:2], block[kind][2:])]
        if signature := start.pop("signature", None):
            start["signature"] = ""
            deltas.append({"type": "signature_delta", "signature": signature})
        deltas += [{"type": "citations_delta", "citation": cited} for cited in start.pop("citations", None) or ()]
        if kind.endswith("tool_use"):
            start["input"] = {}
            told = json.dumps(block["input"])
            deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in ("", told[:3], told[3:])]
        if kind == "compaction":
            start["content"] = None
            deltas.append({"type": "compaction_delta", "content": block["content"]})
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {name: body.get(name) for name in ("stop_reason", "stop_sequence", "stop_details") if name in body}
    told = {name: value for name, value in usage.items() if name not in ("service_tier", "inference_geo", "speed")}
    events.append({"type": "message_delta", "delta": delta, "usage": told})
    return _sse([change(event) for event in [*events, {"type": "message_stop"}]])


def stream_gemini(body: dict[str, Any], change: Change = _as_it_is) -> bytes:
    """Stream an answer of Google's: each part in a piece of its own, the end and the usage in the last."""
    pieces: list[dict[str, Any]] = []
    ends = []
    for place, candidate in enumerate(body.get("candidates") or ()):
        parts = (candidate.get("content") or {}).get("parts") or []
        index = {"index": candidate["index"]} if "index" in candidate else {}
        pieces += [{"candidates": [{"content": {"role": "model", "parts": [part]}} | index]} for part in parts]
        content = {"content": {"role": "model"}} if place % 2 else {}
        ends.append({name: value for name, value in candidate.items() if name != "content"} | content)
    last = {name: value for name, value in body.items() if name != "candidates"} | (
        {"candidates": ends} if ends else {}
    )
    told = {"responseId": body.get("responseId", "r"), "modelVersion": body.get("modelVersion", "g")}
    changed = [change(piece | told) for piece in [*pieces, last]]
    return b"".join(b"data: " + json.dumps(piece).encode() + b"\r\n\r\n" for piece in changed)


def stream_converse(body: dict[str, Any], change: Change = _as_it_is) -> bytes:
    """Stream an answer of Bedrock's."""
    frames = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(body["output"]["message"]["content"]):
        frames += [(kind, told | {"contentBlockIndex": index}) for kind, told in _frames(block)]
        frames.append(("contentBlockStop", {"contentBlockIndex": index}))
    more = ("additionalModelResponseFields",)
    stop = {"stopReason": body["stopReason"]} | {name: body[name] for name in more if name in body}
    meta = {name: body[name] for name in ("usage", "metrics", "trace", "serviceTier") if name in body}
    frames += [("messageStop", stop), ("metadata", meta)]
    return b"".join(
        encode(
            {":message-type": "event", ":event-type": kind, ":content-type": "application/json"},
            json.dumps(change(told)).encode(),
        )
        for kind, told in frames
    )


def _frames(block: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    (kind, told), *_ = block.items()
    if kind == "text":
        return [("contentBlockDelta", {"delta": {"text": piece}}) for piece in (told[:2], told[2:])]
    if kind == "toolUse":
        head = {name: value for name, value in told.items() if name != "input"}
        written = json.dumps(told["input"])
        start = ("contentBlockStart", {"start": {"toolUse": head}})
        return [
            start,
            *(("contentBlockDelta", {"delta": {"toolUse": {"input": p}}}) for p in (written[:2], written[2:])),
        ]
    if kind == "toolResult":
        head = {name: value for name, value in told.items() if name != "content"}
        delta = ("contentBlockDelta", {"delta": {"toolResult": told["content"]}})
        return [("contentBlockStart", {"start": {"toolResult": head}}), delta]
    if kind == "reasoningContent":
        said = told.get("reasoningText") or {}
        pieces = [{name: value} for name, value in said.items()] + (
            [{"redactedContent": told["redactedContent"]}] if "redactedContent" in told else []
        )
        return [("contentBlockDelta", {"delta": {"reasoningContent": piece}}) for piece in pieces]
    if kind == "citationsContent":
        said = [{"text": item["text"]} for item in told["content"]]
        return [("contentBlockDelta", {"delta": d}) for d in [*said, *({"citation": c} for c in told["citations"])]]
    if kind == "image":
        start = ("contentBlockStart", {"start": {"image": {"format": told["format"]}}})
        return [start, ("contentBlockDelta", {"delta": {"image": {"source": told["source"]}}})]
    return [("contentBlockDelta", {"delta": block})]


STREAMS: dict[str, Callable[..., bytes]] = {
    "anthropic": stream_messages,
    "google": stream_gemini,
    "bedrock": stream_converse,
}


# What the official types make of it.


def read_chat(told: list[Any], *, whole: bool) -> Understood:
    """Read chat completions."""
    out = Understood(raw=told)
    calls: dict[int, list[str]] = {}
    for body in told:
        answer = ChatCompletion.model_validate(body) if whole else ChatCompletionChunk.model_validate(body)
        if answer.usage:
            cached = answer.usage.prompt_tokens_details.cached_tokens or 0  # type: ignore[union-attr]
            out.tokens = (answer.usage.prompt_tokens, cached, answer.usage.completion_tokens)
        for choice in answer.choices:
            if choice.index:
                continue
            said: Any = choice.message if whole else choice.delta  # type: ignore[union-attr]
            out.text += (said.content or "") + (said.refusal or "")
            out.thinking += getattr(said, "reasoning_content", None) or ""
            out.finish = choice.finish_reason or out.finish
            notes = getattr(said, "annotations", None) or []
            out.cites += [
                (note if isinstance(note, dict) else note.model_dump())["url_citation"]["url"] for note in notes
            ]
            for place, tool in enumerate(said.tool_calls or ()):
                held = calls.setdefault(place if whole else tool.index, ["", ""])
                held[0] += tool.function.name or ""
                held[1] += tool.function.arguments or ""
    out.tools = [(name, json.loads(given)) for name, given in calls.values()]
    return out


def read_responses(told: list[Any], *, whole: bool) -> Understood:
    """Read Responses; of a stream the last event, whose pieces must say the same."""
    if not whole:
        events = [RESPONSE_EVENT.validate_python(body) for body in told]
        words = "".join(e.delta for e in events if e.type in ("response.output_text.delta", "response.refusal.delta"))
        assert events[-1].type in ("response.completed", "response.incomplete"), events[-1].type
        told = [events[-1].response.model_dump()]  # type: ignore[union-attr]
    answer = Response.model_validate(told[0])
    out = Understood(raw=told, finish=answer.incomplete_details.reason if answer.incomplete_details else "completed")
    for item in answer.output:
        if item.type == "message":
            for part in item.content:
                out.text += part.text if part.type == "output_text" else part.refusal
                notes = part.annotations if part.type == "output_text" else []
                out.cites += [note.url for note in notes if note.type == "url_citation"]
        elif item.type == "function_call":
            out.tools.append((item.name, json.loads(item.arguments)))
        elif item.type == "reasoning":
            out.thinking += "".join(part.text for part in item.summary)
    if not whole:
        assert out.text == words
    if answer.usage:
        cached = answer.usage.input_tokens_details.cached_tokens
        out.tokens = (answer.usage.input_tokens, cached, answer.usage.output_tokens)
    return out


def read_messages(told: list[Any], *, whole: bool) -> Understood:
    """Read Messages."""
    answer: Any = AnthropicMessage.model_validate(told[0]) if whole else None
    buffers: dict[int, Any] = {}
    for body in [] if whole else told:
        event = MESSAGE_EVENT.validate_python(body)
        answer = accumulate_event(event=event, current_snapshot=answer, json_bufs=buffers)  # type: ignore[arg-type]
    out = Understood(raw=told, finish=answer.stop_reason, blocks=answer.content)
    for block in answer.content:
        if block.type == "text":
            out.text += block.text
            out.cites += [cited.url for cited in block.citations or () if cited.type == "web_search_result_location"]
        elif block.type == "thinking":
            out.thinking += block.thinking
        elif block.type == "tool_use":
            out.tools.append((block.name, block.input))
    usage = answer.usage
    cached = usage.cache_read_input_tokens or 0
    read = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
    out.tokens = (read, cached, usage.output_tokens)
    return out


def read_gemini(told: list[Any], *, whole: bool) -> Understood:
    """Read Gemini's answers."""
    out = Understood(raw=told)
    for body in told:
        answer = GenerateContentResponse._from_response(response=deepcopy(body), kwargs={})
        for candidate in [item for item in answer.candidates or () if not item.index]:
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.function_call:
                    out.tools.append((part.function_call.name or "", part.function_call.args or {}))
                elif part.thought:
                    out.thinking += part.text or ""
                else:
                    out.text += part.text or ""
            if candidate.finish_reason:
                out.finish = candidate.finish_reason.value
            cited = candidate.citation_metadata.citations if candidate.citation_metadata else None
            out.cites += [item.uri or "" for item in cited or ()]
        if usage := answer.usage_metadata:
            written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            out.tokens = (usage.prompt_token_count or 0, usage.cached_content_token_count or 0, written)
    return out


READ = {
    "openai_chat": read_chat,
    "openai_responses": read_responses,
    "anthropic_messages": read_messages,
    "gemini": read_gemini,
}
OWN_FORM = {"anthropic": "anthropic_messages", "google": "gemini", "bedrock": ""}


def readers(kind: str) -> list[str]:
    """Return the dialects that a provider's answers are translated into."""
    return [dialect for dialect in READ if dialect != OWN_FORM[kind]]
