"""Hugging Face: chat through its router to many companies, dedicated endpoints (TGI, vLLM), and embeddings (TEI).

Sources: https://huggingface.co/docs/inference-providers, https://huggingface.co/docs/text-generation-inference,
https://huggingface.github.io/text-embeddings-inference/. A model of the router is `organisation/name`, with
`:provider` after it to pick who serves it (`:fastest` and `:cheapest` too). A dedicated endpoint is a `base_url` that
ends in `/v1`. Options: those of OpenAI's kind, and `embeddings`, how the server is asked for vectors: `openai`
(`/v1/embeddings`), `tei` (`/embed`) or `pipeline` (the router's way, its default).
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final
from urllib.parse import quote

import msgspec

from nexus.core.errors import NexusError
from nexus.llm.account import Endpoint
from nexus.llm.errors import (
    ContextTooLong,
    Unsupported,
    UpstreamError,
    UpstreamMalformed,
    UpstreamUnavailable,
)
from nexus.llm.forms.chat.embeddings import refuse_rest
from nexus.llm.provider import Provider
from nexus.llm.providers.openai import OpenAIProvider
from nexus.llm.types import Embedding, EmbeddingRequest
from nexus.llm.wire.client import HttpAnswer, HttpRequest

_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_ROUTER: Final = "router.huggingface.co"
_SERVED_BY: Final = "hf-inference"
# What a server for embeddings takes at once unless told otherwise.
_MOST_INPUTS: Final = 32
_LONGEST_WAIT: Final = 600.0
_TOO_LONG: Final = re.compile(
    r"must have less than \d+ tokens|tokens \+ `max_new_tokens` must be|maximum context length|`inputs` must have less",
    re.IGNORECASE,
)


class HuggingFaceProvider(OpenAIProvider):
    """The chat-completions form with Hugging Face's own errors, and its own forms of embeddings."""

    base_url = f"https://{_ROUTER}/v1"
    environment = "HF_TOKEN"

    def embed(self, endpoint: Endpoint, model: str, request: EmbeddingRequest) -> HttpRequest:
        """Write an embedding request. Raises `Unsupported` for what its form has no word for."""
        form = _form(endpoint)
        if form == "openai":
            return super().embed(endpoint, model, request)
        refuse_rest(request)
        if request.task is not None:
            raise Unsupported("This model has vectors of one kind only.", field="input_type")
        if not all(isinstance(item, str) for item in request.input):
            raise Unsupported("This model takes texts, not tokens.", field="input")
        body: dict[str, Any] = {"inputs": request.input}
        root = endpoint.base_url.removesuffix("/v1")
        if form == "tei":
            more = {} if request.dimensions is None else {"dimensions": request.dimensions}
            return self.request(msgspec.structs.replace(endpoint, base_url=root), "/embed", _encode(body | more), model)
        if request.dimensions is not None:
            raise Unsupported("This model has vectors of one size only.", field="dimensions")
        name, _, server = model.partition(":")
        path = f"/{quote(server or _SERVED_BY)}/models/{quote(name)}/pipeline/feature-extraction"
        return self.request(msgspec.structs.replace(endpoint, base_url=root), path, _encode(body), model)

    def most_inputs(self, endpoint: Endpoint, model: str) -> int | None:
        """Return how many texts the server takes at once."""
        return None if _form(endpoint) == "openai" else _MOST_INPUTS

    def embedding(self, answer: HttpAnswer, request: EmbeddingRequest) -> Embedding:
        """Read an embedding answer of any form."""
        if not answer.body.lstrip().startswith(b"["):
            return super().embedding(answer, request)
        try:
            rows = _any.decode(answer.body)
            if isinstance(rows[0], float | int):
                rows = [rows]
            if isinstance(rows[0][0], list):
                raise Unsupported("This model gives a vector for each token, none for a whole text.", field="model")
            vectors = tuple(struct.pack(f"<{len(row)}f", *row) for row in rows)
        except (msgspec.DecodeError, RecursionError, TypeError, IndexError, KeyError, struct.error):
            raise UpstreamMalformed from None
        if len(vectors) != len(request.input):
            raise UpstreamMalformed
        return Embedding(model=request.model, vectors=vectors, dimensions=len(vectors[0]) // 4, usage=None)

    def error(self, answer: HttpAnswer) -> NexusError:
        """Turn an error answer into ours: OpenAI's form from the router, `{"error": "..."}` or plain text else."""
        told = _told(answer)
        message = next((words for name in ("error", "message", "detail") if (words := _words(told.get(name)))), None)
        wait = told.get("estimated_time")
        if answer.status == 503 and isinstance(wait, int | float) and wait >= 0:
            return UpstreamUnavailable("The provider is loading the model.", retry_after=min(wait, _LONGEST_WAIT))
        if answer.status == 424:
            return UpstreamError("The model failed at the provider.")
        if message is not None and answer.status in (400, 413, 422) and _TOO_LONG.search(message):
            return ContextTooLong(message, field="messages" if "max_new_tokens" in message else None)
        if isinstance(told.get("error"), dict):
            return super().error(answer)
        return super().error(msgspec.structs.replace(answer, body=_encode({"error": {"message": message}})))


def _form(endpoint: Endpoint) -> str:
    usual = "pipeline" if _ROUTER in endpoint.base_url else "openai"
    return str(endpoint.options.get("embeddings", usual))


def _told(answer: HttpAnswer) -> dict[str, Any]:
    try:
        body = _any.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        plain = answer.headers.get("content-type", "").startswith("text/plain")
        return {"error": answer.body.decode("utf-8", "replace")} if plain else {}
    return body if isinstance(body, dict) else {"error": body}


def _words(error: Any) -> str | None:
    if isinstance(error, dict):
        error = error.get("message")
    if isinstance(error, list):
        error = " ".join(str(item.get("msg") if isinstance(item, dict) else item) for item in error)
    return error[:2000] if isinstance(error, str) and error else None


plug: Provider = HuggingFaceProvider()
