"""generateContent and its kin, as the Gemini API and Vertex AI have them, and Google's token exchange.

Sources: https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/docs/reference/rest,
https://cloud.google.com/apis/design/errors. Streams are events with `alt=sse`, else one JSON array.
"""

from __future__ import annotations

import re
from typing import Any

from nexus.testing.said import Said, pieces
from nexus.testing.script import Seen
from nexus.testing.wire import Asked, OfferedTool, Operation, Refused, Wire, encode, vectors, words_of

_METHODS: dict[str, Operation] = {
    "generateContent": "chat",
    "streamGenerateContent": "chat",
    "embedContent": "embed",
    "batchEmbedContents": "embed",
    "predict": "embed",
    "countTokens": "count",
}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tools": "STOP", "filter": "SAFETY", "refusal": "PROHIBITED_CONTENT"}
_SIGNATURE = "RmFrZVRob3VnaHQ="


class Gemini(Wire):
    """Content generation."""

    def asked(self, seen: Seen) -> Asked | None:
        """Read a request."""
        if seen.method == "POST" and seen.route.endswith("/token"):
            return Asked(seen, "other", "")
        if seen.method == "GET" and re.search(r"/v1(beta|beta1)/models(/[^/:]+)?$", seen.route):
            return Asked(seen, "models", "")
        found = re.search(r"/([^/:]+):(\w+)$", seen.route)
        if seen.method != "POST" or found is None or found[2] not in _METHODS:
            return None
        fields = seen.fields
        contents = [item for item in fields.get("contents") or [] if isinstance(item, dict)]
        parts = contents[-1].get("parts") or [] if contents else []
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        declared = [item for tool in fields.get("tools") or [] for item in tool.get("functionDeclarations") or []]
        config = fields.get("generationConfig") or {}
        return Asked(
            seen,
            _METHODS[found[2]],
            seen.model,
            stream=found[2] == "streamGenerateContent",
            words=str(results[-1].get("response")) if results else words_of(parts),
            after_tool=bool(results),
            tools=tuple(OfferedTool(tool.get("name", ""), _schema(tool)) for tool in declared),
            schema=config.get("responseJsonSchema") or config.get("responseSchema"),
        )

    def missing(self, asked: Asked) -> str | None:
        """Refuse what the real server refuses."""
        if asked.operation == "chat" and not asked.fields.get("contents"):
            return "* GenerateContentRequest.contents: contents is not specified"
        return None

    def kind(self, asked: Asked) -> str:
        """Return the content type: events, or a JSON array."""
        return "text/event-stream" if _as_events(asked) else "application/json"

    def whole(self, asked: Asked, said: Said) -> bytes:
        """Write a whole answer."""
        return encode(_answer(asked, said, _parts(said), last=True))

    def events(self, asked: Asked, said: Said) -> list[bytes]:
        """Write the pieces of an answer, usage in each; the pieces of a JSON array carry its punctuation."""
        parts = [{"text": word, "thought": True} for word in pieces(said.thinking)]
        parts += [{"text": word} for word in said.words] + _calls(said)
        told = [_answer(asked, said, [part], last=False) for part in parts]
        told.append(_answer(asked, said, [{"text": ""}], last=True))
        if _as_events(asked):
            return [_event(item) for item in told]
        middle = [b",\r\n" + encode(item) for item in told[1:]]
        return [b"[" + encode(told[0]), *middle[:-1], middle[-1] + b"\n]" if middle else b"\n]"]

    def other(self, asked: Asked) -> bytes:
        """Write vectors, a count of tokens, the list of models or an access token."""
        if asked.operation == "other":
            return encode({"access_token": "ya29.fake-token", "expires_in": 3599, "token_type": "Bearer"})
        if asked.operation == "models":
            names = ("echo", "tools", "thinking")
            return encode(
                {"models": [{"name": f"models/{name}", "displayName": name, "version": "1"} for name in names]}
            )
        if asked.operation == "count":
            return encode({"totalTokens": 12, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}]})
        return encode(_embedded(asked))

    def refusal(self, status: int, message: str, *, wait: int | None = None, reason: str = "") -> Refused:
        """Write an error."""
        words = {
            "model": "models/no-such-model is not found for API version v1beta, or is not supported for it.",
            "context": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "field": "* GenerateContentRequest.generation_config.temperature: must be in the range [0.0, 2.0]",
            "quota": "You exceeded your current quota, please check your plan and billing details.",
        }.get(reason, message)
        error = _error(status, words)
        if wait is not None:
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"}
            error["error"]["details"] = [info]
        return Refused(encode(error))

    def accident(self, asked: Asked, status: int, message: str) -> bytes:
        """Write an error in the middle of a stream."""
        error = _error(status, message)
        return _event(error) if _as_events(asked) else b",\r\n" + encode(error)


def _error(status: int, message: str) -> dict[str, Any]:
    name = _STATUS.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": status, "message": message, "status": name}}


def _schema(tool: dict[str, Any]) -> Any:
    names = ("parameters", "parametersJsonSchema", "parameters_json_schema")
    return next((tool[name] for name in names if name in tool), None)


def _as_events(asked: Asked) -> bool:
    return asked.seen.query.get("alt") == "sse"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + encode(data) + b"\r\n\r\n"


def _calls(said: Said) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = [{"functionCall": {"name": tool.name, "args": tool.arguments}} for tool in said.tools]
    return [{**calls[0], "thoughtSignature": _SIGNATURE}, *calls[1:]] if calls else []


def _parts(said: Said) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": said.thinking, "thought": True}] if said.thinking else []
    return parts + ([{"text": said.text}] if said.text else []) + _calls(said)


def _answer(asked: Asked, said: Said, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if said.finish == "filter":
        body["promptFeedback"] = {"blockReason": "SAFETY"}
    else:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if last:
            candidate["finishReason"] = _FINISH[said.finish]
        body["candidates"] = [candidate | {"index": 0}]
    if said.usage:
        written = said.written_tokens - said.thought_tokens
        usage: dict[str, Any] = {"promptTokenCount": said.prompt_tokens, "candidatesTokenCount": written}
        if said.cached_tokens:
            usage["cachedContentTokenCount"] = said.cached_tokens
        if said.thought_tokens:
            usage["thoughtsTokenCount"] = said.thought_tokens
        usage["totalTokenCount"] = said.prompt_tokens + said.written_tokens
        usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": said.prompt_tokens}]
        body["usageMetadata"] = said.claimed(usage)
    return body | {"modelVersion": asked.model, "responseId": "fake-response"} | said.extra


def _embedded(asked: Asked) -> dict[str, Any]:
    fields = asked.fields
    if asked.seen.route.endswith(":predict"):
        size = (fields.get("parameters") or {}).get("outputDimensionality") or 8
        statistics = {"truncated": False, "token_count": 3}
        made = vectors(len(fields.get("instances") or []), size)
        return {"predictions": [{"embeddings": {"values": one, "statistics": statistics}} for one in made]}
    requests = fields.get("requests")
    if requests is not None:
        size = (requests[0] if requests else {}).get("outputDimensionality") or 8
        return {"embeddings": [{"values": one} for one in vectors(len(requests), size)]}
    config = fields.get("embedContentConfig") or fields
    size = config.get("outputDimensionality") or 8
    return {"embedding": {"values": vectors(1, size)[0]}, "usageMetadata": {"promptTokenCount": 3}}


plug = Gemini()
