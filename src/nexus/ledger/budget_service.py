"""Budgets made, listed, changed and removed. Whoever handles a project's keys handles its budgets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from nexus.access.types import NO_LIMITS, BudgetPeriod, Principal, Scope
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import Forbidden
from nexus.core.ids import new_id
from nexus.ledger import storage
from nexus.ledger.budget_book import BudgetBook
from nexus.ledger.budgets import Budget, BudgetScope
from nexus.ledger.errors import BudgetNotFound
from nexus.ledger.tables import BudgetRow
from nexus.storage.db import Database

FindKey = Callable[[Principal, str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget, and how it stands in this period."""

    row: BudgetRow
    standing: Budget


class BudgetService:
    """The budgets of projects and keys."""

    def __init__(
        self, *, database: Database, book: BudgetBook, clock: Clock | None = None, find_key: FindKey | None = None
    ) -> None:
        """`find_key` raises where the caller's project has no such key."""
        self._database = database
        self._book = book
        self._clock = clock or SystemClock()
        self._find_key = find_key

    async def create(
        self,
        principal: Principal,
        *,
        scope: BudgetScope,
        amount_usd: float,
        period: BudgetPeriod,
        key_id: str | None = None,
        name: str = "",
        hard: bool = True,
        alerts: list[int],
    ) -> BudgetView:
        """Make a budget for the caller's project, or for one of its keys. Raises as the search for the key does."""
        _check(principal)
        if scope == "key" and key_id is not None and self._find_key is not None:
            await self._find_key(principal, key_id)
        now = self._clock.now()
        row = BudgetRow(
            id=new_id("bud"),
            project_id=principal.project_id,
            key_id=key_id if scope == "key" else None,
            name=name,
            amount_usd=amount_usd,
            period=period,
            hard=hard,
            alerts=sorted(set(alerts)),
            created_at=now,
            updated_at=now,
        )
        await self._database.write(_add, row)
        await self._book.reread()
        return await self._view(row)

    async def page(
        self, principal: Principal, *, after: str | None = None, limit: int = 20, newest_first: bool = True
    ) -> list[BudgetView]:
        """Return a page of the project's budgets."""
        rows = await self._database.read(
            storage.budgets_page, principal.project_id, after, limit, newest_first=newest_first
        )
        return [BudgetView(*pair) for pair in zip(rows, await self._book.standings(rows), strict=True)]

    async def get(self, principal: Principal, budget_id: str) -> BudgetView:
        """Return one budget. Raises `BudgetNotFound`."""
        return await self._view(await self._database.read(_found, principal.project_id, budget_id))

    async def change(self, principal: Principal, budget_id: str, changes: dict[str, Any]) -> BudgetView:
        """Set some of name, amount_usd, period, hard and alerts. Raises `BudgetNotFound`."""
        _check(principal)

        def change(session: Session) -> BudgetRow:
            row = _found(session, principal.project_id, budget_id)
            for name, value in changes.items():
                setattr(row, name, value)
            row.updated_at = self._clock.now()
            return row

        row = await self._database.write(change)
        await self._book.reread()
        return await self._view(row)

    async def remove(self, principal: Principal, budget_id: str) -> None:
        """Lift a budget. Raises `BudgetNotFound`."""
        _check(principal)
        await self._database.write(lambda session: session.delete(_found(session, principal.project_id, budget_id)))
        await self._book.reread()

    async def _view(self, row: BudgetRow) -> BudgetView:
        return BudgetView(row, (await self._book.standings([row]))[0])


def _check(principal: Principal) -> None:
    principal.require(Scope.KEYS_MANAGE)
    if principal.models is not None or principal.limits != NO_LIMITS:
        raise Forbidden("An API key with limits of its own cannot handle budgets: it could lift them.")


def _add(session: Session, row: BudgetRow) -> None:
    session.add(row)


def _found(session: Session, project_id: str, budget_id: str) -> BudgetRow:
    row = storage.budget(session, project_id, budget_id)
    if row is None:
        raise BudgetNotFound
    return row
