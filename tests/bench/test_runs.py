"""The bench of durable engines without its peers: marks, rows, who held what at a kill, and a real turn of ours."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from nexus.bench import engines
from nexus.bench.backlog import backlog
from nexus.bench.benches import runs
from nexus.bench.benches.runs import Plan, Speed
from nexus.bench.crew import Crew, CrewFailed, Mark, Programs, crew, marks_of, read_mark
from nexus.bench.engines import Engine, Servers
from nexus.bench.peers import marks
from nexus.bench.survival import finished, held_by, kill_all


def engine(name: str, family: str) -> Engine:
    return Engine(name, family, lambda _folder: contextlib.nullcontext(Programs([], None)))


@pytest.fixture
def ours(tmp_path: Path) -> Engine:
    nothing = Servers(None, {})
    return next(iter(engines.engines(tmp_path, nothing)))


def test_a_mark_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    marks.step(str(path), "r7", 3, 0.001)
    begun, ended = map(read_mark, path.read_text().splitlines())
    assert (begun.run, begun.step, begun.phase) == ("r7", 3, "begin")
    assert ended.phase == "end"
    assert ended.at - begun.at >= 0.001


@pytest.mark.parametrize("line", ["", "r7 3 begin 1", "r7 three begin 1 2.0", "a greeting of some peer"])
def test_anything_else_is_no_mark(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_mark(line)


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    watched = Crew(Programs([], None), tmp_path)
    with marks_of(tmp_path).open("a") as file:
        file.write("r0 0 begin 1 1.0\nr0 1 be")
        file.flush()
        assert len(watched.look()) == 1
        file.write("gin 1 2.0\n")
    assert [mark.step for mark in watched.look()] == [0, 1]


def test_held_are_the_runs_with_a_step_at_work_in_the_killed_processes() -> None:
    seen = [
        Mark("a", 0, "begin", 1, 1.0),
        Mark("a", 0, "end", 1, 1.5),
        Mark("a", 1, "begin", 2, 1.6),  # went to another worker
        Mark("b", 4, "begin", 1, 1.7),
        Mark("c", 4, "begin", 1, 1.7),
        Mark("c", 4, "end", 1, 1.8),  # had ended
        Mark("d", 1, "begin", 3, 1.9),  # in a child of the killed worker
    ]
    assert held_by({1, 3}, seen) == {"b", "d"}
    assert finished(seen) == {"c"}


def test_rows_are_compared_the_right_way_round_and_on_the_same_kind_of_database() -> None:
    ours = [engine("nexus", "nexus"), engine("nexus Redis+PG", "nexus")]
    rivals = [engine("dbos queue", "dbos"), engine("dbos queue PG", "dbos"), engine("prefect", "prefect")]
    speeds = {
        "nexus": Speed([5.0], [40.0], [400.0]),
        "nexus Redis+PG": Speed([9.0], [40.0], [500.0]),
        "dbos queue": Speed([7.0], [39.0], [399.0]),
        "dbos queue PG": Speed([9.5], [41.0], [501.0]),
        "prefect": Speed([1860.0], [2140.0], [7.0]),
    }
    assert runs.ahead(ours, rivals, speeds) == [
        "dbos queue before nexus: 10 sequential steps",
        "dbos queue PG before nexus Redis+PG: no-op steps",
    ]
    told = {figure.name: figure for figure in runs.figures([*ours, *rivals], speeds, [])}
    assert told["nexus: no-op steps"].met
    assert told["nexus: 10 sequential steps"].peer == "dbos queue 39, dbos queue PG 41, prefect 2140"
    assert told["rows in which DBOS's queue or Prefect is ahead"].met is False


def test_a_program_that_ends_too_early_is_told_with_its_log(tmp_path: Path) -> None:
    broken = Programs([sys.executable, "-c", "raise SystemExit('no such module')"], None, {})
    with pytest.raises(CrewFailed, match="no such module"), crew(broken, tmp_path):
        pass


def test_what_a_driver_cannot_start_is_told(tmp_path: Path) -> None:
    program = "from nexus.bench.peers import marks\nmarks.drive(lambda run, steps, seconds: 1 / 0)"
    worker = Programs([sys.executable, "-c", program], None, {"PYTHONPATH": ":".join(sys.path)})
    with crew(worker, tmp_path) as made, pytest.raises(CrewFailed, match="ZeroDivisionError"):
        made.ask(1, 1)


@pytest.mark.slow
def test_one_turn_of_ours(ours: Engine, tmp_path: Path) -> None:
    speed = Speed()
    with ours.programs(tmp_path) as programs, crew(programs, tmp_path) as made:
        runs.measure(made, Plan(3, 2, 4), speed)
    assert len(speed.starts) == 3
    assert len(speed.chains) == 2
    assert 0 < speed.p50 <= speed.p99 < 5000
    assert speed.rate > 5


@pytest.mark.slow
def test_all_runs_of_our_killed_worker_are_ended_by_the_other(ours: Engine) -> None:
    (trial,) = kill_all([ours])
    assert trial.held
    assert trial.ended == trial.held
    assert trial.seconds < 60


@pytest.mark.slow
def test_a_backlog_leaves_engine_and_caller_as_small_as_they_were(ours: Engine) -> None:
    engine, caller = backlog(ours, runs=1500, seconds=1.0)
    assert engine.met, engine
    assert caller.met, caller
