"""Embeddings as each family of models behind InvokeModel wants them asked and gives them.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html: Amazon Titan (text v1 and v2,
image), Amazon Nova multimodal, Cohere Embed v3 and v4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from nexus.llm.errors import InvalidRequest, Unsupported
from nexus.llm.forms.converse.families import plain_name
from nexus.llm.types import Embedding, EmbeddingRequest, Usage

_COHERE_USES = {
    "query": "search_query",
    "document": "search_document",
    "classification": "classification",
    "clustering": "clustering",
}
_NOVA_USES = {
    "query": "TEXT_RETRIEVAL",
    "document": "GENERIC_INDEX",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}


class _Form(NamedTuple):
    """How one family is asked: the start of its names, its body, how many texts at once."""

    start: str
    write: Callable[[list[str], EmbeddingRequest], dict[str, Any]]
    most: int


def most_texts(model: str) -> int:
    """Return how many texts one request may have. Raises `Unsupported` for a model that embeds no text."""
    return _form(model).most


def write_request(model: str, request: EmbeddingRequest) -> dict[str, Any]:
    """Write the body of a request. Raises `Unsupported` naming the field."""
    form = _form(model)
    texts = [item for item in request.input if isinstance(item, str)]
    if len(texts) != len(request.input):
        raise Unsupported("This model takes texts, not tokens.", field="input")
    if not texts:
        raise InvalidRequest("input must have at least one text.", field="input")
    return form.write(texts, request)


def read_answer(body: dict[str, Any], headers: dict[str, str], model: str) -> Embedding:
    """Read an answer. Raises KeyError, TypeError, ValueError or struct.error for what is none."""
    found = body.get("embedding")
    if found is not None:
        rows = [found]
    elif isinstance(body["embeddings"], dict):
        rows = body["embeddings"]["float"]
    else:
        rows = [row["embedding"] if isinstance(row, dict) else row for row in body["embeddings"]]
    vectors = tuple(struct.pack(f"<{len(row)}f", *row) for row in rows)
    told = headers.get("x-amzn-bedrock-input-token-count", "")
    read = int(told) if told.isdigit() else body.get("inputTextTokenCount", body.get("inputTokenCount"))
    return Embedding(
        model=model,
        vectors=vectors,
        dimensions=len(vectors[0]) // 4 if vectors else 0,
        usage=Usage(input_tokens=read) if isinstance(read, int) and read > 0 else None,
    )


def _form(model: str) -> _Form:
    name = plain_name(model)
    for form in _FORMS:
        if name.startswith(form.start):
            return form
    raise Unsupported("This model makes no embeddings of texts.", field="model")


def _titan_v1(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    _fixed(request)
    return {"inputText": texts[0]}


def _titan_v2(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    return {"inputText": texts[0]} | ({"dimensions": request.dimensions} if request.dimensions else {})


def _titan_image(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    size = {"embeddingConfig": {"outputEmbeddingLength": request.dimensions}} if request.dimensions else {}
    return {"inputText": texts[0]} | size


def _nova(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "embeddingPurpose": _NOVA_USES.get(request.task or "", "GENERIC_INDEX"),
        "text": {"truncationMode": "NONE", "value": texts[0]},
    }
    if request.dimensions:
        wanted["embeddingDimension"] = request.dimensions
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": wanted}


def _cohere_v3(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    _fixed(request)
    return {"texts": texts, "input_type": _COHERE_USES.get(request.task or "", "search_document")}


def _cohere_v4(texts: list[str], request: EmbeddingRequest) -> dict[str, Any]:
    asked = {"texts": texts, "input_type": _COHERE_USES.get(request.task or "", "search_document")}
    more: dict[str, Any] = {"output_dimension": request.dimensions} if request.dimensions else {}
    return asked | {"embedding_types": ["float"]} | more


def _fixed(request: EmbeddingRequest) -> None:
    if request.dimensions is not None:
        raise Unsupported("This model has vectors of one size only.", field="dimensions")


_FORMS = (
    _Form("amazon.titan-embed-text-v2", _titan_v2, 1),
    _Form("amazon.titan-embed-image", _titan_image, 1),
    _Form("amazon.titan-embed", _titan_v1, 1),
    _Form("amazon.nova-2-multimodal-embeddings", _nova, 1),
    _Form("cohere.embed-v4", _cohere_v4, 96),
    _Form("cohere.embed", _cohere_v3, 96),
)
