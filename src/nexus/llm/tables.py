"""Responses that clients may come back to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class ResponseRow(Base):
    """A response of a project, its own input and its body as the client got it, both JSON.

    `held_by` names the deployment whose provider keeps it too. `request` is what is still to be worked on by the
    run `run_id`. A deleted one stays without its content, so that nobody else can ask its provider for it.
    """

    __tablename__ = "llm_response"
    __table_args__ = (Index("ix_llm_response_id", "id"),)

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    previous_id: Mapped[str | None] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    held_by: Mapped[str | None] = mapped_column(String(400))
    run_id: Mapped[str | None] = mapped_column(String(40))
    input: Mapped[bytes] = mapped_column(LargeBinary)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    request: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(index=True)
    deleted: Mapped[bool] = mapped_column(default=False)
