"""The kill test of `nexus bench runs`: whose runs go on when their worker is killed and another one lives.

Every engine has two workers and runs of five steps of half a second. In the middle, the worker that is at most
runs is killed with all its children, and not started again. Counted are the runs of which it had a step at work
at that moment: how many of them end within a minute. All engines wait at the same time.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nexus.bench.crew import Crew, CrewFailed, Mark, crew
from nexus.bench.engines import Engine

STEPS: Final = 5
SECONDS: Final = 0.5
LIMIT: Final = 60.0
_MIDDLE: Final = 2
_BEGIN_LIMIT: Final = 120.0


def held_by(pids: set[int], marks: Sequence[Mark]) -> set[str]:
    """Return the runs whose last mark is the begin of a step in one of these processes."""
    last = {mark.run: mark for mark in marks}
    return {run for run, mark in last.items() if mark.pid in pids and mark.phase == "begin"}


def finished(marks: Sequence[Mark]) -> set[str]:
    """Return the runs whose last step has ended."""
    return {mark.run for mark in marks if mark.step == STEPS - 1 and mark.phase == "end"}


@dataclass(slots=True)
class Trial:
    """One engine's kill: the runs that its worker held, and those of them that ended, after how long at the most."""

    engine: Engine
    crew: Crew
    began: float
    killed: float | None = None
    held: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def look(self) -> bool:
        """Kill when it is time, count what has ended; tell whether there is nothing left to wait for."""
        marks = self.crew.look()
        if self.killed is None:
            if not any(mark.step >= _MIDDLE for mark in marks):
                return time.monotonic() - self.began > _BEGIN_LIMIT
            self._kill()
            return False
        ended = self.held & finished(marks)
        waited = time.monotonic() - self.killed
        if ended != self.ended:
            self.ended, self.seconds = ended, waited
        return ended == self.held or waited > LIMIT

    def _kill(self) -> None:
        families = [self.crew.family(worker) for worker in self.crew.workers]
        counts = [len(held_by(family, self.crew.marks)) for family in families]
        chosen = counts.index(max(counts))
        self.crew.kill(self.crew.workers[chosen])
        self.killed = time.monotonic()
        self.held = held_by(families[chosen], self.crew.look())


def kill_all(engines: Sequence[Engine]) -> list[Trial]:
    """Put every engine that survives its caller to the test; return how each did. Raises `CrewFailed`."""
    with contextlib.ExitStack() as stack:
        started = []
        for engine in engines:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
            programs = stack.enter_context(engine.programs(folder))
            started.append((engine, stack.enter_context(crew(programs, folder, workers=2))))
        trials = []
        for engine, made in started:
            made.ask(4 if engine.slow else 10, STEPS, SECONDS)
            trials.append(Trial(engine, made, time.monotonic()))
        waiting = trials
        while waiting := [trial for trial in waiting if not trial.look()]:
            time.sleep(0.02)
        for trial in trials:
            if not trial.held:
                raise CrewFailed(f"no worker of {trial.engine.name} was at a step when it was to be killed")
        return trials
