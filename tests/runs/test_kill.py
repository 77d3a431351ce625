"""Real engine processes, killed, frozen and terminated at bad moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runs.killing import Yard, kill_at_a_failpoint, kill_in_a_loop, yard

from nexus.runs.failpoints import NAMES
from nexus.runs.tables import StepEventRow
from nexus.storage.db import Database

pytestmark = pytest.mark.slow


@pytest.fixture
def made(database: Database, tmp_path: Path) -> Iterator[Yard]:
    with yard(database, tmp_path) as it:
        yield it


def test_kill_9_in_a_loop_loses_nothing(made: Yard) -> None:
    runs = made.start(6, steps=3, before=0.3, after=0.3)
    hit = kill_in_a_loop(made, runs, 4, random.Random(1))
    made.engine()
    made.until(lambda: made.all_ended(runs), 60, "runs are left")
    made.check(runs)
    assert hit > 0
    assert made.count(StepEventRow.type == "step.lost") > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_in_a_long_loop_loses_nothing(any_database: Database, tmp_path: Path, seed: int) -> None:
    with yard(any_database, tmp_path) as made:
        runs = made.start(20, steps=3, before=0.6, after=0.6)
        kill_in_a_loop(made, runs, 60, random.Random(seed))
        made.engine()
        made.until(lambda: made.all_ended(runs), 120, "runs are left")
        made.check(runs)


@pytest.mark.parametrize("name", NAMES)
def test_dying_at_each_crash_point_loses_nothing(made: Yard, name: str) -> None:
    runs = made.start(2, steps=2, before=0.01, after=0.01)
    doomed = made.engine(wait=False, failpoints={name: 1})
    assert doomed.wait(60) == -signal.SIGKILL
    made.engine()
    made.until(lambda: made.all_ended(runs), 60, f"runs are left after dying {name}")
    made.check(runs)


@pytest.mark.parametrize("seed", range(3))
def test_dying_anywhere_in_flows_of_every_kind(made: Yard, seed: int) -> None:
    kill_at_a_failpoint(made, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_dying_anywhere_200_times(any_database: Database, tmp_path: Path, seed: int) -> None:
    with yard(any_database, tmp_path) as made:
        kill_at_a_failpoint(made, seed)


def test_a_frozen_engine_is_fenced_when_it_thaws(made: Yard) -> None:
    made.stub.answers.clear()
    runs = made.start(2, steps=1, before=0.2, after=0.2)
    frozen = made.engine()
    made.until(lambda: len(made.stub.asked) == 2, 60, "the effects were not done")
    os.killpg(frozen.pid, signal.SIGSTOP)
    made.stub.answers.set()
    other = made.engine()
    made.until(lambda: made.all_ended(runs), 60, "nobody took over")
    os.killpg(frozen.pid, signal.SIGCONT)
    time.sleep(2)
    made.check(runs)
    assert sorted(made.stub.asked.values()) == [2, 2], "the effects are asked for twice, and done once by key"
    frozen.send_signal(signal.SIGTERM)
    assert frozen.wait(60) == 0
    assert '"fenced": 2' in frozen.stdout.read()
    other.send_signal(signal.SIGTERM)
    assert other.wait(60) == 0


def test_sigterm_under_load_loses_and_repeats_nothing(made: Yard) -> None:
    runs = made.start(30, steps=2, before=0.1, after=0.1)
    for _ in range(2):
        engine = made.engine(lease=30)
        made.until(lambda: made.running() > 0, 60, "nothing runs")
        time.sleep(0.4)
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(60) == 0
        assert made.running() == 0
    made.engine(lease=30)
    made.until(lambda: made.all_ended(runs), 60, "runs are left")
    made.check(runs)
    assert set(made.stub.asked.values()) == {1}, "a drained engine leaves nothing half done"
    assert made.count(StepEventRow.type == "step.lost") == 0


def test_sigterm_releases_what_takes_too_long_at_no_cost(made: Yard) -> None:
    runs = made.start(2, steps=1, before=6, after=0)
    engine = made.engine(drain=0.3, lease=30)
    made.until(lambda: made.running() == 2, 60, "nothing runs")
    before = time.monotonic()
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(60) == 0
    assert time.monotonic() - before < 20, "and not after the usual drain"
    assert made.count(StepEventRow.type == "step.released") == 2
    made.engine()
    made.until(lambda: made.all_ended(runs), 60, "runs are left")
    made.check(runs)


def test_two_engines_share_the_work_and_one_may_die(made: Yard) -> None:
    first, _second = made.engine(), made.engine()
    runs = made.start(20, steps=2, before=0.3, after=0.3)
    made.until(lambda: made.running() > 4, 30, "they do not share")
    first.kill()
    made.until(lambda: made.all_ended(runs), 60, "runs are left")
    made.check(runs)


def test_what_a_dead_engine_held_is_taken_up_without_waiting_for_its_lease(made: Yard) -> None:
    first = made.engine(lease=300, heartbeat=100)
    made.engine(lease=300, heartbeat=100)
    runs = made.start(6, steps=1, before=1, after=1)
    made.until(lambda: made.running() == 6, 60, "nothing runs")
    first.kill()
    made.until(lambda: made.all_ended(runs), 100, "the lock of the dead engine was not seen")
    made.check(runs)
    assert made.count(StepEventRow.type == "step.lost") >= 2
