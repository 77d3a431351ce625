"""The ledger: one row for every call of every kind.

    ledger.record(Invocation(...))            # microseconds; in the journal file when it returns
    await ledger.usage(who, group_by=["model"])

`record` never waits for the database and is safe in a `finally` that a client's disconnect runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nexus.access.types import Principal, Scope
from nexus.core.ids import is_id, new_id
from nexus.ledger import storage
from nexus.ledger.batcher import Batcher, Observe
from nexus.ledger.errors import InvalidUsageQuery, InvocationNotFound
from nexus.ledger.journal import Journal
from nexus.ledger.settings import LedgerSettings
from nexus.ledger.storage import InvocationFilter
from nexus.ledger.tables import FeedbackRow, InvocationRow
from nexus.ledger.types import Invocation
from nexus.storage.db import Database

log = logging.getLogger(__name__)

_MOST_GROUPS = 10_000


class Ledger:
    """Records every call and answers what was used, by whom and at what cost."""

    def __init__(
        self,
        *,
        database: Database,
        folder: Path,
        settings: LedgerSettings | None = None,
        observe: Observe | None = None,
    ) -> None:
        """Keep the journal below `folder` (`<data_dir>/ledger`); `observe` feeds the metrics.

        Without `start` every record still reaches the journal, and the database at `flush`.
        """
        self._database = database
        self._journal = Journal(folder)
        self._batcher = Batcher(database, self._journal, settings or LedgerSettings(), observe)
        self._listeners: list[Callable[[Invocation], None]] = []

    async def start(self) -> None:
        """Adopt the journals of dead processes and begin to flush."""
        self._batcher.start()

    async def stop(self) -> None:
        """Flush what is recorded and let go of the journal."""
        await asyncio.to_thread(self._batcher.stop)
        self._journal.close()

    def on_record(self, listener: Callable[[Invocation], None]) -> None:
        """Call `listener` with every recorded invocation, in the recording thread; it must not block."""
        self._listeners.append(listener)

    def record(self, invocation: Invocation) -> None:
        """Keep the invocation for good. Thread-safe, microseconds, never raises for a full disk."""
        try:
            rows = self._journal.append(invocation)
            if rows in self._batcher.wakes_at:
                self._batcher.rows_waiting(rows)
        except OSError:
            self._batcher.keep_in_memory(invocation)
        for listener in self._listeners:
            listener(invocation)

    async def flush(self) -> None:
        """Return once everything recorded before is in the database. Raises `DatabaseUnavailable`."""
        await asyncio.to_thread(self._batcher.drain)

    def flush_now(self) -> None:
        """Do as `flush` does, from a thread."""
        self._batcher.drain()

    async def replay(self) -> int:
        """Adopt the journals of dead processes now; return how many rows they held."""
        return await asyncio.to_thread(self._batcher.replay)

    async def usage(
        self,
        principal: Principal,
        *,
        group_by: Sequence[str] = ("model",),
        since: datetime | None = None,
        until: datetime | None = None,
        all_projects: bool = False,
        limit: int = _MOST_GROUPS,
        **only: str | None,
    ) -> list[dict[str, Any]]:
        """Return sums of requests, tokens, items and dollars for each group.

        `group_by` takes one or more of model, key, day, kind, project, principal, provider, route
        and status; `only` restricts to a model, key_id, kind, status, provider or run_id. Another
        project's usage is for a platform administrator (`all_projects`).
        """
        unknown = [name for name in group_by if name not in storage.GROUPS]
        if unknown or not group_by or len(set(group_by)) != len(group_by):
            raise InvalidUsageQuery(f"Group by one or more of {', '.join(storage.GROUPS)}.", field="group_by")
        if since is not None and until is not None and since >= until:
            raise InvalidUsageQuery("The period ends before it begins.", field="until")
        which = InvocationFilter(principal.project_id, since=since, until=until, **only)
        if all_projects:
            principal.require(Scope.ADMIN)
            which = replace(which, project_id=None)
        await self.flush()
        return await self._database.read(storage.usage, which, list(group_by), limit)

    async def kept_answers(
        self, principal: Principal, since: datetime, until: datetime | None = None
    ) -> dict[str, dict[str, int]]:
        """Return how many calls of each route of the project a cache took part in, by how it did: hit, miss ..."""
        if until is not None and since >= until:
            raise InvalidUsageQuery("The period ends before it begins.", field="until")
        which = InvocationFilter(principal.project_id, since=since, until=until)
        await self.flush()
        found: dict[str, dict[str, int]] = {}
        for route, how, count in await self._database.read(storage.kept_answers, which):
            found.setdefault(route, {})[how] = count
        return found

    async def spend(self, project_id: str, *, key_id: str | None = None, since: datetime | None = None) -> float:
        """Return the dollars that a project, or one key of it, has spent since a moment."""
        await self.flush()
        return await self._database.read(storage.spend, project_id, key_id, since)

    async def invocations(
        self,
        principal: Principal,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        since: datetime | None = None,
        until: datetime | None = None,
        **only: str | None,
    ) -> list[InvocationRow]:
        """Return a page of the project's invocations behind the id `after`."""
        which = InvocationFilter(principal.project_id, since=since, until=until, **only)
        await self.flush()
        return await self._database.read(storage.invocations, which, after, limit, newest_first=newest_first)

    async def get(self, principal: Principal, invocation_id: str) -> tuple[InvocationRow, list[FeedbackRow]]:
        """Return one invocation and its feedback. Raises `InvocationNotFound`."""
        if not is_id(invocation_id, "inv"):
            raise InvocationNotFound
        await self.flush()
        row = await self._database.read(storage.invocation, principal.project_id, invocation_id)
        if row is None:
            raise InvocationNotFound
        return row, await self._database.read(storage.feedback_of, invocation_id)

    async def forget(self, principal: Principal, invocation_id: str) -> None:
        """Drop the details and content references of a call; its usage and cost stay."""
        await self.get(principal, invocation_id)
        await self._database.write(storage.remove_invocation, principal.project_id, invocation_id)

    async def add_feedback(
        self, principal: Principal, invocation_id: str, *, rating: str, comment: str | None = None, expected: Any = None
    ) -> FeedbackRow:
        """Keep a word on how good an answer was. Raises `InvocationNotFound`."""
        await self.get(principal, invocation_id)
        row = {
            "id": new_id("fbk"),
            "invocation_id": invocation_id,
            "project_id": principal.project_id,
            "principal_id": principal.id,
            "rating": rating,
            "comment": comment,
            "expected": expected,
            "created_at": datetime.now(UTC),
        }
        return await self._database.write(storage.add_feedback, row)
