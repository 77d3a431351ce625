"""The routes of the ledger: /api/v1/usage and /api/v1/invocations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from nexus.access.guard import requires
from nexus.access.types import Principal, Scope
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.ledger.csv_export import csv_rows
from nexus.ledger.schemas import FeedbackIn, feedback_out, invocation_out
from nexus.ledger.service import Ledger

router = APIRouter(prefix="/api/v1", tags=["ledger"])

TheLedger = Annotated[Ledger, service(Ledger)]
UsageReader = Annotated[Principal, requires(Scope.USAGE_READ)]
HistoryReader = Annotated[Principal, requires(Scope.HISTORY_READ)]

Text = Annotated[str, Field(max_length=255)]


class UsageQuery(BaseModel):
    """Which usage, and how it is grouped."""

    model_config = ConfigDict(extra="forbid")

    group_by: Annotated[str, Field(max_length=100, description="Comma-separated: model, key, day, kind...")] = "model"
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    model: Text | None = None
    key: Annotated[Text | None, Field(description="The id of an API key.")] = None
    kind: Annotated[Text | None, Field(description="`vision` asks for every vision task.")] = None
    status: Text | None = None
    provider: Text | None = None
    run: Text | None = None
    all_projects: Annotated[bool, Field(description="For a platform administrator.")] = False

    async def read(self, ledger: Ledger, who: Principal) -> list[dict[str, Any]]:
        """Ask the ledger."""
        return await ledger.usage(
            who,
            group_by=[name.strip() for name in self.group_by.split(",")],
            since=self.since,
            until=self.until,
            all_projects=self.all_projects,
            model=self.model,
            key_id=self.key,
            kind=self.kind,
            status=self.status,
            provider=self.provider,
            run_id=self.run,
        )


@router.get("/usage", operation_id="usage.get")
async def usage(who: UsageReader, ledger: TheLedger, query: Annotated[UsageQuery, Query()]) -> dict[str, Any]:
    """Sum requests, tokens, items, latency and dollars for each group."""
    rows = await query.read(ledger, who)
    total = {
        name: sum(row[name] for row in rows)
        for name in ("requests", "errors", "cached", "input_tokens", "output_tokens", "items", "cost_usd", "unpriced")
    }
    return {"data": rows, "total": total, "has_more": False, "next_cursor": None}


@router.get("/usage/export", operation_id="usage.export", response_class=StreamingResponse)
async def export_usage(who: UsageReader, ledger: TheLedger, query: Annotated[UsageQuery, Query()]) -> Response:
    """Give the same report as a CSV file that is safe to open in a spreadsheet."""
    rows = await query.read(ledger, who)
    headers = {"content-disposition": 'attachment; filename="usage.csv"', "x-content-type-options": "nosniff"}
    return StreamingResponse(csv_rows(rows), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/invocations", operation_id="invocations.list")
async def list_invocations(
    who: HistoryReader,
    ledger: TheLedger,
    page: Paged,
    model: Text | None = None,
    key: Text | None = None,
    kind: Text | None = None,
    status: Text | None = None,
    provider: Text | None = None,
    run: Text | None = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> dict[str, Any]:
    """List calls of every kind, newest first."""
    rows = await ledger.invocations(
        who,
        after=page.after_id,
        limit=page.fetch,
        newest_first=page.descending,
        since=since,
        until=until,
        model=model,
        key_id=key,
        kind=kind,
        status=status,
        provider=provider,
        run_id=run,
    )
    return page_of(rows, page, render=invocation_out)


@router.get("/invocations/{invocation_id}", operation_id="invocations.get")
async def get_invocation(invocation_id: str, who: HistoryReader, ledger: TheLedger) -> dict[str, Any]:
    """Show one call with its details and the feedback on it."""
    row, feedback = await ledger.get(who, invocation_id)
    return invocation_out(row) | {"details": row.details, "feedback": [feedback_out(word) for word in feedback]}


@router.delete("/invocations/{invocation_id}", status_code=204, operation_id="invocations.delete")
async def forget_invocation(invocation_id: str, who: HistoryReader, ledger: TheLedger) -> None:
    """Forget what a call said and answered; its usage and cost stay in the books."""
    who.require(Scope.MODELS_MANAGE)
    await ledger.forget(who, invocation_id)


@router.post("/invocations/{invocation_id}/feedback", status_code=201, operation_id="invocations.feedback")
async def add_feedback(invocation_id: str, body: FeedbackIn, who: HistoryReader, ledger: TheLedger) -> dict[str, Any]:
    """Say how good an answer was."""
    word = await ledger.add_feedback(
        who, invocation_id, rating=body.rating, comment=body.comment, expected=body.expected
    )
    return feedback_out(word)
