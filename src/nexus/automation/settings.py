"""Settings of what starts workflows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class AutomationSettings(BaseModel):
    """Webhooks and watched folders."""

    model_config = ConfigDict(extra="forbid")

    hook_body_limit: int = Field(2**20, ge=1024, le=4 * 2**20, description="Largest body of a webhook in bytes")
    delivery_days: float = Field(30, gt=0, description="How long it is known what has arrived at triggers")
    watch: dict[str, Path] = Field(
        {},
        description='Folders that file triggers may name, `{"inbox": "/data/in/{project}"}`; no other is read',
    )
    watch_settle: float = Field(2, ge=0, le=3600, description="Seconds that a file must not have changed")
    watch_seconds: float = Field(1, ge=0.1, le=3600, description="How often watched folders are looked at")
