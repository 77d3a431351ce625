"""Settings of the model catalogue."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nexus.core.secrets import Secret


class CatalogSettings(BaseModel):
    """Where model files come from and how much memory loaded models may take.

    `data_dir` is filled in by the composition; the models lie in `<data_dir>/models`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    data_dir: Path = Path("data")
    model_sources: list[str] = Field(default_factory=list)
    """Folders or `file://` roots tried before any download, by catalogue path and by SHA-256."""
    offline: bool = False
    """Never touch the network for models."""
    allow_noncommercial: bool = False
    """Pull models whose licence forbids commercial use or is unclear."""
    memory_budget: int = Field(default=0, ge=0)
    """Bytes that loaded models may take in one process; 0 is half of the machine's memory."""
    minimum_idle: float = Field(default=5.0, ge=0)
    """Seconds that a model stays loaded after its last use, whoever else needs the room."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for a connection, or for the next bytes of a download."""
    import_limit: int = Field(default=2 * 1024**3, gt=0)
    """Largest file, in bytes, that may be imported."""
    hub_token: Secret | None = Field(default=None, repr=False)
    """Token for model hubs; not needed for public models."""

    @field_validator("model_sources", mode="before")
    @classmethod
    def _from_path_list(cls, value: Any) -> Any:
        """Accept `a:b` (the separator of PATH) or `a,b` as well as a list."""
        if not isinstance(value, str):
            return value
        shielded = value.replace("file://", "file\0//")
        parts = [part.replace("file\0//", "file://") for part in shielded.replace(",", os.pathsep).split(os.pathsep)]
        return [part for part in parts if part]

    @field_validator("hub_token", mode="before")
    @classmethod
    def _wrap(cls, value: Any) -> Any:
        return Secret(value) if isinstance(value, str) else value

    @property
    def models_dir(self) -> Path:
        """Return the folder that holds every model."""
        return self.data_dir / "models"
