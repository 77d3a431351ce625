"""A run as spans: what lines make of attempts and waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nexus.runs.timeline import spans
from nexus.runs.types import RunEvent

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def lines(*told: tuple[Any, ...]) -> list[RunEvent]:
    events = []
    for number, (second, key, type_, *rest) in enumerate(told):
        data, index = (rest[0] if rest else {}), (rest[1] if len(rest) > 1 else None)
        events.append(RunEvent(number, "run_1", key, type_, NOW + timedelta(seconds=second), data, index))
    return events


@pytest.mark.parametrize(
    ("told", "status", "attempts", "waits"),
    [
        ([(0, "step.started"), (2, "step.succeeded")], "succeeded", [("succeeded", 2)], []),
        ([(0, "step.started")], "running", [(None, None)], []),
        ([(0, "step.skipped")], "skipped", [], []),
        (
            [(0, "step.started"), (1, "step.retrying"), (6, "step.started"), (7, "step.failed")],
            "failed",
            [("failed", 1), ("failed", 1)],
            [("retry", 5)],
        ),
        ([(0, "step.started"), (1, "step.retrying")], "ready", [("failed", 1)], [("retry", None)]),
        (
            [(0, "step.started"), (30, "step.lost"), (31, "step.started"), (33, "step.succeeded")],
            "succeeded",
            [("lost", 30), ("succeeded", 2)],
            [("retry", 1)],
        ),
        (
            [
                (0, "step.started"),
                (1, "step.waiting"),
                (9, "step.resumed"),
                (10, "step.started"),
                (11, "step.succeeded"),
            ],
            "succeeded",
            [("parked", 1), ("succeeded", 1)],
            [("parked", 8), ("turn", 1)],
        ),
        (
            [(0, "step.started"), (1, "step.waiting"), (5, "step.cancelled")],
            "cancelled",
            [("parked", 1)],
            [("parked", 4)],
        ),
    ],
)
def test_attempts_and_waits(
    told: list[tuple[int, str]], status: str, attempts: list[tuple[str, int]], waits: list[tuple[str, int]]
) -> None:
    (span,) = spans(lines(*((second, "a", type_) for second, type_ in told)))
    assert span["status"] == status
    assert [(one.get("outcome"), one.get("seconds")) for one in span["attempts"]] == attempts
    assert [(one["for"], _seconds(one)) for one in span["waits"]] == waits


def _seconds(wait: dict[str, Any]) -> float | None:
    if wait["until"] is None:
        return None
    return (datetime.fromisoformat(wait["until"]) - datetime.fromisoformat(wait["from"])).total_seconds()


def test_items_have_spans_of_their_own_and_other_lines_have_none() -> None:
    found = spans(
        lines(
            (0, None, "run.started"),
            (0, "m", "step.started", {"attempt": 1}),
            (0, "m", "step.spread", {"items": 2}),
            (1, "m", "step.started", {"attempt": 1}, 0),
            (1, "m", "log", {"message": "x"}, 0),
            (1, "m", "step.progress", {"done": 1}, 0),
            (1, "m", "step.started", {"attempt": 1}, 1),
            (2, "m", "step.failed", {"error": {"code": "x"}}, 1),
        )
    )
    assert [(one["step"], one.get("map_index"), one["status"]) for one in found] == [
        ("m", None, "waiting"),
        ("m", 0, "running"),
        ("m", 1, "failed"),
    ]
    assert found[2]["attempts"][0]["error"] == {"code": "x"}
    assert found[0]["waits"][0]["for"] == "items"
