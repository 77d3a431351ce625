"""The durable engine beside Prefect, DBOS and plain Celery chains, all in one run and each in its own processes.

Every engine is alone on the machine in its turn: two rounds in opposite orders, after a warm-up, and medians over
both. All are measured alike, by what their steps leave in a file: the call that creates a run to the first line
of its first step; ten sequential no-op steps (to the first line of the eleventh, so that all that belongs to the ten is
done); no-op steps a second in many runs of ten. Then `survival`: what becomes of a killed worker's runs; and, not with
`quick`, `backlog`: memory beside very many queued runs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from nexus.bench.backlog import backlog
from nexus.bench.bench import Figure
from nexus.bench.crew import Crew, CrewFailed, crew
from nexus.bench.engines import Engine, engines, servers
from nexus.bench.survival import Trial, kill_all
from nexus.settings import load_settings

_CHAIN: Final = 10
_REST: Final = 0.02
_LIMIT: Final = 180.0
_LIBRARY: Final = "in caller"


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each thing is done in one turn."""

    starts: int
    chains: int
    runs: int


_PLANS: Final = {
    (True, False): Plan(30, 8, 40),
    (True, True): Plan(3, 1, 4),
    (False, False): Plan(150, 20, 150),
    (False, True): Plan(8, 3, 10),
}


@dataclass(slots=True)
class Speed:
    """What one engine has shown in all its turns: milliseconds, and no-op steps a second."""

    starts: list[float] = field(default_factory=list)
    chains: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Return the median start."""
        return statistics.median(self.starts)

    @property
    def p99(self) -> float:
        """Return the 99th percentile of the starts: of few, the slowest."""
        return sorted(self.starts)[int(len(self.starts) * 0.99)]

    @property
    def chain(self) -> float:
        """Return the median of ten sequential steps."""
        return statistics.median(self.chains)

    @property
    def rate(self) -> float:
        """Return the median of no-op steps a second."""
        return statistics.median(self.rates)


def measure(started: Crew, plan: Plan, into: Speed) -> None:
    """Measure one turn of an engine. Raises `CrewFailed`."""
    started.ask(1, _CHAIN)
    started.until(_CHAIN, _LIMIT)
    for _ in range(plan.starts):
        (called,) = started.ask(1, 1).values()
        into.starts.append((started.until(1, _LIMIT)[0].at - called) * 1000)
        time.sleep(_REST)
    for _ in range(plan.chains):
        (called,) = started.ask(1, _CHAIN + 1).values()
        into.chains.append((max(mark.at for mark in started.until(_CHAIN + 1, _LIMIT)) - called) * 1000)
        time.sleep(_REST)
    first = min(started.ask(plan.runs, _CHAIN).values())
    last = max(mark.at for mark in started.until(plan.runs * _CHAIN, _LIMIT))
    into.rates.append(plan.runs * _CHAIN / (last - first))


class RunsBench:
    """The benchmark `runs`."""

    summary: ClassVar[str] = "the durable engine beside Prefect, DBOS and Celery chains: start, steps, a killed worker"

    def run(self, *, quick: bool) -> list[Figure]:
        """Measure two rounds in opposite orders (one short one with `quick`), then kill workers."""
        home = load_settings().data_dir.absolute() / "bench"
        with servers(home) as at_hand:
            entrants = list(engines(home, at_hand))
            speeds: dict[str, Speed] = {}
            for order in (entrants,) if quick else (entrants, entrants[::-1]):
                for engine in order:
                    _turn(engine, _PLANS[quick, engine.slow], speeds)
            measured = [engine for engine in entrants if engine.name in speeds]
            _tell("a killed worker of each ...")
            trials = kill_all([engine for engine in measured if engine.survives])
            memory = [] if quick else backlog(entrants[0])
        return figures(measured, speeds, trials) + memory


def _turn(engine: Engine, plan: Plan, speeds: dict[str, Speed]) -> None:
    _tell(f"{engine.name} ...")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder,
            engine.programs(Path(folder)) as programs,
            crew(programs, Path(folder)) as started,
        ):
            measure(started, plan, speeds.setdefault(engine.name, Speed()))
    except CrewFailed as error:
        if engine.family == "nexus":
            raise
        speeds.pop(engine.name, None)
        _tell(f"{engine.name} is left out: {error}")


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


_ROWS: Final = (
    ("run start to first step, p50", "p50", "ms", True),
    ("run start to first step, p99", "p99", "ms", True),
    ("10 sequential steps", "chain", "ms", True),
    ("no-op steps", "rate", "1/s", False),
)
_TARGETS: Final = {
    ("nexus", "p50"): 10.0,
    ("nexus", "chain"): 60.0,
    ("nexus", "rate"): 400.0,
    ("nexus Redis+PG", "rate"): 450.0,
}


def figures(measured: Sequence[Engine], speeds: dict[str, Speed], trials: Sequence[Trial]) -> list[Figure]:
    """Return our figures, each beside the same of the peers, and in how many rows a durable peer is ahead."""
    ours = [engine for engine in measured if engine.family == "nexus"]
    others = [engine for engine in measured if engine.family != "nexus"]
    found = []
    for engine in ours:
        for words, row, unit, lower in _ROWS:
            told = _told((other.name, getattr(speeds[other.name], row)) for other in others)
            value, target = getattr(speeds[engine.name], row), _TARGETS.get((engine.name, row))
            found.append(Figure(f"{engine.name}: {words}", value, unit, target, lower, told))
    rivals = [engine for engine in others if engine.family in ("dbos", "prefect")]
    far = [engine for engine in rivals if _LIBRARY not in engine.name]
    near = [engine for engine in rivals if _LIBRARY in engine.name]
    lost = ahead(ours, far, speeds)
    found.append(Figure("rows in which DBOS's queue or Prefect is ahead", len(lost), "", 0, peer=", ".join(lost)))
    lost = ahead(ours, near, speeds)
    found.append(Figure("rows in which DBOS inside its caller is ahead", len(lost), "", peer=", ".join(lost)))
    told = ", ".join(f"{t.engine.name} {len(t.ended)} of {len(t.held)}" for t in trials if t.engine.family != "nexus")
    for trial in trials:
        if trial.engine.family == "nexus":
            share = 100 * len(trial.ended) / len(trial.held)
            words = f"{trial.engine.name}: runs of a killed worker that another one ends"
            found.append(Figure(words, share, "%", 100, lower_is_better=False, peer=told))
            found.append(Figure(f"{trial.engine.name}: until the last of them has ended", trial.seconds, "s", 60))
    return found


def ahead(ours: Sequence[Engine], rivals: Sequence[Engine], speeds: dict[str, Speed]) -> list[str]:
    """Return the rows in which a rival on the same kind of database is ahead of us, as words."""
    found = []
    for engine in ours:
        for other in rivals:
            if other.family == "dbos" and ("PG" in other.name) != ("PG" in engine.name):
                continue
            for words, row, _, lower in _ROWS:
                mine, theirs = getattr(speeds[engine.name], row), getattr(speeds[other.name], row)
                if theirs < mine if lower else theirs > mine:
                    found.append(f"{other.name} before {engine.name}: {words}")
    return found


def _told(values: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.3g}" if value < 100 else f"{name} {value:.0f}" for name, value in values)


plug = RunsBench()
