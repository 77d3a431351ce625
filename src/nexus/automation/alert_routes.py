"""`/api/v1/alert-rules`: what to look out for; `/api/v1/alerts`: what was found."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.alert_rule_service import AlertRuleService
from nexus.automation.alert_rules import Condition
from nexus.automation.alert_tables import AlertEventRow, AlertRow, AlertRuleRow
from nexus.automation.alerts import AlertService
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(tags=["automation"])

Rules = Annotated[AlertRuleService, service(AlertRuleService)]
Alerts = Annotated[AlertService, service(AlertService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE)]
Runner = Annotated[Principal, requires(Scope.AUTOMATION_RUN)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
SeverityWord = Literal["info", "warning", "error", "critical"]
Channels = Annotated[list[str], Field(max_length=20, description="Names or ids of channels")]
Lasting = Annotated[
    float, Field(alias="for", ge=0, le=7 * 86_400, description="Seconds that the condition must hold before it fires")
]
Cooldown = Annotated[
    float, Field(ge=0, le=30 * 86_400, description="Seconds after a resolve in which the same thing is not told again")
]
Every = Annotated[float, Field(ge=5, le=3600, description="Seconds between two looks")]
Model = Annotated[str | None, Field(max_length=255, description="Who writes the summary; null: the first real model")]


class AlertRuleIn(BaseModel):
    """A new alert rule."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name
    condition: Condition
    severity: SeverityWord = "warning"
    channels: Channels = Field(default_factory=list)
    lasting: Lasting = 0.0
    cooldown: Cooldown = 300.0
    every: Every = 30.0
    tell_resolved: bool = True
    summarize: Annotated[bool, Field(description="Let a real language model say in words what has happened")] = False
    model: Model = None
    enabled: bool = True


class AlertRulePatch(BaseModel):
    """What of a rule can be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: Name = ""
    condition: Condition | None = None
    severity: SeverityWord = "warning"
    channels: Channels = Field(default_factory=list)
    lasting: Lasting = 0.0
    cooldown: Cooldown = 300.0
    every: Every = 30.0
    tell_resolved: bool = True
    summarize: bool = False
    model: Model = None
    enabled: bool = True


class AlertRuleOut(BaseModel):
    """A rule as it stands."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    name: str
    condition: dict[str, Any]
    severity: str
    channels: list[str]
    lasting: Annotated[float, Field(alias="for")]
    cooldown: float
    every: float
    tell_resolved: bool
    summarize: bool
    model: str | None
    enabled: bool
    checked_at: datetime | None
    last_error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class AlertOut(BaseModel):
    """An alert as it stands."""

    id: str
    rule_id: str
    rule: str
    kind: str
    key: str
    status: str
    severity: str
    title: str
    value: float | None
    details: dict[str, Any]
    count: int
    summary: str | None
    fired_at: datetime
    seen_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    comment: str | None
    resolved_at: datetime | None


class HistoryOut(BaseModel):
    """One line of the history of an alert."""

    type: str
    at: datetime
    data: dict[str, Any]


class AlertWithHistory(AlertOut):
    """An alert and what has happened to it."""

    history: list[HistoryOut]


class Acknowledge(BaseModel):
    """What somebody says who looks after an alert."""

    model_config = ConfigDict(extra="forbid", strict=True)

    comment: str | None = Field(None, max_length=10_000)


def rule_out(row: AlertRuleRow) -> AlertRuleOut:
    """Return the wire form of a rule."""
    return AlertRuleOut(**{name: getattr(row, name) for name in AlertRuleOut.model_fields})


def _alert(row: AlertRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in AlertOut.model_fields}


def alert_out(row: AlertRow) -> AlertOut:
    """Return the wire form of an alert."""
    return AlertOut(**_alert(row))


def _line(row: AlertEventRow) -> HistoryOut:
    return HistoryOut(type=row.type, at=row.at, data=row.data)


@router.post("/alert-rules", status_code=201, operation_id="alert_rules.create")
async def create_rule(body: AlertRuleIn, response: Response, who: Writer, rules: Rules) -> AlertRuleOut:
    """Look out for something from now on."""
    row = await rules.create(who, **body.model_dump())
    response.headers["location"] = f"/api/v1/alert-rules/{row.id}"
    return rule_out(row)


@router.get("/alert-rules", operation_id="alert_rules.list")
async def list_rules(page: Paged, who: Reader, rules: Rules) -> dict[str, Any]:
    """List the alert rules of the project."""
    rows = await rules.page(who, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=rule_out)


@router.get("/alert-rules/{rule}", operation_id="alert_rules.get")
async def get_rule(rule: str, who: Reader, rules: Rules) -> AlertRuleOut:
    """Show a rule by its id or name."""
    return rule_out(await rules.get(who, rule))


@router.patch("/alert-rules/{rule}", operation_id="alert_rules.change")
async def change_rule(rule: str, body: AlertRulePatch, who: Writer, rules: Rules) -> AlertRuleOut:
    """Change what is named; another condition, or disabling it, ends its alerts."""
    changes = body.model_dump(exclude_unset=True)
    if changes.get("condition", ...) is None:
        del changes["condition"]
    return rule_out(await rules.change(who, rule, changes))


@router.delete("/alert-rules/{rule}", status_code=204, operation_id="alert_rules.delete")
async def delete_rule(rule: str, who: Writer, rules: Rules) -> None:
    """Delete a rule and end its alerts."""
    await rules.delete(who, rule)


@router.post("/alert-rules/{rule}/enable", operation_id="alert_rules.enable")
async def enable_rule(rule: str, who: Writer, rules: Rules) -> AlertRuleOut:
    """Look out for it again."""
    return rule_out(await rules.change(who, rule, {"enabled": True}))


@router.post("/alert-rules/{rule}/disable", operation_id="alert_rules.disable")
async def disable_rule(rule: str, who: Writer, rules: Rules) -> AlertRuleOut:
    """Look out for it no more; its alerts end."""
    return rule_out(await rules.change(who, rule, {"enabled": False}))


@router.post("/alert-rules/{rule}/test", operation_id="alert_rules.test")
async def test_rule(rule: str, who: Reader, rules: Rules) -> dict[str, Any]:
    """Show what the rule sees now; nothing is changed and nobody is told."""
    return await rules.test(who, rule)


@router.get("/alerts", operation_id="alerts.list")
async def list_alerts(
    page: Paged,
    who: Reader,
    alerts: Alerts,
    status: Literal["firing", "acknowledged", "resolved"] | None = None,
    rule_id: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """List the alerts of the project, the newest first."""
    rows = await alerts.page(
        who, status=status, rule_id=rule_id, after=page.after_id, limit=page.fetch, descending=page.descending
    )
    return page_of(rows, page, render=alert_out)


@router.get("/alerts/{alert_id}", operation_id="alerts.get")
async def get_alert(alert_id: str, who: Reader, alerts: Alerts) -> AlertWithHistory:
    """Show an alert with its history."""
    row, history = await alerts.get(who, alert_id)
    return AlertWithHistory(**_alert(row), history=[_line(line) for line in history])


@router.post("/alerts/{alert_id}/ack", operation_id="alerts.acknowledge")
async def acknowledge(alert_id: str, who: Runner, alerts: Alerts, body: Acknowledge | None = None) -> AlertOut:
    """Say that you look after it; the channels are told."""
    return alert_out(await alerts.acknowledge(who, alert_id, body.comment if body else None))
