"""The invocation, what people said about it, and budgets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from nexus.access.types import BudgetPeriod
from nexus.storage.db import Base


class InvocationRow(Base):
    """One call of one model; see `nexus.ledger.types.Invocation` for the meaning of each column.

    `day` is the UTC date (`2026-11-23`) of `created_at`, kept so that a report by day needs no
    date function, which the two databases spell differently.
    """

    __tablename__ = "invocation"
    __table_args__ = (
        Index("ix_invocation_project_time", "project_id", "created_at"),
        Index("ix_invocation_project_day", "project_id", "day"),
        Index("ix_invocation_model_time", "model", "created_at"),
        Index("ix_invocation_key_time", "key_id", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime]
    day: Mapped[str] = mapped_column(String(10))
    project_id: Mapped[str] = mapped_column(String(40))
    principal_id: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(255))
    version: Mapped[int | None] = mapped_column(Integer)
    provider: Mapped[str | None] = mapped_column(String(128))
    route: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(24))
    error_code: Mapped[str | None] = mapped_column(String(64))
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cache_read_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cache_write_1h_tokens: Mapped[int | None] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int | None] = mapped_column(BigInteger)
    items: Mapped[int | None] = mapped_column(BigInteger)
    cost_usd: Mapped[float | None] = mapped_column(Float)
    estimated: Mapped[bool] = mapped_column(Boolean, default=False)
    latency_ms: Mapped[float | None] = mapped_column(Float)
    first_token_ms: Mapped[float | None] = mapped_column(Float)
    cached: Mapped[bool] = mapped_column(Boolean, default=False)
    stream: Mapped[bool] = mapped_column(Boolean, default=False)
    request_id: Mapped[str | None] = mapped_column(String(64))
    run_id: Mapped[str | None] = mapped_column(String(40), index=True)
    step_key: Mapped[str | None] = mapped_column(String(128))
    input_ref: Mapped[str | None] = mapped_column(String(128))
    output_ref: Mapped[str | None] = mapped_column(String(128))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class FeedbackRow(Base):
    """A person's or a program's word on how good an answer was."""

    __tablename__ = "invocation_feedback"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    invocation_id: Mapped[str] = mapped_column(ForeignKey("invocation.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str] = mapped_column(String(40))
    principal_id: Mapped[str] = mapped_column(String(64))
    rating: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str | None] = mapped_column(Text)
    expected: Mapped[Any] = mapped_column(JSON)
    created_at: Mapped[datetime]


class BudgetRow(Base):
    """Dollars that a project, or one key of it, may spend in each period. One that is not `hard` only tells.

    `alerts` are the percentages at which it tells.
    """

    __tablename__ = "budget"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    key_id: Mapped[str | None] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(120), default="")
    amount_usd: Mapped[float] = mapped_column(Float)
    period: Mapped[BudgetPeriod] = mapped_column(String(8))
    hard: Mapped[bool] = mapped_column(Boolean, default=True)
    alerts: Mapped[list[int]] = mapped_column(JSON)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
