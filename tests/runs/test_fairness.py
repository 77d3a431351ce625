"""A project with a great many runs holds up no small one, and waits in the database, not in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runs.conftest import Start, noop
from tests.runs.killing import yard

from nexus.access.types import Principal
from nexus.core.clock import SystemClock
from nexus.runs import engine_storage as queries
from nexus.runs import storage
from nexus.runs.errors import QueueFull
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.types import RunSpec, RunStatus, StepSpec
from nexus.storage.db import Database

ONE = RunSpec("test", "one", [StepSpec("a", "noop")])


def pile(database: Database, who: Principal, count: int, spec: RunSpec = ONE) -> None:
    """Queue so many runs at once."""
    now = SystemClock().now()
    digest = "0" * 64

    def add(session: object, some: int) -> None:
        for _ in range(some):
            storage.add_run(session, spec, who, now, 600.0, digest)  # type: ignore[arg-type]

    for start in range(0, count, 500):
        database.write_now(add, min(500, count - start))


def test_projects_take_turns_and_priorities_go_first(any_database: Database, who: Principal) -> None:
    other = replace(who, project_id="prj_b")
    pile(any_database, who, 60)
    pile(any_database, other, 2)
    pile(any_database, who, 3, replace(ONE, priority=5))
    now = SystemClock().now()
    found = any_database.read_now(queries.due_messages, now, 8, {"default": 8, "gpu": 8})
    steps = {step.id: step for run in runs_of(any_database, who, other) for step in run}
    projects = [steps[message.step_id].project_id for message in found]
    assert projects.count("prj_b") == 2
    ranks = [steps[message.step_id].rank for message in found if steps[message.step_id].project_id == "prj_a"]
    assert ranks[:3] == [-5, -5, -5]


def runs_of(database: Database, *people: Principal) -> list[list[queries.StepRow]]:
    from sqlalchemy import select

    query = select(queries.StepRow).where(queries.StepRow.project_id.in_([who.project_id for who in people]))
    return [list(database.read_now(lambda session: session.execute(query).scalars().all()))]


def test_a_queue_that_nobody_works_on_holds_up_no_other(any_database: Database, who: Principal) -> None:
    pile(any_database, who, 50, RunSpec("test", "gpu", [StepSpec("a", "noop", queue="gpu")]))
    pile(any_database, who, 2)
    now = SystemClock().now()
    found = any_database.read_now(queries.due_messages, now, 20, {"default": 5, "gpu": 0})
    assert [message.queue for message in found] == ["default", "default"]


@pytest.mark.slow
async def test_a_small_project_starts_soon_behind_a_large_one(
    engine: Start, runs: RunService, who: Principal, database: Database
) -> None:
    pile(database, who, 3000)
    await engine(noop=noop)
    small = replace(who, project_id="prj_b")
    waits = []
    for _ in range(10):
        run = await runs.wait(small, (await runs.start(small, ONE)).id, 60)
        assert run.started_at is not None
        waits.append((run.started_at - run.created_at).total_seconds())
    assert sorted(waits)[8] < 20, waits
    left = await runs.counts()
    assert left.ready["default"] > 0, "the large project still waits, so the small one did overtake"


async def test_a_full_queue_refuses(database: Database, settings: RunsSettings, who: Principal) -> None:
    pile(database, who, 20)
    runs = RunService(database=database, settings=settings.model_copy(update={"queue_limit": 20}))
    with pytest.raises(QueueFull) as refused:
        await runs.start(who, ONE)
    assert (refused.value.status, refused.value.code) == (429, "queue_full")


@pytest.mark.long
def test_100_000_queued_runs_with_flat_memory(any_database: Database, tmp_path: Path, who: Principal) -> None:
    """The engine's memory does not grow with what waits, nor while it is worked off."""
    quick = RunSpec("test", "one", [StepSpec("a", "effect", {"before": 0.0, "after": 0.0})])
    with yard(any_database, tmp_path, concurrency=8) as made:
        pile(any_database, who, 100_000, quick)
        engine = made.engine()
        sizes = []
        for _ in range(12):
            time.sleep(5)
            status = Path(f"/proc/{engine.pid}/status").read_text()
            sizes.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        assert max(sizes) - sizes[1] < 30, sizes
        small = replace(who, project_id="prj_b")
        run = any_database.write_now(storage.add_run, quick, small, SystemClock().now(), 60.0)[0]
        made.bell.ring("outbox")
        made.until(
            lambda: any_database.read_now(storage.run_status, "prj_b", run.id) is RunStatus.SUCCEEDED, 5, "it starves"
        )
