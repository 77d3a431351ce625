"""Named queries of the ledger. Every one that a caller can reach is bound to a project."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, case, cast, func, insert, select
from sqlalchemy.orm import Session

from nexus.ledger.rows import COLUMNS, columns_of_lines, values_of
from nexus.ledger.tables import BudgetRow, FeedbackRow, InvocationRow
from nexus.ledger.types import Invocation

GROUPS: Final[Mapping[str, Any]] = {
    "model": InvocationRow.model,
    "key": InvocationRow.key_id,
    "day": InvocationRow.day,
    "kind": InvocationRow.kind,
    "project": InvocationRow.project_id,
    "principal": InvocationRow.principal_id,
    "provider": InvocationRow.provider,
    "route": InvocationRow.route,
    "status": InvocationRow.status,
}
"""What a usage report can be grouped by."""


@dataclass(frozen=True, slots=True)
class InvocationFilter:
    """Which invocations: None takes all; the period is `since <= created_at < until`."""

    project_id: str | None
    model: str | None = None
    key_id: str | None = None
    kind: str | None = None
    status: str | None = None
    provider: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions."""
        row = InvocationRow
        found: list[ColumnElement[bool]] = [
            getattr(row, name) == getattr(self, name)
            for name in ("project_id", "model", "key_id", "status", "provider", "run_id")
            if getattr(self, name) is not None
        ]
        if self.kind is not None:
            # "vision" asks for every kind of vision: vision.ocr, vision.detect...
            found.append((row.kind == self.kind) | row.kind.startswith(f"{self.kind}.", autoescape=True))
        if self.since is not None:
            found.append(row.created_at >= self.since)
        if self.until is not None:
            found.append(row.created_at < self.until)
        return found


def _insert(rows: Iterable[str]) -> str:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    return (
        f"INSERT INTO {InvocationRow.__tablename__} ({names})"  # noqa: S608  our own names
        f" VALUES {', '.join(f'({row})' for row in rows)} ON CONFLICT (id) DO NOTHING"
    )


_INSERTS: Final = {True: _insert([", ".join("?" * len(COLUMNS))]), False: _insert([", ".join(["%s"] * len(COLUMNS))])}
_AT_ONCE: Final = 100


def add_invocations(session: Session, invocations: Sequence[Invocation]) -> None:
    """Insert records; those whose id is there already are left alone."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    values = [values_of(invocation, is_sqlite=is_sqlite) for invocation in invocations]
    session.connection().exec_driver_sql(_INSERTS[is_sqlite], values)


def add_lines(session: Session, lines: Sequence[bytes]) -> None:
    """Insert lines of the journal as they are: an eighth of the work. Those whose id is there are left alone.

    Raises `msgspec.DecodeError` or `ValueError` where one of them is torn or does not fit its columns.
    """
    connection = session.connection()
    is_sqlite = connection.dialect.name == "sqlite"
    whole = len(lines) - len(lines) % _AT_ONCE if is_sqlite else 0
    # SQLite by the lot, so that calls get their turn between decoding and inserting; PostgreSQL in one journey.
    for start in range(0, whole, _AT_ONCE):
        columns = columns_of_lines(lines[start : start + _AT_ONCE], is_sqlite=True)
        same = tuple([column.count(column[0]) == _AT_ONCE for column in columns])
        varied = [column for column, is_same in zip(columns, same, strict=True) if not is_same]
        values = [column[0] for column, is_same in zip(columns, same, strict=True) if is_same]
        values += itertools.chain.from_iterable(zip(*varied, strict=True))
        connection.exec_driver_sql(_insert_lot(same), tuple(values))
    if rest := lines[whole:]:
        columns = columns_of_lines(rest, is_sqlite=is_sqlite)
        connection.exec_driver_sql(_INSERTS[is_sqlite], list(zip(*columns, strict=True)))


@lru_cache(maxsize=64)
def _insert_lot(same: tuple[bool, ...]) -> str:
    """Return SQLite's statement of a lot of rows: parameters are first the columns that are the same in all of them.

    A statement of one row hands the interpreter over and back for each of them, which the calls of a busy process
    feel; and to hand a parameter over takes longer than all that SQLite does with it.
    """
    shared, numbers = itertools.count(1), itertools.count(1 + sum(same))
    heads = [next(shared) if is_same else None for is_same in same]
    rows = (", ".join(f"?{next(numbers) if head is None else head}" for head in heads) for _ in range(_AT_ONCE))
    return _insert(rows)


def usage(session: Session, which: InvocationFilter, group_by: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Return one row of sums for each group, the dearest first (by day: oldest first)."""
    row = InvocationRow
    keys = [GROUPS[name].label(name) for name in group_by]
    sums = [
        func.count().label("requests"),
        func.sum(case((row.status == "ok", 0), else_=1)).label("errors"),
        func.sum(cast(row.cached, Integer)).label("cached"),
        *(
            func.coalesce(func.sum(getattr(row, name)), 0).label(name)
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_read_tokens",
                "cache_write_tokens",
                "cache_write_1h_tokens",
                "reasoning_tokens",
                "items",
                "cost_usd",
            )
        ),
        func.avg(row.latency_ms).label("latency_ms"),
        func.sum(case((row.cost_usd.is_(None) & row.input_tokens.is_not(None), 1), else_=0)).label("unpriced"),
    ]
    query = select(*keys, *sums).where(*which.conditions()).group_by(*(GROUPS[name] for name in group_by)).limit(limit)
    query = (
        query.order_by(row.day)
        if "day" in group_by
        else query.order_by(func.coalesce(func.sum(row.cost_usd), 0).desc())
    )
    query = query.order_by(*(GROUPS[name] for name in group_by))
    return [_numbers(dict(found._mapping)) for found in session.execute(query)]  # noqa: SLF001  its public name


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    """PostgreSQL sums big integers into Decimal; JSON and CSV want plain numbers."""
    for name in ("requests", "errors", "cached", "unpriced", "items"):
        found[name] = int(found[name] or 0)
    for name in [name for name in found if name.endswith("_tokens")]:
        found[name] = int(found[name])
    found["cost_usd"] = round(float(found["cost_usd"]), 10)
    found["latency_ms"] = None if found["latency_ms"] is None else round(float(found["latency_ms"]), 3)
    return found


def kept_answers(session: Session, which: InvocationFilter) -> list[tuple[str, str, int]]:
    """Return how many calls by each name a cache took part in, and how."""
    how, name = InvocationRow.details["cache"].as_string(), InvocationRow.model
    # Where a call ended does not matter: its name is that of the route whose cache was asked.
    query = select(name, how, func.count()).where(*which.conditions(), how.is_not(None)).group_by(name, how)
    return [(route, told, int(count)) for route, told, count in session.execute(query)]


def spend(session: Session, project_id: str, key_id: str | None, since: datetime | None) -> float:
    """Return the dollars spent by a project, or by one key of it, since a moment."""
    which = InvocationFilter(project_id=project_id, key_id=key_id, since=since)
    total = session.scalar(select(func.coalesce(func.sum(InvocationRow.cost_usd), 0)).where(*which.conditions()))
    return float(total or 0)


def invocations(
    session: Session, which: InvocationFilter, after: str | None, limit: int, *, newest_first: bool = True
) -> list[InvocationRow]:
    """Return a page of rows behind the id `after`. Ids sort by time, so the id is the whole cursor."""
    query = select(InvocationRow).where(*which.conditions()).limit(limit)
    if after is not None:
        query = query.where(InvocationRow.id < after if newest_first else InvocationRow.id > after)
    query = query.order_by(InvocationRow.id.desc() if newest_first else InvocationRow.id.asc())
    return list(session.scalars(query))


def invocation(session: Session, project_id: str, invocation_id: str) -> InvocationRow | None:
    """Return one row of the project."""
    found = session.get(InvocationRow, invocation_id)
    return found if found is not None and found.project_id == project_id else None


def remove_invocation(session: Session, project_id: str, invocation_id: str) -> bool:
    """Forget what a call said and answered, but not that it took place and what it cost."""
    found = invocation(session, project_id, invocation_id)
    if found is None:
        return False
    found.details, found.input_ref, found.output_ref = {}, None, None
    return True


def add_feedback(session: Session, row: dict[str, Any]) -> FeedbackRow:
    """Insert one word of feedback and return it."""
    return session.scalars(insert(FeedbackRow).returning(FeedbackRow), [row]).one()


def feedback_of(session: Session, invocation_id: str) -> list[FeedbackRow]:
    """Return the feedback on one invocation, oldest first."""
    query = select(FeedbackRow).where(FeedbackRow.invocation_id == invocation_id).order_by(FeedbackRow.id)
    return list(session.scalars(query))


# budgets


def budgets(session: Session) -> list[BudgetRow]:
    """Return every budget."""
    return list(session.scalars(select(BudgetRow).order_by(BudgetRow.id)))


def budgets_page(
    session: Session, project_id: str, after: str | None, limit: int, *, newest_first: bool = True
) -> list[BudgetRow]:
    """Return a page of the project's budgets."""
    query = select(BudgetRow).where(BudgetRow.project_id == project_id).limit(limit)
    if after is not None:
        query = query.where(BudgetRow.id < after if newest_first else BudgetRow.id > after)
    return list(session.scalars(query.order_by(BudgetRow.id.desc() if newest_first else BudgetRow.id)))


def budget(session: Session, project_id: str, budget_id: str) -> BudgetRow | None:
    """Return one budget of the project."""
    found = session.get(BudgetRow, budget_id)
    return found if found is not None and found.project_id == project_id else None


def spent_on(session: Session, day: str, project_ids: Collection[str]) -> dict[tuple[str, str | None], float]:
    """Return the dollars that each key of these projects, None for calls without one, has spent on a UTC day."""
    row = InvocationRow
    query = select(row.project_id, row.key_id, func.sum(row.cost_usd)).group_by(row.project_id, row.key_id)
    found = session.execute(query.where(row.project_id.in_(project_ids), row.day == day))
    return {(project, key): float(dollars or 0) for project, key, dollars in found}


def spent_before(session: Session, project_id: str, key_id: str | None, since: str, before: str) -> float:
    """Return the dollars that a project, or one key of it, has spent on the days `since <= day < before`."""
    row = InvocationRow
    query = select(func.sum(row.cost_usd)).where(row.project_id == project_id, row.day >= since, row.day < before)
    return float(session.scalar(query if key_id is None else query.where(row.key_id == key_id)) or 0)
