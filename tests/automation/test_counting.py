"""Counting what engines have done: each thing once, by whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

import nexus.automation.alert_tables
import nexus.automation.tables  # noqa: F401  the database fixtures create what has been imported
from nexus.access.types import Principal
from nexus.automation.counting import begin, done_since
from nexus.metering import count_runs
from nexus.runs.records import event_row
from nexus.runs.service import RunService
from nexus.runs.settings import RunsSettings
from nexus.runs.tables import EVENT, RUN
from nexus.runs.types import RunSpec, StepSpec
from nexus.storage.db import Database
from nexus.telemetry import metrics

WHO = Principal("key", "key_a", "prj_a", frozenset())
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.slow
async def test_every_run_retry_and_dead_letter_is_counted_once(any_database: Database) -> None:
    runs = RunService(database=any_database, settings=RunsSettings())
    run = await runs.start(WHO, RunSpec("workflow", "counted", [StepSpec("a", "test.counted")]))
    mark = any_database.read_now(begin, NOW)
    at, dead = NOW + timedelta(seconds=5), {"code": "step_dead_lettered", "message": "given up"}
    ended = {"status": "failed", "started_at": NOW, "finished_at": at}
    lines = [
        event_row(run.id, "a", "step.retrying", at, attempt=1),
        event_row(run.id, "a", "step.retrying", at, attempt=2),
        event_row(run.id, "a", "log", at, level="info", message="x"),
        event_row(run.id, "a", "step.failed", at, attempt=3, error=dead),
        event_row(run.id, None, "run.finished", at, status="failed"),
    ]
    await any_database.write(lambda s: s.execute(update(RUN).where(RUN.c.id == run.id).values(**ended)))
    await any_database.write(lambda s: s.execute(insert(EVENT), lines))
    early, mark = any_database.read_now(done_since, mark, at + timedelta(seconds=1))
    assert not early.runs, "what is too young waits for the next look"
    done, mark = any_database.read_now(done_since, mark, at + timedelta(seconds=3))
    assert done.runs == {("counted", "failed"): 1}
    assert done.durations == [("counted", 5.0)]
    assert (done.retries, done.dead) == ({"test.counted": 2}, {"test.counted": 1})
    again, _ = any_database.read_now(done_since, mark, at + timedelta(seconds=9))
    assert [again.runs, again.retries, again.dead, again.durations] == [{}, {}, {}, []]
    before = shown()
    count_runs(done)
    assert {name: value - before.get(name, 0) for name, value in shown().items()} == {
        "nexus_runs_total": 1.0,
        "nexus_step_retries_total": 2.0,
        "nexus_dead_letters_total": 1.0,
    }


def shown() -> dict[str, float]:
    wanted = {"nexus_runs_total", "nexus_step_retries_total", "nexus_dead_letters_total"}
    ours = ("counted", "test.counted")
    found = metrics.samples(wanted)
    return {name: value for name in found for labels, value in found[name] if (set(labels.values()) & set(ours))}
