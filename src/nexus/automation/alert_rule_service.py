"""Alert rules of projects: kept and tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from nexus.access.types import Principal, Scope
from nexus.automation import alert_storage as queries
from nexus.automation.alert_measuring import Measures, condition_of
from nexus.automation.alert_rules import TOLD
from nexus.automation.alert_tables import AlertRuleRow
from nexus.automation.alerts import AlertService
from nexus.automation.errors import AlertRuleInvalid, AlertRuleNotFound
from nexus.core.clock import Clock
from nexus.core.ids import new_id
from nexus.runs.records import starter_of
from nexus.runs.service import RunService
from nexus.storage.db import Database

_ANEW: Final = frozenset({"condition", "enabled", "lasting"})


class AlertRuleService:
    """Keeps the rules that `AlertWatch` looks at."""

    def __init__(
        self, *, database: Database, alerts: AlertService, measures: Measures, runs: RunService, clock: Clock
    ) -> None:
        """End the `alerts` of rules that are deleted or disabled."""
        self._database, self._alerts, self._measures, self._runs, self._clock = database, alerts, measures, runs, clock

    async def create(self, principal: Principal, *, condition: dict[str, Any], **given: Any) -> AlertRuleRow:
        """Keep a rule; its runs have the rights of `principal`.

        `given` are name, severity, channels, lasting, cooldown, every, tell_resolved, summarize, model, enabled.
        Raises `AlertRuleInvalid`, `NameTaken`, `Forbidden`.
        """
        _may(principal, condition, summarize=given["summarize"])
        _check(condition, given["lasting"])
        now = self._clock.now()
        channels = await self._database.read(queries.channel_ids, principal.project_id, given["channels"])
        values = {
            **given,
            "id": new_id("rul"),
            "project_id": principal.project_id,
            "kind": condition["kind"],
            "condition": condition,
            "channels": channels,
            "starter": starter_of(principal),
            "pending": {},
            "next_check_at": now if given["enabled"] else None,
            "created_at": now,
            "updated_at": now,
        }
        return await self._database.write(queries.add_rule, values)

    async def get(self, principal: Principal, name_or_id: str) -> AlertRuleRow:
        """Return a rule of the project. Raises `AlertRuleNotFound`."""
        row = await self._database.read(queries.rule, principal.project_id, name_or_id)
        if row is None:
            raise AlertRuleNotFound
        return row

    async def page(
        self, principal: Principal, *, after: str | None = None, limit: int = 20, descending: bool = True
    ) -> Sequence[AlertRuleRow]:
        """Return a page of the project's rules."""
        return await self._database.read(queries.rules, principal.project_id, after, limit, descending)

    async def change(self, principal: Principal, name_or_id: str, changes: dict[str, Any]) -> AlertRuleRow:
        """Change a rule; one with another condition, or that is disabled, ends its alerts.

        Its runs have from then on the rights of `principal`. Raises as `create` does.
        """
        row = await self.get(principal, name_or_id)
        condition = changes.get("condition", row.condition)
        _may(principal, condition, summarize=changes.get("summarize", row.summarize))
        _check(condition, changes.get("lasting", row.lasting))
        if "channels" in changes:
            names = changes["channels"]
            changes["channels"] = await self._database.read(queries.channel_ids, principal.project_id, names)
        now = self._clock.now()
        values = {**changes, "kind": condition["kind"], "starter": starter_of(principal), "updated_at": now}
        if _ANEW & changes.keys():
            values["pending"] = {}
            values["next_check_at"] = now if changes.get("enabled", row.enabled) else None
        ends = changes.get("condition", row.condition) != row.condition or changes.get("enabled") is False
        changed = await self._database.write(self._change, principal.project_id, row.id, values, ends)
        self._runs.ring()
        return changed

    def _change(
        self, session: Session, project_id: str, rule_id: str, values: dict[str, Any], ends: bool
    ) -> AlertRuleRow:
        row = queries.rule(session, project_id, rule_id, lock=True)
        if row is None:
            raise AlertRuleNotFound
        if ends:
            self._end(session, row, "The rule was changed.")
        queries.change_rule(session, project_id, rule_id, values)
        return row

    async def delete(self, principal: Principal, name_or_id: str) -> None:
        """Delete a rule and end its alerts, which stay to be read. Raises `AlertRuleNotFound`."""

        def remove(session: Session) -> None:
            row = queries.rule(session, principal.project_id, name_or_id, lock=True)
            if row is None:
                raise AlertRuleNotFound
            self._end(session, row, "The rule was deleted.")
            queries.remove_rule(session, row.id)

        await self._database.write(remove)
        self._runs.ring()

    def _end(self, session: Session, row: AlertRuleRow, why: str) -> None:
        for alert in queries.live_alerts(session, row.id):
            self._alerts.resolve(session, row, alert, self._clock.now(), why)

    async def test(self, principal: Principal, name_or_id: str) -> dict[str, Any]:
        """Return what the rule sees now; nothing is changed and nobody is told. Raises `AlertRuleNotFound`."""
        row = await self.get(principal, name_or_id)
        if row.kind in TOLD:
            return {"measured": False, "firing": False, "readings": []}
        measured = await self._measures.measure(principal.project_id, condition_of(row.condition))
        readings = [asdict(reading) for reading in measured.readings]
        return {"measured": True, "firing": any(r["firing"] for r in readings), "readings": readings[:100]}


def next_look(row: AlertRuleRow, now: Any) -> Any:
    """Return when to look at a rule again."""
    return now + timedelta(seconds=row.every)


def _check(condition: dict[str, Any], lasting: float) -> None:
    if lasting and condition["kind"] in TOLD:
        raise AlertRuleInvalid("What events tell of has no duration; leave `for` out.", field="for")


def _may(principal: Principal, condition: dict[str, Any], *, summarize: bool) -> None:
    """Raise `Forbidden` where the rule would see or use what its maker may not."""
    kind = condition["kind"]
    if kind == "metric" or (kind == "error_rate" and condition.get("of") == "http"):
        principal.require(Scope.METRICS_READ)
    if kind in ("usage", "budget"):
        principal.require(Scope.USAGE_READ)
    if summarize:
        principal.require(Scope.LLM_INVOKE)
