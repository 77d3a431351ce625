"""Messages to the engines, written with the change that makes a step ready, and the news that there are some."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Text, bindparam, func, insert, select
from sqlalchemy.orm import Session

from nexus.runs.tables import OUTBOX
from nexus.storage.exchange import exchange_of

CHANNEL: Final = "nexus_runs"
_PUT_MESSAGES: Final = insert(OUTBOX)


_NOTIFY: Final = select(func.pg_notify(bindparam("channel", type_=Text), bindparam("what", type_=Text)))


def announce(session: Session, what: str) -> None:
    """Wake engines on other machines when this commits (PostgreSQL NOTIFY); SQLite has none."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_NOTIFY, {"channel": CHANNEL, "what": what})


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
        session.execute(_PUT_MESSAGES, list(messages))
        announce(session, "outbox")


def send_along(session: Session, messages: Sequence[dict[str, Any]]) -> None:
    """Write messages and tell the engines, together with what else the transaction's exchange is to send."""
    if messages:
        exchange = exchange_of(session)
        exchange.put(_PUT_MESSAGES, messages)
        if session.get_bind().dialect.name == "postgresql":
            exchange.put(_NOTIFY, {"channel": CHANNEL, "what": "outbox"})
