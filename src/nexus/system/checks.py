"""A look at each component: what `/readyz`, the dashboard and `nexus doctor` report."""

from __future__ import annotations

import shutil

from sqlalchemy import text
from sqlalchemy.orm import Session

from nexus.composition import Parts
from nexus.core.errors import Unavailable
from nexus.runs.service import RunService
from nexus.storage.cache import Cache
from nexus.system.service import Check

_LEAST_FREE = 512 * 2**20
_OLD = 60.0


class EngineBehind(Unavailable):
    """Steps have been waiting for over a minute: no engine seems to work."""

    code = "engine_behind"


class DiskAlmostFull(Unavailable):
    """Less than 512 MB are free where the data lies."""

    code = "disk_almost_full"


def checks_of(parts: Parts) -> dict[str, Check]:
    """Return the checks by the name of their component."""

    async def database() -> str:
        await parts.database.read(_ping)
        return "postgresql" if not parts.database.is_sqlite else "sqlite"

    async def engine() -> str:
        counts = await parts.services.get(RunService).counts()
        if counts.oldest_ready_age > _OLD:
            raise EngineBehind
        return f"{sum(counts.running.values())} running, {sum(counts.ready.values())} ready"

    async def cache() -> str:
        cache = parts.services.get(Cache)  # type: ignore[type-abstract]
        # Not `set`, which takes a Redis that is away for a miss.
        await cache.increment("health", 1, 10)
        return type(cache).__name__.removesuffix("Cache").lower()

    async def disk() -> str:
        free = shutil.disk_usage(parts.settings.data_dir).free
        if free < _LEAST_FREE:
            raise DiskAlmostFull
        return f"{free / 2**30:.0f} GB free"

    return {"database": database, "engine": engine, "cache": cache, "disk": disk}


def _ping(session: Session) -> None:
    session.execute(text("select 1"))
