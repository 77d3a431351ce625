"""Triggers, what has arrived at each, and the files that watched folders have brought."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base


class TriggerRow(Base):
    """A workflow that is started by something that happens.

    `config` is what the trigger's kind needs; `secrets` are `{"sealed", "expires_at"}`, the newest first;
    `starter` is whose rights its runs have; `condition` is its `when`.
    """

    __tablename__ = "trigger_rule"
    __table_args__ = (
        Index("uq_trigger_rule_name", "project_id", "name", unique=True),
        Index("ix_trigger_rule_listening", "project_id", "kind", "enabled"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(32))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    secrets: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    workflow_id: Mapped[str] = mapped_column(String(40), index=True)
    version: Mapped[int | None]
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)
    condition: Mapped[str | None] = mapped_column(Text)
    overlap: Mapped[str] = mapped_column(String(16))
    enabled: Mapped[bool]
    starter: Mapped[dict[str, Any]] = mapped_column(JSON)
    last_fired_at: Mapped[datetime | None]
    last_run_id: Mapped[str | None] = mapped_column(String(40))
    last_error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    fired: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class TriggerDeliveryRow(Base):
    """One thing that arrived at a trigger, and what came of it.

    `key` is the sender's id of it; what has the same key is the same delivery. `fingerprint` is the digest of
    what was signed, where the signature does not cover the key: the same may not come under another key.
    """

    __tablename__ = "trigger_delivery"
    __table_args__ = (
        Index("uq_trigger_delivery_key", "trigger_id", "key", unique=True),
        Index("uq_trigger_delivery_fingerprint", "trigger_id", "fingerprint", unique=True),
        Index("ix_trigger_delivery_outcome", "outcome", "id"),
        Index("ix_trigger_delivery_received_at", "received_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    trigger_id: Mapped[str] = mapped_column(ForeignKey("trigger_rule.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    event: Mapped[dict[str, Any]] = mapped_column(JSON)
    depth: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    run_id: Mapped[str | None] = mapped_column(String(40))
    received_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]


class WatchedFileRow(Base):
    """A file of a watched folder that was taken in. `id` is made of project, path and content: each counts once."""

    __tablename__ = "watched_file"
    __table_args__ = (Index("ix_watched_file_place", "place"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    place: Mapped[str] = mapped_column(String(64))  # a digest of project and path
    size: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    file_id: Mapped[str] = mapped_column(String(40))
    arrived_at: Mapped[datetime]
