"""Settings of the model catalogue."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SecretStr, field_validator


class CatalogSettings(BaseModel):
    """Where model files come from and how much memory loaded models may take.

    `data_dir`, `model_sources` and `offline` are filled in from the settings of the same names at the top.
    """

    data_dir: Path = Field(Path("data"), description="The models lie in `models` below it.")
    model_sources: list[str] = Field(
        default_factory=list,
        description="Folders or `file://` roots tried before any download, by catalogue path and by SHA-256.",
    )
    offline: bool = Field(False, description="Never touch the network for models.")
    allow_noncommercial: bool = Field(False, description="Also pull models whose licence forbids commercial use.")
    memory_budget: int = Field(
        0, ge=0, description="Bytes that loaded models may take in one process; 0 is half of the machine's memory."
    )
    minimum_idle: float = Field(
        5.0, ge=0, description="Seconds that a model stays loaded after its last use, whoever else needs the room."
    )
    connect_timeout: float = Field(
        10.0, gt=0, description="Seconds to wait for a connection, or for the next bytes of a download."
    )
    import_limit: int = Field(2 * 1024**3, gt=0, description="Largest file, in bytes, that may be imported.")
    hub_token: SecretStr | None = Field(None, repr=False, description="Token for model hubs; public models need none.")

    @field_validator("model_sources", mode="before")
    @classmethod
    def _from_path_list(cls, value: Any) -> Any:
        """Accept `a:b` (the separator of PATH) or `a,b` as well as a list."""
        if not isinstance(value, str):
            return value
        shielded = value.replace("file://", "file\0//")
        parts = [part.replace("file\0//", "file://") for part in shielded.replace(",", os.pathsep).split(os.pathsep)]
        return [part for part in parts if part]

    @property
    def models_dir(self) -> Path:
        """Return the folder that holds every model."""
        return self.data_dir / "models"
