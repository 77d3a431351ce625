"""What a recording holds, read by nothing of the product: words, thoughts, tool calls, why it ended, and usage.

Bedrock's frames are read by botocore. What every client can be told is compared; a provider's own extras are
its own dialect's matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from botocore.eventstream import EventStreamBuffer

from nexus.testing.recordings import Exchange
from nexus.testing.replay import form


class LeftOut(Exception):
    """There is nothing to compare in a recording; the text says why."""


class Usage(NamedTuple):
    """Tokens: all that was read, of that from a cache and into one, and all that was written."""

    read: int
    cached: int
    stored: int
    written: int


class Failed(Exception):
    """The recorded stream itself reports an error."""


@dataclass
class Told:
    """What was said. `finish` is one of stop, length, tools, filter, or the provider's own word.

    `refused` tells of a refusal, whose words are part of the text, `aside` that the usage stands in a place of
    the provider's own.
    """

    text: str = ""
    thinking: str = ""
    tools: list[tuple[str, Any]] = field(default_factory=list)
    finish: str | None = None
    usage: Usage | None = None
    refused: bool = False
    aside: bool = False


def read(exchange: Exchange) -> Told:
    """Read a recorded answer. Raises `LeftOut` and `Failed`."""
    if not exchange.body:
        raise LeftOut("the answer was not recorded")
    reader = READERS[form(exchange.path)]
    try:
        return reader(exchange)
    except (KeyError, IndexError, TypeError) as error:
        raise LeftOut(f"the answer has another shape: {type(error).__name__} {error}") from error


def events(exchange: Exchange) -> list[Any]:
    """Return the JSON of a stream's events."""
    found = []
    for block in exchange.body.decode().replace("\r\n", "\n").split("\n\n"):
        data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if data and data != ["[DONE]"]:
            found.append(json.loads("\n".join(data)))
    return found


def arguments(text: Any) -> Any:
    """Return a tool's arguments decoded, or as they are where they are no JSON."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _chat(exchange: Exchange) -> Told:
    if exchange.streamed:
        return _chat_stream(exchange)
    body = json.loads(exchange.body)
    choice = body["choices"][0]
    message = choice["message"]
    told = Told(finish=CHAT_FINISH.get(choice.get("finish_reason"), choice.get("finish_reason")))
    _chat_words(message, told)
    told.tools = [_chat_call(call) for call in message.get("tool_calls") or []]
    if call := message.get("function_call"):
        told.tools.append((call["name"], arguments(call["arguments"])))
    told.usage = _chat_usage(body.get("usage"))
    return told


CHAT_FINISH = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "filter",
}


def _chat_words(message: dict[str, Any], told: Told) -> None:
    content = message.get("content")
    for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
        if part["type"] == "thinking":
            told.thinking += "".join(inner.get("text", "") for inner in part["thinking"])
        else:
            told.text += part.get("text") or ""
    told.text += message.get("refusal") or ""
    told.refused = told.refused or bool(message.get("refusal"))
    told.thinking += message.get("reasoning_content") or message.get("reasoning") or ""


def _chat_call(call: dict[str, Any]) -> tuple[str, Any]:
    if call.get("type") == "custom":
        return call["custom"]["name"], call["custom"]["input"]
    return call["function"]["name"], arguments(call["function"].get("arguments") or "")


def _chat_stream(exchange: Exchange) -> Told:
    told = Told()
    calls: dict[int, list[str]] = {}
    finished = False
    for event in events(exchange):
        if "error" in event:
            raise Failed
        told.usage = _chat_usage(event.get("usage")) or told.usage
        if aside := _chat_usage((event.get("x_groq") or {}).get("usage")):
            told.usage, told.aside = aside, True
        for choice in event.get("choices") or []:
            if choice.get("index"):
                continue
            delta = choice.get("delta") or {}
            _chat_words(delta, told)
            for position, call in enumerate(delta.get("tool_calls") or []):
                held = calls.setdefault(call.get("index", position), ["", ""])
                function = call.get("function") or {}
                held[0] += function.get("name") or ""
                held[1] += function.get("arguments") or ""
            if reason := choice.get("finish_reason"):
                told.finish, finished = CHAT_FINISH.get(reason, reason), True
    if not finished:
        raise LeftOut("the stream has no end")
    told.tools = [(name, arguments(text)) for name, text in calls.values()]
    return told


def _chat_usage(usage: Any) -> Usage | None:
    if not usage or not usage.get("prompt_tokens"):
        return None
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("num_cached_tokens") or 0
    return Usage(
        usage["prompt_tokens"], cached, details.get("cache_write_tokens") or 0, usage.get("completion_tokens") or 0
    )


def _completions(exchange: Exchange) -> Told:
    bodies = events(exchange) if exchange.streamed else [json.loads(exchange.body)]
    told = Told()
    for body in bodies:
        told.usage = _chat_usage(body.get("usage")) or told.usage
        for choice in body["choices"]:
            if not choice.get("index"):
                told.text += choice["text"]
                told.finish = CHAT_FINISH.get(choice.get("finish_reason"), told.finish)
    if told.finish is None:
        raise LeftOut("the stream has no end")
    return told


def _responses(exchange: Exchange) -> Told:
    if exchange.streamed:
        ends = [event for event in events(exchange) if event.get("type") in _RESPONSE_ENDS]
        if not ends:
            raise LeftOut("the stream has no end")
        body = ends[-1]["response"]
    else:
        body = json.loads(exchange.body)
    if body["status"] in ("failed", "cancelled", "queued", "in_progress"):
        raise LeftOut(f"the response is {body['status']}")
    told = Told()
    for item in body["output"]:
        if item["type"] == "message":
            told.text += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
            told.refused = told.refused or any(part["type"] == "refusal" for part in item["content"])
        elif item["type"] == "function_call":
            told.tools.append((item["name"], arguments(item["arguments"])))
        elif item["type"] == "custom_tool_call":
            told.tools.append((item["name"], item["input"]))
        elif item["type"] == "reasoning":
            told.thinking += "".join(part["text"] for part in item.get("summary") or item.get("content") or [])
    reason = (body.get("incomplete_details") or {}).get("reason")
    told.finish = {"max_output_tokens": "length", "content_filter": "filter"}.get(
        reason, "tools" if told.tools else "stop"
    )
    if (usage := body.get("usage")) and usage["input_tokens"]:
        details = usage.get("input_tokens_details") or {}
        cached, stored = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
        told.usage = Usage(usage["input_tokens"], cached, stored, usage["output_tokens"])
    return told


_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")
_MESSAGE_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "filter",
    "guardrail_intervened": "filter",
    "content_filtered": "filter",
}


def _messages(exchange: Exchange) -> Told:
    return message_of(events(exchange)) if exchange.streamed else _message(json.loads(exchange.body))


def _message(body: dict[str, Any]) -> Told:
    told = Told(finish=_MESSAGE_FINISH.get(body["stop_reason"], body["stop_reason"]))
    for block in body["content"]:
        if block["type"] == "text":
            told.text += block["text"]
        elif block["type"] == "thinking":
            told.thinking += block["thinking"]
        elif block["type"] == "tool_use":
            told.tools.append((block["name"], block["input"]))
    told.usage = _message_usage(body.get("usage"))
    return told


def message_of(told_events: list[dict[str, Any]]) -> Told:
    """Read the events of a message."""
    body: dict[str, Any] = {"content": [], "stop_reason": None, "usage": {}}
    pieces: dict[int, str] = {}
    for event in told_events:
        kind = event["type"]
        if kind == "message_start":
            body["usage"] = dict(event["message"].get("usage") or {})
        elif kind == "content_block_start":
            body["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            block, delta = body["content"][event["index"]], event["delta"]
            for name in ("text", "thinking"):
                if name in delta:
                    block[name] = block.get(name, "") + delta[name]
            if "partial_json" in delta:
                pieces[event["index"]] = pieces.get(event["index"], "") + delta["partial_json"]
        elif kind == "message_delta":
            body["stop_reason"] = event["delta"].get("stop_reason")
            body["usage"] |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        elif kind == "error":
            raise Failed
    for index, text in pieces.items():
        if text:
            body["content"][index]["input"] = arguments(text)
    if body["stop_reason"] is None:
        raise LeftOut("the stream has no end")
    return _message(body)


def _message_usage(usage: Any) -> Usage | None:
    if not usage:
        return None
    cached, stored = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return Usage(usage["input_tokens"] + cached + stored, cached, stored, usage["output_tokens"])


def _gemini(exchange: Exchange) -> Told:
    bodies = events(exchange) if exchange.streamed else json.loads(exchange.body)
    told = Told()
    for body in bodies if isinstance(bodies, list) else [bodies]:
        if (body.get("promptFeedback") or {}).get("blockReason"):
            told.finish = "filter"
        for candidate in (body.get("candidates") or [])[:1]:
            for part in (candidate.get("content") or {}).get("parts") or []:
                if "functionCall" in part:
                    told.tools.append((part["functionCall"]["name"], part["functionCall"].get("args") or {}))
                elif part.get("thought"):
                    told.thinking += part.get("text", "")
                else:
                    told.text += part.get("text", "")
            reason = candidate.get("finishReason")
            told.finish = _GEMINI_FINISH.get(reason, reason) or told.finish
        if usage := body.get("usageMetadata"):
            read_ = (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0)
            written = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
            told.usage = Usage(read_, usage.get("cachedContentTokenCount") or 0, 0, written) if read_ else told.usage
    if told.finish is None:
        raise LeftOut("the answer has no end")
    if told.tools and told.finish == "stop":
        told.finish = "tools"
    return told


_GEMINI_FINISH = {
    "STOP": "stop",
    1: "stop",
    "MAX_TOKENS": "length",
    2: "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "PROHIBITED_CONTENT": "filter",
    "BLOCKLIST": "filter",
}


def _converse(exchange: Exchange) -> Told:
    body = json.loads(exchange.body)
    told = Told(finish=_MESSAGE_FINISH.get(body["stopReason"], body["stopReason"]))
    for block in body["output"]["message"]["content"]:
        told.text += block.get("text", "")
        told.text += "".join(item.get("text", "") for item in block.get("citationsContent", {}).get("content", ()))
        call = block.get("toolUse")
        if call and call.get("type") != "server_tool_use":
            told.tools.append((call["name"], call["input"]))
        if thought := block.get("reasoningContent", {}).get("reasoningText"):
            told.thinking += thought["text"]
    told.usage = _converse_usage(body.get("usage"))
    return told


def frames(exchange: Exchange) -> list[tuple[str, dict[str, Any]]]:
    """Return the frames of a binary stream as botocore reads them: event type and payload."""
    buffer = EventStreamBuffer()
    buffer.add_data(exchange.body)
    found = []
    for frame in buffer:
        name = frame.headers.get(":event-type") or frame.headers.get(":exception-type") or "error"
        if ":event-type" not in frame.headers:
            raise Failed
        found.append((name, json.loads(frame.payload or b"{}")))
    return found


def _converse_stream(exchange: Exchange) -> Told:
    told = Told()
    calls: dict[int, list[str]] = {}
    theirs: set[int] = set()  # tools that the provider itself has used
    for name, event in frames(exchange):
        place = event.get("contentBlockIndex", 0)
        if name == "contentBlockStart" and event["start"].get("toolUse", {}).get("type") == "server_tool_use":
            theirs.add(place)
        elif name == "contentBlockStart" and "toolUse" in event["start"]:
            calls[place] = [event["start"]["toolUse"]["name"], ""]
        elif name == "contentBlockDelta":
            delta = event["delta"]
            told.text += delta.get("text", "")
            told.thinking += delta.get("reasoningContent", {}).get("text", "")
            if "toolUse" in delta and place not in theirs:
                calls[place][1] += delta["toolUse"]["input"]
        elif name == "messageStop":
            told.finish = _MESSAGE_FINISH.get(event["stopReason"], event["stopReason"])
        elif name == "metadata":
            told.usage = _converse_usage(event.get("usage"))
    if told.finish is None:
        raise LeftOut("the stream has no end")
    told.tools = [(name, arguments(text)) for name, text in calls.values()]
    return told


def _converse_usage(usage: Any) -> Usage | None:
    if not usage:
        return None
    cached, stored = usage.get("cacheReadInputTokens") or 0, usage.get("cacheWriteInputTokens") or 0
    return Usage(usage["inputTokens"] + cached + stored, cached, stored, usage["outputTokens"])


def _invoke(exchange: Exchange) -> Told:
    if "anthropic_version" not in exchange.fields:
        raise LeftOut("invoked in a form of its own model")
    if not exchange.framed:
        return _message(json.loads(exchange.body))
    import base64

    return message_of([json.loads(base64.b64decode(event["bytes"])) for _, event in frames(exchange)])


READERS = {
    "chat/completions": _chat,
    "completions": _completions,
    "responses": _responses,
    "messages": _messages,
    ":generateContent": _gemini,
    ":streamGenerateContent": _gemini,
    "converse": _converse,
    "converse-stream": _converse_stream,
    "invoke": _invoke,
    "invoke-with-response-stream": _invoke,
}
