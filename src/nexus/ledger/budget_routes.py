"""The routes of budgets: /api/v1/budgets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from nexus.access.guard import requires
from nexus.access.types import BudgetPeriod, Principal, Scope
from nexus.core.clock import rfc3339
from nexus.http.depends import service
from nexus.http.paging import Paged, page_of
from nexus.ledger.budget_service import BudgetService, BudgetView

router = APIRouter(prefix="/api/v1", tags=["ledger"])

Budgets = Annotated[BudgetService, service(BudgetService)]
UsageReader = Annotated[Principal, requires(Scope.USAGE_READ)]
KeyManager = Annotated[Principal, requires(Scope.KEYS_MANAGE)]

Dollars = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]
Percentages = Annotated[list[Annotated[int, Field(ge=1, le=100, strict=True)]], Field(max_length=10)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]


class BudgetIn(BaseModel):
    """A new budget; one that is not `hard` only tells, at each of its `alerts` in percent."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["project", "key"] = "project"
    key_id: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None
    name: Name = ""
    amount_usd: Dollars
    period: BudgetPeriod = "month"
    hard: Annotated[bool, Field(strict=True)] = True
    alerts: Percentages = [80, 100]

    @model_validator(mode="after")
    def _names_a_key(self) -> BudgetIn:
        if (self.scope == "key") != (self.key_id is not None):
            raise ValueError("a budget of a key names it in key_id, and no other budget does")
        return self


class BudgetPatch(BaseModel):
    """What of a budget can be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    amount_usd: Dollars | None = None
    period: BudgetPeriod | None = None
    hard: Annotated[bool, Field(strict=True)] | None = None
    alerts: Percentages | None = None


@router.get("/budgets", operation_id="budgets.list")
async def list_budgets(who: UsageReader, page: Paged, budgets: Budgets) -> dict[str, Any]:
    """List the project's budgets and what is left of each, newest first."""
    found = await budgets.page(who, after=page.after_id, limit=page.fetch, newest_first=page.descending)
    return page_of(found, page, render=budget_out, key=lambda view: [view.row.id])


@router.post("/budgets", status_code=201, operation_id="budgets.create")
async def create_budget(body: BudgetIn, who: KeyManager, budgets: Budgets) -> dict[str, Any]:
    """Limit what the project, or one of its keys, may spend in a period."""
    return budget_out(await budgets.create(who, **body.model_dump()))


@router.get("/budgets/{budget_id}", operation_id="budgets.get")
async def get_budget(budget_id: str, who: UsageReader, budgets: Budgets) -> dict[str, Any]:
    """Show one budget and what is left of it."""
    return budget_out(await budgets.get(who, budget_id))


@router.patch("/budgets/{budget_id}", operation_id="budgets.update")
async def change_budget(budget_id: str, body: BudgetPatch, who: KeyManager, budgets: Budgets) -> dict[str, Any]:
    """Change a budget; it holds at once in this process, and within seconds in others."""
    changes = {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}
    return budget_out(await budgets.change(who, budget_id, changes))


@router.delete("/budgets/{budget_id}", status_code=204, operation_id="budgets.delete")
async def remove_budget(budget_id: str, who: KeyManager, budgets: Budgets) -> None:
    """Lift a budget."""
    await budgets.remove(who, budget_id)


def budget_out(view: BudgetView) -> dict[str, Any]:
    """Return a budget as the API shows it."""
    row, standing = view.row, view.standing
    always = row.period == "total"
    return {
        "id": row.id,
        "scope": standing.scope,
        "project_id": row.project_id,
        "key_id": row.key_id,
        "name": row.name,
        "amount_usd": row.amount_usd,
        "period": row.period,
        "hard": row.hard,
        "alerts": row.alerts,
        "spent_usd": round(standing.total, 10),
        "reserved_usd": round(standing.reserved + standing.elsewhere, 10),
        "remaining_usd": round(max(row.amount_usd - standing.total, 0.0), 10),
        "period_start": None if always else rfc3339(standing.start),
        "period_end": None if always else rfc3339(standing.ends),
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
