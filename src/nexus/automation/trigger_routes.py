"""`/api/v1/triggers`: workflows started by what happens: webhooks, events, files."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.schedule_routes import Name, OverlapWord, Version
from nexus.automation.trigger import TRIGGERS, Door
from nexus.automation.trigger_service import Trial, TriggerService
from nexus.automation.trigger_tables import TriggerDeliveryRow, TriggerRow
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of

router = APIRouter(prefix="/triggers", tags=["automation"])

Triggers = Annotated[TriggerService, service(TriggerService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
# A trigger starts runs with its maker's rights, so making one takes the right to run.
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE, Scope.AUTOMATION_RUN)]

Condition = Annotated[str, Field(min_length=1, max_length=2_000, examples=['event.body.action == "opened"'])]
SecretText = Annotated[str, Field(min_length=16, max_length=255, description="The sender's; made here without it")]
_MADE: Final = frozenset({"when", "url", "secrets"})  # what the row calls otherwise
Outcome = Literal["pending", "started", "skipped", "failed"]


class TriggerIn(BaseModel):
    """A new trigger."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(min_length=1, max_length=32, examples=["webhook", "event", "file"])]
    workflow: Annotated[str, Field(min_length=1, max_length=63, description="Name or id")]
    config: dict[str, Any] = Field(default_factory=dict)
    name: Name | None = None
    version: Annotated[Version | None, Field(description="None: the newest at each time")] = None
    inputs: Annotated[
        dict[str, Any], Field(description="Templates over the event", examples=[{"title": "{{ event.body.title }}"}])
    ] = Field(default_factory=dict)
    when: Annotated[Condition | None, Field(description="Start only if this holds")] = None
    overlap: OverlapWord = "allow"
    enabled: bool = True
    secret: SecretText | None = None


class TriggerPatch(BaseModel):
    """What of a trigger can be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field(default_factory=dict)
    name: Name = ""
    version: Version | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    when: Condition | None = None
    overlap: OverlapWord = "allow"
    enabled: bool = True


class Rotation(BaseModel):
    """How the secret is to change."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400, description="How long the old one stays good")] = 86_400
    secret: SecretText | None = None


class TriggerOut(BaseModel):
    """A trigger as it stands. `url` is the path at which a webhook is to be called."""

    id: str
    name: str
    kind: str
    config: dict[str, Any]
    workflow_id: str
    version: int | None
    inputs: dict[str, Any]
    when: str | None
    overlap: str
    enabled: bool
    url: str | None
    secrets: int
    last_fired_at: datetime | None
    last_run_id: str | None
    last_error: dict[str, Any] | None
    fired: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: TriggerRow) -> Self:
        """Return the wire form of a trigger."""
        known = {name: getattr(row, name) for name in TriggerOut.model_fields if name not in _MADE}
        url = f"/hooks/{row.id}" if isinstance(TRIGGERS.get(row.kind), Door) else None
        return cls(**known, when=row.condition, url=url, secrets=len(row.secrets))


class NewTriggerOut(TriggerOut):
    """A new trigger, and its secret this once."""

    secret: str | None = None


class SecretShown(BaseModel):
    """A new secret, this once."""

    secret: str


class DeliveryOut(BaseModel):
    """One thing that arrived at a trigger, and what came of it."""

    id: str
    key: str
    outcome: str
    reason: str | None
    error: dict[str, Any] | None
    run_id: str | None
    received_at: datetime
    settled_at: datetime | None

    @classmethod
    def of(cls, row: TriggerDeliveryRow) -> Self:
        """Return the wire form of a delivery."""
        return cls(**{name: getattr(row, name) for name in DeliveryOut.model_fields})


class WholeDeliveryOut(DeliveryOut):
    """A delivery with what it brought."""

    event: dict[str, Any] = Field(default_factory=dict)


class TrialIn(BaseModel):
    """An event to try; without one the newest delivery, else a made-up one."""

    model_config = ConfigDict(extra="forbid")

    event: dict[str, Any] | None = None


class TrialOut(BaseModel):
    """What the event would do."""

    event: dict[str, Any]
    admitted: bool
    when: bool | None
    inputs: dict[str, Any] | None
    would_start: bool
    error: dict[str, Any] | None

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """Return the wire form of a trial."""
        wrong = trial.error
        error = None if wrong is None else {"code": wrong.code, "message": wrong.message, "field": wrong.field}
        return cls(
            event=trial.event,
            admitted=trial.admitted,
            when=trial.holds,
            inputs=trial.inputs,
            would_start=trial.starts,
            error=error,
        )


@router.post("", status_code=201, operation_id="triggers.create")
async def create_trigger(body: TriggerIn, response: Response, who: Writer, triggers: Triggers) -> NewTriggerOut:
    """Start a workflow by what happens. A webhook's secret is shown in this answer and never again."""
    row, secret = await triggers.create(who, **body.model_dump())
    response.headers["location"] = f"/api/v1/triggers/{row.id}"
    response.headers["cache-control"] = "no-store"
    shown = NewTriggerOut.of(row)
    return shown.model_copy(update={"secret": secret.reveal() if secret else None})


@router.get("", operation_id="triggers.list")
async def list_triggers(
    page: Paged,
    who: Reader,
    triggers: Triggers,
    kind: Annotated[str | None, Query(max_length=32)] = None,
) -> dict[str, Any]:
    """List the triggers of the project."""
    rows = await triggers.page(who, kind=kind, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=TriggerOut.of)


@router.get("/{trigger}", operation_id="triggers.get")
async def get_trigger(trigger: str, who: Reader, triggers: Triggers) -> TriggerOut:
    """Show a trigger by its id or name."""
    return TriggerOut.of(await triggers.get(who, trigger))


@router.patch("/{trigger}", operation_id="triggers.change")
async def change_trigger(trigger: str, body: TriggerPatch, who: Writer, triggers: Triggers) -> TriggerOut:
    """Change what is named; its runs have the rights of whoever changed it last."""
    return TriggerOut.of(await triggers.change(who, trigger, body.model_dump(exclude_unset=True)))


@router.delete("/{trigger}", status_code=204, operation_id="triggers.delete")
async def delete_trigger(trigger: str, who: Writer, triggers: Triggers) -> None:
    """Delete a trigger and what is known of its deliveries; its runs stay."""
    await triggers.delete(who, trigger)


@router.post("/{trigger}/enable", operation_id="triggers.enable")
async def enable_trigger(trigger: str, who: Writer, triggers: Triggers) -> TriggerOut:
    """Let it start runs again, by what happens from now on."""
    return TriggerOut.of(await triggers.change(who, trigger, {"enabled": True}))


@router.post("/{trigger}/disable", operation_id="triggers.disable")
async def disable_trigger(trigger: str, who: Writer, triggers: Triggers) -> TriggerOut:
    """Let it rest; its webhook answers 404 meanwhile."""
    return TriggerOut.of(await triggers.change(who, trigger, {"enabled": False}))


@router.post("/{trigger}/rotate-secret", operation_id="triggers.rotate_secret")
async def rotate_secret(
    trigger: str, response: Response, who: Writer, triggers: Triggers, body: Rotation | None = None
) -> SecretShown:
    """Give a webhook a new secret, shown this once; the old one stays good for a while."""
    wish = body or Rotation()
    secret = await triggers.rotate(who, trigger, overlap=wish.overlap_seconds, secret=wish.secret)
    response.headers["cache-control"] = "no-store"
    return SecretShown(secret=secret.reveal())


@router.post("/{trigger}/test", operation_id="triggers.test")
async def try_trigger(trigger: str, who: Reader, triggers: Triggers, body: TrialIn | None = None) -> TrialOut:
    """Say what an event would do, with the run's inputs filled in. Nothing is started."""
    return TrialOut.of(await triggers.trial(who, trigger, (body or TrialIn()).event))


@router.get("/{trigger}/deliveries", operation_id="triggers.deliveries")
async def list_deliveries(
    trigger: str, page: Paged, who: Reader, triggers: Triggers, outcome: Outcome | None = None
) -> dict[str, Any]:
    """List what has arrived, and what came of it."""
    rows = await triggers.deliveries(
        who, trigger, outcome=outcome, after=page.after_id, limit=page.fetch, descending=page.descending
    )
    return page_of(rows, page, render=DeliveryOut.of)


@router.get("/{trigger}/deliveries/{delivery_id}", operation_id="triggers.delivery")
async def get_delivery(trigger: str, delivery_id: str, who: Reader, triggers: Triggers) -> WholeDeliveryOut:
    """Show one thing that has arrived, as templates see it."""
    row = await triggers.delivery(who, trigger, delivery_id)
    return WholeDeliveryOut.of(row).model_copy(update={"event": row.event})


@router.post("/{trigger}/deliveries/{delivery_id}/retry", operation_id="triggers.retry_delivery")
async def retry_delivery(trigger: str, delivery_id: str, who: Writer, triggers: Triggers) -> DeliveryOut:
    """Let a delivery that has started nothing try again, with the trigger as it is now."""
    return DeliveryOut.of(await triggers.again(who, trigger, delivery_id))
