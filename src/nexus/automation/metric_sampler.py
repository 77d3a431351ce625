"""Each process writes down now and then what its metrics are, as far as alert rules ask for them.

A rule is looked at by whichever engine or scheduler comes first, and what it asks for happens in others: requests
are counted by API processes, steps by engines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from nexus.automation import alert_storage as queries
from nexus.core.clock import Clock
from nexus.core.errors import NexusError
from nexus.core.ids import new_id
from nexus.storage.db import Database
from nexus.telemetry import metrics

log = logging.getLogger(__name__)
EVERY: Final = 10.0
_KEPT: Final = timedelta(seconds=86_400)
_KEPT_SHORT: Final = timedelta(seconds=3_700)


class MetricSampler:
    """Samples the metrics of this process while anybody wants them."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        """Write to `database`."""
        self._database, self._clock = database, clock
        self._process = new_id("prc")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sample."""
        self._task = asyncio.create_task(self._loop(), name="metric-sampler")

    async def stop(self) -> None:
        """Sample no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _loop(self) -> None:
        while True:
            try:
                await self.sample()
            except NexusError as error:
                log.warning("metrics were not sampled: %s", error.code)
            await asyncio.sleep(EVERY)

    async def sample(self) -> None:
        """Write down what rules ask for; nothing when they ask for nothing."""
        conditions = await self._database.read(queries.sampled_conditions)
        names = set(_wanted(conditions))
        if not names:
            return
        now = self._clock.now()
        longest = any(condition.get("window", 0) > 3600 for condition in conditions)
        before = now - (_KEPT if longest else _KEPT_SHORT)
        await self._database.write(queries.add_sample, self._process, now, metrics.samples(names), before)


def _wanted(conditions: Iterable[dict[str, Any]]) -> Iterable[str]:
    for condition in conditions:
        if condition["kind"] == "metric":
            yield condition["metric"]
        elif condition.get("of") == "http":
            yield "nexus_http_requests_total"
