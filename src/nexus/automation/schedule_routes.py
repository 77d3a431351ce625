"""`/api/v1/schedules`: workflows started by the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.automation.cron import zone_database
from nexus.automation.schedules import ScheduleService
from nexus.automation.tables import ScheduleRow
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.runs.routes import accepted

router = APIRouter(prefix="/schedules", tags=["automation"])

Schedules = Annotated[ScheduleService, service(ScheduleService)]
Reader = Annotated[Principal, requires(Scope.AUTOMATION_READ)]
# A schedule starts runs with its maker's rights, so making one takes the right to run.
Writer = Annotated[Principal, requires(Scope.AUTOMATION_WRITE, Scope.AUTOMATION_RUN)]
Runner = Annotated[Principal, requires(Scope.AUTOMATION_RUN)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
CronText = Annotated[str, Field(min_length=1, max_length=200, examples=["30 2 * * mon-fri"])]
Zone = Annotated[str, Field(min_length=1, max_length=64, description="IANA name", examples=["Europe/Berlin"])]
MisfireWord = Annotated[
    Literal["skip", "once", "catch_up"],
    Field(description="What to do about times that passed while nobody looked: nothing, one run, a run for each"),
]
OverlapWord = Annotated[
    Literal["allow", "skip", "queue", "cancel"],
    Field(description="What to do while an earlier run is not over: start, do not, start behind it, cancel it"),
]
CatchUp = Annotated[int, Field(ge=1, le=1000, description="The most runs that `catch_up` starts at once")]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ScheduleIn(BaseModel):
    """A new schedule."""

    model_config = ConfigDict(extra="forbid")

    workflow: Annotated[str, Field(min_length=1, max_length=63, description="Name or id")]
    cron: CronText
    timezone: Zone = "UTC"
    name: Name | None = None
    version: Annotated[Version | None, Field(description="None: the newest at each time")] = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    misfire: MisfireWord = "once"
    catch_up_limit: CatchUp = 100
    overlap: OverlapWord = "allow"
    enabled: bool = True


class SchedulePatch(BaseModel):
    """What of a schedule can be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    cron: CronText = ""
    timezone: Zone = ""
    name: Name = ""
    version: Version | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    misfire: MisfireWord = "once"
    catch_up_limit: CatchUp = 100
    overlap: OverlapWord = "allow"
    enabled: bool = True


class ScheduleOut(BaseModel):
    """A schedule as it stands."""

    id: str
    name: str
    workflow_id: str
    version: int | None
    inputs: dict[str, Any]
    cron: str
    timezone: str
    misfire: str
    catch_up_limit: int
    overlap: str
    enabled: bool
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    last_run_id: str | None
    last_error: dict[str, Any] | None
    fired: int
    created_at: datetime
    updated_at: datetime


def schedule_out(row: ScheduleRow) -> ScheduleOut:
    """Return the wire form of a schedule."""
    return ScheduleOut(**{name: getattr(row, name) for name in ScheduleOut.model_fields})


@router.post("", status_code=201, operation_id="schedules.create")
async def create_schedule(body: ScheduleIn, response: Response, who: Writer, schedules: Schedules) -> ScheduleOut:
    """Start a workflow by the clock from now on."""
    row = await schedules.create(who, **body.model_dump())
    response.headers["location"] = f"/api/v1/schedules/{row.id}"
    return schedule_out(row)


@router.get("", operation_id="schedules.list")
async def list_schedules(page: Paged, who: Reader, schedules: Schedules) -> dict[str, Any]:
    """List the schedules of the project."""
    rows = await schedules.page(who, after=page.after_id, limit=page.fetch, descending=page.descending)
    return page_of(rows, page, render=schedule_out)


@router.get("/{schedule}", operation_id="schedules.get")
async def get_schedule(schedule: str, who: Reader, schedules: Schedules) -> ScheduleOut:
    """Show a schedule by its id or name."""
    return schedule_out(await schedules.get(who, schedule))


@router.patch("/{schedule}", operation_id="schedules.change")
async def change_schedule(schedule: str, body: SchedulePatch, who: Writer, schedules: Schedules) -> ScheduleOut:
    """Change what is named; its runs have the rights of whoever changed it last."""
    return schedule_out(await schedules.change(who, schedule, body.model_dump(exclude_unset=True)))


@router.delete("/{schedule}", status_code=204, operation_id="schedules.delete")
async def delete_schedule(schedule: str, who: Writer, schedules: Schedules) -> None:
    """Delete a schedule; its runs stay."""
    await schedules.delete(who, schedule)


@router.post("/{schedule}/pause", operation_id="schedules.pause")
async def pause_schedule(schedule: str, who: Writer, schedules: Schedules) -> ScheduleOut:
    """Let it rest; the times meanwhile count for nothing."""
    return schedule_out(await schedules.change(who, schedule, {"enabled": False}))


@router.post("/{schedule}/resume", operation_id="schedules.resume")
async def resume_schedule(schedule: str, who: Writer, schedules: Schedules) -> ScheduleOut:
    """Go on from now."""
    return schedule_out(await schedules.change(who, schedule, {"enabled": True}))


@router.post("/{schedule}/trigger", status_code=202, operation_id="schedules.trigger")
async def trigger_schedule(
    schedule: str,
    request: Request,
    who: Runner,
    schedules: Schedules,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Start a run of it now, beside its times."""
    return await accepted(await schedules.fire_now(who, schedule, idempotency_key=idempotency_key), request)


@router.get("/{schedule}/next", operation_id="schedules.next")
async def next_times(
    schedule: str,
    who: Reader,
    schedules: Schedules,
    after: AwareDatetime | None = None,
    count: Annotated[int, Query(ge=1, le=1000)] = 10,
) -> dict[str, Any]:
    """Return the next times, in UTC and on the wall clock, and which edition of the time zones says so."""
    row = await schedules.get(who, schedule)
    fires = await schedules.upcoming(who, row.id, after=after, count=count)
    return {
        "data": [{"at": fire, "local": fire.astimezone(schedules.zone(row)).isoformat()} for fire in fires],
        "timezone": row.timezone,
        "tzdata": zone_database(),
    }
