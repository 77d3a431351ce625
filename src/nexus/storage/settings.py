"""Where data lies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StorageSettings(BaseModel):
    """Sizes of what storage holds in memory; where it lies is a top-level setting."""

    model_config = ConfigDict(extra="forbid")

    threads: int = Field(8, ge=1, le=64, description="Threads, and so connections, for database work in one process")
    cache_bytes: int = Field(64 * 2**20, ge=2**20, description="Memory for cached answers in one process")
