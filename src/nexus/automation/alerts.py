"""Alerts from their beginning to their end. Each change of one is told once to each channel of its rule.

A change and the run that tells of it are one transaction, which holds the rule's row: however many schedulers
look, and whoever is killed, there is either both or neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from nexus.access.types import Principal
from nexus.automation import alert_storage as queries
from nexus.automation import channel_storage
from nexus.automation.alert_rules import TOLD, Reading, change
from nexus.automation.alert_tables import AlertEventRow, AlertRow, AlertRuleRow
from nexus.automation.channel_service import ChannelService, delivering
from nexus.automation.errors import AlertNotFound, AlertResolved
from nexus.core.clock import Clock
from nexus.core.ids import is_id, new_id
from nexus.runs.records import principal_of
from nexus.runs.service import RunService
from nexus.runs.types import RunSpec, StepSpec
from nexus.storage.db import Database
from nexus.storage.events import publish

_PRIORITY: Final = 50
_SUMMARY_TIMEOUT: Final = 30.0


class AlertService:
    """The alerts of projects."""

    def __init__(self, *, database: Database, runs: RunService, channels: ChannelService, clock: Clock) -> None:
        """Tell `channels` by `runs`."""
        self._database, self._runs, self._channels, self._clock = database, runs, channels, clock

    async def page(
        self,
        principal: Principal,
        *,
        status: str | None = None,
        rule_id: str | None = None,
        after: str | None = None,
        limit: int = 20,
        descending: bool = True,
    ) -> Sequence[AlertRow]:
        """Return a page of the project's alerts."""
        return await self._database.read(
            queries.alerts, principal.project_id, after, limit, descending, status, rule_id
        )

    async def get(self, principal: Principal, alert_id: str) -> tuple[AlertRow, Sequence[AlertEventRow]]:
        """Return an alert and its history. Raises `AlertNotFound`."""
        row = await self._database.read(queries.alert, principal.project_id, alert_id)
        if row is None:
            raise AlertNotFound
        return row, await self._database.read(queries.history, alert_id)

    async def acknowledge(self, principal: Principal, alert_id: str, comment: str | None) -> AlertRow:
        """Say that somebody looks after it; whoever says so later adds to the history only.

        Raises `AlertNotFound`, `AlertResolved`.
        """
        by = principal.user_id or principal.id
        row = await self._database.write(self._acknowledge, principal.project_id, alert_id, by, comment)
        self._runs.ring()
        return row

    def _acknowledge(self, session: Session, project_id: str, alert_id: str, by: str, comment: str | None) -> AlertRow:
        seen = queries.alert(session, project_id, alert_id)
        if seen is None:
            raise AlertNotFound
        # The rule first, as everybody does; one that was deleted has no live alerts.
        rule = queries.rule(session, project_id, seen.rule_id, lock=True)
        row = queries.alert(session, project_id, alert_id, lock=True)
        if row is None or rule is None or row.status == "resolved":
            raise AlertResolved
        now = self._clock.now()
        queries.remember(session, row.id, "acknowledged", now, by=by, comment=comment)
        if row.status == "firing":
            row.status, row.version = "acknowledged", row.version + 1
            row.acknowledged_at, row.acknowledged_by, row.comment = now, by, comment
            self._tell(session, rule, row, now)
        session.flush()
        return row

    def apply(self, session: Session, rule: AlertRuleRow, reading: Reading, now: datetime) -> bool:
        """Do what a reading leads to; tell whether there is news. The caller has locked the rule's row."""
        newest = queries.newest_alert(session, rule.id, reading.key[:255])
        status, resolved_at = (None, None) if newest is None else (newest.status, newest.resolved_at)
        what = change(status, resolved_at, reading.firing, now, rule.cooldown)  # type: ignore[arg-type]
        if what is None:
            return False
        if what == "fire":
            self._fire(session, rule, reading, now)
            return True
        assert newest is not None
        if what == "resolve":
            self.resolve(session, rule, newest, now, reading.title)
            return True
        newest.seen_at, newest.value = now, reading.value
        if rule.kind in TOLD:
            newest.count += 1
            queries.remember(
                session, newest.id, "suppressed" if what == "suppress" else "again", now, **reading.details
            )
        if what == "again":
            newest.title, newest.details = reading.title, reading.details
        return False

    def _fire(self, session: Session, rule: AlertRuleRow, reading: Reading, now: datetime) -> None:
        key = reading.key[:255]
        row = AlertRow(
            id=new_id("alr"),
            project_id=rule.project_id,
            rule_id=rule.id,
            rule=rule.name,
            kind=rule.kind,
            key=key,
            live_key=key,
            status="firing",
            version=1,
            severity=rule.severity,
            title=reading.title,
            value=reading.value,
            details=reading.details,
            count=1,
            fired_at=now,
            seen_at=now,
        )
        session.add(row)
        session.flush()
        queries.remember(session, row.id, "firing", now, value=reading.value)
        self._tell(session, rule, row, now)

    def resolve(self, session: Session, rule: AlertRuleRow, row: AlertRow, now: datetime, why: str) -> None:
        """End an alert. The caller has locked the rule's row."""
        row.status, row.live_key, row.version, row.resolved_at = "resolved", None, row.version + 1, now
        session.flush()
        queries.remember(session, row.id, "resolved", now, why=why)
        self._tell(session, rule, row, now, quiet=not rule.tell_resolved)

    def _tell(self, session: Session, rule: AlertRuleRow, row: AlertRow, now: datetime, *, quiet: bool = False) -> None:
        """Publish what has become of an alert, and start the run that tells the channels."""
        event = f"alert.{row.status}"
        told = {"alert_id": row.id, "rule": rule.name, "kind": row.kind, "severity": row.severity, "title": row.title}
        if (run_id := row.details.get("run_id")) is not None:
            told["run_id"] = run_id
        publish(session, event, row.project_id, told, at=now, subject=row.id)
        channels = [] if quiet else [c for c in queries.channels(session, rule.project_id, rule.channels) if c.enabled]
        if not channels:
            return
        details = {"rule": rule.name, **row.details}
        text = f"By {row.acknowledged_by}: {row.comment or ''}".rstrip(": ") if row.status == "acknowledged" else ""
        notice = self._channels.notice(event, row.id, row.severity, row.title, text, details, page_of(row))
        steps: list[StepSpec] = []
        needs: tuple[str, ...] = ()
        if rule.summarize and row.status == "firing":
            given = {"alert_id": row.id, "model": rule.model}
            # Whatever becomes of it, the alert goes out.
            steps.append(StepSpec("summarize", "alerts.summarize", given, timeout=_SUMMARY_TIMEOUT, go_on=True))
            needs = ("summarize",)
        deliveries = []
        for number, channel in enumerate(channels, 1):
            once = f"alert:{row.id}:{row.version}:{channel.id}"
            # A message has one id for each channel: none can be told apart from a replay otherwise.
            each = {**asdict(notice), "id": new_id("msg")}
            deliveries.append(channel_storage.plan(session, channel, each, once, now, row.id))
            steps.append(delivering(f"notify-{number}", deliveries[-1].id, needs))
        spec = RunSpec(
            kind="alert",
            name=rule.name,
            steps=steps,
            inputs={"alert_id": row.id, "event": event},
            idempotency_key=f"alert:{row.id}:{row.version}",
            priority=_PRIORITY,
            trigger={"type": "alert", "id": row.id, "rule": rule.name},
        )
        run, _ = self._runs.start_in(session, principal_of(rule.project_id, rule.starter), spec)
        for delivery in deliveries:
            delivery.run_id = run.id
        queries.remember(session, row.id, "told", now, run_id=run.id, channels=[c.name for c in channels])


def page_of(row: AlertRow) -> str:
    """Return where one sees what an alert is about: the dashboard's page of the run, or the alert as the API has it."""
    run_id = str(row.details.get("run_id"))
    return f"/runs/{run_id}" if is_id(run_id, "run") else f"/api/v1/alerts/{row.id}"
