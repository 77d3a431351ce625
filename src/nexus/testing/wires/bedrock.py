"""Converse, ConverseStream, InvokeModel and CountTokens as Amazon Bedrock has them.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and `_ConverseStream`.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from nexus.testing.frames import frame
from nexus.testing.said import Said, pieces
from nexus.testing.script import Seen
from nexus.testing.wire import Asked, OfferedTool, Operation, Refused, Wire, cut, encode, vectors, words_of
from nexus.testing.wires import anthropic

_PLACE = re.compile(r"/model/[^/]+/(converse|converse-stream|invoke|invoke-with-response-stream|count-tokens)$")
_FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "filter": "content_filtered",
    "refusal": "guardrail_intervened",
}
_ERRORS = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    402: "PaymentRequiredException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    409: "ConflictException",
    413: "RequestEntityTooLargeException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


def exception(name: str, message: str) -> bytes:
    """Write an exception frame; `name` begins with a small letter."""
    headers = {"exception_type": name, "content_type": "application/json", "message_type": "exception"}
    return frame(encode({"message": message}), **headers)


class Bedrock(Wire):
    """Converse and its kin."""

    stream_type = "application/vnd.amazon.eventstream"

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        found = _PLACE.search(seen.route)
        if seen.method != "POST" or found is None:
            return None
        fields = seen.fields
        if found[1].startswith("invoke"):
            if "messages" in fields:
                return anthropic.read(seen, stream=found[1] != "invoke")
            return Asked(seen, "embed", seen.model)
        messages = [item for item in fields.get("messages") or [] if isinstance(item, dict)]
        content = messages[-1].get("content") or [] if messages else []
        results = [part["toolResult"] for part in content if "toolResult" in part]
        specs = [tool["toolSpec"] for tool in (fields.get("toolConfig") or {}).get("tools") or [] if "toolSpec" in tool]
        operation: Operation = "count" if found[1] == "count-tokens" else "chat"
        return Asked(
            seen,
            operation,
            seen.model,
            stream=found[1] == "converse-stream",
            words=words_of(results[-1].get("content")) if results else words_of(content),
            after_tool=bool(results),
            tools=tuple(OfferedTool(s.get("name", ""), (s.get("inputSchema") or {}).get("json")) for s in specs),
        )

    def missing(self, asked: Asked) -> str | None:
        """Refuse what the real server refuses."""
        if asked.operation == "chat" and not asked.fields.get("messages"):
            return "The messages field is required."
        return None

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a whole answer: Converse's, or that of the model's own form."""
        if _own_form(asked):
            return encode(anthropic.message(asked.model, said))
        body: dict[str, Any] = {
            "metrics": {"latencyMs": 42},
            "output": {"message": {"role": "assistant", "content": _blocks(said)}},
            "stopReason": _FINISH[said.finish],
        }
        if said.usage:
            body["usage"] = said.claimed(_usage(said))
        return encode(body | said.extra)

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write the frames of an answer."""
        if _own_form(asked):
            told = anthropic.message_events(asked.model, said)
            return [_event("chunk", {"bytes": base64.b64encode(encode(item)).decode()}) for item in told]
        out = [_event("messageStart", {"role": "assistant"})]
        for index, block in enumerate(_blocks(said)):
            place = {"contentBlockIndex": index}
            if call := block.get("toolUse"):
                start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
                out.append(_event("contentBlockStart", {**place, "start": start}))
            out += [_event("contentBlockDelta", {**place, "delta": delta}) for delta in _deltas(block)]
            out.append(_event("contentBlockStop", place))
        out.append(_event("messageStop", {"stopReason": _FINISH[said.finish]}))
        told_last: dict[str, Any] = {"metrics": {"latencyMs": 42}}
        if said.usage:
            told_last["usage"] = said.claimed(_usage(said))
        return [*out, _event("metadata", told_last)]

    def other(self, asked: Asked) -> bytes:
        """Write a count of tokens, or vectors in the form of the model's family."""
        if asked.operation == "count":
            return encode({"inputTokens": 12})
        fields = asked.fields
        if "texts" in fields:
            made = vectors(len(fields["texts"]), fields.get("output_dimension") or 8)
            kinds = fields.get("embedding_types")
            told: Any = {kinds[0]: made} if kinds else made
            kind = "embeddings_by_type" if kinds else "embeddings_floats"
            return encode({"id": "fake", "response_type": kind, "embeddings": told, "texts": fields["texts"]})
        if "singleEmbeddingParams" in fields or "schemaVersion" in fields:
            size = (fields.get("singleEmbeddingParams") or {}).get("embeddingDimension") or 8
            return encode({"embeddings": [{"embeddingType": "TEXT", "embedding": vectors(1, size)[0]}]})
        one = vectors(1, fields.get("dimensions") or 8)[0]
        return encode({"embedding": one, "embeddingsByType": {"float": one}, "inputTextTokenCount": 3})

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error: its name is in a header, with the address of its definition behind it."""
        words = {
            "model": "Could not resolve the foundation model from the provided model identifier.",
            "context": "The model returned the following errors: Input is too long for requested model.",
            "field": "The value at 'inferenceConfig.temperature' failed to satisfy constraint: Member must have "
            "value less than or equal to 1",
            "quota": "Too many tokens per day, please wait before trying again.",
        }.get(reason, message)
        name = _ERRORS.get(status, "InternalServerException" if status >= 500 else "ValidationException")
        lines = [
            "x-amzn-requestid: fake",
            f"x-amzn-errortype: {name}:http://internal.amazon.com/coral/com.amazon.bedrock/",
        ]
        if wait is not None:
            lines.append(f"retry-after: {wait}")
        return Refused(encode({"message": words}), tuple(lines))

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an exception frame."""
        name = _ERRORS.get(status, "InternalServerException")
        return exception(name[0].lower() + name[1:], message)


def _own_form(asked: Asked) -> bool:
    return "/invoke" in asked.seen.route


def _event(name: str, payload: dict[str, Any]) -> bytes:
    return frame(encode(payload), event_type=name, content_type="application/json", message_type="event")


def _blocks(said: Said) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.thinking:
        blocks.append({"reasoningContent": {"reasoningText": {"text": said.thinking, "signature": "RmFrZQ=="}}})
    if said.text:
        blocks.append({"text": said.text})
    calls = ({"toolUseId": tool.id, "name": tool.name, "input": tool.arguments} for tool in said.tools)
    return blocks + [{"toolUse": call} for call in calls]


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if "text" in block:
        return [{"text": word} for word in pieces(block["text"])]
    if call := block.get("toolUse"):
        return [{"toolUse": {"input": piece}} for piece in cut(encode(call["input"]).decode())]
    thought = block["reasoningContent"]["reasoningText"]
    words = [{"reasoningContent": {"text": word}} for word in pieces(thought["text"])]
    return [*words, {"reasoningContent": {"signature": thought["signature"]}}]


def _usage(said: Said) -> dict[str, Any]:
    stored = said.stored_5m_tokens + said.stored_1h_tokens
    usage: dict[str, Any] = {
        "inputTokens": said.fresh_tokens,
        "outputTokens": said.written_tokens,
        "totalTokens": said.prompt_tokens + said.written_tokens,
        "cacheReadInputTokens": said.cached_tokens,
        "cacheWriteInputTokens": stored,
    }
    if stored:
        tiers = (("5m", said.stored_5m_tokens), ("1h", said.stored_1h_tokens))
        usage["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in tiers if count]
    return usage


plug = Bedrock()
