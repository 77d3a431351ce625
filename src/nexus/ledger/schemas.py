"""What the routes of the ledger take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from nexus.core.clock import rfc3339
from nexus.ledger.tables import FeedbackRow, InvocationRow

_PLAIN = [
    "kind",
    "model",
    "version",
    "provider",
    "route",
    "status",
    "error_code",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "items",
    "cost_usd",
    "estimated",
    "latency_ms",
    "first_token_ms",
    "cached",
    "stream",
    "request_id",
    "run_id",
    "step_key",
    "input_ref",
    "output_ref",
    "principal_id",
    "key_id",
]


def _small(value: Any) -> Any:
    if len(orjson.dumps(value)) > 65_536:
        raise ValueError("is larger than 64 KB of JSON")
    return value


class FeedbackIn(BaseModel):
    """A word on how good an answer was; `expected` is what it should have been."""

    model_config = ConfigDict(extra="forbid")

    rating: Literal["good", "bad", "corrected"]
    comment: Annotated[str, StringConstraints(max_length=4000)] | None = None
    expected: Annotated[Any, AfterValidator(_small)] = None


def invocation_out(row: InvocationRow) -> dict[str, Any]:
    """Return an invocation as a list shows it."""
    return {"id": row.id, "created_at": rfc3339(row.created_at)} | {name: getattr(row, name) for name in _PLAIN}


def feedback_out(row: FeedbackRow) -> dict[str, Any]:
    """Return a word of feedback as the API shows it."""
    return {
        "id": row.id,
        "invocation_id": row.invocation_id,
        "principal_id": row.principal_id,
        "rating": row.rating,
        "comment": row.comment,
        "expected": row.expected,
        "created_at": rfc3339(row.created_at),
    }
