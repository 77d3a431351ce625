"""The state machine by tables of cases, and a small simulator of whole graphs. No database."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nexus.runs.transitions import (
    LEGAL,
    Again,
    Failed,
    Node,
    after_crash,
    after_failure,
    after_need,
    backoff,
    reopen,
    run_end,
    run_result,
)
from nexus.runs.types import Failure, RetryPolicy, RunStatus, StepStatus

S = StepStatus


def test_final_states_lead_nowhere() -> None:
    assert set(LEGAL) == set(S)
    for status, following in LEGAL.items():
        assert bool(following) is not status.final


@pytest.mark.parametrize(
    ("left", "skipped", "total", "ended", "becomes"),
    [
        (0, 0, 1, S.SUCCEEDED, S.READY),
        (1, 0, 2, S.SUCCEEDED, S.PENDING),
        (0, 1, 1, S.SKIPPED, S.SKIPPED),
        (0, 1, 2, S.SUCCEEDED, S.READY),
        (0, 1, 2, S.SKIPPED, S.READY),
        (1, 1, 2, S.SKIPPED, S.PENDING),
        (0, 2, 2, S.SKIPPED, S.SKIPPED),
        (3, 0, 4, S.FAILED, S.SKIPPED),
        (3, 0, 4, S.CANCELLED, S.SKIPPED),
    ],
)
def test_what_a_step_becomes_when_a_need_ends(
    left: int, skipped: int, total: int, ended: StepStatus, becomes: StepStatus
) -> None:
    assert after_need(left, skipped, total, ended) is becomes


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(9, "exponential", 1, 60), [1, 2, 4, 8, 16, 32, 60, 60]),
        (RetryPolicy(9, "linear", 2, 7), [2, 4, 6, 7, 7]),
        (RetryPolicy(9, "fixed", 3, 60), [3, 3, 3]),
        (RetryPolicy(100, "exponential", 86_400, 86_400), [86_400] * 100),
    ],
)
def test_backoff_grows_to_its_cap_with_jitter_around_it(policy: RetryPolicy, waits: list[float]) -> None:
    assert [backoff(policy, n, 0.5) for n in range(len(waits))] == waits
    for n, wait in enumerate(waits):
        assert backoff(policy, n, 0.0) == wait * 0.5
        assert backoff(policy, n, 1.0) == wait * 1.5


BUSY = Failure("busy", "Busy.")


@pytest.mark.parametrize(
    ("failed", "failures", "child_crashes", "verdict"),
    [
        (Failed(BUSY, retryable=True), 1, 0, Again(1.0)),
        (Failed(BUSY, retryable=True), 2, 0, Again(2.0)),
        (Failed(BUSY, retryable=True), 3, 0, BUSY),
        (Failed(BUSY, retryable=False), 1, 0, BUSY),
        (Failed(BUSY, retryable=True, retry_after=30), 1, 0, Again(30)),
        (Failed(BUSY, retryable=True, retry_after=0.1), 2, 0, Again(2.0)),
        (Failed(BUSY, retryable=True, crashed=True), 5, 1, Again(1.0)),
        (Failed(BUSY, retryable=True, crashed=True), 0, 2, Again(2.0)),
    ],
)
def test_what_follows_a_failure(failed: Failed, failures: int, child_crashes: int, verdict: Any) -> None:
    policy = RetryPolicy(2, "exponential", 1, 60)
    found = after_failure(failed, policy, failures=failures, child_crashes=child_crashes, crash_limit=3, random=0.5)
    assert found == verdict


def test_a_step_whose_child_keeps_dying_is_dead_lettered() -> None:
    found = after_failure(
        Failed(BUSY, crashed=True), RetryPolicy(99), failures=0, child_crashes=3, crash_limit=3, random=0.5
    )
    assert isinstance(found, Failure)
    assert found.code == "step_dead_lettered"


def test_engine_deaths_are_forgiven_at_once_then_slowly_then_no_more() -> None:
    verdicts = [after_crash(n, 20) for n in range(1, 21)]
    delays = [verdict.delay for verdict in verdicts if isinstance(verdict, Again)]
    assert delays[:3] == [0, 0, 0]
    assert delays == sorted(delays)
    assert max(delays) == 60
    assert len(delays) == 19
    assert isinstance(verdicts[19], Failure)
    assert verdicts[19].code == "step_dead_lettered"


@pytest.mark.parametrize(
    ("statuses", "cancel", "deadline", "ends"),
    [
        ([S.SUCCEEDED], False, False, RunStatus.SUCCEEDED),
        ([S.SUCCEEDED, S.SKIPPED], False, False, RunStatus.SUCCEEDED),
        ([S.SKIPPED], False, False, RunStatus.SUCCEEDED),
        ([S.FAILED, S.SKIPPED], False, False, RunStatus.FAILED),
        ([S.SUCCEEDED, S.CANCELLED], True, False, RunStatus.CANCELLED),
        ([S.SUCCEEDED, S.SUCCEEDED], True, False, RunStatus.SUCCEEDED),
        ([S.FAILED], True, False, RunStatus.FAILED),
        ([S.SUCCEEDED, S.CANCELLED], True, True, RunStatus.FAILED),
        ([S.SUCCEEDED], True, True, RunStatus.SUCCEEDED),
    ],
)
def test_how_a_run_ends(statuses: list[StepStatus], cancel: bool, deadline: bool, ends: RunStatus) -> None:
    assert run_end(statuses, cancel_requested=cancel, deadline_passed=deadline) is ends


@pytest.mark.parametrize(
    ("steps", "result"),
    [
        ([("a", [], S.SUCCEEDED, {"x": 1})], {"x": 1}),
        ([("a", ["b"], S.SUCCEEDED, {"x": 1}), ("b", [], S.SUCCEEDED, {"y": 2})], {"y": 2}),
        ([("a", [], S.SUCCEEDED, {"x": 1}), ("b", [], S.SUCCEEDED, {"y": 2})], {"a": {"x": 1}, "b": {"y": 2}}),
        ([("a", [], S.SUCCEEDED, {"x": 1}), ("b", [], S.SKIPPED, None)], {"x": 1}),
        ([("a", [], S.SKIPPED, None)], None),
    ],
)
def test_the_result_is_what_the_last_steps_gave(steps: list[Any], result: Any) -> None:
    assert run_result(steps) == result


def test_a_retry_opens_what_failed_and_all_behind_it_only() -> None:
    nodes = {
        "ok": Node("ok", [], S.SUCCEEDED, needed_by=["bad", "off", "side"]),
        "bad": Node("bad", ["ok"], S.FAILED, needed_by=["after"]),
        "off": Node("off", ["ok"], S.SKIPPED, needed_by=["after"]),
        "side": Node("side", ["ok"], S.SUCCEEDED),
        "after": Node("after", ["bad", "off"], S.SKIPPED),
    }
    fresh = reopen(nodes)
    assert set(fresh) == {"bad", "after"}
    assert fresh["bad"].status is S.READY
    assert (fresh["after"].status, fresh["after"].needs_left, fresh["after"].needs_skipped) == (S.PENDING, 1, 1)


class Simulated:
    """A graph driven by nothing but the functions under test."""

    def __init__(self, needs: dict[str, list[str]], dice: random.Random) -> None:
        self.needs = needs
        self.dice = dice
        self.status = {key: S.PENDING if needs[key] else S.READY for key in needs}
        self.left = {key: len(needs[key]) for key in needs}
        self.skipped = dict.fromkeys(needs, 0)
        self.by_failure: set[str] = set()

    def move(self, key: str, to: StepStatus) -> None:
        assert to in LEGAL[self.status[key]], (key, self.status[key], to)
        self.status[key] = to

    def end(self, key: str, to: StepStatus) -> None:
        self.move(key, to)
        handed_on = S.FAILED if key in self.by_failure else to
        for behind in [k for k, needs in self.needs.items() if key in needs]:
            if self.status[behind] is not S.PENDING:
                continue
            self.left[behind] -= 1
            self.skipped[behind] += to is S.SKIPPED
            becomes = after_need(self.left[behind], self.skipped[behind], len(self.needs[behind]), handed_on)
            if becomes is S.READY:
                self.move(behind, S.READY)
            elif becomes is S.SKIPPED:
                if handed_on is not S.SKIPPED:
                    self.by_failure.add(behind)
                self.end(behind, S.SKIPPED)

    def play(self) -> None:
        while active := [key for key, status in self.status.items() if status in (S.READY, S.RUNNING, S.WAITING)]:
            key = self.dice.choice(active)
            if self.status[key] is not S.RUNNING:
                self.move(key, S.RUNNING)
                continue
            what = self.dice.choices([S.SUCCEEDED, S.SKIPPED, S.FAILED, S.READY, S.WAITING], [10, 2, 1, 3, 1])[0]
            if what.final:
                self.end(key, what)
            else:
                self.move(key, what)


@pytest.mark.parametrize("seed", range(40))
def test_every_random_graph_comes_to_an_end_with_every_step_settled(seed: int) -> None:
    for round_ in range(25):
        dice = random.Random(f"{seed}.{round_}")
        keys = [f"s{n}" for n in range(dice.randint(1, 12))]
        needs = {key: dice.sample(keys[:n], dice.randint(0, min(n, 3))) for n, key in enumerate(keys)}
        simulated = Simulated(needs, dice)
        simulated.play()
        assert all(status.final for status in simulated.status.values()), simulated.status
        for key, status in simulated.status.items():
            before = [simulated.status[need] for need in needs[key]]
            if status is S.SUCCEEDED:
                assert S.FAILED not in before
                assert not before or set(before) != {S.SKIPPED}
