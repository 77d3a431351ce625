"""Gemini's requests for vectors and our own form, both ways, and Vertex AI's older form of them.

Source: https://ai.google.dev/api/embeddings and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import msgspec

from nexus.llm.errors import InvalidRequest, MissingParameter, Unsupported, WrongType
from nexus.llm.types import Embedding, EmbeddingRequest, Usage

DIALECT = "gemini.embeddings"
ONE, BATCH = "embedContent", "batchEmbedContents"
_TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "question": "QUESTION_ANSWERING",
    "fact": "FACT_VERIFICATION",
    "code": "CODE_RETRIEVAL_QUERY",
}
_KNOWN = frozenset(("model", "content", "taskType", "outputDimensionality", "embedContentConfig"))
_TASKS_IN = {theirs: ours for ours, theirs in _TASKS.items()}


def read_request(body: dict[str, Any], model: str, *, form: str, raw: bytes) -> EmbeddingRequest:
    """Read a request in plain names. Raises `InvalidRequest` naming the field.

    Pictures and the like have no word here: with them `input` is empty, and only Google reads `raw`.
    """
    asked = body.get("requests") if form == BATCH else [body]
    if not isinstance(asked, list) or not asked:
        raise MissingParameter("requests must have at least one request.", field="requests")
    texts: list[str] = []
    told: list[tuple[Any, Any]] = []
    for i, one in enumerate(asked):
        place = f"requests.{i}." if form == BATCH else ""
        if not isinstance(one, dict) or not isinstance(content := one.get("content"), dict):
            raise MissingParameter(f"{place}content is required.", field=f"{place}content")
        parts = content.get("parts")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise MissingParameter(f"{place}content.parts is required.", field=f"{place}content.parts")
        if all(isinstance(part.get("text"), str) for part in parts):
            texts.append("".join(part["text"] for part in parts))
        inner = one.get("embedContentConfig")
        config = one | (inner if isinstance(inner, dict) else {})
        if not isinstance(config.get("taskType", ""), str):
            raise WrongType(f"{place}taskType must be a string.", field=f"{place}taskType")
        told.append((config.get("taskType"), config.get("outputDimensionality")))
        if told[i] != told[0]:
            raise Unsupported(
                f"{place}taskType and outputDimensionality must be those of all.", field=f"{place}taskType"
            )
    task, dimensions = told[0]
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
        raise InvalidRequest("outputDimensionality must be at least 1.", field="outputDimensionality")
    return EmbeddingRequest(
        model=model,
        input=tuple(texts) if len(texts) == len(asked) else (),
        dimensions=dimensions,
        task=_TASKS_IN.get(task, task),
        form=form,
        dialect=DIALECT,
        body=raw,
        own=functools.partial(_own, asked),
    )


def _own(asked: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the requests where they say more than our form can: other fields, or contents of several parts."""
    for one in asked:
        config = one.get("embedContentConfig")
        told = {*one, *(config if isinstance(config, dict) else ())}
        parts = one["content"]["parts"]
        if not told <= _KNOWN or len(parts) > 1 or set(parts[0]) != {"text"}:
            return asked
    return None


def write_answer(embedding: Embedding, form: str) -> bytes:
    """Write vectors in the form asked for: one, or a list."""
    values = [{"values": struct.unpack(f"<{len(item) // 4}f", item)} for item in embedding.vectors]
    body: dict[str, Any] = {"embedding": values[0]} if form == ONE else {"embeddings": values}
    if embedding.usage is not None:
        body["usageMetadata"] = {"promptTokenCount": embedding.usage.input_tokens}
    return msgspec.json.encode(body)


def texts_of(request: EmbeddingRequest) -> list[str]:
    """Return the texts. Raises `Unsupported` for token ids, and for what is no text."""
    texts = [item for item in request.input if isinstance(item, str)]
    if not texts or len(texts) != len(request.input):
        raise Unsupported("This model takes texts, not token ids.", field="input")
    return texts


def task_of(request: EmbeddingRequest) -> str | None:
    """Return Google's word for what the vectors are for. Raises `Unsupported` for a use that it does not know."""
    if request.task is None:
        return None
    if (found := _TASKS.get(request.task, request.task)) not in _TASKS_IN:
        raise Unsupported(f"This model has no vectors for the task {request.task}.", field="task")
    return found


def write_batch(request: EmbeddingRequest, model: str) -> dict[str, Any]:
    """Write a request for the vectors of several texts; `model` is its name as a resource."""
    options = _options(request)
    texts = texts_of(request)
    return {"requests": [{"model": model, "content": {"parts": [{"text": text}]}} | options for text in texts]}


def _options(request: EmbeddingRequest) -> dict[str, Any]:
    more = {"taskType": task_of(request), "outputDimensionality": request.dimensions}
    return {name: value for name, value in more.items() if value is not None}


def write_one(request: EmbeddingRequest) -> dict[str, Any]:
    """Write a request for the vector of one text in Vertex AI's newer form."""
    options = _options(request)
    body: dict[str, Any] = {"content": {"parts": [{"text": texts_of(request)[0]}]}}
    return body | ({"embedContentConfig": options} if options else {})


def write_predict(request: EmbeddingRequest) -> dict[str, Any]:
    """Write a request in Vertex AI's older form."""
    task = task_of(request)
    more = {"task_type": task} if task else {}
    body: dict[str, Any] = {"instances": [{"content": text} | more for text in texts_of(request)]}
    if request.dimensions is not None:
        body["parameters"] = {"outputDimensionality": request.dimensions}
    return body


def read_answer(body: dict[str, Any], model: str) -> Embedding:
    """Read vectors of any of the three forms. Raises KeyError and its like for what is none."""
    if "predictions" in body:
        given = [item["embeddings"] for item in body["predictions"]]
        used = sum(int((item.get("statistics") or {}).get("token_count") or 0) for item in given)
    else:
        given = [body["embedding"]] if "embedding" in body else body["embeddings"]
        used = (body.get("usageMetadata") or {}).get("promptTokenCount") or 0
    vectors = tuple(struct.pack(f"<{len(item['values'])}f", *item["values"]) for item in given)
    return Embedding(
        model=model,
        vectors=vectors,
        dimensions=len(vectors[0]) // 4 if vectors else 0,
        usage=Usage(input_tokens=used) if used > 0 else None,
    )
