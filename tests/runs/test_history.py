"""The checker of histories finds what is wrong with one. Histories are a line for each event: `type place data`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.runs.history import Asked, WrongHistory, check_history

from nexus.runs.types import RetryPolicy, RunEvent, RunSpec, StepSpec

T0 = datetime(2026, 11, 23, tzinfo=UTC)
SPEC = RunSpec(
    "test",
    "x",
    [
        StepSpec("a", "noop", retries=RetryPolicy(max=1)),
        StepSpec("b", "noop", needs=["a"]),
        StepSpec("m", "noop", map=[1, 2]),
    ],
    on_failure=[StepSpec("warn", "noop")],
)
SHORT = RunSpec("test", "x", SPEC.steps[:2])


def events(text: str) -> list[RunEvent]:
    """Each line is a second later than the one before: `step.started m[0] {"attempt": 1}`."""
    found = []
    for number, line in enumerate(text.strip().splitlines(), start=1):
        type_, _, rest = line.strip().partition(" ")
        place, _, data = rest.partition(" ") if not rest.startswith("{") else ("", "", rest)
        key, _, index = place.rstrip("]").partition("[")
        told: dict[str, Any] = json.loads(data) if data else {"attempt": 1} if key else {}
        at = T0 + timedelta(seconds=number)
        found.append(RunEvent(number, "run_1", key or None, type_, at, told, int(index) if index else None))
    return found


BORN = """
    run.created
    run.started
"""
A_DONE = """
    step.started a
    step.succeeded a
"""
RESUMED = """
    run.paused
    run.resumed
"""


def lines(*parts: str) -> str:
    return "\n".join(line for part in parts for line in part.splitlines() if line.strip())


WELL = lines(BORN, A_DONE, 'step.started b\nstep.succeeded b\nrun.finished {"status": "succeeded"}')
MAPPED = """
    step.started m
    step.spread m {"items": 2}
    step.started m[0]
    step.started m[1]
    step.succeeded m[1]
"""
FAILED = """
    step.started a
    step.failed a
    step.skipped b {"reason": "needs"}
"""
CANCELLING = """
    run.cancelling
    step.cancelled b {}
"""


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (SHORT, WELL),
        (SHORT, lines(BORN, RESUMED, A_DONE, 'step.started b\nstep.lost b {"delay": 0}\nstep.started b {"attempt": 2}',
                      'step.succeeded b {"attempt": 2}\nrun.finished {"status": "succeeded"}')),
        (SHORT, lines(BORN, FAILED, 'run.finished {"status": "failed"}')),
        (SHORT, lines(BORN, "step.started a", CANCELLING, "step.cancelled a", 'run.finished {"status": "cancelled"}')),
        (SHORT, lines(BORN, FAILED, 'run.finished {"status": "failed"}', 'run.retried {"steps": ["a", "b"]}',
                      'step.started a {"attempt": 2}\nstep.succeeded a {"attempt": 2}\nstep.started b',
                      'step.succeeded b\nrun.finished {"status": "succeeded"}')),
        (SPEC, lines(BORN, FAILED, MAPPED, 'step.succeeded m[0]\nstep.started m {"attempt": 2}',
                     'step.succeeded m {"attempt": 2}\nrun.failing\nstep.started warn\nstep.succeeded warn',
                     'run.finished {"status": "failed"}')),
    ],
)  # fmt: skip
def test_a_history_without_a_fault(spec: RunSpec, text: str) -> None:
    check_history(spec, events(text))


@pytest.mark.parametrize(
    ("spec", "text", "why"),
    [
        (SHORT, lines(BORN, A_DONE, "step.succeeded a"), "it has succeeded already"),
        (SHORT, lines(BORN, "step.started b"), "a, which it needs, is pending"),
        (SHORT, lines(BORN, "step.started a\nstep.failed a\nstep.started b"), "a, which it needs, is failed"),
        (SHORT, lines(BORN, "step.started a\nstep.started a"), "another attempt still runs"),
        (SHORT, lines(BORN, "step.succeeded a"), "it does not run"),
        (SHORT, lines(BORN, 'step.started a {"attempt": 2}'), "it is attempt 1"),
        (SHORT, lines(BORN, 'step.started a\nstep.retrying a {"delay": 60}\nstep.started a {"attempt": 2}'), "time is"),
        (SHORT, lines(BORN, 'step.started a\nstep.retrying a {"delay": 0}\nstep.started a {"attempt": 2}',
                      'step.retrying a {"delay": 0}'), "may not be tried again"),
        (SHORT, lines(BORN, "run.paused\nstep.started a"), "the run is paused"),
        (SHORT, lines(BORN, "run.cancelling\nstep.started a"), "the run is to stop"),
        (SHORT, lines(BORN, "step.cancelled a {}"), "nobody wanted it to stop"),
        (SHORT, lines(BORN, A_DONE, 'run.finished {"status": "succeeded"}'), "have not ended"),
        (SHORT, lines(BORN, FAILED, 'run.finished {"status": "succeeded"}'), "should have"),
        (SHORT, lines(BORN, A_DONE, 'step.skipped b {"reason": "needs"}'), "has not failed"),
        (SHORT, lines(WELL, "run.resumed"), "the run has succeeded already"),
        (SHORT, lines(BORN, A_DONE), "has not ended"),
        (SHORT, lines(BORN, "run.started"), "it has started before"),
        (SHORT, lines("run.created", "step.started a"), "the run has not started"),
        (SPEC, lines(BORN, MAPPED, 'step.started m {"attempt": 2}'), "not all items have ended"),
        (SPEC, lines(BORN, "step.started m[0]"), "is not spread"),
        (SPEC, lines(BORN, MAPPED, "step.cancelled m[0] {}"), "attempt 1 runs"),
        (SPEC, lines(BORN, "step.started warn"), "the run has not failed"),
        (SPEC, lines(BORN, FAILED, MAPPED, 'step.succeeded m[0]\nstep.started m {"attempt": 2}',
                     'step.succeeded m {"attempt": 2}\nrun.finished {"status": "failed"}'), "were forgotten"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(spec: RunSpec, text: str, why: str) -> None:
    with pytest.raises(WrongHistory, match=why.replace("[", r"\[")):
        check_history(spec, events(text))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked("cancel", True, 7, 7), "after event 7"),
        (Asked("resume", True, 7, 7), "after event 7"),
        (Asked("wake", True, 3, 3), "after event 3"),
        (Asked("pause", False, 4, 4), "after event 4"),
        (Asked("retry", True, 7, 7), "after event 7"),
        (Asked("from", False, 7, 7), "after event 7"),
        (Asked("cancel", False, 7, 8), "yet something happened"),
    ],
)
def test_an_answer_that_does_not_fit_is_found(asked: Asked, why: str) -> None:
    with pytest.raises(WrongHistory, match=why):
        check_history(SHORT, events(WELL), [asked])
