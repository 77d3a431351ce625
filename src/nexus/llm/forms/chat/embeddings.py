"""The embeddings JSON form: read a request, write an answer.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any, Literal

import msgspec

from nexus.llm.errors import InvalidRequest, MissingParameter
from nexus.llm.forms.decoding import decode_checked
from nexus.llm.forms.unsaid import refuse_fields
from nexus.llm.types import Embedding, EmbeddingRequest

DIALECT = "openai.embeddings"


class _Body(msgspec.Struct):
    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    # As several servers of this form have it: what the vectors are for.
    input_type: Any = None


_body = msgspec.json.Decoder(_Body)
_KNOWN = frozenset(_Body.__struct_fields__)
_USES = {"search_query": "query", "search_document": "document", "passage": "document"}


def read_request(body: bytes) -> EmbeddingRequest:
    """Return the request; its `form` says whether vectors are wanted as base64. Raises `InvalidRequest`."""
    given: _Body = decode_checked(_body, body)
    if not given.model:
        raise MissingParameter("You must provide a model.", field="model")
    if given.dimensions is not None and given.dimensions < 1:
        raise InvalidRequest("dimensions must be at least 1.", field="dimensions")
    return EmbeddingRequest(
        model=given.model,
        input=_inputs(given.input),
        dimensions=given.dimensions,
        user=given.user,
        task=_USES.get(use, use) if isinstance(use := given.input_type, str) else None,
        form=given.encoding_format or "float",
        dialect=DIALECT,
        body=body,
        own=functools.partial(_own, body),
    )


def _own(body: bytes) -> dict[str, Any] | None:
    """Return the fields without a word in our form; None where there are none."""
    told: dict[str, Any] = msgspec.json.decode(body)
    rest = {name: value for name, value in told.items() if name not in _KNOWN and value is not None}
    return rest or None


def refuse_rest(request: EmbeddingRequest) -> None:
    """Raise `Unsupported` for a field of a request in this form that another form has no word for."""
    if request.dialect == DIALECT:
        refuse_fields(request.own() or {}, (), ())


def _inputs(given: str | list[Any]) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    items: list[Any] = [given] if isinstance(given, str) else given
    if not items:
        raise InvalidRequest("input must have at least one text.", field="input")
    if all(isinstance(item, str) for item in items):
        for i, item in enumerate(items):
            if not item:
                field = "input" if isinstance(given, str) else f"input.{i}"
                raise InvalidRequest(f"{field} must not be empty.", field=field)
        return tuple(items)
    if all(_is_token(item) for item in items):
        return (tuple(items),)
    for i, item in enumerate(items):
        if not isinstance(item, list) or not item or not all(_is_token(token) for token in item):
            raise InvalidRequest(f"input.{i} must be a text or a list of token ids, as all others.", field=f"input.{i}")
    return tuple(tuple(item) for item in items)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def write_answer(embedding: Embedding, *, as_base64: bool) -> bytes:
    """Write an answer, vectors as lists of numbers or as base64 of little-endian float32."""
    data = []
    for index, vector in enumerate(embedding.vectors):
        value: Any = base64.b64encode(vector).decode() if as_base64 else _numbers(vector)
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = embedding.usage.input_tokens if embedding.usage else 0
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": embedding.model, "usage": usage})


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)
