"""The budgets of every caller as this process knows them, kept true by the ledger.

What was spent is asked of the database when a budget is first needed, and again every few seconds while it is in
use: so a process learns what others spend. Between, it adds what it settles itself. Days that are over are summed
only every ten minutes; a call that began before midnight may end after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from nexus.access.types import KeyLimits, Principal
from nexus.core.clock import Clock, SystemClock
from nexus.core.errors import Unavailable
from nexus.ledger import storage
from nexus.ledger.budgets import Budget, BudgetReached, Listener
from nexus.ledger.service import Ledger
from nexus.ledger.tables import BudgetRow
from nexus.storage.db import Database
from nexus.storage.events import publish

log = logging.getLogger(__name__)

Claim = Callable[[str, float], Awaitable[bool]]
"""Tells whether this process is the first to do the named thing within so many seconds."""

_CLOSED_FOR = timedelta(minutes=10)
_LONGEST_PERIOD = 32 * 86_400.0


class BudgetBook:
    """Budgets by whom they bind."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: Ledger,
        clock: Clock | None = None,
        refresh_seconds: float = 2.0,
        claim: Claim | None = None,
    ) -> None:
        """Know nothing before `start`; `claim` lets one of several processes tell that a budget is reached."""
        self._database = database
        self._ledger = ledger
        self._clock = clock = clock or SystemClock()
        self.seconds: Callable[[], float] = (
            time.time if isinstance(clock, SystemClock) else lambda: clock.now().timestamp()
        )
        """What `now` returns, in seconds since 1970."""
        self._pause = refresh_seconds
        self._claim = claim
        self._rows: dict[str, BudgetRow] = {}
        self._budgets: dict[str, Budget] = {}
        self._listeners: list[Listener] = []
        self._loading = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self.generation: object = object()

    def now(self) -> datetime:
        """Return the time by which periods turn."""
        return self._clock.now()

    async def start(self) -> None:
        """Read the budgets and begin to keep them true."""
        await self.reread()
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="budgets")

    async def stop(self) -> None:
        """Stop."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
            self._refreshing = None

    def on_reached(self, listener: Listener) -> None:
        """Call `listener` when a part of a budget that is worth telling has been spent; it must not block."""
        self._listeners.append(listener)

    def budgets_of(self, principal: Principal, limits: KeyLimits | None) -> tuple[Budget, ...]:
        """Return what binds a caller; `limits` are those of the caller's key, a budget among them."""
        found = [
            self._budget(row)
            for row in self._rows.values()
            if row.project_id == principal.project_id and row.key_id in (None, principal.key_id)
        ]
        if principal.key_id is not None and limits is not None and limits.budget_usd is not None:
            budget = self._budgets.get(principal.key_id)
            if budget is None or (budget.amount, budget.period) != (limits.budget_usd, limits.budget_period):
                budget = self._budgets[principal.key_id] = Budget(
                    principal.key_id,
                    amount=limits.budget_usd,
                    period=limits.budget_period,
                    project_id=principal.project_id,
                    key_id=principal.key_id,
                )
            found.append(budget)
        return tuple(found)

    async def standings(self, rows: Iterable[BudgetRow]) -> list[Budget]:
        """Return how budgets stand now."""
        found = [self._budget(row) for row in rows]
        async with self._loading:
            await self._load(found)
        return found

    async def load(self, budgets: Iterable[Budget]) -> None:
        """Learn what was spent of budgets that are not known yet."""
        async with self._loading:
            await self._load([budget for budget in budgets if not budget.loaded])

    async def reread(self) -> None:
        """Read which budgets there are."""
        rows = {row.id: row for row in await self._database.read(storage.budgets)}
        before = {(row.id, row.updated_at) for row in self._rows.values()}
        if before != {(row.id, row.updated_at) for row in rows.values()}:
            self._rows = rows
            self.generation = object()

    async def refresh(self) -> None:
        """Learn what others have spent."""
        await self.reread()
        used = [budget for budget in self._budgets.values() if budget.loaded]
        if used:
            async with self._loading:
                await self._load(used)

    def tell(self, reached: list[BudgetReached]) -> None:
        """Tell the listeners, unless another process has done so."""
        try:
            task = asyncio.get_running_loop().create_task(self._tell(reached))
        except RuntimeError:  # settled by a thread without a loop: nobody to ask, so it is told here
            for event in reached:
                self._publish(event)
        else:
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, reached: list[BudgetReached]) -> None:
        named = [(f"budget:{e.budget_id}:{e.percent}:{e.period_start}:{e.amount_usd}", e) for e in reached]
        for name, event in named:
            if self._claim is None or await self._claim(name, _LONGEST_PERIOD):
                self._publish(event)
        for name, event in named:
            await self._note(name, event)

    async def _note(self, name: str, event: BudgetReached) -> None:
        """Put it down for whoever acts on it (`storage/events.py`): once, whichever processes tell it."""
        told, project, at = msgspec.to_builtins(event), event.project_id, self._clock.now()
        try:
            await self._database.write(
                publish, "budget.reached", project, told, at=at, subject=event.budget_id, once=name
            )
        except (Unavailable, SQLAlchemyError) as error:
            log.warning("a budget that is reached could not be noted (%s)", type(error).__name__)

    def _publish(self, event: BudgetReached) -> None:
        log.warning(
            "%d %% of the budget of %s %s is spent", event.percent, event.scope, event.key_id or event.project_id
        )
        for listener in self._listeners:
            listener(event)

    def _budget(self, row: BudgetRow) -> Budget:
        budget = self._budgets.get(row.id)
        if budget is None or budget.period != row.period:
            budget = self._budgets[row.id] = Budget(
                row.id, amount=row.amount_usd, period=row.period, project_id=row.project_id, key_id=row.key_id
            )
        budget.change(row.amount_usd, hard=row.hard, alerts=row.alerts)
        return budget

    async def _load(self, budgets: list[Budget]) -> None:
        if not budgets:
            return
        now = self._clock.now()
        today = now.astimezone(UTC).date().isoformat()
        for budget in budgets:
            budget.turn(now)
            budget.since = 0.0
        await self._ledger.flush()
        spent = await self._database.read(storage.spent_on, today, {budget.project_id for budget in budgets})
        reached = []
        for budget in budgets:
            if budget.period != "day" and (budget.closed_at is None or now - budget.closed_at > _CLOSED_FOR):
                since = budget.start.date().isoformat()
                budget.closed = await self._database.read(
                    storage.spent_before, budget.project_id, budget.key_id, since, today
                )
                budget.closed_at = now
            of_today = sum(
                dollars
                for (project, key), dollars in spent.items()
                if project == budget.project_id and budget.key_id in (None, key)
            )
            budget.spent = budget.closed + of_today
            budget.loaded = True
            reached += budget.reached()
        if reached:
            self.tell(reached)

    async def _refresh(self) -> None:
        """Ask every few seconds, less often where the answer takes long."""
        pause = self._pause
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                await self.refresh()
            except (Unavailable, SQLAlchemyError) as error:
                # What is known goes on to count, and what is spent here is added to it.
                log.warning("budgets could not be refreshed (%s)", type(error).__name__)
            pause = max(self._pause, 20 * (time.monotonic() - began))
