"""A file as the rest of the house sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded or produced file: its name is text to show, never a path; its content lies by `sha256`."""

    id: str
    project_id: str
    sha256: str
    size: int
    filename: str
    content_type: str
    purpose: str
    created_at: datetime
    expires_at: datetime | None = None
