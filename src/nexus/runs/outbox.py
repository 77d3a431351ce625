"""Messages to the engines, written with the change that makes a step ready, and the news that there are some."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from nexus.runs.tables import OUTBOX

CHANNEL: Final = "nexus_runs"
PUT_MESSAGES: Final = insert(OUTBOX)


def announce(session: Session, what: str) -> None:
    """Wake engines on other machines when this commits (PostgreSQL NOTIFY); SQLite has none."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_notify(:channel, :what)"), {"channel": CHANNEL, "what": what})


def message(step: dict[str, Any], now: datetime, due: datetime) -> dict[str, Any]:
    """Return the outbox row for a step given by its id, epoch, project_id, queue and rank."""
    return {
        "step_id": step["id"],
        "epoch": step["epoch"],
        "project_id": step["project_id"],
        "queue": step["queue"],
        "rank": step["rank"],
        "created_at": now,
        "due_at": due,
    }


def message_of(step: Any, now: datetime, due: datetime | None = None, *, epoch: int | None = None) -> dict[str, Any]:
    """Return the outbox row for anything with the attributes of a `StepRow`."""
    values = {name: getattr(step, name) for name in ("id", "epoch", "project_id", "queue", "rank")}
    return message({**values, **({} if epoch is None else {"epoch": epoch})}, now, due or now)


def send(session: Session, messages: Sequence[dict[str, Any]]) -> None:
    """Write messages and tell the engines."""
    if messages:
        session.execute(PUT_MESSAGES, list(messages))
        announce(session, "outbox")
