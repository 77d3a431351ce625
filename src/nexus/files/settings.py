"""How large files may be, and how often what nobody refers to is removed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FilesSettings(BaseModel):
    """Caps and the pace of the sweep."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(512 * 2**20, ge=1, description="Largest file in bytes")
    sweep_seconds: float = Field(300, ge=1, le=86_400, description="How often expired files and orphaned content go")
    orphan_seconds: float = Field(600, ge=1, le=86_400, description="Age at which an interrupted upload is an orphan")
