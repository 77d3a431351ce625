"""Dollars that a key or a project may spend in a day, a month or in all. Pure arithmetic on UTC calendars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from nexus.access.types import BudgetPeriod

BudgetScope = Literal["project", "key"]
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class BudgetReached(msgspec.Struct, frozen=True, kw_only=True):
    """The event that `percent` of a budget has been spent; it comes once in each period."""

    budget_id: str
    scope: BudgetScope
    project_id: str
    key_id: str | None
    percent: int
    amount_usd: float
    spent_usd: float
    period: BudgetPeriod
    period_start: datetime | None


Listener = Callable[[BudgetReached], None]


def period_start(period: BudgetPeriod, now: datetime) -> datetime:
    """Return when the day or month of `now` began, in UTC; `total` has always been."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return _ALWAYS if period == "total" else day if period == "day" else day.replace(day=1)


def period_end(period: BudgetPeriod, now: datetime) -> datetime | None:
    """Return when the day or month of `now` ends; None for `total`."""
    start = period_start(period, now)
    if period == "total":
        return None
    return start + timedelta(days=1) if period == "day" else (start + timedelta(days=32)).replace(day=1)


class Budget:
    """One budget and how it stands.

    `spent` is what the ledger held when it was last asked, `since` what this process has spent after that;
    `reserved` is held by `calls` under way here, `elsewhere` by those of other processes. The period ends at
    `ends`, which is `ends_at` in seconds since 1970.
    """

    __slots__ = (
        "_tells_at",
        "alerts",
        "amount",
        "calls",
        "closed",
        "closed_at",
        "elsewhere",
        "ends",
        "ends_at",
        "hard",
        "id",
        "key_id",
        "loaded",
        "period",
        "project_id",
        "reserved",
        "since",
        "spent",
        "start",
        "told",
        "used_at",
    )

    def __init__(
        self,
        budget_id: str,
        *,
        amount: float,
        period: BudgetPeriod,
        project_id: str,
        key_id: str | None = None,
        hard: bool = True,
        alerts: tuple[int, ...] = (80, 100),
    ) -> None:
        """Know nothing of what was spent until `loaded`; a budget that is not `hard` only tells."""
        self.id = budget_id
        self.amount = amount
        self.period = period
        self.project_id = project_id
        self.key_id = key_id
        self.hard = hard
        self.alerts = tuple(sorted(alerts))
        self.loaded = False
        self.spent = self.since = self.reserved = self.elsewhere = 0.0
        self.calls = 0
        self.used_at = 0.0
        self.closed = 0.0
        self.closed_at: datetime | None = None
        self.told = 0
        self.start = self.ends = _ALWAYS
        self.ends_at = 0.0
        self._aim()

    @property
    def scope(self) -> BudgetScope:
        """Say whose budget it is."""
        return "project" if self.key_id is None else "key"

    @property
    def key(self) -> str:
        """Return the name of this budget among processes."""
        return f"budget:{self.id}"

    def here(self) -> int:
        """Return the millionths of a dollar that calls of this process hold."""
        return round(self.reserved * 1e6)

    def learn(self, elsewhere: int) -> None:
        """Hear how many millionths of a dollar calls of other processes hold."""
        self.elsewhere = elsewhere / 1e6

    @property
    def total(self) -> float:
        """Return what was spent in this period, as far as this process knows."""
        return self.spent + self.since

    def turn(self, now: datetime) -> None:
        """Begin a new period where the last one is over."""
        if now < self.ends or (self.period == "total" and self.loaded):
            return
        self.start = period_start(self.period, now)
        self.ends = period_end(self.period, now) or datetime.max.replace(tzinfo=UTC)
        self.ends_at = self.ends.timestamp()
        self.spent = self.since = self.closed = 0.0
        self.closed_at = None
        self.told = 0
        self._aim()

    def change(self, amount: float, *, hard: bool, alerts: Sequence[int]) -> None:
        """Take what the budget is now; of another amount everything is told anew."""
        if amount != self.amount:
            self.amount, self.told = amount, 0
        self.hard, self.alerts = hard, tuple(sorted(alerts))
        self._aim()

    def admits(self, dollars: float) -> bool:
        """Tell whether a call that may cost so much can begin.

        The last call that fits is followed by none; one that alone may cost more than is left runs alone.
        """
        total, amount = self.spent + self.since, self.amount
        if total >= amount:
            return False
        held = self.reserved + self.elsewhere
        return total + held + dollars <= amount + 1e-9 or held == 0

    def reserve(self, dollars: float, now: float = 0.0) -> None:
        """Hold what a call may cost; `now` is in seconds since 1970."""
        self.used_at = now
        self.calls += 1
        self.reserved += dollars

    def settle(self, reserved: float, dollars: float | None) -> bool:
        """Replace what was held for a call by what it did cost; tell whether `reached` may have something to tell."""
        self.calls -= 1
        left = self.reserved - reserved
        # Sums of floats leave dust, which would look like a call that never ends.
        self.reserved = left if left > 0 and self.calls else 0.0
        if dollars:
            self.since += dollars
        return self.spent + self.since >= self._tells_at

    def reached(self) -> list[BudgetReached]:
        """Return what is to be told now, each percentage once in a period."""
        if self.amount <= 0:
            return []
        percent = 100 * self.total / self.amount
        due = [alert for alert in self.alerts if self.told < alert <= percent + 1e-9]
        if due:
            self.told = due[-1]
            self._aim()
        return [
            BudgetReached(
                budget_id=self.id,
                scope=self.scope,
                project_id=self.project_id,
                key_id=self.key_id,
                percent=alert,
                amount_usd=self.amount,
                spent_usd=self.total,
                period=self.period,
                period_start=None if self.period == "total" else self.start,
            )
            for alert in due
        ]

    def _aim(self) -> None:
        """Find out how many dollars there are to be spent before something is to be told."""
        alert = next((alert for alert in self.alerts if alert > self.told), math.inf)
        self._tells_at = (alert - 1e-6) / 100 * self.amount
