"""The audit trail: who did what, from where. Rows are added in the transaction of the deed itself.

Each row carries a seal, the HMAC-SHA-256 of its content and of the seal before it; the end of the
chain is kept apart (`access_state`). A row that is changed, taken out or put in, and a tail that
is cut off, all show in `verify`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nexus.access.tables import AccessStateRow, AuditRow
from nexus.access.types import Principal, Scope
from nexus.core.clock import Clock, SystemClock, rfc3339
from nexus.core.secrets import Keyring
from nexus.storage.db import Database


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the server saw it; never what the caller says of itself."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


NOWHERE = Origin()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check of the chain: how many rows are sound, and the first that is not."""

    checked: int
    broken_at: int | None = None
    reason: str | None = None

    @property
    def sound(self) -> bool:
        """Tell whether every row is as it was written."""
        return self.reason is None


class AuditLog:
    """Adds to the trail, reads it and checks it."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock | None = None) -> None:
        """Seal with a key of this installation."""
        self._database = database
        self._key = keyring.key("audit")
        self._clock = clock or SystemClock()

    async def record(
        self,
        principal: Principal | None,
        action: str,
        target: str | None = None,
        *,
        origin: Origin = NOWHERE,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one event by itself. Where the deed is a transaction of one's own, call `add` in it instead."""
        await self._database.write(self.add, principal, action, target, origin=origin, details=details)

    def add(
        self,
        session: Session,
        principal: Principal | None,
        action: str,
        target: str | None = None,
        *,
        origin: Origin = NOWHERE,
        details: Mapping[str, Any] | None = None,
        project_id: str | None = None,
    ) -> None:
        """Add one event inside a transaction. `action` is `noun.verb`; `target` an id; no secrets in `details`."""
        state = lock_state(session)
        row = AuditRow(
            seq=state.audit_seq + 1,
            at=self._clock.now().astimezone(UTC),
            project_id=project_id or (principal.project_id if principal else None) or None,
            actor_kind=principal.kind if principal else "anonymous",
            actor_id=(principal.id[:64] if principal else None),
            action=action[:64],
            target=_clean(target, 255),
            ip=_clean(origin.ip, 64),
            user_agent=_clean(origin.user_agent, 255),
            request_id=_clean(origin.request_id, 64),
            details=orjson.loads(orjson.dumps(dict(details or {}), default=str)),
        )
        row.seal = self._seal(state.audit_seal, row)
        state.audit_seq, state.audit_seal = row.seq, row.seal
        session.add(row)
        session.flush()

    async def events(
        self,
        principal: Principal,
        *,
        after: int | None = None,
        limit: int = 20,
        action: str | None = None,
        all_projects: bool = False,
    ) -> list[AuditRow]:
        """Return the project's events before number `after`, newest first; all of them for a platform administrator."""
        principal.require(Scope.ADMIN if all_projects else Scope.KEYS_MANAGE)
        project_id = None if all_projects else principal.project_id
        return await self._database.read(_events, project_id, after, limit, action)

    async def verify(self) -> Verdict:
        """Check every seal from the first row to the kept end of the chain."""
        return await self._database.read(self._verify)

    def _verify(self, session: Session) -> Verdict:
        seal, seq = "", 0
        for row in session.scalars(select(AuditRow).order_by(AuditRow.seq).execution_options(yield_per=500)):
            if row.seq != seq + 1:
                return Verdict(seq, seq + 1, "a row is missing")
            if not hmac.compare_digest(self._seal(seal, row), row.seal):
                return Verdict(seq, row.seq, "a row was changed")
            seal, seq = row.seal, row.seq
        state = session.get(AccessStateRow, 1)
        if (state.audit_seq, state.audit_seal) != (seq, seal) if state else seq:
            return Verdict(seq, seq + 1, "the end of the chain is missing")
        return Verdict(seq)

    def _seal(self, before: str, row: AuditRow) -> str:
        content = [
            before,
            row.seq,
            row.at.astimezone(UTC).isoformat(timespec="microseconds"),
            row.project_id,
            row.actor_kind,
            row.actor_id,
            row.action,
            row.target,
            row.ip,
            row.user_agent,
            row.request_id,
            row.details,
        ]
        return hmac.digest(self._key, orjson.dumps(content, option=orjson.OPT_SORT_KEYS), "sha256").hex()


def lock_state(session: Session) -> AccessStateRow:
    """Return the state row, locked until the transaction ends: changes of access happen one after another."""
    query = (
        select(AccessStateRow).where(AccessStateRow.id == 1).with_for_update().execution_options(populate_existing=True)
    )
    state = session.scalar(query)
    if state is None:
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        row = {"id": 1, "version": 0, "audit_seq": 0, "audit_seal": ""}
        session.execute(insert(AccessStateRow).values(row).on_conflict_do_nothing(index_elements=["id"]))
        state = session.scalars(query).one()
    return state


def event_json(row: AuditRow) -> dict[str, Any]:
    """Return the event as the API shows it."""
    return {
        "id": row.seq,
        "at": rfc3339(row.at),
        "project_id": row.project_id,
        "actor": {"kind": row.actor_kind, "id": row.actor_id},
        "action": row.action,
        "target": row.target,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "request_id": row.request_id,
        "details": row.details,
    }


def _events(
    session: Session, project_id: str | None, after: int | None, limit: int, action: str | None
) -> list[AuditRow]:
    query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(limit)
    if project_id is not None:
        query = query.where(AuditRow.project_id == project_id)
    if after is not None:
        query = query.where(AuditRow.seq < after)
    if action is not None:
        query = query.where(AuditRow.action == action)
    return list(session.scalars(query))


def _clean(text: str | None, limit: int) -> str | None:
    return None if text is None else text.replace("\x00", "")[:limit]
