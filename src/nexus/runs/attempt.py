"""One attempt at one step, as its engine sees it: what it has said, and how it is told to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import Any, Final, Literal, TypeAlias

from nexus.core.clock import Clock
from nexus.runs.engine_storage import Claimed, save_state
from nexus.runs.errors import LeaseLost
from nexus.runs.masking import masked
from nexus.runs.records import event_row
from nexus.runs.types import Artifact, Level, Progress
from nexus.storage.db import Database

Stop: TypeAlias = Literal["cancelled", "lost", "released"]
_LONGEST_LINE: Final = 8192
_MOST_LINES: Final = 10_000


class Attempt:
    """Collects log and progress for the database, and carries the wish to stop to the handler."""

    def __init__(self, claimed: Claimed, *, database: Database, clock: Clock) -> None:
        """Begin the attempt at `claimed`."""
        self.claimed = claimed
        self.began = time.monotonic()
        self.stop: Stop | None = None
        self.fallback: dict[str, Any] | None = None
        self.secrets: list[str] = []
        """What must not show in anything that is kept of this attempt."""
        self.writing = threading.Lock()
        self._database = database
        self._clock = clock
        self._lines: deque[dict[str, Any]] = deque()
        self._said = 0
        self._progress: Progress | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def cancelled(self) -> bool:
        """Tell whether the step should stop."""
        return self.stop is not None

    def log(self, message: str, level: Level) -> None:
        """Keep a line until the next flush. Very long lines are cut, and a flood of them ends."""
        self._said += 1
        if self._said > _MOST_LINES:
            return
        if self._said == _MOST_LINES:
            message, level = "This step has said too much; no more is kept.", "warning"
        self._lines.append(self._line("log", level=level, message=self.hide(message)[:_LONGEST_LINE].replace("\0", "")))

    def progress(self, progress: Progress) -> None:
        """Keep the newest report until the next flush."""
        self._progress = progress

    def artifact(self, artifact: Artifact) -> None:
        """Keep a note until the next flush."""
        self._lines.append(self._line("artifact", **self.hide(asdict(artifact))))

    async def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint now. Raises `LeaseLost` when this attempt is over."""
        if not await self._database.write(save_state, self.claimed, self.hide(state)):
            raise LeaseLost

    def hide(self, value: Any) -> Any:
        """Return `value` without the secrets that the step has used."""
        return masked(value, self.secrets) if self.secrets else value

    def take(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Return the lines since the last time, and the newest progress if there is news."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        progress, self._progress = self._progress, None
        if progress is None:
            return lines, None
        lines.append(self._line("step.progress", **asdict(progress)))
        return lines, asdict(progress)

    def put_back(self, lines: list[dict[str, Any]]) -> None:
        """Take lines again that could not be stored."""
        self._lines.extendleft(reversed(lines))

    def _line(self, type_: str, **data: Any) -> dict[str, Any]:
        claimed = self.claimed
        return event_row(claimed.run_id, claimed.key, type_, self._clock.now(), claimed.map_index, **data)

    def enter(self) -> None:
        """Note the asyncio task that executes the handler, so that it can be stopped."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.stop is not None and self._task is not None:
            self._task.cancel()

    def halt(self, stop: Stop) -> None:
        """Ask the attempt to stop; from any thread. Only the first reason counts."""
        if self.stop is not None:
            return
        self.stop = stop
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
