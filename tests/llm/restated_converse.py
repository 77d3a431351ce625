"""Recorded Converse requests restated by hand as a client of another dialect would say them, and answers read apart."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
from botocore.eventstream import EventStreamBuffer

from nexus.llm.forms.chat import requests as chat_requests
from nexus.llm.types import AnyPart, ChatRequest, Media, Message, Text, Thinking, ToolCall, ToolResult

TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
    "pdf": "application/pdf", "txt": "text/plain", "csv": "text/csv", "md": "text/markdown", "html": "text/html",
    "mp4": "video/mp4",
}  # fmt: skip
FINISH = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
    "model_context_window_exceeded": "length",
}  # fmt: skip


class Unspeakable(Exception):
    """The other dialect has no word for something in this recording."""


def as_chat(recorded: dict[str, Any]) -> dict[str, Any]:
    """Say a recorded request as an OpenAI client. Raises `Unspeakable`."""
    body: dict[str, Any] = {"messages": []}
    if recorded.get("system"):
        body["messages"].append({"role": "system", "content": _content(recorded["system"])})
    for message in recorded["messages"]:
        body["messages"] += _assistant(message) if message["role"] == "assistant" else _user(message)
    inference = recorded.get("inferenceConfig") or {}
    names = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
    body |= {names[key]: value for key, value in inference.items() if value != []}
    if tools := recorded.get("toolConfig"):
        body |= _tools(tools)
    body |= _more(recorded.get("additionalModelRequestFields") or {})
    if output := recorded.get("outputConfig"):
        told = output["textFormat"]["structure"]["jsonSchema"]
        schema = {"name": told["name"], "schema": json.loads(told["schema"]), "strict": True}
        if told.get("description"):
            schema["description"] = told["description"]
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    known = {"system", "messages", "inferenceConfig", "toolConfig", "additionalModelRequestFields", "outputConfig"}
    if strange := set(recorded) - known:
        raise Unspeakable(str(strange))
    return body


def _more(fields: dict[str, Any]) -> dict[str, Any]:
    if set(fields) == {"reasoning_effort"}:
        return dict(fields)
    if set(fields) == {"reasoning_config"}:
        return {"reasoning_effort": fields["reasoning_config"]}
    if set(fields) == {"top_k"}:
        return dict(fields)
    if fields == {"inferenceConfig": {"topK": fields.get("inferenceConfig", {}).get("topK")}}:
        return {"top_k": fields["inferenceConfig"]["topK"]}
    return {"additionalModelRequestFields": fields} if fields else {}


def _tools(config: dict[str, Any]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for tool in config["tools"]:
        if "cachePoint" in tool:
            tools[-1]["cache_control"] = {"type": "ephemeral"}
        elif "toolSpec" in tool:
            spec = tool["toolSpec"]
            function = {"name": spec["name"], "parameters": spec["inputSchema"]["json"]}
            function |= {key: spec[key] for key in ("description", "strict") if key in spec}
            tools.append({"type": "function", "function": function})
        else:
            tools.append(tool)
    out: dict[str, Any] = {"tools": tools}
    choice = config.get("toolChoice") or {}
    if "auto" in choice:
        out["tool_choice"] = "auto"
    elif "any" in choice:
        out["tool_choice"] = "required"
    elif "tool" in choice:
        out["tool_choice"] = {"type": "function", "function": {"name": choice["tool"]["name"]}}
    return out


def _content(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if "text" in block:
            if not block["text"].strip():
                raise Unspeakable("blank text")
            parts.append({"type": "text", "text": block["text"]})
        elif "cachePoint" in block:
            if parts[-1]["type"] != "text":
                raise Unspeakable("a cache mark on media")
            parts[-1]["cache_control"] = {"type": "ephemeral"}
        elif "image" in block:
            parts.append({"type": "image_url", "image_url": {"url": _address(block["image"])}})
        elif "document" in block:
            told = block["document"]
            parts.append({"type": "file", "file": {"file_data": _address(told), "filename": told["name"]}})
        else:
            raise Unspeakable(next(iter(block)))
    return parts


def _address(block: dict[str, Any]) -> str:
    if where := block["source"].get("s3Location"):
        return str(where["uri"])
    return f"data:{TYPES[block['format']]};base64,{block['source']['bytes']}"


def _user(message: dict[str, Any]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for block in message["content"]:
        result = block.get("toolResult")
        if result is None:
            said.append(block)
            continue
        if said or result.get("status") == "error":
            raise Unspeakable("words before a tool's result, or a failed tool")
        texts = [_text_of(item) for item in result["content"]]
        out.append({"role": "tool", "tool_call_id": result["toolUseId"], "content": "".join(texts)})
    if said:
        out.append({"role": "user", "content": _content(said)})
    return out


def _text_of(item: dict[str, Any]) -> str:
    if "json" in item:
        return json.dumps(item["json"])
    if "text" in item:
        return str(item["text"])
    raise Unspeakable("media in a tool's result")


def _assistant(message: dict[str, Any]) -> list[dict[str, Any]]:
    texts, calls = [], []
    for block in message["content"]:
        if "text" in block:
            texts.append({"type": "text", "text": block["text"]})
        elif "toolUse" in block:
            use = block["toolUse"]
            function = {"name": use["name"], "arguments": json.dumps(use["input"])}
            calls.append({"id": use["toolUseId"], "type": "function", "function": function})
        else:
            raise Unspeakable(next(iter(block)))
    out: dict[str, Any] = {"role": "assistant", "content": texts or None}
    return [out | ({"tool_calls": calls} if calls else {})]


def as_form(recorded: dict[str, Any]) -> ChatRequest:
    """Say a recorded request in our own form."""
    body = as_chat(
        {key: value for key, value in recorded.items() if key not in ("messages", "system")} | {"messages": []}
    )
    plain_part = chat_requests.read_request(body | {"model": "", "messages": []})
    system = [Message(role="system", parts=_parts(recorded["system"]))] if recorded.get("system") else []
    said = [Message(role=message["role"], parts=_parts(message["content"])) for message in recorded["messages"]]
    return msgspec.structs.replace(plain_part, dialect="", messages=(*system, *said))


def _parts(blocks: list[dict[str, Any]]) -> tuple[AnyPart, ...]:
    parts: list[AnyPart] = []
    for block in blocks:
        if "cachePoint" in block:
            parts[-1] = msgspec.structs.replace(parts[-1], cache=block["cachePoint"].get("ttl", "5m"))
        else:
            parts.append(_part(block))
    return tuple(parts)


def _part(block: dict[str, Any]) -> AnyPart:
    kind, told = next(iter(block.items()))
    if kind == "text":
        return Text(text=told)
    if kind == "json":
        return Text(text=json.dumps(told))
    if kind == "toolUse":
        return ToolCall(id=told["toolUseId"], name=told["name"], arguments=json.dumps(told["input"]))
    if kind == "toolResult":
        content: Any = tuple(_part(item) for item in told["content"])
        return ToolResult(id=told["toolUseId"], content=content, is_error=told.get("status") == "error")
    if kind == "reasoningContent":
        if sealed := told.get("redactedContent"):
            return Thinking(redacted=base64.b64decode(sealed).decode())
        return Thinking(text=told["reasoningText"]["text"], signature=told["reasoningText"].get("signature"))
    where = told["source"].get("s3Location", {}).get("uri")
    data = told["source"].get("bytes")
    return Media(kind=kind, media_type=TYPES[told["format"]], url=where, data=data, name=told.get("name"))  # type: ignore[arg-type]


def plain(request: dict[str, Any]) -> dict[str, Any]:
    """Return a Converse request without what says nothing, so that two that mean the same are equal."""
    out = {key: value for key, value in request.items() if value not in ({}, [])}
    if "inferenceConfig" in out:
        out["inferenceConfig"] = {key: value for key, value in out["inferenceConfig"].items() if value != []}
    if "toolConfig" in out:
        config = dict(out["toolConfig"])
        if config.get("toolChoice") == {"auto": {}}:
            del config["toolChoice"]
        out["toolConfig"] = config
    if "outputConfig" in out:
        told = dict(out["outputConfig"]["textFormat"]["structure"]["jsonSchema"])
        out["outputConfig"] = told | {"schema": json.loads(told["schema"])}
    out["messages"] = [
        {"role": message["role"], "content": [_plain_block(block) for block in message["content"]]}
        for message in out["messages"]
    ]
    return out


def _plain_block(block: dict[str, Any]) -> dict[str, Any]:
    if "toolResult" not in block:
        return block
    result = dict(block["toolResult"])
    if result.get("status") == "success":
        del result["status"]
    result["content"] = [{"json": item["json"]} if "json" in item else item for item in result["content"]]
    for i, item in enumerate(result["content"]):
        if "text" in item:
            try:
                told = json.loads(item["text"])
            except ValueError:
                continue
            if isinstance(told, dict):
                result["content"][i] = {"json": told}
    return {"toolResult": result}


def read_answer(body: bytes, *, streamed: bool) -> dict[str, Any]:
    """Read what a recorded answer says: words, thoughts, calls, why it ended, tokens."""
    return _read_events(body) if streamed else _read_whole(json.loads(body))


def _read_whole(body: dict[str, Any]) -> dict[str, Any]:
    out = {"text": "", "thinking": "", "calls": [], "signature": None, "redacted": ""}
    for block in body["output"]["message"]["content"]:
        out["text"] += block.get("text", "")
        if use := block.get("toolUse"):
            out["calls"].append((use["toolUseId"], use["name"], use["input"]))
        if thought := block.get("reasoningContent"):
            told = thought.get("reasoningText") or {}
            out["thinking"] += told.get("text", "")
            out["signature"] = told.get("signature", out["signature"])
            out["redacted"] += base64.b64decode(thought.get("redactedContent", "")).decode()
    return out | {"finish": FINISH[body["stopReason"]], "native": body["stopReason"], "usage": _usage(body["usage"])}


def _read_events(body: bytes) -> dict[str, Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    out: dict[str, Any] = {"text": "", "thinking": "", "calls": [], "signature": None, "redacted": ""}
    calls: dict[int, list[Any]] = {}
    for message in buffer:
        event, kind = json.loads(message.payload), message.headers[":event-type"]
        index = event.get("contentBlockIndex", -1)
        if kind == "contentBlockStart" and (use := event["start"].get("toolUse")):
            if use.get("type") != "server_tool_use":
                calls[index] = [use["toolUseId"], use["name"], ""]
        elif kind == "contentBlockDelta":
            delta = event["delta"]
            out["text"] += delta.get("text", "")
            out["thinking"] += delta.get("reasoningContent", {}).get("text", "")
            out["signature"] = delta.get("reasoningContent", {}).get("signature", out["signature"])
            if index in calls and "toolUse" in delta:
                calls[index][2] += delta["toolUse"]["input"]
        elif kind == "messageStop":
            out |= {"finish": FINISH[event["stopReason"]], "native": event["stopReason"]}
        elif kind == "metadata":
            out["usage"] = _usage(event["usage"])
    out["calls"] = [(name, tool, json.loads(told or "{}")) for name, tool, told in calls.values()]
    return out


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    read, written = usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)
    return {
        "input": usage["inputTokens"] + read + written,
        "output": usage["outputTokens"],
        "read": read,
        "written": written,
    }
