"""A run as spans over time: every attempt at every step, and what lay between them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from nexus.core.clock import rfc3339
from nexus.runs.types import RunEvent

ENDS: Final[dict[str, tuple[str, str, str | None]]] = {
    "step.succeeded": ("succeeded", "succeeded", None),
    "step.failed": ("failed", "failed", None),
    "step.cancelled": ("cancelled", "cancelled", None),
    "step.skipped": ("skipped", "skipped", None),
    "step.retrying": ("failed", "ready", "retry"),
    "step.lost": ("lost", "ready", "retry"),
    "step.released": ("released", "ready", "turn"),
    "step.waiting": ("parked", "waiting", "parked"),
    "step.spread": ("spread", "waiting", "items"),
    "step.resumed": ("parked", "ready", "turn"),
}
"""By type of line: how it ends the attempt, where the step then stands, and what it waits for, if it waits."""


class _Span:
    """The attempts at one step, or at one item of a mapped one."""

    def __init__(self, event: RunEvent) -> None:
        self._place = event.step_key, event.map_index
        self._status = "pending"
        self._attempts: list[dict[str, Any]] = []
        self._waits: list[dict[str, Any]] = []
        self._began: datetime | None = None  # of the attempt that is open

    def take(self, event: RunEvent) -> None:
        """Go on by one line."""
        at = rfc3339(event.at)
        if event.type == "step.started":
            self._end_wait(at)
            self._began, self._status = event.at, "running"
            self._attempts.append({"attempt": event.data.get("attempt"), "started_at": at, "ended_at": None})
        elif event.type in ENDS:
            outcome, self._status, wait = ENDS[event.type]
            self._end_attempt(event, outcome)
            self._end_wait(at)
            if wait is not None:
                self._waits.append({"from": at, "until": None, "for": event.data.get("reason") or wait})

    def _end_attempt(self, event: RunEvent, outcome: str) -> None:
        if self._began is None:
            return
        seconds = round((event.at - self._began).total_seconds(), 6)
        self._attempts[-1] |= {"ended_at": rfc3339(event.at), "seconds": seconds, "outcome": outcome}
        if event.data.get("error") is not None:
            self._attempts[-1]["error"] = event.data["error"]
        self._began = None

    def _end_wait(self, at: str | None) -> None:
        if self._waits and self._waits[-1]["until"] is None:
            self._waits[-1]["until"] = at

    def json(self) -> dict[str, Any]:
        """Return the span as it is shown."""
        key, index = self._place
        shown = {"step": key, "status": self._status, "attempts": self._attempts, "waits": self._waits}
        return shown if index is None else {**shown, "map_index": index}


def spans(events: Iterable[RunEvent]) -> list[dict[str, Any]]:
    """Return a span for every step and item that anything has happened to, in the order of their beginning.

    Each has its attempts, with when, how long, and how they ended: succeeded, failed, cancelled, skipped, parked
    (waits without a worker), spread (into items), released (by an engine that stops) or lost (with its engine);
    and its waits: for a retry, for items, for its turn, parked, or for whom it names.
    """
    found: dict[tuple[str, int | None], _Span] = {}
    for event in events:
        if event.step_key is not None and (event.type == "step.started" or event.type in ENDS):
            place = event.step_key, event.map_index
            if place not in found:
                found[place] = _Span(event)
            found[place].take(event)
    return [span.json() for span in found.values()]
