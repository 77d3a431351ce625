"""How long credentials live, and how hard it is to guess them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AccessSettings(BaseModel):
    """Sessions, passwords and the freshness of API keys."""

    model_config = ConfigDict(extra="forbid")

    session_idle_hours: float = Field(
        12, gt=0, le=24 * 30, description="A session ends after so long without a request"
    )
    session_days: float = Field(7, gt=0, le=90, description="A session ends after so long whatever happens")
    login_failures: int = Field(
        10, ge=3, le=1000, description="Failures of one account or address before it has to wait"
    )
    login_window_seconds: int = Field(900, ge=10, le=86_400, description="How long failures are remembered")
    key_refresh_seconds: float = Field(5, ge=0.1, le=10, description="How often a process looks for changed API keys")
    rotate_overlap_hours: float = Field(
        24, ge=0, le=24 * 30, description="How long the old secret of a rotated key works"
    )
