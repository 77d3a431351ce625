"""Lots of lines come to the database as the rows that they are, whatever they have in common."""

from __future__ import annotations

import random

from sqlalchemy import select
from sqlalchemy.orm import Session

from nexus.ledger import storage
from nexus.ledger.journal import encode
from nexus.ledger.rows import COLUMNS
from nexus.ledger.tables import InvocationRow
from nexus.ledger.types import Invocation
from nexus.storage.db import Database


def told(invocation: Invocation) -> dict[str, object]:
    moment = invocation.created_at.replace(tzinfo=None)
    return {
        **{name: getattr(invocation, name) for name in COLUMNS if name not in ("created_at", "day")},
        "created_at": moment,
        "day": moment.date().isoformat(),
    }


def stored(session: Session) -> dict[str, dict[str, object]]:
    rows = session.scalars(select(InvocationRow))
    found = {row.id: {name: getattr(row, name) for name in COLUMNS} for row in rows}
    for row in found.values():
        row["created_at"] = row["created_at"].replace(tzinfo=None)  # type: ignore[attr-defined]
    return found


async def test_rows_that_share_some_columns_or_none_are_all_stored_as_they_are(any_database: Database) -> None:
    chance = random.Random(7)
    many = [
        Invocation(
            project_id="prj_a" if number < 200 else f"prj_{number % 3}",
            principal_id="key_a",
            kind="chat",
            model="m",
            provider=None if number < 300 else chance.choice([None, "p", "é"]),
            version=chance.choice([None, 1]) if number % 200 < 100 else None,
            cached=number % 7 == 0,
            cost_usd=chance.choice([None, 0.25, number / 7]),
            details={} if number < 100 else {"number": number},
        )
        for number in range(437)
    ]
    lines = [encode(one).rstrip(b"\n") for one in many]

    await any_database.write(storage.add_lines, lines)
    assert await any_database.read(stored) == {one.id: told(one) for one in many}

    more = [Invocation(project_id="prj_b", principal_id="k", kind="chat", model="m") for _ in range(100)]
    lines[:100] = [encode(one).rstrip(b"\n") for one in more]
    await any_database.write(storage.add_lines, lines)
    assert await any_database.read(stored) == {one.id: told(one) for one in many + more}
