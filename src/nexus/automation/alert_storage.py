"""Named queries of alert rules, alerts and samples of metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nexus.automation.alert_tables import AlertEventRow, AlertRow, AlertRuleRow, ChannelRow, MetricSampleRow
from nexus.automation.errors import AlertRuleInvalid, NameTaken

_TAKEN = "There is an alert rule of this name already."


def add_rule(session: Session, values: dict[str, Any]) -> AlertRuleRow:
    """Keep a new rule. Raises `NameTaken`."""
    row = AlertRuleRow(**values)
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken(_TAKEN, field="name") from None
    return row


def rule(session: Session, project_id: str, name_or_id: str, *, lock: bool = False) -> AlertRuleRow | None:
    """Return a rule of the project by its id or name; with `lock` nobody else changes its alerts meanwhile."""
    which = (AlertRuleRow.id == name_or_id) | (AlertRuleRow.name == name_or_id)
    query = select(AlertRuleRow).where(AlertRuleRow.project_id == project_id, which)
    return session.execute(query.with_for_update() if lock else query).scalar_one_or_none()


def rules(session: Session, project_id: str, after: str | None, limit: int, descending: bool) -> Sequence[AlertRuleRow]:
    """Return a page of rules by id."""
    query = select(AlertRuleRow).where(AlertRuleRow.project_id == project_id)
    if after is not None:
        query = query.where(AlertRuleRow.id < after if descending else AlertRuleRow.id > after)
    order = AlertRuleRow.id.desc() if descending else AlertRuleRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def change_rule(session: Session, project_id: str, rule_id: str, values: dict[str, Any]) -> AlertRuleRow | None:
    """Change a rule and return it. Raises `NameTaken`."""
    row = rule(session, project_id, rule_id)
    if row is not None:
        for name, value in values.items():
            setattr(row, name, value)
        try:
            session.flush()
        except IntegrityError:
            raise NameTaken(_TAKEN, field="name") from None
    return row


def remove_rule(session: Session, rule_id: str) -> None:
    """Delete a rule; its alerts stay."""
    session.execute(delete(AlertRuleRow).where(AlertRuleRow.id == rule_id))


def due_rules(session: Session, now: datetime, limit: int) -> Sequence[AlertRuleRow]:
    """Return the rules to look at, the longest overdue first."""
    query = select(AlertRuleRow).where(AlertRuleRow.enabled, AlertRuleRow.next_check_at <= now)
    return session.execute(query.order_by(AlertRuleRow.next_check_at).limit(limit)).scalars().all()


def take_rule(session: Session, row: AlertRuleRow, next_check_at: datetime) -> bool:
    """Move a rule on to its next look; False when another scheduler has done so before."""
    same = (AlertRuleRow.id == row.id, AlertRuleRow.next_check_at == row.next_check_at, AlertRuleRow.enabled)
    moved = update(AlertRuleRow).where(*same).values(next_check_at=next_check_at)
    return bool(session.execute(moved).rowcount)  # type: ignore[attr-defined]


def told_rules(session: Session, project_id: str | None, kinds: Collection[str]) -> Sequence[AlertRuleRow]:
    """Return the enabled rules of these kinds in a project, locked in one order; of all projects for None."""
    query = select(AlertRuleRow).where(AlertRuleRow.enabled, AlertRuleRow.kind.in_(kinds))
    if project_id is not None:
        query = query.where(AlertRuleRow.project_id == project_id)
    return session.execute(query.order_by(AlertRuleRow.id).with_for_update()).scalars().all()


def sampled_conditions(session: Session) -> Sequence[dict[str, Any]]:
    """Return the conditions of all enabled rules that look at metrics of processes."""
    kinds = ("metric", "error_rate")
    query = select(AlertRuleRow.condition).where(AlertRuleRow.enabled, AlertRuleRow.kind.in_(kinds))
    return session.execute(query).scalars().all()


def newest_alert(session: Session, rule_id: str, key: str) -> AlertRow | None:
    """Return the newest alert of one thing."""
    query = select(AlertRow).where(AlertRow.rule_id == rule_id, AlertRow.key == key)
    return session.execute(query.order_by(AlertRow.id.desc()).limit(1)).scalar_one_or_none()


def live_alerts(session: Session, rule_id: str) -> Sequence[AlertRow]:
    """Return the alerts of a rule that are not resolved."""
    query = select(AlertRow).where(AlertRow.rule_id == rule_id, AlertRow.live_key.is_not(None))
    return session.execute(query.order_by(AlertRow.id)).scalars().all()


def alert(session: Session, project_id: str, alert_id: str, *, lock: bool = False) -> AlertRow | None:
    """Return an alert of the project."""
    query = select(AlertRow).where(AlertRow.id == alert_id, AlertRow.project_id == project_id)
    return session.execute(query.with_for_update() if lock else query).scalar_one_or_none()


def alerts(
    session: Session,
    project_id: str,
    after: str | None,
    limit: int,
    descending: bool,
    status: str | None,
    rule_id: str | None,
) -> Sequence[AlertRow]:
    """Return a page of alerts by id."""
    query = select(AlertRow).where(AlertRow.project_id == project_id)
    if status is not None:
        query = query.where(AlertRow.status == status)
    if rule_id is not None:
        query = query.where(AlertRow.rule_id == rule_id)
    if after is not None:
        query = query.where(AlertRow.id < after if descending else AlertRow.id > after)
    order = AlertRow.id.desc() if descending else AlertRow.id
    return session.execute(query.order_by(order).limit(limit)).scalars().all()


def history(session: Session, alert_id: str, limit: int = 500) -> Sequence[AlertEventRow]:
    """Return what has happened to an alert, oldest first."""
    query = select(AlertEventRow).where(AlertEventRow.alert_id == alert_id)
    return session.execute(query.order_by(AlertEventRow.id).limit(limit)).scalars().all()


def remember(session: Session, alert_id: str, type_: str, at: datetime, **data: Any) -> None:
    """Add a line to the history of an alert."""
    session.add(AlertEventRow(alert_id=alert_id, type=type_, at=at, data=data))


def summarise(session: Session, project_id: str, alert_id: str, summary: str, now: datetime) -> None:
    """Attach a summary to an alert."""
    row = alert(session, project_id, alert_id)
    if row is not None:
        row.summary = summary
        remember(session, alert_id, "summarized", now)


def channels(session: Session, project_id: str, ids: Collection[str]) -> Sequence[ChannelRow]:
    """Return those of the channels that there are, enabled or not."""
    query = select(ChannelRow).where(ChannelRow.project_id == project_id, ChannelRow.id.in_(ids))
    return session.execute(query.order_by(ChannelRow.id)).scalars().all()


def channel_ids(session: Session, project_id: str, names: Sequence[str]) -> list[str]:
    """Return the ids of channels given by name or id, in order. Raises `AlertRuleInvalid` for an unknown one."""
    query = select(ChannelRow.id, ChannelRow.name).where(ChannelRow.project_id == project_id)
    known: dict[str, str] = {}
    for channel_id, name in session.execute(query):
        known[channel_id] = known[name] = channel_id
    for place, name in enumerate(names):
        if name not in known:
            raise AlertRuleInvalid("There is no channel of this name.", field=f"channels.{place}")
    return list(dict.fromkeys(known[name] for name in names))


def add_sample(session: Session, process: str, at: datetime, values: dict[str, Any], keep_after: datetime) -> None:
    """Keep what a process's metrics are, and forget what is old."""
    session.add(MetricSampleRow(process=process, at=at, values=values))
    session.execute(delete(MetricSampleRow).where(MetricSampleRow.at < keep_after))


def samples(session: Session, since: datetime) -> Sequence[MetricSampleRow]:
    """Return the samples of all processes since a moment, oldest first."""
    query = select(MetricSampleRow).where(MetricSampleRow.at >= since)
    return session.execute(query.order_by(MetricSampleRow.id)).scalars().all()
