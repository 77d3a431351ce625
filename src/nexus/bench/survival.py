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
_LOOK: Final = 0.02


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
    killed: float = 0.0
    held: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def kill(self) -> None:
        """Start runs, and kill in the middle of them. Raises `CrewFailed` when no step was at work."""
        made = self.crew
        made.ask(4 if self.engine.slow else 10, STEPS, SECONDS)
        end = time.monotonic() + _BEGIN_LIMIT
        while not any(mark.step >= _MIDDLE for mark in made.look()) and time.monotonic() < end:
            time.sleep(_LOOK)
        families = [made.family(worker) for worker in made.workers]
        counts = [len(held_by(family, made.look())) for family in families]
        chosen = counts.index(max(counts))
        made.kill(made.workers[chosen])
        self.killed = time.monotonic()
        self.held = held_by(families[chosen], made.look())
        if not self.held:
            raise CrewFailed(f"no worker of {self.engine.name} was at a step when it was to be killed")

    def over(self) -> bool:
        """Count what has ended; tell whether there is nothing left to wait for."""
        ended = self.held & finished(self.crew.look())
        waited = time.monotonic() - self.killed
        if ended != self.ended:
            self.ended, self.seconds = ended, waited
        return ended == self.held or waited > LIMIT


def kill_all(engines: Sequence[Engine]) -> list[Trial]:
    """Put engines to the test, and wait for all at the same time; return how each did. Raises `CrewFailed`."""
    with contextlib.ExitStack() as stack:
        trials = []
        for engine in engines:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
            programs = stack.enter_context(engine.programs(folder))
            trials.append(Trial(engine, stack.enter_context(crew(programs, folder, workers=2))))
        for trial in trials:
            trial.kill()
        waiting = trials
        while waiting := [trial for trial in waiting if not trial.over()]:
            time.sleep(_LOOK)
        return trials
