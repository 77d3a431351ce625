"""The one table that storage itself owns."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class CacheEntry(Base):
    """A cached value and when its time has passed."""

    __tablename__ = "cache_entry"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(index=True)
