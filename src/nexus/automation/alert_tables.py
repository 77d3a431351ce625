"""Channels, alert rules, alerts with their history, and what was sent of them to whom."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nexus.storage.db import Base

_AUTO_ID = BigInteger().with_variant(Integer, "sqlite")


class ChannelRow(Base):
    """A way to tell people. Its credential is the project's secret `secret`, never a part of `config`."""

    __tablename__ = "channel"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(32))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    secret: Mapped[str | None] = mapped_column(String(64))
    enabled: Mapped[bool]
    disabled_because: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AlertRuleRow(Base):
    """What to look out for. `next_check_at` moves by compare-and-set, so one scheduler looks at a time.

    `pending` holds since when a condition that has to last holds, by the key of what it holds for;
    `starter` is whose rights the runs have that deliver.
    """

    __tablename__ = "alert_rule"
    __table_args__ = (UniqueConstraint("project_id", "name"), Index("ix_alert_rule_due", "next_check_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(32))
    condition: Mapped[dict[str, Any]] = mapped_column(JSON)
    severity: Mapped[str] = mapped_column(String(16))
    channels: Mapped[list[str]] = mapped_column(JSON)
    lasting: Mapped[float]
    cooldown: Mapped[float]
    every: Mapped[float]
    tell_resolved: Mapped[bool]
    summarize: Mapped[bool]
    model: Mapped[str | None] = mapped_column(String(255))
    enabled: Mapped[bool]
    starter: Mapped[dict[str, Any]] = mapped_column(JSON)
    pending: Mapped[dict[str, str]] = mapped_column(JSON)
    next_check_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    last_error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AlertRow(Base):
    """Something that a rule has found, from its beginning to its end.

    `live_key` is the key of what it is about while it is not resolved, null then: there is one of each at a
    time. `version` counts the changes of `status`.
    """

    __tablename__ = "alert"
    __table_args__ = (
        Index("uq_alert_live", "rule_id", "live_key", unique=True),
        Index("ix_alert_project", "project_id", "status", "id"),
        Index("ix_alert_key", "rule_id", "key", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    rule_id: Mapped[str] = mapped_column(String(40))
    rule: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(255))
    live_key: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    severity: Mapped[str] = mapped_column(String(16))
    title: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    count: Mapped[int]
    summary: Mapped[str | None] = mapped_column(Text)
    fired_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None] = mapped_column(String(80))
    comment: Mapped[str | None] = mapped_column(Text)


class AlertEventRow(Base):
    """One line of the history of an alert."""

    __tablename__ = "alert_event"
    __table_args__ = (Index("ix_alert_event", "alert_id", "id"),)

    id: Mapped[int] = mapped_column(_AUTO_ID, primary_key=True, autoincrement=True)
    alert_id: Mapped[str] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class DeliveryRow(Base):
    """One notice to one channel. `once` makes it the only one of its change; a repetition has its `message_id`."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("once"),
        Index("ix_delivery_channel", "channel_id", "id"),
        Index("ix_delivery_finished", "finished_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    once: Mapped[str] = mapped_column(String(255))
    project_id: Mapped[str] = mapped_column(String(40))
    channel_id: Mapped[str] = mapped_column(String(40))
    alert_id: Mapped[str | None] = mapped_column(String(40), index=True)
    run_id: Mapped[str | None] = mapped_column(String(40))
    message_id: Mapped[str] = mapped_column(String(40))
    event: Mapped[str] = mapped_column(String(32))
    notice: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    answer_status: Mapped[int | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class MetricSampleRow(Base):
    """What one process's metrics were at a moment, as far as rules ask for them: `{name: [[labels, value], ..]}`."""

    __tablename__ = "metric_sample"
    __table_args__ = (Index("ix_metric_sample_at", "at"),)

    id: Mapped[int] = mapped_column(_AUTO_ID, primary_key=True, autoincrement=True)
    process: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    values: Mapped[dict[str, Any]] = mapped_column(JSON)
