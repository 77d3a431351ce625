"""One stream of everything live: `/api/v1/events?topics=system,runs,models`.

A browser may hold six connections to one origin, so the dashboard has one. Topics are merged as
they come; an id is `<sample number>`, which is all that a reconnecting client can catch up on: the
other topics begin with how things stand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import orjson

from nexus.access.types import Principal, Scope
from nexus.catalog.pool import ModelPool
from nexus.core.errors import InvalidInput
from nexus.http.sse import Event
from nexus.runs.schemas import run_row_out
from nexus.runs.service import RunService
from nexus.telemetry.system import Sampler

_RUNS_SHOWN: Final = 20
_LOOK_EVERY: Final = 0.5
_WAITING: Final = 256

Source = Callable[[Principal, int | None], AsyncIterator[Event]]


class EventHub:
    """The topics, and their merging into one stream."""

    def __init__(self, *, sampler: Sampler, runs: RunService, pool: ModelPool) -> None:
        """Take the topics from these three."""
        self._sampler = sampler
        self._runs = runs
        self._pool = pool
        self.topics: Mapping[str, Source] = {"system": self._system, "runs": self._run_changes, "models": self._models}

    def chosen(self, topics: str | None) -> list[str]:
        """Return the topics of a query such as `system,runs`, all for None. Raises `InvalidInput`."""
        names = [name.strip() for name in (topics or ",".join(self.topics)).split(",") if name.strip()]
        for name in names:
            if name not in self.topics:
                raise InvalidInput(
                    f"There is no topic {name[:40]}; there are {', '.join(self.topics)}.", field="topics"
                )
        return list(dict.fromkeys(names)) or list(self.topics)

    async def stream(self, who: Principal, topics: list[str], last_id: str | None) -> AsyncIterator[Event]:
        """Yield the events of `topics` as they come."""
        since = int(last_id) if last_id and last_id.isdecimal() else None
        queue: asyncio.Queue[Event] = asyncio.Queue(_WAITING)
        tasks = [asyncio.create_task(_forward(self.topics[name](who, since), queue)) for name in topics]
        taking: asyncio.Task[Event] | None = None
        try:
            while True:
                taking = asyncio.create_task(queue.get())
                done, _ = await asyncio.wait([taking, *tasks], return_when=asyncio.FIRST_COMPLETED)
                if taking not in done:
                    taking.cancel()
                    next(iter(done)).result()
                    return
                yield taking.result()
        finally:
            tasks += [taking] if taking else []  # type: ignore[list-item]
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _system(self, _who: Principal, since: int | None) -> AsyncIterator[Event]:
        async for sample in self._sampler.watch(since=since):
            yield Event(sample, event="system", id=str(sample["n"]))

    async def _run_changes(self, who: Principal, _since: int | None) -> AsyncIterator[Event]:
        if not who.may(Scope.AUTOMATION_READ):
            return
        seen: dict[str, bytes] = {}
        while True:
            shown = [run_row_out(run) for run in await self._runs.list(who, limit=_RUNS_SHOWN)]
            for run in reversed(shown):
                state = orjson.dumps(run, default=str)
                if seen.get(run["id"]) != state:
                    seen[run["id"]] = state
                    yield Event(run, event="run")
            seen = {run["id"]: seen[run["id"]] for run in shown}
            await asyncio.sleep(_LOOK_EVERY)

    async def _models(self, who: Principal, _since: int | None) -> AsyncIterator[Event]:
        if not who.may(Scope.MODELS_READ):
            return
        seen: Any = None
        while True:
            states = [state for state in self._pool.states() if _is_open_to(who, state.key)]
            if states != seen:
                seen = states
                yield Event({"loaded": states}, event="models")
            await asyncio.sleep(_LOOK_EVERY)


def _is_open_to(who: Principal, key: str) -> bool:
    """Tell whether the loaded model is everybody's, or of the caller's own project (`prj_../name@1`)."""
    owner, separator, _ = key.partition("@")[0].rpartition("/")
    return not separator or owner == who.project_id


async def _forward(source: AsyncIterator[Event], queue: asyncio.Queue[Event]) -> None:
    async for event in source:
        await queue.put(event)
    # A topic without events must not end the others.
    await asyncio.Event().wait()
