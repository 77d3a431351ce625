"""How invocations reach the database."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LedgerSettings(BaseModel):
    """The pace of the batcher."""

    model_config = ConfigDict(extra="forbid")

    flush_seconds: float = Field(
        0.25, gt=0, le=60, description="Longest wait before recorded calls are in the database"
    )
    flush_rows: int = Field(500, ge=1, le=10_000, description="Rows after which a flush begins at once")
    drain_seconds: float = Field(10.0, ge=0, le=120, description="Time for the last flush at shutdown")
    budget_seconds: float = Field(
        2.0, gt=0, le=300, description="How often a process learns what others have spent of budgets"
    )
    replay_seconds: float = Field(
        60.0, ge=1, le=3600, description="How often journals of dead processes are looked for"
    )
