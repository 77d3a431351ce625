"""The engine under everything that can go wrong, in simulated time, by seed. See `simulated`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.runs.simulated import FAULTS, database_in, play, play_short


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_every_run_ends_and_its_history_has_no_fault(tmp_path: Path, seed: int) -> None:
    database = database_in(tmp_path)
    world = play(database, seed, runs=6, acts=150)
    assert world.happened["ended"] > 0
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_400, 100))
def test_many_short_schedules(tmp_path: Path, first: int) -> None:
    database = database_in(tmp_path)
    happened = sum((play_short(database, seed).happened for seed in range(first, first + 50)), Counter[str]())
    assert sum(happened[fault] for fault in FAULTS) > 100, "a schedule in which nothing goes wrong shows nothing"
    database.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_whatever_happens_for_long(tmp_path: Path, seed: int) -> None:
    database = database_in(tmp_path)
    play(database, seed, runs=10, acts=1500)
    database.close()
