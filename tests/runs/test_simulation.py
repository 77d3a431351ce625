"""The engine under everything that can go wrong, in simulated time, by seed. See `simulated`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runs.simulated import database_in, play


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_every_run_ends_and_no_step_ends_twice(tmp_path: Path, seed: int) -> None:
    database = database_in(tmp_path)
    world = play(database, seed, runs=6, acts=250, leaps=seed % 2 == 0)
    assert world.happened["ended"] > 0
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_400, 100))
def test_many_short_schedules(tmp_path: Path, first: int) -> None:
    database = database_in(tmp_path)
    for seed in range(first, first + 50):
        play(database, seed, runs=1, acts=12, leaps=seed % 2 == 0)
    database.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_whatever_happens_for_long(tmp_path: Path, seed: int) -> None:
    database = database_in(tmp_path)
    play(database, seed, runs=10, acts=1500, leaps=seed % 2 == 0)
    database.close()
