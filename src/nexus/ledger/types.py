"""The one record that every call of every kind leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from nexus.core.ids import new_id

Status = Literal["ok", "error", "cancelled", "client_disconnect"]


def _new_invocation_id() -> str:
    return new_id("inv")


def _now() -> datetime:
    return datetime.now(UTC)


class Invocation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call: who asked which model for what, how it ended, what it used and cost.

    `kind` is "chat", "embedding", "vision.ocr", "forecast", "train" and so on. Token counts are
    those of the provider unless `estimated`, and those written to a cache for an hour are part of all
    written to one; `items` counts what has no tokens (images, rows,
    series); latencies are milliseconds; `cost_usd` is None where no price is known, which is not
    the same as 0. `input_ref` and `output_ref` are blob hashes or file ids where content is kept.
    """

    project_id: str
    principal_id: str
    kind: str
    model: str
    status: Status = "ok"
    id: str = msgspec.field(default_factory=_new_invocation_id)
    created_at: datetime = msgspec.field(default_factory=_now)
    key_id: str | None = None
    version: int | None = None
    provider: str | None = None
    route: str | None = None
    error_code: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    items: int | None = None
    cost_usd: float | None = None
    estimated: bool = False
    latency_ms: float | None = None
    first_token_ms: float | None = None
    cached: bool = False
    stream: bool = False
    request_id: str | None = None
    run_id: str | None = None
    step_key: str | None = None
    input_ref: str | None = None
    output_ref: str | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)
