"""What all endpoints of OpenAI's family share: requests and their headers, errors, embeddings, spliced bodies.

Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from nexus.core.errors import NexusError, TooLarge
from nexus.llm.account import Endpoint
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamMalformed,
    UpstreamRejected,
    from_status,
    from_stream,
    retry_after_seconds,
)
from nexus.llm.provider import Provider
from nexus.llm.types import Call, Embedding, EmbeddingRequest, Usage
from nexus.llm.wire.client import HttpAnswer, HttpRequest
from nexus.llm.wire.upstream_json import json_of

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()
encode = msgspec.json.Encoder().encode
EMBEDDINGS = "openai.embeddings"
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")


class OpenAIWire(Provider):
    """Headers, errors and embeddings of OpenAI's family; its chat endpoints differ."""

    base_url = "https://api.openai.com/v1"
    environment = "OPENAI_API_KEY"

    def request(
        self, endpoint: Endpoint, path: str, body: bytes, model: str, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> HttpRequest:
        """Write a request to the endpoint at `path` for `model`, with `more` headers."""
        headers = endpoint.bearer
        if more:
            headers += tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in more)
        if own := endpoint.options.get("headers"):
            headers += tuple(own.items())
        return HttpRequest(url=endpoint.base_url + path, body=body, headers=headers)

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request; our own ask for base64, a quarter of the bytes. Raises `Unsupported`."""
        if not request.input:
            raise Unsupported("This model has vectors for texts only.", field="input")
        if request.dialect == EMBEDDINGS:
            fields = _fields.decode(request.body)
            body = encode(fields | {"model": msgspec.Raw(encode(model))})
        else:
            more = {"dimensions": request.dimensions, "user": request.user}
            own = {"model": model, "input": request.input, "encoding_format": "base64"}
            renamed = {endpoint.options.get("rename", {}).get(name, name): value for name, value in more.items()}
            body = encode(own | {name: value for name, value in renamed.items() if name and value is not None})
        return self.request(endpoint, "/embeddings", body, model)

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer, base64 or lists of numbers, back in the order asked."""
        body = json_of(answer.body)
        if body.get("error") is not None and not body.get("data"):
            raise from_stream(body["error"])
        try:
            data = sorted(body["data"], key=lambda item: item["index"])
            vectors = () if request.dialect == EMBEDDINGS else tuple(_vector(item["embedding"]) for item in data)
            told = body.get("usage") or {}
            used = told.get("prompt_tokens") or told.get("total_tokens")
            return Embedding(
                model=body.get("model") or "",
                vectors=vectors,
                dimensions=len(vectors[0]) // 4 if vectors else 0,
                usage=Usage(input_tokens=used) if isinstance(used, int) and used > 0 else None,
                body=answer.body if request.dialect == EMBEDDINGS else b"",
            )
        except (KeyError, TypeError, ValueError, AttributeError, struct.error):
            raise UpstreamMalformed from None

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours; the provider's words are kept only where the fault is the caller's."""
        told = told_of(answer.body)
        message, code = told.get("message"), told.get("code")
        message = message[:2000] if isinstance(message, str) and message else None
        if code in _TOO_LONG or told.get("type") in _TOO_LONG:
            return ContextTooLong(message, field="messages")
        if answer.status == 413:
            return TooLarge("The provider finds the request too large.")
        wait = answer.headers.get("retry-after-ms")
        after = (
            float(wait) / 1000 if wait and wait.isdigit() else retry_after_seconds(answer.headers.get("retry-after"))
        )
        error = from_status(answer.status, message=message, body=answer.body, retry_after=after)
        if isinstance(error, UpstreamRejected) and isinstance(param := told.get("param"), str):
            error.field = param
        return error


def lacks_endpoint(answer: HttpAnswer) -> bool:
    """Tell whether an error answer says that the server has no such endpoint, rather than no such model."""
    return answer.status in (404, 405, 501) and "model" not in str(told_of(answer.body).get("message")).lower()


def splice(call: Call, model: str, *, stream_usage: bool) -> bytes:
    """Replace the model's name and ask for usage; every other field keeps its very bytes."""
    if not call.stream and model == call.model:
        return call.body
    fields = _fields.decode(call.body)
    fields["model"] = msgspec.Raw(encode(model))
    if call.stream and stream_usage:
        options = fields.get("stream_options")
        given = _fields.decode(options) if options is not None and bytes(options).startswith(b"{") else {}
        fields["stream_options"] = msgspec.Raw(encode(given | {"include_usage": msgspec.Raw(b"true")}))
    return encode(fields)


def told_of(data: bytes) -> dict[str, Any]:
    """Return what an error body says: `{"error": {...}}`, `{"error": "..."}`, or `{"message": "..."}`."""
    try:
        body = _any.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    told = body.get("error", body)
    return told if isinstance(told, dict) else {"message": told}


def _vector(value: Any) -> bytes:
    if isinstance(value, str):
        return base64.b64decode(value, validate=True)
    return struct.pack(f"<{len(value)}f", *value)
